//! What the tests share: a log in a temporary directory, relays that are stopped with the test, records read back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event::{Clock, Reason};
use ingest::{Backoff, Components, Counters, CountersSnapshot, IntakeSettings, NostrSettings};
use relay::Generate;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, StoredRecord};

pub(crate) const TOPIC: &str = "nostr-event";
pub(crate) const REJECTED: &str = "nostr-event.rejected";

/// An embedded log, and whatever runs beside it.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Clock,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) end: CancellationToken,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let clock = Clock::system();
        let log = EmbeddedLog::open(&dir.path().join("log"), clock.clone()).expect("a log");
        Self { dir, log: Arc::new(log), clock, tasks: JoinSet::new(), end: CancellationToken::new() }
    }

    /// Starts a relay; returns its URL.
    pub(crate) async fn relay(&mut self, settings: relay::Settings) -> String {
        let server = relay::Server::bind(settings, self.clock.clone()).await.expect("a relay");
        let url = format!("ws://{}", server.local_addr());
        let end = self.end.clone();
        self.tasks.spawn(async move { server.serve(end).await.expect("a relay serves") });
        url
    }

    /// Starts a relay that serves these lines.
    pub(crate) async fn relay_of(&mut self, lines: &[String], faults: relay::Faults) -> String {
        let path = self.file(lines);
        self.relay(relay::Settings { events: vec![path], faults, ..relay::Settings::default() }).await
    }

    /// Writes lines to a file of their own.
    pub(crate) fn file(&self, lines: &[String]) -> PathBuf {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile_in(self.dir.path()).expect("a file");
        let (_, path) = file.keep().expect("a file");
        std::fs::write(&path, text).expect("a file");
        path
    }

    pub(crate) fn components(&self) -> Components {
        Components { log: Arc::clone(&self.log), clock: self.clock.clone(), counters: Arc::new(Counters::default()) }
    }

    /// Fetches everything stored from `relays`.
    pub(crate) async fn once(&self, relays: &[String]) -> (CountersSnapshot, ingest::Result<()>) {
        self.nostr(NostrSettings { relays: relays.to_vec(), once: true, ..quick() }).await
    }

    pub(crate) async fn nostr(&self, settings: NostrSettings) -> (CountersSnapshot, ingest::Result<()>) {
        let components = self.components();
        let counters = Arc::clone(&components.counters);
        let run = ingest::nostr(settings, components, CancellationToken::new());
        let result = tokio::time::timeout(Duration::from_secs(120), run).await.expect("the run ends");
        (counters.snapshot(), result)
    }

    /// Everything that `topic` holds.
    pub(crate) async fn records(&self, topic: &str) -> Vec<StoredRecord> {
        let ranges = self.log.ranges(topic).await.expect("ranges");
        let from = ranges.iter().map(|range| (range.partition, range.start)).collect();
        let total: i64 = ranges.iter().map(|range| range.end - range.start).sum();
        let mut reader = self.log.reader(topic, from).await.expect("a reader");
        let mut records = Vec::new();
        while i64::try_from(records.len()).expect("few") < total {
            records.extend(reader.read(10_000, Duration::from_secs(5)).await.expect("records"));
        }
        records
    }

    /// The values of the raw topic, sorted.
    pub(crate) async fn values(&self) -> Vec<String> {
        let mut values: Vec<String> = self.records(TOPIC).await.iter().map(value).collect();
        values.sort();
        values
    }

    /// How many records of the rejected topic there are by reason.
    pub(crate) async fn rejected(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for record in self.records(REJECTED).await {
            *reasons.entry(record.header("reason").expect("a reason").to_owned()).or_default() += 1;
        }
        reasons
    }
}

pub(crate) fn value(record: &StoredRecord) -> String {
    String::from_utf8(record.value.clone().expect("a value").to_vec()).expect("text")
}

/// What the counters say of each reason.
pub(crate) fn reasons(counters: &CountersSnapshot) -> BTreeMap<String, u64> {
    counters.rejected.iter().map(|(reason, count)| (Reason::as_str(*reason).to_owned(), *count)).collect()
}

/// Every input got one verdict.
pub(crate) fn assert_balanced(counters: &CountersSnapshot) {
    let verdicts = counters.published + counters.copies + counters.filtered + counters.rejected_total();
    assert_eq!(counters.received, verdicts + counters.rejected_again, "{counters:?}");
}

/// Settings in which nobody waits for long.
pub(crate) fn quick() -> NostrSettings {
    NostrSettings {
        intake: IntakeSettings { max_future: None, ..IntakeSettings::default() },
        backoff: Backoff { first: Duration::from_millis(5), max: Duration::from_millis(50) },
        idle_timeout: Duration::from_millis(500),
        ..NostrSettings::default()
    }
}

/// Events that are signed for real: one JSON text each, oldest first, no two alike.
pub(crate) fn signed(seed: u64, count: usize) -> Vec<String> {
    let settings = Generate { seed, late: 0.0, future: 0.0, forged: 0.0, ..Generate::default() };
    let mut seen = HashSet::new();
    let made = relay::generate::generate(settings).expect("events").map(|made| made.json);
    // One author saying the same twice within a second makes one event.
    made.filter(|json| seen.insert(json.clone())).take(count).collect()
}

/// Compares without printing thousands of events.
pub(crate) fn assert_same<T: AsRef<[u8]>>(got: &[T], wanted: &[T]) {
    let set = |lines: &[T]| lines.iter().map(|line| line.as_ref().to_vec()).collect::<BTreeSet<_>>();
    let short =
        |line: Option<&Vec<u8>>| line.map(|line| String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned());
    let (have, want) = (set(got), set(wanted));
    let (missing, beyond) = (want.difference(&have).count(), have.difference(&want).count());
    assert!(
        missing == 0 && beyond == 0,
        "{missing} missing, as {:?}; {beyond} too many, as {:?}",
        short(want.difference(&have).next()),
        short(have.difference(&want).next()),
    );
    assert_eq!(got.len(), wanted.len(), "some are there twice");
    let differ = got.iter().zip(wanted).position(|(got, wanted)| got.as_ref() != wanted.as_ref());
    assert_eq!(differ, None, "first place where the order differs");
}

pub(crate) fn sorted(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

/// A file of the input sets beside the repository; says loudly when it is not there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nostr").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}
