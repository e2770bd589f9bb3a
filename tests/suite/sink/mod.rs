//! Rows in a real PostgreSQL: what a batch, a stream and a follower of a topic leave in tables, after kills, outages,
//! lost answers and rivals. Tables are read by psql, and compared with what other means computed.

mod batch;
mod follow;
mod proxy;
mod refused;
mod stream;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::repository;
use tests::{finish, tidegate};
use topic::{EmbeddedLog, Log, Record, TopicSpec};

/// Events of the raw topic that nobody signed: a stream does not verify. Four a second, so that a minute holds 240.
fn raw_events(numbers: std::ops::Range<u64>) -> Vec<Value> {
    let kind = |number: u64| [0, 1, 1, 6, 7][usize::try_from(number * 7 / 3 % 5).expect("small")];
    numbers
        .map(|number| {
            json!({
                "id": format!("{number:064x}"), "pubkey": format!("{:064x}", 1 + number % 13),
                "created_at": 1_760_000_000 + number / 4, "kind": kind(number), "tags": [["t", format!("tag{}", number % 5)]],
                "content": format!("number {number}"), "sig": "0".repeat(128),
            })
        })
        .collect()
}

/// What the built-in job `kinds` says of them, computed here: (window in unix seconds, kind) to (events, authors).
fn expected_kinds(events: &[Value], size: i64) -> BTreeMap<(i64, i64), (i64, i64)> {
    let mut windows: BTreeMap<(i64, i64), (i64, std::collections::BTreeSet<String>)> = BTreeMap::new();
    for event in events {
        let (at, kind) = (event["created_at"].as_i64().expect("a number"), event["kind"].as_i64().expect("a number"));
        let group = windows.entry((at - at.rem_euclid(size), kind)).or_default();
        group.0 += 1;
        group.1.insert(event["pubkey"].to_string());
    }
    windows
        .into_iter()
        .map(|(key, (count, authors))| (key, (count, i64::try_from(authors.len()).expect("few"))))
        .collect()
}

/// The same of a table.
fn kinds_in(database: &tests::postgres::Database, table: &str) -> BTreeMap<(i64, i64), (i64, i64)> {
    let query =
        format!("SELECT extract(epoch FROM window_start)::bigint AS at, kind, events, authors FROM \"{table}\"");
    let rows = database.rows(&query);
    let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    let found: BTreeMap<(i64, i64), (i64, i64)> = rows
        .iter()
        .map(|row| ((number(row, "at"), number(row, "kind")), (number(row, "events"), number(row, "authors"))))
        .collect();
    assert_eq!(found.len(), rows.len(), "two rows of `{table}` have one key");
    found
}

/// A data directory with an embedded log that this process writes between two runs of tidegate.
#[derive(Debug)]
struct Home {
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Home {
    fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory"), runtime: tokio::runtime::Runtime::new().expect("a runtime") }
    }

    /// Runs something over the log, while no other process has it.
    fn with_log<T>(&self, work: impl AsyncFnOnce(std::sync::Arc<dyn Log>) -> T) -> T {
        let dir = self.dir.path().join("log");
        fs::create_dir_all(&dir).expect("a directory");
        self.runtime.block_on(async {
            let log = EmbeddedLog::open(&dir, event::Clock::system()).expect("nobody else has the log");
            work(std::sync::Arc::new(log)).await
        })
    }

    fn write(&self, topic: &str, partitions: i32, records: Vec<Record>) {
        self.with_log(async |log| {
            log.create_topic(&TopicSpec { name: topic.to_owned(), partitions, config: Vec::new() })
                .await
                .expect("a topic");
            let mut writer = log.writer(None).await.expect("a writer");
            // An empty topic is made too.
            writer.send(topic, records).await.expect("sent");
            writer.flush().await.expect("written");
        });
    }

    /// Writes events to the raw topic, which has one partition, so that none is late.
    fn events(&self, events: &[Value]) {
        let record = |event: &Value| Record {
            key: Some(event["id"].as_str().expect("an id").as_bytes().to_vec().into()),
            value: Some(event.to_string().into_bytes().into()),
            partition: Some(0),
            ..Record::default()
        };
        self.write("nostr-event", 1, events.iter().map(record).collect());
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = tidegate();
        command.args(arguments).arg("--data-dir").arg(self.dir.path());
        command
    }

    /// A command that takes no log.
    fn command_without_log(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = tidegate();
        command.args(arguments);
        command
    }

    fn job(&self, name: &str, sql: &str) -> String {
        let path = self.dir.path().join(format!("{name}.sql"));
        fs::write(&path, sql).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }
}

/// The definitions of the tables of the built-in jobs stand beside them, as `explain` prints them.
#[test]
fn the_tables_of_the_jobs_are_those_that_explain_prints() {
    for (job, _) in processor::built_in_jobs() {
        let path: PathBuf = repository().join(format!("jobs/postgres/{job}.sql"));
        let said = finish(tidegate().args(["explain", job, "--postgres-ddl"])).success().stdout();
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, said, "write it anew: tidegate explain {job} --postgres-ddl > {}", path.display());
    }
}
