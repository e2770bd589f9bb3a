//! The way out: records to the raw topic and those beside it, a parcel a transaction; an id counts as known once its
//! transaction is committed.
//!
//! One task owns the writer, and the writer's transactional id is the raw topic's: a second process that ingests into
//! the same topic takes over, and this one ends and says who did ([`crate::owner`]). What a relay's answers prove is
//! written in the transaction that holds the last event of theirs. The members of a group have publishers of their own
//! ([`crate::group`]), whose ids are those of partitions: some hand frames in, some settle them.
//!
//! A log that is away is waited for. Whether it took the parcel that it did not answer for is decided by a new writer
//! of the same id, which ends what the old one had open, and by reading the topic's end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event::layout::{coverage_topic, gap_topic, intake_topic, rejected_topic};
use event::{Clock, Reason, Rejection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use topic::{Log, Offsets, Record, StoredRecord, Writer};

use crate::coverage::Ledger;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counters, add};
use crate::owner::{Owner, fence, fence_members, group_id, topic_id};
use crate::parcel::{Outgoing, Parcel};
use crate::rejected;
use crate::relay::Backoff;
use crate::tail::Tail;

/// Records of a parcel at most.
pub(crate) const PARCEL_RECORDS_MAX: usize = 5_000;
/// How long the first record of a parcel waits for others: a transaction costs the broker some round trips and the disk
/// an fsync, whatever it holds.
const LINGER: Duration = Duration::from_millis(50);
/// How often the ends of the topics are noted, from which on a parcel in doubt is looked for.
const NOTE_ENDS_EVERY: Duration = Duration::from_secs(60);
/// How long a log that is away is waited for once a lone process is told to end.
pub(crate) const PATIENCE_AT_END: Duration = Duration::from_secs(30);
/// By then whoever took over has said so, if it lives.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

/// Where a publisher writes.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    raw: String,
    /// Where events go: the raw topic, or the intake of a group's.
    events: String,
    rejected: String,
    coverage: String,
    gaps: String,
    /// Group and topic of what is settled.
    offsets: (String, String),
}

/// What a publisher needs beside the log.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Arc<Counters>,
    /// Fires when no more will come.
    pub(crate) stop: CancellationToken,
    /// How long a log that is away is waited for from then on.
    pub(crate) patience: Duration,
}

/// Owner of the log's writer.
pub(crate) struct Publisher {
    log: Arc<dyn Log>,
    writer: Box<dyn Writer>,
    /// The writer's transactional id.
    id: String,
    topics: Topics,
    desk: Desk,
    /// What says that this process alone ingests; none for a member of a group.
    owner: Option<Owner>,
    /// Offsets from which on what this run wrote last is to be found, by topic.
    ends: HashMap<String, Offsets>,
    noted_at: Instant,
}

impl Publisher {
    /// Takes the raw topic over: whoever published to it before cannot any more; with `if_free` only where nobody does.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached, `Fenced` when the topic is not free.
    pub(crate) async fn lone(
        log: Arc<dyn Log>,
        raw_topic: &str,
        desk: Desk,
        clock: &Clock,
        if_free: bool,
    ) -> Result<Self> {
        if if_free && let Some(other) = Owner::read(log.as_ref(), raw_topic).await?.filter(|other| !other.ended) {
            return Err(other.refusal(raw_topic));
        }
        let id = topic_id(raw_topic);
        let writer = fence(log.as_ref(), raw_topic, &id).await?;
        // What members of a group had open when they were killed would hide the record.
        fence_members(log.as_ref(), raw_topic).await?;
        // Only now: whoever takes over writes the record under this id, so that nobody else has since.
        let before = Owner::await_read(log.as_ref(), raw_topic).await?;
        let owner = Owner::here(clock, None).after(before.as_ref());
        let mut publisher = Self::open(log, writer, id, Topics::settling(raw_topic), desk).await?;
        let after_group = owner.leftover;
        publisher.owner = Some(owner);
        publisher.tell_owner().await?;
        if after_group {
            // Members that were alive may have begun anew: from now on they find out.
            fence_members(publisher.log.as_ref(), raw_topic).await?;
        }
        Ok(publisher)
    }

    /// A publisher with the newest writer of an id.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached.
    pub(crate) async fn open(
        log: Arc<dyn Log>,
        writer: Box<dyn Writer>,
        id: String,
        topics: Topics,
        desk: Desk,
    ) -> Result<Self> {
        let (ends, noted_at) = (HashMap::new(), Instant::now());
        let mut publisher = Self { log, writer, id, topics, desk, owner: None, ends, noted_at };
        publisher.note_ends().await?;
        Ok(publisher)
    }

    /// Whether what a group has handed in is to be settled first.
    pub(crate) fn leftover(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.leftover)
    }

    /// What lay in a group's intake has been delivered.
    pub(crate) async fn leftover_is_settled(&mut self) -> Result<()> {
        if let Some(owner) = &mut self.owner {
            owner.leftover = false;
        }
        self.tell_owner().await
    }

    async fn tell_owner(&mut self) -> Result<()> {
        let coverage: Vec<Record> = self.owner.iter().map(Owner::record).collect();
        match coverage.is_empty() {
            true => Ok(()),
            false => self.deliver(Parcel { coverage, ..Parcel::default() }).await,
        }
    }

    /// Publishes until the queue is closed and empty and nothing is left to be entered.
    ///
    /// # Errors
    /// `Fenced` when another process took over; what the log said, when it refuses for good.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Outgoing>) -> Result<()> {
        let mut waiting = Vec::with_capacity(PARCEL_RECORDS_MAX);
        let mut open = true;
        while open {
            open = fill(&mut queue, &self.desk.ledger, &mut waiting).await;
            let mut parcel = self.pack(waiting.drain(..));
            // Only now: the last shares in what relays answered are given up by packing.
            (parcel.coverage, parcel.gaps) = self.desk.ledger.take_unwritten();
            if !parcel.is_empty() {
                self.deliver(parcel).await?;
            }
            if self.noted_at.elapsed() >= NOTE_ENDS_EVERY {
                self.note_ends().await?;
            }
        }
        if let Some(owner) = &mut self.owner {
            owner.ended = true;
        }
        self.tell_owner().await
    }

    /// Gives records their place in a transaction.
    pub(crate) fn pack(&self, outgoing: impl IntoIterator<Item = Outgoing>) -> Parcel {
        let parcel = Parcel::of(outgoing.into_iter());
        parcel.ids.iter().for_each(|id| self.desk.dedup.placed(id));
        parcel
    }

    /// Has the parcel committed, once.
    ///
    /// # Errors
    /// As [`Publisher::run`]; of what is not committed the next copy is new again.
    pub(crate) async fn deliver(&mut self, parcel: Parcel) -> Result<()> {
        let mut parcels = vec![parcel];
        while let Some(mut parcel) = parcels.pop() {
            match self.commit(&parcel).await {
                Ok(()) => self.settle(&parcel),
                // One of its records is one that the log never takes: it is found by halves.
                Err(error) if error.kind() == ErrorKind::Data && !parcel.events.is_empty() => {
                    if parcel.events.len() == 1 {
                        // Its copies are refused no less.
                        parcel.ids.iter().for_each(|id| self.desk.dedup.confirm(id));
                        refuse(&mut parcel, &error);
                        parcels.push(parcel);
                    } else {
                        let rest = parcel.split();
                        parcels.extend([rest, parcel]);
                    }
                }
                Err(error) => {
                    parcels.push(parcel);
                    parcels.iter().flat_map(|parcel| &parcel.ids).for_each(|id| self.desk.dedup.release(id));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn settle(&self, parcel: &Parcel) {
        parcel.ids.iter().for_each(|id| self.desk.dedup.confirm(id));
        let counters = &self.desk.counters;
        let counter = if self.topics.hands_in() { &counters.handed_in } else { &counters.published };
        add(counter, parcel.ids.len() as u64);
        parcel.reasons.iter().for_each(|reason| self.desk.counters.add_rejected(*reason));
    }

    /// Commits a parcel, waiting for a log that is away.
    async fn commit(&mut self, parcel: &Parcel) -> Result<()> {
        let (mut failures, mut end_by) = (0, None);
        let mut outcome = self.transact(parcel).await;
        loop {
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == topic::ErrorKind::Unavailable => error,
                Err(error) if error.kind() == topic::ErrorKind::Fenced => return Err(self.fenced(error).await),
                Err(error) => {
                    let abort = self.writer.abort().await;
                    tracing::debug!(?abort, "a parcel was refused");
                    return Err(Error::of_log(format!("could not write to topic `{}`", self.topics.events), error));
                }
            };
            if self.desk.stop.is_cancelled()
                && Instant::now() >= *end_by.get_or_insert(Instant::now() + self.desk.patience)
            {
                let message =
                    format!("topic `{}` did not take the last {} events", self.topics.events, parcel.ids.len());
                return Err(Error::of_log(message, error));
            }
            failures += 1;
            tracing::warn!(topic = self.topics.events, failures, %error, "could not publish, will try again");
            sleep(BACKOFF.delay(failures, rand::random())).await;
            outcome = self.again(parcel).await;
        }
    }

    /// After an outcome that is not known: ends the transaction for certain, and writes anew only what is not there.
    async fn again(&mut self, parcel: &Parcel) -> topic::Result<()> {
        self.writer = self.log.writer(Some(&self.id)).await?;
        if self.holds(parcel).await? {
            return Ok(());
        }
        self.transact(parcel).await
    }

    async fn transact(&mut self, parcel: &Parcel) -> topic::Result<()> {
        self.writer.begin().await?;
        for (topic, records) in self.topics.records(parcel) {
            if !records.is_empty() {
                self.writer.send(topic, records.clone()).await?;
            }
        }
        if !parcel.offsets.is_empty() {
            let (group, topic) = &self.topics.offsets;
            self.writer.send_offsets(group, topic, &parcel.offsets).await?;
        }
        self.writer.commit().await
    }

    /// Whether a parcel was committed: all of it was or nothing, so that one record tells.
    async fn holds(&mut self, parcel: &Parcel) -> topic::Result<bool> {
        let Some((topic, record)) =
            self.topics.records(parcel).into_iter().find_map(|(topic, records)| Some((topic, records.first()?)))
        else {
            return Ok(true);
        };
        let none = Offsets::new();
        let from = self.ends.get(topic).unwrap_or(&none);
        let mut tail = Tail::since(self.log.as_ref(), topic, from).await?;
        while let Some(records) = tail.next().await? {
            let same = |stored: &StoredRecord| {
                let at = record.timestamp_ms.is_none_or(|at| at == stored.timestamp_ms);
                at && stored.key == record.key && stored.value == record.value && stored.headers == record.headers
            };
            if records.iter().any(same) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything written so far lies before these offsets.
    async fn note_ends(&mut self) -> Result<()> {
        self.noted_at = Instant::now();
        for topic in [&self.topics.events, &self.topics.rejected, &self.topics.coverage, &self.topics.gaps] {
            match self.log.ranges(topic).await {
                Ok(ranges) => {
                    let ends = ranges.iter().map(|range| (range.partition, range.end)).collect();
                    self.ends.insert(topic.clone(), ends);
                }
                // Those that were noted before serve as well.
                Err(error) if error.kind() == topic::ErrorKind::Unavailable && self.ends.contains_key(topic) => {}
                Err(error) => return Err(Error::of_log(format!("could not read the ends of topic `{topic}`"), error)),
            }
        }
        Ok(())
    }

    /// Who took over from this process, which alone ingested: it fences first, and says so a moment later.
    async fn successor(&mut self) -> Option<Owner> {
        let own = self.owner.clone()?;
        let deadline = Instant::now() + SUCCESSOR_WITHIN;
        loop {
            let now = Owner::read(self.log.as_ref(), &self.topics.raw).await.ok().flatten();
            let other = now.filter(|now| *now != own);
            if other.is_some() || Instant::now() >= deadline {
                return other;
            }
            sleep(BACKOFF.first).await;
        }
    }

    /// Says who took over.
    async fn fenced(&mut self, source: topic::Error) -> Error {
        let who = self.successor().await.map_or_else(|| "another process".to_owned(), |owner| owner.who());
        let message = format!("ingest into topic `{}` was taken over by {who}", self.topics.raw);
        Error::new(ErrorKind::Fenced, message).with_source(source)
    }
}

impl Topics {
    /// Of whoever publishes, and settles what was handed in.
    pub(crate) fn settling(raw_topic: &str) -> Self {
        Self {
            raw: raw_topic.to_owned(),
            events: raw_topic.to_owned(),
            rejected: rejected_topic(raw_topic),
            coverage: coverage_topic(raw_topic),
            gaps: gap_topic(raw_topic),
            offsets: (group_id(raw_topic), intake_topic(raw_topic)),
        }
    }

    /// Of a member that hands frames in.
    pub(crate) fn handing_in(raw_topic: &str) -> Self {
        Self { events: intake_topic(raw_topic), ..Self::settling(raw_topic) }
    }

    fn hands_in(&self) -> bool {
        self.events != self.raw
    }

    /// The records of a parcel by topic; what comes first tells whether the parcel is there.
    fn records<'a>(&'a self, parcel: &'a Parcel) -> [(&'a str, &'a Vec<Record>); 4] {
        [
            (&self.events, &parcel.events),
            (&self.rejected, &parcel.rejected),
            (&self.gaps, &parcel.gaps),
            (&self.coverage, &parcel.coverage),
        ]
    }
}

/// The one event of a parcel becomes a rejected record: the log does not take it, and it must not hold the rest up.
fn refuse(parcel: &mut Parcel, error: &Error) {
    let (records, ids) = (std::mem::take(&mut parcel.events), std::mem::take(&mut parcel.ids));
    for (record, id) in records.into_iter().zip(ids) {
        let rejection = Rejection::new(Reason::BrokerRefused, format!("{error:#}")).with_id(Some(id));
        parcel.reasons.push(Reason::BrokerRefused);
        parcel.rejected.push(rejected::of_record(record, rejection));
    }
}

/// Waits for a record or for something to be entered in the ledger, then for a full parcel or the linger time; `false`
/// when the queue is closed and empty.
async fn fill(queue: &mut mpsc::Receiver<Outgoing>, ledger: &Ledger, waiting: &mut Vec<Outgoing>) -> bool {
    tokio::select! {
        taken = queue.recv_many(waiting, PARCEL_RECORDS_MAX) => if taken == 0 { return false },
        () = ledger.changed() => {}
    }
    let deadline = Instant::now() + LINGER;
    while waiting.len() < PARCEL_RECORDS_MAX {
        let room = PARCEL_RECORDS_MAX - waiting.len();
        match timeout_at(deadline, queue.recv_many(waiting, room)).await {
            Ok(0) => return false,
            Err(_) => break,
            Ok(_) => {}
        }
    }
    true
}
