//! The outputs of a batch into their tables, in one transaction.

use std::time::Duration;

use arrow::array::RecordBatch;
use event::Clock;

use super::line::Lines;
use super::place::Database;
use super::session::Session;
use super::table::{Key, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::run::Pace;
use crate::sink::output_records;

/// How long an outage is waited out in all.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// Writes the outputs of a batch to their tables; all become visible together.
#[derive(Debug)]
pub struct DatabaseSink<'a> {
    job: &'a Job,
    database: Database,
    clock: Clock,
    tables: Vec<(Table, Lines)>,
}

impl<'a> DatabaseSink<'a> {
    /// Connects, and makes the tables unless they are there.
    ///
    /// # Errors
    /// `Unavailable` when the database cannot be reached, `Config` when it refuses or has a table that does not fit,
    /// `Job` when an output is no table.
    pub async fn open(database: &Database, job: &'a Job, clock: Clock) -> Result<Self> {
        let tables = (0..job.outputs().len()).map(|output| Table::of(job, output, false));
        let tables: Vec<Table> = tables.collect::<Result<_>>()?;
        let session = Session::open(database, &tables).await?;
        for table in &tables {
            session.provide(table).await?;
            if table.key == Key::None {
                tracing::warn!(
                    table = table.name,
                    "rows without a window or a group have no key: a batch that is run again adds them again"
                );
            }
        }
        let tables = tables.into_iter().map(|table| (table, Lines::default())).collect();
        Ok(Self { job, database: database.clone(), clock, tables })
    }

    /// Adds rows of an output.
    ///
    /// # Errors
    /// `Data` when a row cannot be one of the table.
    pub fn write(&mut self, output: usize, rows: &RecordBatch) -> Result<()> {
        let (table, lines) = &mut self.tables[output];
        for record in output_records(self.job, output, rows, self.clock.now_ms())? {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            lines.push(table, key.unwrap_or_default(), value.unwrap_or_default(), || "a row".to_owned())?;
        }
        Ok(())
    }

    /// Writes everything; returns the number of rows that were not there just so. An outage is waited out for a minute.
    ///
    /// # Errors
    /// `Data` when two rows have one key, or the database refuses a value; `Unavailable`: nothing of the batch is then
    /// there, or the outcome is not known.
    pub async fn finish(self) -> Result<u64> {
        for (table, lines) in self.tables.iter().filter(|(_, lines)| lines.replaced > 0) {
            let (table, texts) = (&table.name, lines.replaced);
            tracing::warn!(table, texts, "U+0000, which no text of PostgreSQL holds, was written as U+FFFD");
        }
        let pace = Pace::default();
        let (mut wait, mut waited) = (pace.retry, Duration::ZERO);
        let mut attempt = None;
        loop {
            match self.attempt(&mut attempt).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && waited < OUTAGE_MAX => {
                    let said = super::error::chain(&error);
                    tracing::warn!(error = said, wait_ms = wait.as_millis(), "could not write, will try again");
                    tokio::time::sleep(wait).await;
                    waited += wait;
                    wait = (wait * 2).min(pace.retry_max);
                }
                done => return done,
            }
        }
    }

    /// One transaction; `last` is the id and the count of the one before, whose end may not be known.
    async fn attempt(&self, last: &mut Option<(String, u64)>) -> Result<u64> {
        let tables: Vec<Table> = self.tables.iter().map(|(table, _)| table.clone()).collect();
        let mut session = Session::open(&self.database, &tables).await?;
        if let Some((id, written)) = &*last {
            match session.decided(id).await? {
                Some(true) => return Ok(*written),
                Some(false) => {}
                None => return Err(Error::new(ErrorKind::Unavailable, "the last transaction is not decided yet")),
            }
        }
        let work = session.begin().await?;
        let mut written = 0;
        for (at, (table, lines)) in self.tables.iter().enumerate() {
            work.stage(at, table, lines).await?;
            if let Some(row) = work.doubled(at, table).await? {
                let message = format!("two rows of table `{}` have one key, that of {row}", table.name);
                return Err(Error::new(ErrorKind::Data, message)
                    .with_hint("select all that the query groups by, beside window.start or window.end"));
            }
            written += work.apply(at, table, lines.rows).await?.written;
        }
        *last = Some((work.id().await?, written));
        work.commit().await?;
        Ok(written)
    }
}
