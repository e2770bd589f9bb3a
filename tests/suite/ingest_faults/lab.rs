//! Where ingest meets its faults: an embedded log, a lake in memory, short intervals, and the audit of what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::Clock;
use ingest::lake::{LanderSettings, land};
use ingest::{Backoff, Components, Counters, CountersSnapshot, IntakeSettings, NostrSettings, OpenSeaSettings};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tests::audit::{Held, Owed, audit, owed, read_lake, read_log};
use tests::scripted_relay::ScriptedRelay;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log};

use super::gate::{Gate, Gated};

/// By then whatever is expected has happened, on a busy machine too.
pub(super) const SOON: Duration = Duration::from_secs(60);
const TOPIC: &str = "nostr-event";
const REJECTED: &str = "nostr-event.rejected";

/// A log and a lake of a test's own.
pub(super) struct Lab {
    log: Arc<dyn Log>,
    /// The same without its gate.
    behind: Arc<dyn Log>,
    /// Lets writers of the log begin.
    pub(super) gate: Gate,
    pub(super) lake: Arc<dyn ObjectStore>,
    pub(super) clock: Clock,
    pub(super) dir: TempDir,
}

impl Lab {
    /// A lab whose clock stands an hour after the first of [`tests::signed::events`]: what is missed while a relay is
    /// away is looked for in the last days, not in all of the past.
    pub(super) fn new() -> Self {
        Self::at(Clock::mock(1_767_229_200_000))
    }

    pub(super) fn at(clock: Clock) -> Self {
        let dir = TempDir::new().expect("a directory");
        let log = EmbeddedLog::open(&dir.path().join("log"), clock.clone()).expect("a log");
        let (behind, lake): (Arc<dyn Log>, _) = (Arc::new(log), Arc::new(InMemory::new()));
        let (log, gate) = Gated::before(Arc::clone(&behind));
        Self { log: Arc::new(log), behind, gate, lake, clock, dir }
    }

    /// Fetches what relays have stored, as another process that no gate keeps from the log, and from the same lake.
    pub(super) async fn other_once(&self, relays: &[String]) -> (CountersSnapshot, ingest::Result<()>) {
        let settings = NostrSettings { relays: relays.to_vec(), once: true, ..quick() };
        self.run_on(&self.behind, settings).ends().await
    }

    /// Follows relays until it is stopped.
    pub(super) fn follow(&self, relays: &[String]) -> Run {
        self.run(NostrSettings { relays: relays.to_vec(), ..quick() })
    }

    /// Fetches what relays have stored; what it says in the end.
    pub(super) async fn once(&self, relays: &[String]) -> (CountersSnapshot, ingest::Result<()>) {
        self.run(NostrSettings { relays: relays.to_vec(), once: true, ..quick() }).ends().await
    }

    pub(super) fn run(&self, settings: NostrSettings) -> Run {
        self.run_on(&self.log, settings)
    }

    fn run_on(&self, log: &Arc<dyn Log>, settings: NostrSettings) -> Run {
        let intake = settings.intake.clone();
        self.start(log, intake, |components, stop| ingest::nostr(settings, components, stop))
    }

    /// Follows a stream until it is stopped.
    pub(super) fn stream(&self, settings: OpenSeaSettings) -> Run {
        let intake = settings.intake.clone();
        self.start(&self.log, intake, |components, stop| ingest::opensea(settings, components, stop))
    }

    /// Runs a source, and a lander behind it.
    fn start<F: Future<Output = ingest::Result<()>> + Send + 'static>(
        &self,
        log: &Arc<dyn Log>,
        intake: IntakeSettings,
        source: impl FnOnce(Components, CancellationToken) -> F,
    ) -> Run {
        let components =
            Components { log: Arc::clone(log), clock: self.clock.clone(), counters: Arc::new(Counters::default()) };
        let (counters, stop) = (Arc::clone(&components.counters), CancellationToken::new());
        let source = source(components.clone(), stop.clone());
        let mut task = JoinSet::new();
        task.spawn(ingest_and_land(intake, source, components, Arc::clone(&self.lake)));
        Run { counters, stop, task }
    }

    /// What the topic holds.
    pub(super) async fn topic(&self) -> Vec<Held> {
        self.records_of(TOPIC).await
    }

    /// What any topic holds.
    pub(super) async fn records_of(&self, topic: &str) -> Vec<Held> {
        read_log(self.log.as_ref(), topic).await
    }

    /// The log that is run on.
    pub(super) fn log(&self) -> &dyn Log {
        self.log.as_ref()
    }

    /// Records of the rejected topic, by reason.
    pub(super) async fn rejected(&self) -> BTreeMap<String, usize> {
        self.rejected_in(REJECTED).await
    }

    /// Records of any rejected topic, by reason.
    pub(super) async fn rejected_in(&self, topic: &str) -> BTreeMap<String, usize> {
        let ranges = self.log.ranges(topic).await.expect("the topic exists");
        let from = ranges.iter().map(|range| (range.partition, range.start)).collect();
        let mut reader = self.log.reader(topic, from).await.expect("a reader");
        let mut reasons = BTreeMap::new();
        while reader.positions().iter().zip(&ranges).any(|((_, next), range)| *next < range.end) {
            for record in reader.read(10_000, SOON).await.expect("records") {
                *reasons.entry(record.header("reason").expect("a reason").to_owned()).or_default() += 1;
            }
        }
        reasons
    }

    /// Demands what relays have served, and that it is at least so many events.
    pub(super) async fn audit(&self, relays: &[&ScriptedRelay], least: usize) {
        self.audit_owed(&owed_by(relays), least).await;
    }

    pub(super) async fn audit_owed(&self, owed: &Owed, least: usize) {
        let topic = self.topic().await;
        let lake = read_lake(self.lake.as_ref(), TOPIC).await;
        let audited = audit(owed, &topic, &lake)
            .unwrap_or_else(|breaches| panic!("the audit found {}\n{}", breaches.len(), breaches.join("\n")));
        assert!(audited.events >= least, "{} events were served whole, {least} should have been", audited.events);
    }
}

/// Valid events that relays have served whole.
pub(super) fn owed_by(relays: &[&ScriptedRelay]) -> Owed {
    owed(relays.iter().flat_map(|relay| relay.served().into_keys()))
}

async fn ingest_and_land(
    intake: IntakeSettings,
    source: impl Future<Output = ingest::Result<()>>,
    components: Components,
    lake: Arc<dyn ObjectStore>,
) -> ingest::Result<()> {
    ingest::create_topics(components.log.as_ref(), &intake).await?;
    let landing = LanderSettings { topic: intake.topic, rows_max: 200, ..LanderSettings::default() };
    let drain = CancellationToken::new();
    let mut lander = JoinSet::new();
    lander.spawn(land(landing, components, lake, Path::default(), drain.clone()));
    let received = source.await;
    drain.cancel();
    lander.join_next().await.expect("a lander").expect("it does not panic")?;
    received
}

/// Ingest at work.
pub(super) struct Run {
    counters: Arc<Counters>,
    stop: CancellationToken,
    task: JoinSet<ingest::Result<()>>,
}

impl Run {
    pub(super) fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// Waits until something holds, and demands it.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&CountersSnapshot) -> bool) -> CountersSnapshot {
        self.until_within(SOON, what, holds).await
    }

    /// The same for what takes seconds by itself.
    pub(super) async fn until_long(&self, what: &str, holds: impl Fn(&CountersSnapshot) -> bool) -> CountersSnapshot {
        self.until_within(6 * SOON, what, holds).await
    }

    async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&CountersSnapshot) -> bool,
    ) -> CountersSnapshot {
        let deadline = Instant::now() + limit;
        loop {
            let counters = self.counters();
            if holds(&counters) {
                return counters;
            }
            assert!(!self.task.is_empty() && Instant::now() < deadline, "{what}: not within {limit:?}, {counters:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many events are published.
    pub(super) async fn until_published(&self, count: usize) -> CountersSnapshot {
        self.until(&format!("{count} events published"), |counters| counters.published >= count as u64).await
    }

    /// Waits until everything stored has been fetched from every relay.
    pub(super) async fn until_stored_done(&self) -> CountersSnapshot {
        self.until("everything stored", |counters| counters.relays.iter().all(|relay| relay.stored_done)).await
    }

    /// Asks it to stop, and demands that it ends well.
    pub(super) async fn stop(self) -> CountersSnapshot {
        self.stop.cancel();
        let (counters, result) = self.ends().await;
        result.expect("a good end");
        counters
    }

    /// Asks it to stop, and says how it ended.
    pub(super) async fn stop_within(mut self, limit: Duration) -> ingest::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(limit, self.task.join_next()).await.expect("it ends");
        ended.expect("one task").expect("it does not panic")
    }

    /// Waits for its end.
    pub(super) async fn ends(mut self) -> (CountersSnapshot, ingest::Result<()>) {
        let ended = tokio::time::timeout(SOON, self.task.join_next()).await.expect("it ends");
        let result = ended.expect("one task").expect("it does not panic");
        (self.counters.snapshot(), result)
    }
}

/// Settings in which nobody waits for long.
pub(super) fn quick() -> NostrSettings {
    NostrSettings {
        intake: IntakeSettings { partitions: 2, ..IntakeSettings::default() },
        backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_millis(100) },
        connect_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(400),
        ping_interval: Duration::from_millis(300),
        pong_timeout: Duration::from_millis(300),
        ..NostrSettings::default()
    }
}

/// Waits until something holds that no counter tells, and demands it.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
