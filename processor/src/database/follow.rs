//! Follows the topic of an output and keeps its table: rows and the position in the topic are one transaction.
//!
//! Only what is committed in the topic is read, so a run of the job that was fenced writes nothing here either. Whoever
//! starts last puts its name beside the position, and whoever finds another's name there has been taken over. A
//! transaction whose end is not known is decided by the position that the next one finds.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use event::Clock;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{Log, OffsetRange, Offsets, Reader, StoredRecord, reached};

use super::line::Lines;
use super::place::Database;
use super::session::{Position, Session};
use super::table::{Key, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::run::Pace;

/// Records of a transaction.
const RECORDS_MAX: usize = 10_000;
const READ_WAIT: Duration = Duration::from_millis(200);

/// When a follower ends by itself.
#[derive(Clone, Debug)]
pub enum End {
    /// Never: it is told to stop.
    Never,
    /// With what was in the topic at its start.
    Latest,
    /// With what is in the topic once this is cancelled.
    After(CancellationToken),
}

/// What a follower did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Records taken in.
    pub records: u64,
    /// Rows that were not in the table just so.
    pub written: u64,
    /// Texts in which U+0000 has become U+FFFD.
    pub replaced: u64,
}

/// Keeps the table of one output.
#[derive(Debug)]
pub struct Follower {
    log: Arc<dyn Log>,
    database: Database,
    topic: String,
    table: Table,
    /// Whether a row may be emitted several times.
    updates: bool,
    session: Option<Session>,
    run: String,
    /// Where the table stands.
    next: BTreeMap<i32, i64>,
    pace: Pace,
    done: Followed,
}

impl Follower {
    /// Connects, makes the table unless it is there, and takes over from whoever kept it before. `updates` as in output
    /// mode update.
    ///
    /// # Errors
    /// `Unavailable` when the database cannot be reached, `Config` when it refuses or has a table that does not fit,
    /// `Job` when the output is no table.
    pub async fn open(
        log: Arc<dyn Log>,
        database: &Database,
        job: &Job,
        (output, topic): (usize, &str),
        updates: bool,
        clock: &Clock,
    ) -> Result<Self> {
        let table = Table::of(job, output, updates)?;
        let mut session = Session::open(database, std::slice::from_ref(&table)).await?;
        session.provide(&table).await?;
        session.provide_positions().await?;
        let place = event::place();
        let seed = format!("{place} {} {:?} {topic}", clock.now_ms(), Instant::now());
        let run = hex::encode(&Sha256::digest(seed)[..8]);
        let work = session.begin().await?;
        let next = work.claim(&table.name, topic, &run, &place).await?;
        work.commit().await?;
        let next = parse_offsets(&table.name, topic, &next)?;
        tracing::info!(%database, table = table.name, topic, "follows a topic into a table");
        Ok(Self {
            log,
            database: database.clone(),
            topic: topic.to_owned(),
            table,
            updates,
            session: Some(session),
            run,
            next,
            pace: Pace::default(),
            done: Followed::default(),
        })
    }

    /// Takes records in until `end`, or until `shutdown`: at once, unless something else says when it ends. An outage
    /// is waited out, unless it is to stop.
    ///
    /// # Errors
    /// `Fenced` when another follower took over, `Data` when a record is no row of the table or is gone, `Unavailable`.
    pub async fn run(mut self, end: End, shutdown: CancellationToken) -> Result<Followed> {
        let mut goal = match &end {
            End::Latest => Some(self.log.written(&self.topic).await?),
            _ => None,
        };
        let mut reader = self.reader().await?;
        let mut looked = Instant::now();
        loop {
            if goal.as_ref().is_some_and(|goal| reached(&reader.positions(), goal)) {
                return Ok(self.done);
            }
            if shutdown.is_cancelled() && !matches!(end, End::After(_)) {
                return Ok(self.done);
            }
            if goal.is_none() && matches!(&end, End::After(job) if job.is_cancelled()) {
                match self.log.written(&self.topic).await {
                    Err(error) if waits(&error, &shutdown) => tokio::time::sleep(READ_WAIT).await,
                    written => goal = Some(written?),
                }
                continue;
            }
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled(), if matches!(end, End::Never) => continue,
                read = reader.read(RECORDS_MAX, READ_WAIT) => read,
            };
            match read {
                Err(error) if waits(&error, &shutdown) => tokio::time::sleep(READ_WAIT).await,
                read => self.take(&read?, reader.positions(), &shutdown).await?,
            }
            if looked.elapsed() >= self.pace.ends {
                looked = Instant::now();
                match self.grown(&reader.positions()).await {
                    Ok(None) => {}
                    Ok(Some(grown)) => reader = grown,
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// A reader of every partition from where the table stands.
    async fn reader(&self) -> Result<Box<dyn Reader>> {
        let ranges = self.log.ranges(&self.topic).await?;
        for range in &ranges {
            self.check(range)?;
        }
        let from =
            |range: &OffsetRange| (range.partition, self.next.get(&range.partition).copied().unwrap_or(range.start));
        Ok(self.log.reader(&self.topic, ranges.iter().map(from).collect()).await?)
    }

    /// What was taken in must end where the topic goes on.
    fn check(&self, range: &OffsetRange) -> Result<()> {
        let Some(next) = self.next.get(&range.partition) else { return Ok(()) };
        let (topic, partition) = (&self.topic, range.partition);
        let what = match () {
            () if *next < range.start => format!(
                "records {next} to {} of partition {partition} of topic `{topic}` are gone, and table `{}` lacks them",
                range.start - 1,
                self.table.name
            ),
            () if *next > range.end => format!(
                "table `{}` stands at record {next} of partition {partition} of topic `{topic}`, which ends at {}: it \
                 is another topic of this name",
                self.table.name, range.end
            ),
            () => return Ok(()),
        };
        Err(Error::new(ErrorKind::Data, what).with_hint(format!(
            "bring the table up to date with `tidegate batch … --sink`, and to begin with the topic as it is: DELETE \
             FROM tidegate_sink WHERE table_name = '{}' AND topic = '{topic}'",
            self.table.name
        )))
    }

    /// Another reader, where there are partitions that are not read.
    async fn grown(&self, read: &Offsets) -> Result<Option<Box<dyn Reader>>> {
        let known: HashSet<i32> = read.iter().map(|(partition, _)| *partition).collect();
        let ranges = self.log.ranges(&self.topic).await?;
        match ranges.iter().all(|range| known.contains(&range.partition)) {
            true => Ok(None),
            false => Ok(Some(self.reader().await?)),
        }
    }

    /// Puts records into the table; `positions` is where the topic has been read to.
    async fn take(&mut self, records: &[StoredRecord], positions: Offsets, shutdown: &CancellationToken) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut lines = Lines::default();
        for record in records {
            let place =
                || format!("record {} of partition {} of topic `{}`", record.offset, record.partition, self.topic);
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            lines.push(&self.table, key.unwrap_or_default(), value.unwrap_or_default(), place)?;
        }
        let wanted: BTreeMap<i32, i64> = positions.into_iter().collect();
        let mut wait = self.pace.retry;
        while let Err(error) = self.attempt(&lines, &wanted).await {
            if error.kind() != ErrorKind::Unavailable || shutdown.is_cancelled() {
                return Err(error);
            }
            // Whatever became of the connection, a new one tells what became of the transaction.
            self.session = None;
            let said = super::error::chain(&error);
            let table = &self.table.name;
            tracing::warn!(table, error = said, wait_ms = wait.as_millis(), "could not write, will try again");
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(self.pace.retry_max);
        }
        if lines.replaced > 0 {
            let (table, texts) = (&self.table.name, lines.replaced);
            tracing::warn!(table, texts, "U+0000, which no text of PostgreSQL holds, was written as U+FFFD");
        }
        self.done.records += records.len() as u64;
        self.done.replaced += lines.replaced;
        self.next = wanted;
        Ok(())
    }

    async fn attempt(&mut self, lines: &Lines, wanted: &BTreeMap<i32, i64>) -> Result<()> {
        if self.session.is_none() {
            self.session = Some(Session::open(&self.database, std::slice::from_ref(&self.table)).await?);
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let work = session.begin().await?;
        let position = work.position(&self.table.name, &self.topic).await?;
        let (table, topic) = (&self.table.name, &self.topic);
        let position = match position {
            Some(position) if position.run == self.run => position,
            other => return Err(taken_over(table, topic, other)),
        };
        let found = parse_offsets(table, topic, &position.next_offsets)?;
        if found == *wanted {
            // The last attempt went through, and only its answer was lost.
            return Ok(());
        }
        if found != self.next {
            let message = format!("the position of table `{table}` in topic `{topic}` was changed by hand");
            return Err(Error::new(ErrorKind::Fenced, message).with_hint("start again to go on from there"));
        }
        work.stage(0, &self.table, lines).await?;
        let applied = work.apply(0, &self.table, lines.rows).await?;
        work.advance(table, topic, &offsets_text(wanted)).await?;
        work.commit().await?;
        self.done.written += applied.written;
        if applied.doubled > 0 && !self.updates && self.table.key != Key::None {
            let rows = applied.doubled;
            tracing::warn!(table, rows, "rows were overwritten by later ones of the same key");
        }
        Ok(())
    }
}

/// Whether the log is away, which is waited out as the job itself does, unless all is to stop.
fn waits(error: &topic::Error, shutdown: &CancellationToken) -> bool {
    let waits = error.kind() == topic::ErrorKind::Unavailable && !shutdown.is_cancelled();
    if waits {
        tracing::warn!(%error, "could not read, will try again");
    }
    waits
}

fn taken_over(table: &str, topic: &str, by: Option<Position>) -> Error {
    let message = match by {
        Some(by) => format!("table `{table}` was taken over by {}, which began at {}", by.place, by.since),
        None => format!("the position of table `{table}` in topic `{topic}` was deleted"),
    };
    Error::new(ErrorKind::Fenced, message).with_hint("one follower of a topic keeps a table; stop the other")
}

/// `{"0":12,"1":7}`
fn offsets_text(offsets: &BTreeMap<i32, i64>) -> String {
    let each: Vec<String> = offsets.iter().map(|(partition, next)| format!("\"{partition}\":{next}")).collect();
    format!("{{{}}}", each.join(","))
}

fn parse_offsets(table: &str, topic: &str, text: &str) -> Result<BTreeMap<i32, i64>> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Data, format!("tidegate_sink has no offsets for table `{table}` and topic `{topic}`"))
            .with_source(error)
    })
}
