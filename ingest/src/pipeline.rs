//! The stations put together: topics exist, known ids are read back, verifiers and publisher run; and the end of it.
//!
//! Sources push into an [`Intake`] (relays) or hand over records in order (files). When all of them have let go, what
//! is under way is finished: verified, published, acknowledged.

use std::sync::{Arc, Mutex};

use event::Table;
use event::layout::{coverage_topic, gap_topic, rejected_topic, sighting_topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topic::TopicSpec;

use crate::Components;
use crate::coverage::Ledger;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::group::settle_leftover;
use crate::intake::{Bounds, Intake};
use crate::metrics::Counters;
use crate::parcel::Outgoing;
use crate::publish::{Desk, PATIENCE_AT_END, Publisher};
use crate::rejected::Refused;
use crate::settings::IntakeSettings;
use crate::sighting::Sightings;
use crate::verifier::{Rules, Verifier, work};

/// Records that wait for the publisher: two parcels, so that one fills while the other is under way.
pub(crate) const OUTGOING_MAX: usize = 10_000;
/// Largest record the topics take: an event of 1 MiB and its headers, with room.
const MESSAGE_BYTES_MAX: &str = "2097152";
/// The lake is the archive; the topic holds a month for those who read it late.
const RETENTION_MS: &str = "2592000000";
/// There are several for each event, and the lake keeps those that are wanted for longer.
const SIGHTING_RETENTION_MS: &str = "259200000";
/// What is missing is known for a year.
const GAP_RETENTION_MS: &str = "31536000000";
/// A hostile relay can fill the rejected topic, so it is bounded by size as well.
const REJECTED_RETENTION_BYTES: &str = "1073741824";

/// Verifiers and publisher at work.
#[derive(Debug)]
pub(crate) struct Pipeline {
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
    pub(crate) rules: Rules,
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) refused: Arc<Refused>,
    pub(crate) verifiers: usize,
    outgoing: mpsc::Sender<Outgoing>,
    sightings: Sightings,
}

impl Pipeline {
    /// Creates the topics where they do not exist, reads known ids back and starts the publisher. `stop` is cancelled
    /// as soon as a station ends, so that sources do not wait for what will not come.
    ///
    /// # Errors
    /// `Config` when the topics cannot be, `Unavailable` when the log cannot be reached.
    pub(crate) async fn open(
        settings: &IntakeSettings,
        components: &Components,
        stop: CancellationToken,
    ) -> Result<Self> {
        let log = components.log.as_ref();
        create_topics(log, settings).await?;
        let dedup = Arc::new(Dedup::new(settings.dedup_ids_max));
        let ledger = Arc::new(Ledger::load(log, &settings.topic).await?);
        let (sightings, copies) = Sightings::new(settings.sightings);
        let desk = Desk {
            dedup: Arc::clone(&dedup),
            ledger: Arc::clone(&ledger),
            counters: Arc::clone(&components.counters),
            stop: stop.clone(),
            copies,
            patience: PATIENCE_AT_END,
        };
        // First: what a process before us had open is ended, so that what the topic holds then is all there is.
        let (log, clock) = (Arc::clone(&components.log), &components.clock);
        let mut publisher = Publisher::lone(log, &settings.topic, desk, clock, settings.if_free).await?;
        let log = components.log.as_ref();
        dedup.restore(log, settings).await?;
        let refused = Arc::new(Refused::read_back(log, &rejected_topic(&settings.topic)).await?);
        let verifiers = settings.verifier_threads();
        if publisher.leftover() {
            let verifier = Verifier {
                rules: Rules::of(settings),
                dedup: Arc::clone(&dedup),
                refused: Arc::clone(&refused),
                // A group notes none.
                sightings: Sightings::default(),
                counters: Arc::clone(&components.counters),
            };
            settle_leftover(log, &settings.topic, Arc::new(verifier), verifiers, &mut publisher).await?;
        }
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let mut tasks = JoinSet::new();
        let ended = stop.clone().drop_guard();
        tasks.spawn(async move {
            let _ended = ended;
            publisher.run(queue).await
        });
        Ok(Self { tasks, stop, rules: Rules::of(settings), dedup, ledger, refused, verifiers, outgoing, sightings })
    }

    /// Starts the verifiers behind a queue that many relays share.
    pub(crate) fn intake(&mut self, counters: &Arc<Counters>, bounds: Bounds) -> Intake {
        // What is in it holds a KiB of room at least, so that room is what it is bounded by.
        let (queue, inputs) = mpsc::channel(bounds.room_kib as usize);
        let inputs = Arc::new(Mutex::new(inputs));
        let verifier = Arc::new(Verifier {
            rules: self.rules.clone(),
            dedup: Arc::clone(&self.dedup),
            refused: Arc::clone(&self.refused),
            sightings: self.sightings.clone(),
            counters: Arc::clone(counters),
        });
        for _ in 0..self.verifiers {
            let (verifier, inputs, out) = (Arc::clone(&verifier), Arc::clone(&inputs), self.outgoing.clone());
            let ended = self.stop.clone().drop_guard();
            self.tasks.spawn_blocking(move || {
                let _ended = ended;
                work(&inputs, |input| verifier.settle(input), &out);
                Ok(())
            });
        }
        let (intake, bring_back) = Intake::new(queue, &self.dedup, counters, self.sightings.clone(), bounds);
        self.tasks.spawn(async move {
            bring_back.await;
            Ok(())
        });
        intake
    }

    /// The publisher's queue, for a source that keeps its own order.
    pub(crate) fn outgoing(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }

    /// Waits until everything taken in is published and acknowledged. All intakes must have been dropped.
    ///
    /// # Errors
    /// What ended a station before its time.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self { mut tasks, outgoing, sightings, .. } = self;
        drop((outgoing, sightings));
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|panic| {
                Err(Error::new(ErrorKind::Internal, "a verifier or the publisher panicked").with_source(panic))
            });
            result = result.and(ended);
        }
        result
    }
}

/// Creates the raw topic and those beside it where they do not exist; safe to repeat.
///
/// # Errors
/// `Config` when the topics cannot be, `Unavailable` when the log cannot be reached.
pub async fn create_topics(log: &dyn topic::Log, settings: &IntakeSettings) -> Result<()> {
    let (raw, forever) = (&settings.topic, ("retention.ms", "-1"));
    if settings.table() == Table::Sightings {
        let message = format!("`{raw}` is the name of a topic of sightings; give the raw topic another one");
        return Err(Error::new(ErrorKind::Config, message));
    }
    create(log, raw, settings.partitions, &[]).await?;
    create(log, &rejected_topic(raw), 1, &[("retention.bytes", REJECTED_RETENTION_BYTES)]).await?;
    create(log, &coverage_topic(raw), 1, &[("cleanup.policy", "compact"), forever]).await?;
    create(log, &gap_topic(raw), 1, &[("retention.ms", GAP_RETENTION_MS)]).await?;
    if settings.sightings {
        let kept = [("retention.ms", SIGHTING_RETENTION_MS)];
        create(log, &sighting_topic(raw), settings.partitions, &kept).await?;
    }
    Ok(())
}

pub(crate) async fn create(log: &dyn topic::Log, name: &str, partitions: i32, more: &[(&str, &str)]) -> Result<()> {
    let config =
        [("cleanup.policy", "delete"), ("max.message.bytes", MESSAGE_BYTES_MAX), ("retention.ms", RETENTION_MS)];
    let kept = config.iter().filter(|(key, _)| more.iter().all(|(other, _)| other != key));
    let config = kept.chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let created = log.create_topic(&TopicSpec { name: name.to_owned(), partitions, config }).await;
    let created = created.map_err(|source| Error::of_log(format!("could not create topic `{name}`"), source))?;
    if created {
        tracing::info!(topic = name, partitions, "topic created");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use event::layout::OPENSEA_RAW_TOPIC;
    use event::{Clock, MarketEvent};
    use tempfile::TempDir;
    use topic::{EmbeddedLog, StoredRecord, Tail};

    use super::*;

    async fn read(components: &Components, topic: &str) -> Vec<StoredRecord> {
        let mut tail = Tail::whole(components.log.as_ref(), topic).await.expect("a topic");
        let mut read = Vec::new();
        while let Some(records) = tail.next().await.expect("records") {
            read.extend(records);
        }
        read
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn frames_of_the_market_come_in_whole_in_their_order_and_once() {
        let dir = TempDir::new().expect("a directory");
        let log = EmbeddedLog::open(dir.path(), Clock::system()).expect("a log");
        let components = Components { log: Arc::new(log), clock: Clock::system(), counters: Arc::default() };
        let settings = IntakeSettings {
            topic: OPENSEA_RAW_TOPIC.to_owned(),
            partitions: 1,
            verifiers: 1,
            ids_dir: Some(dir.path().join("ids")),
            ..IntakeSettings::default()
        };
        let event = |order: u32| {
            format!(
                r#"{{"event_type":"item_listed","payload":{{"event_timestamp":"2026-01-01T00:00:00Z","order_hash":"{order}"}}}}"#
            )
        };
        let framed = |order: u32| format!(r#"["1",null,"collection:*","item_listed",{}]"#, event(order));
        let control = r#"["1","1","collection:*","phx_reply",{"status":"ok","response":{}}]"#;
        for again in 0..2 {
            let mut pipeline =
                Pipeline::open(&settings, &components, CancellationToken::new()).await.expect("a pipeline");
            let bounds = Bounds { room_kib: 64, spill_dir: None, spill_bytes: 0, lanes: 1, asks_for_stored: false };
            let intake = pipeline.intake(&components.counters, bounds);
            let lane = intake.lane(&components.counters.relay(&"wss://stream.example.org/socket".into()));
            for order in 0..300 {
                for frame in [framed(order), event(order), control.to_owned(), "[junk]".to_owned()] {
                    let frame = (frame.into(), 1_000 + i64::from(order));
                    intake.frame(&lane, frame, None, None).await.expect("taken");
                }
            }
            drop((intake, lane));
            pipeline.finish().await.expect("published");
            let records = read(&components, OPENSEA_RAW_TOPIC).await;
            assert_eq!(records.len(), 300, "run {again}");
            for (order, record) in (0..).zip(&records) {
                let frame = framed(order);
                assert_eq!(record.value.as_deref(), Some(frame.as_bytes()));
                let id = MarketEvent::parse_event(frame.as_bytes()).expect("an event").id();
                assert_eq!(record.key.as_deref(), Some(id.to_string().as_bytes()));
                assert_eq!(record.timestamp_ms, 1_000 + i64::from(order));
                let header = |name: &str| record.header(name).unwrap_or_default().to_owned();
                let said = ["source", "relay", "received_at", "phase"].map(header);
                let received_at = (1_000 + order).to_string();
                assert_eq!(said, ["opensea", "wss://stream.example.org/socket", received_at.as_str(), "live"]);
            }
            assert_eq!(read(&components, &rejected_topic(OPENSEA_RAW_TOPIC)).await.len(), 1);
            assert_eq!(components.counters.snapshot().filtered, 300 * (again + 1));
        }
    }
}
