//! The stations put together: topics exist, known ids are read back, verifiers and publisher run; and the end of it.
//!
//! Sources push into [`Intake`] (relays) or hand over records in order (files). When all of them have let go, what
//! is under way is finished: verified, published, acknowledged.

use std::sync::{Arc, Mutex};

use event::layout::{coverage_topic, gap_topic, rejected_topic, sighting_topic};
use event::{EventId, Table};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topic::TopicSpec;

use crate::Components;
use crate::coverage::{Ledger, Page};
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counters, add};
use crate::parcel::{Arrival, Outgoing};
use crate::publish::{Desk, Publisher};
use crate::rejected::Refused;
use crate::settings::IntakeSettings;
use crate::sighting::Sightings;
use crate::verifier::{Input, Rules, Verifier};

/// Arrivals that wait for a verifier, of all sources together.
const INPUTS_MAX: usize = 4_096;
/// Records that wait for the publisher: two parcels, so that one fills while the other is under way.
const OUTGOING_MAX: usize = 10_000;
/// Memory for events between their sockets and the log.
const ROOM_KIB: u32 = 128 * 1_024;
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

/// Where relays put what they read.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Input>,
    dedup: Arc<Dedup>,
    counters: Arc<Counters>,
    sightings: Sightings,
    /// Memory for events between their socket and the log, in KiB.
    room: Arc<Semaphore>,
}

/// The pipeline has ended, so nothing more can be taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended;

impl Intake {
    /// Takes in an event with the id it claims, waiting while the queue is full; `false` when it is a copy of one that
    /// was verified before, which ends here.
    pub(crate) async fn event(&self, arrival: Arrival, id: Option<EventId>) -> std::result::Result<bool, Ended> {
        add(&self.counters.received, 1);
        if let Some(id) = id.filter(|id| self.dedup.is_copy(id, arrival.held.page.as_ref())) {
            add(&self.counters.copies, 1);
            self.sightings.copy(&arrival, &id).await?;
            return Ok(false);
        }
        self.enqueue(arrival, None).await?;
        Ok(true)
    }

    /// Whether the event is here; `page` must not be proven before one that is on its way.
    pub(crate) fn knows(&self, id: &EventId, page: &Page) -> bool {
        self.dedup.is_copy(id, Some(page))
    }

    /// Takes in bytes that are no event, with the reason.
    pub(crate) async fn junk(&self, arrival: Arrival, why: event::Rejection) -> std::result::Result<(), Ended> {
        add(&self.counters.received, 1);
        self.enqueue(arrival, Some(why)).await
    }

    /// Waits for memory, then for a place in the queue: relays take turns, since each waits with one arrival.
    async fn enqueue(&self, mut arrival: Arrival, refused: Option<event::Rejection>) -> std::result::Result<(), Ended> {
        let kib = u32::try_from(arrival.raw.len() / 1_024 + 1).unwrap_or(u32::MAX).min(ROOM_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| Ended)?;
        arrival.held.room = Some(Arc::new(room));
        self.queue.send(Input { arrival, refused }).await.map_err(|_| Ended)
    }
}

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
            clock: components.clock.clone(),
            stop: stop.clone(),
            copies,
        };
        // First: what a process before us had open is ended, so that what the topic holds then is all there is.
        let publisher = Publisher::open(Arc::clone(&components.log), &settings.topic, desk, settings.if_free).await?;
        let count = dedup.replay(log, &settings.topic, settings.dedup_replay_max).await?;
        tracing::info!(topic = settings.topic, ids = count, "known ids read back");
        let refused = Arc::new(Refused::read_back(log, &rejected_topic(&settings.topic)).await?);
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let mut tasks = JoinSet::new();
        let ended = stop.clone().drop_guard();
        tasks.spawn(async move {
            let _ended = ended;
            publisher.run(queue).await
        });
        let verifiers = match settings.verifiers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            chosen => chosen,
        };
        Ok(Self { tasks, stop, rules: Rules::of(settings), dedup, ledger, refused, verifiers, outgoing, sightings })
    }

    /// Starts the verifiers behind a queue that many relays share.
    pub(crate) fn intake(&mut self, counters: &Arc<Counters>) -> Intake {
        let (queue, inputs) = mpsc::channel(INPUTS_MAX);
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
                verifier.work(&inputs, &out);
                Ok(())
            });
        }
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        let (dedup, counters, sightings) = (Arc::clone(&self.dedup), Arc::clone(counters), self.sightings.clone());
        Intake { queue, dedup, counters, sightings, room }
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
    if Table::of_topic(raw) != Table::Events {
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

async fn create(log: &dyn topic::Log, name: &str, partitions: i32, more: &[(&str, &str)]) -> Result<()> {
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
