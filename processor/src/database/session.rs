//! One connection, and the statements that put rows into tables.
//!
//! Rows are copied into a temporary table and moved from there by one INSERT … ON CONFLICT: whatever a transaction
//! holds, it is two round trips a table. Rows go in by ascending key, so that two that write to one table wait for each
//! other and do not deadlock.

use bytes::Bytes;
use futures::SinkExt;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Transaction};

use super::error;
use super::line::Lines;
use super::place::Database;
use super::table::{Found, FoundColumn, Key, Table, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a message of COPY.
const COPY_BYTES: usize = 1 << 20;

/// The table that says how far each topic has been taken in.
const POSITIONS: &str = "CREATE TABLE IF NOT EXISTS tidegate_sink (
    table_name text NOT NULL,
    topic text NOT NULL,
    next_offsets jsonb NOT NULL,
    run text NOT NULL,
    place text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (table_name, topic)
);
";
const POSITIONS_NAME: &str = "tidegate_sink";

/// The definition of the table of positions.
#[must_use]
pub fn positions_definition() -> &'static str {
    POSITIONS
}

pub(super) struct Session {
    database: Database,
    pub(super) client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    /// Connects, and makes room for rows on their way.
    pub(super) async fn open(database: &Database, tables: &[Table]) -> Result<Self> {
        let (client, connection) =
            database.config.connect(database.tls.clone()).await.map_err(|why| error::of(database, why))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // What ends the connection is said by whatever was asked over it.
            let _ended = connection.await;
        });
        let session = Self { database: database.clone(), client, _connection: tasks };
        session.run("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET client_min_messages = 'error'").await?;
        for (at, table) in tables.iter().enumerate() {
            session.run(&staging(at, table)).await?;
        }
        Ok(session)
    }

    fn failed(&self, why: tokio_postgres::Error) -> Error {
        error::of(&self.database, why)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|why| self.failed(why))
    }

    /// Makes a table unless it is there; then it has to fit.
    pub(super) async fn provide(&self, table: &Table) -> Result<()> {
        if self.find(&table.name).await?.is_none() {
            self.create(&table.name, &table.definition()).await?;
        }
        match self.find(&table.name).await? {
            Some(found) => table.check(&found),
            None => Err(Error::new(ErrorKind::Config, format!("table `{}` was made and is not there", table.name))
                .with_hint("look at the search_path of the user")),
        }
    }

    /// Makes the table of positions unless it is there.
    pub(super) async fn provide_positions(&self) -> Result<()> {
        match self.find(POSITIONS_NAME).await? {
            Some(_) => Ok(()),
            None => self.create(POSITIONS_NAME, POSITIONS).await,
        }
    }

    async fn create(&self, name: &str, definition: &str) -> Result<()> {
        match self.run(definition).await {
            // Somebody else was at it too.
            Err(_) if self.find(name).await?.is_some() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::info!(table = name, "table made");
                Ok(())
            }
        }
    }

    async fn find(&self, name: &str) -> Result<Option<Found>> {
        let name = quoted(name);
        let columns = self
            .client
            .query(
                "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull, \
                 atthasdef OR attidentity <> '' OR attgenerated <> '' \
                 FROM pg_attribute WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped",
                &[&name],
            )
            .await
            .map_err(|why| self.failed(why))?;
        if columns.is_empty() {
            return Ok(None);
        }
        let column = |row: &tokio_postgres::Row| FoundColumn {
            name: row.get(0),
            data_type: row.get(1),
            required: row.get(2),
            filled: row.get(3),
        };
        // Of those that ON CONFLICT can name.
        let unique = self
            .client
            .query(
                "SELECT ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey)) \
                 FROM pg_index WHERE indrelid = to_regclass($1::text) AND indisunique AND indisvalid AND indimmediate \
                 AND indpred IS NULL AND indexprs IS NULL AND indnkeyatts = indnatts",
                &[&name],
            )
            .await
            .map_err(|why| self.failed(why))?;
        let sorted = |row: &tokio_postgres::Row| {
            let mut names: Vec<String> = row.get(0);
            names.sort();
            names
        };
        Ok(Some(Found { columns: columns.iter().map(column).collect(), unique: unique.iter().map(sorted).collect() }))
    }

    /// What becomes of the transaction that had this id.
    pub(super) async fn decided(&self, transaction: &str) -> Result<Option<bool>> {
        let row = self.client.query_one("SELECT txid_status($1::text::bigint)", &[&transaction]).await;
        let status: Option<String> = row.map_err(|why| self.failed(why))?.get(0);
        Ok(match status.as_deref() {
            Some("committed") => Some(true),
            Some("in progress") => None,
            _ => Some(false),
        })
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<Work<'_>> {
        let database = self.database.clone();
        match self.client.transaction().await {
            Ok(transaction) => Ok(Work { database, transaction }),
            Err(why) => Err(error::of(&database, why)),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Who takes a topic in, and how far.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) run: String,
    pub(super) place: String,
    pub(super) since: String,
    /// `{"0": 12}`: the next offset of each partition.
    pub(super) next_offsets: String,
}

/// What an application of rows did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// Rows that were not in the table just so.
    pub(super) written: u64,
    /// Rows whose key a later one has too.
    pub(super) doubled: u64,
}

/// An open transaction; it is rolled back unless it is committed.
pub(super) struct Work<'a> {
    database: Database,
    transaction: Transaction<'a>,
}

impl Work<'_> {
    fn failed(&self, why: tokio_postgres::Error) -> Error {
        error::of(&self.database, why)
    }

    /// Makes `run` the one that takes `topic` into `table`; the offsets where it goes on.
    pub(super) async fn claim(&self, table: &str, topic: &str, run: &str, place: &str) -> Result<String> {
        let row = self
            .transaction
            .query_one(
                "INSERT INTO tidegate_sink AS s (table_name, topic, next_offsets, run, place, since) \
                 VALUES ($1, $2, '{}', $3, $4, now()) ON CONFLICT (table_name, topic) \
                 DO UPDATE SET run = EXCLUDED.run, place = EXCLUDED.place, since = EXCLUDED.since \
                 RETURNING s.next_offsets::text",
                &[&table, &topic, &run, &place],
            )
            .await;
        Ok(row.map_err(|why| self.failed(why))?.get(0))
    }

    /// The position, which nobody else can move until this transaction ends.
    pub(super) async fn position(&self, table: &str, topic: &str) -> Result<Option<Position>> {
        let row = self
            .transaction
            .query_opt(
                "SELECT run, place, to_char(since, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), next_offsets::text \
                 FROM tidegate_sink WHERE table_name = $1 AND topic = $2 FOR UPDATE",
                &[&table, &topic],
            )
            .await
            .map_err(|why| self.failed(why))?;
        Ok(row.map(|row| Position { run: row.get(0), place: row.get(1), since: row.get(2), next_offsets: row.get(3) }))
    }

    /// Moves the position.
    pub(super) async fn advance(&self, table: &str, topic: &str, next_offsets: &str) -> Result<()> {
        let moved = self
            .transaction
            .execute(
                "UPDATE tidegate_sink SET next_offsets = $3::text::jsonb WHERE table_name = $1 AND topic = $2",
                &[&table, &topic, &next_offsets],
            )
            .await;
        moved.map_err(|why| self.failed(why)).map(|_rows| ())
    }

    /// Copies rows to where those of table number `at` wait.
    pub(super) async fn stage(&self, at: usize, table: &Table, lines: &Lines) -> Result<()> {
        let columns: Vec<String> = table.written().collect();
        let sql = format!("COPY pg_temp.tidegate_{at} ({}, tidegate_at) FROM STDIN", columns.join(", "));
        let sink = self.transaction.copy_in::<_, Bytes>(&sql).await.map_err(|why| self.failed(why))?;
        let mut sink = std::pin::pin!(sink);
        for part in lines.text.as_bytes().chunks(COPY_BYTES) {
            sink.send(Bytes::copy_from_slice(part)).await.map_err(|why| self.failed(why))?;
        }
        sink.finish().await.map_err(|why| self.failed(why)).map(|_rows| ())
    }

    /// One of the waiting rows whose key another one has too, as text.
    pub(super) async fn doubled(&self, at: usize, table: &Table) -> Result<Option<String>> {
        let keys = table.key_names();
        if keys.is_empty() {
            return Ok(None);
        }
        let keys = keys.join(", ");
        let sql =
            format!("SELECT max(t::text) FROM pg_temp.tidegate_{at} AS t GROUP BY {keys} HAVING count(*) > 1 LIMIT 1");
        let row = self.transaction.query_opt(&sql, &[]).await.map_err(|why| self.failed(why))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Moves the waiting rows into the table: the last of each key.
    pub(super) async fn apply(&self, at: usize, table: &Table, rows: usize) -> Result<Applied> {
        let written = self.transaction.execute(&upsert(at, table), &[]).await.map_err(|why| self.failed(why))?;
        if table.key == Key::None {
            return Ok(Applied { written, doubled: 0 });
        }
        let keys = table.key_names().join(", ");
        let sql = format!("SELECT count(*) FROM (SELECT DISTINCT {keys} FROM pg_temp.tidegate_{at}) AS keys");
        let row = self.transaction.query_one(&sql, &[]).await.map_err(|why| self.failed(why))?;
        let distinct = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
        Ok(Applied { written, doubled: (rows as u64).saturating_sub(distinct) })
    }

    /// The transaction's id, for [`Session::decided`].
    pub(super) async fn id(&self) -> Result<String> {
        let row = self.transaction.query_one("SELECT txid_current()::text", &[]).await;
        Ok(row.map_err(|why| self.failed(why))?.get(0))
    }

    pub(super) async fn commit(self) -> Result<()> {
        let database = self.database;
        self.transaction.commit().await.map_err(|why| error::of(&database, why))
    }
}

/// Where rows of a table wait within a transaction. No column is required there: the table itself says that better.
fn staging(at: usize, table: &Table) -> String {
    let typed = table.columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.data_type));
    let digest = (table.key == Key::Digest).then(|| format!("{} bytea", quoted(super::table::ROW_KEY)));
    let columns: Vec<String> = typed.chain(digest).collect();
    format!("CREATE TEMPORARY TABLE tidegate_{at} ({}, tidegate_at integer) ON COMMIT DELETE ROWS", columns.join(", "))
}

fn upsert(at: usize, table: &Table) -> String {
    let columns: Vec<String> = table.written().collect();
    let (target, all, keys) = (quoted(&table.name), columns.join(", "), table.key_names());
    if keys.is_empty() {
        return format!("INSERT INTO {target} ({all}) SELECT {all} FROM pg_temp.tidegate_{at} ORDER BY tidegate_at");
    }
    let values: Vec<&String> = columns.iter().filter(|column| !keys.contains(column)).collect();
    let keys = keys.join(", ");
    let last = format!(
        "INSERT INTO {target} AS t ({all}) SELECT DISTINCT ON ({keys}) {all} FROM pg_temp.tidegate_{at} \
         ORDER BY {keys}, tidegate_at DESC ON CONFLICT ({keys})"
    );
    if values.is_empty() {
        return format!("{last} DO NOTHING");
    }
    let each = |form: &dyn Fn(&String) -> String| values.iter().map(|name| form(name)).collect::<Vec<_>>().join(", ");
    // A row that is there just so is not written again: a batch that is run twice leaves the table as it is.
    format!(
        "{last} DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})",
        each(&|name| format!("{name} = EXCLUDED.{name}")),
        each(&|name| format!("t.{name}")),
        each(&|name| format!("EXCLUDED.{name}")),
    )
}
