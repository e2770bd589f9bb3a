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

use event::layout::{coverage_topic, gap_topic, intake_topic, rejected_topic, sighting_topic};
use event::{Clock, Reason, Rejection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use topic::{Log, Offsets, Record, StoredRecord, Tail, Writer};

use crate::coverage::Ledger;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counters, add};
use crate::owner::{Owner, fence, fence_members, group_id, topic_id};
use crate::parcel::{Outgoing, Parcel};
use crate::rejected;
use crate::relay::Backoff;
use crate::sighting::Copies;

/// Records of a parcel at most.
pub(crate) const PARCEL_RECORDS_MAX: usize = 5_000;
/// How long the first record of a parcel waits for others: a transaction costs the broker some round trips and the disk
/// an fsync, whatever it holds.
const LINGER: Duration = Duration::from_millis(50);
/// How often the ends of the topics are noted, from which on a parcel in doubt is looked for, and up to which the index
/// of known ids holds what the topic does.
const NOTE_ENDS_EVERY: Duration = Duration::from_secs(10);
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
    /// None where sightings are not wanted.
    sightings: Option<String>,
    /// Group and topic of what is settled.
    offsets: (String, String),
}

/// What a publisher needs beside the log.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Arc<Counters>,
    /// Fires when no more will come.
    pub(crate) stop: CancellationToken,
    /// Copies to be noted, where sightings are wanted.
    pub(crate) copies: Copies,
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
    /// The record has said so since this process began.
    is_named: bool,
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
        let sightings = desk.copies.are_wanted().then(|| sighting_topic(raw_topic));
        let topics = Topics { sightings, ..Topics::settling(raw_topic) };
        let mut publisher = Self::open(log, writer, id, topics, desk).await?;
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
        let mut publisher = Self { log, writer, id, topics, desk, owner: None, is_named: false, ends, noted_at };
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
            false => {
                self.deliver(Parcel { coverage, ..Parcel::default() }).await?;
                self.is_named = true;
                Ok(())
            }
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
            open = fill(&mut queue, &self.desk.ledger, &mut self.desk.copies, &mut waiting).await;
            self.publish(waiting.drain(..)).await?;
            if self.noted_at.elapsed() >= NOTE_ENDS_EVERY {
                self.note_ends().await?;
            }
        }
        while self.desk.copies.take_rest().await {
            self.publish([]).await?;
        }
        if let Some(owner) = &mut self.owner {
            owner.ended = true;
        }
        self.tell_owner().await
    }

    /// Publishes records, with what may go with them: sightings, and what is proven.
    async fn publish(&mut self, outgoing: impl IntoIterator<Item = Outgoing>) -> Result<()> {
        let mut parcel = self.pack(outgoing);
        self.desk.copies.pack(&mut parcel, &self.desk.dedup);
        // Only now: the last shares in what relays answered are given up by packing.
        (parcel.coverage, parcel.gaps) = self.desk.ledger.take_unwritten();
        self.desk.copies.mark(&mut parcel, self.owner.as_ref().map_or("", Owner::since));
        match parcel.is_empty() {
            true => Ok(()),
            false => self.deliver(parcel).await,
        }
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
        self.desk.dedup.sound()?;
        let mut parcels = vec![parcel];
        while let Some(mut parcel) = parcels.pop() {
            match self.commit(&parcel).await {
                Ok(()) => self.settle(&parcel).await?,
                // One of its records is one that the log never takes: it is found by halves.
                Err(error) if error.kind() == ErrorKind::Data && !parcel.events.is_empty() => {
                    if parcel.events.len() == 1 {
                        // Its copies are refused no less.
                        parcel.ids.iter().for_each(|id| self.desk.dedup.confirm(id));
                        parcel.ids.iter().for_each(|id| self.desk.copies.refuse(id));
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

    async fn settle(&mut self, parcel: &Parcel) -> Result<()> {
        // Noted before this parcel was committed, and the writer was never fenced: nobody else's record lies before them.
        let ends = self.ends.get(&self.topics.raw).map_or(&[][..], Vec::as_slice);
        self.desk.dedup.confirm_all(&parcel.ids, ends).await?;
        let counters = &self.desk.counters;
        let counter = if self.topics.hands_in() { &counters.handed_in } else { &counters.published };
        add(counter, parcel.ids.len() as u64);
        add(&counters.sightings, parcel.sightings.len() as u64);
        parcel.reasons.iter().for_each(|reason| self.desk.counters.add_rejected(*reason));
        Ok(())
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
        // A new writer would take the topic back from whoever took it over while the log did not answer us.
        self.nobody_else().await?;
        self.writer = self.log.writer(Some(&self.id)).await?;
        // Who came between the two is fenced now, and both end: what it has written is not known here.
        self.nobody_else().await?;
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
            self.topics.records(parcel).find_map(|(topic, records)| Some((topic, records.first()?)))
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
        let Topics { events, rejected, coverage, gaps, sightings, .. } = &self.topics;
        for topic in [events, rejected, coverage, gaps].into_iter().chain(sightings) {
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
            let other = now.filter(|now| !now.is_same(&own));
            if other.is_some() || Instant::now() >= deadline {
                return other;
            }
            sleep(BACKOFF.first).await;
        }
    }

    /// Demands that the record still names this process, once it has.
    async fn nobody_else(&mut self) -> topic::Result<()> {
        let Some(own) = self.owner.as_ref().filter(|_| self.is_named) else { return Ok(()) };
        let record = Owner::read(self.log.as_ref(), &self.topics.raw).await;
        let now = record.map_err(|error| topic::Error::new(topic::ErrorKind::Unavailable, error.to_string()))?;
        match now.is_some_and(|now| !now.is_same(own)) {
            true => Err(topic::Error::new(topic::ErrorKind::Fenced, "another process has taken the topic over")),
            false => Ok(()),
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
            sightings: None,
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
    fn records<'a>(&'a self, parcel: &'a Parcel) -> impl Iterator<Item = (&'a str, &'a Vec<Record>)> {
        let always = [
            (self.events.as_str(), &parcel.events),
            (&self.rejected, &parcel.rejected),
            (&self.gaps, &parcel.gaps),
            (&self.coverage, &parcel.coverage),
        ];
        always.into_iter().chain(self.sightings.as_deref().map(|topic| (topic, &parcel.sightings)))
    }
}

/// The one event of a parcel becomes a rejected record: the log does not take it, and it must not hold the rest up.
fn refuse(parcel: &mut Parcel, error: &Error) {
    let (records, ids) = (std::mem::take(&mut parcel.events), std::mem::take(&mut parcel.ids));
    parcel.sightings.retain(|sighting| records.iter().all(|event| event.key != sighting.key));
    for (record, id) in records.into_iter().zip(ids) {
        let rejection = Rejection::new(Reason::BrokerRefused, format!("{error:#}")).with_id(Some(id));
        parcel.reasons.push(Reason::BrokerRefused);
        parcel.rejected.push(rejected::of_record(record, rejection));
    }
}

/// Waits for a record, for a copy or for something to be entered in the ledger, then for a full parcel or the linger time; `false`
/// when the queue is closed and empty.
async fn fill(
    queue: &mut mpsc::Receiver<Outgoing>,
    ledger: &Ledger,
    copies: &mut Copies,
    waiting: &mut Vec<Outgoing>,
) -> bool {
    tokio::select! {
        taken = queue.recv_many(waiting, PARCEL_RECORDS_MAX) => if taken == 0 { return false },
        () = copies.arrive() => {}
        () = ledger.changed() => {}
    }
    let deadline = Instant::now() + LINGER;
    while waiting.len() < PARCEL_RECORDS_MAX && copies.has_room() {
        let room = PARCEL_RECORDS_MAX - waiting.len();
        tokio::select! {
            taken = queue.recv_many(waiting, room) => if taken == 0 { return false },
            () = copies.arrive() => {}
            () = sleep_until(deadline) => break,
        }
    }
    true
}
