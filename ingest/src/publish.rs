//! The way out: records to the raw topic and those beside it, a parcel a transaction; an id counts as known once its
//! transaction is committed.
//!
//! One task owns the writer, and the writer's transactional id is the raw topic's: a second process that ingests into
//! the same topic takes over, and this one ends and says who did. What a relay's answers prove is written in the
//! transaction that holds the last event of theirs.
//!
//! A log that is away is waited for. Whether it took the parcel that it did not answer for is decided by a new writer
//! of the same id, which ends what the old one had open, and by reading the topic's end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event::layout::{coverage_topic, gap_topic, rejected_topic, sighting_topic};
use event::{Clock, Reason, Rejection};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use topic::{Log, Offsets, Record, StoredRecord, Writer};

use crate::coverage::Ledger;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counters, add};
use crate::parcel::{Outgoing, Parcel};
use crate::rejected;
use crate::relay::Backoff;
use crate::sighting::Copies;
use crate::tail::Tail;

/// Records of a parcel at most.
const PARCEL_RECORDS_MAX: usize = 5_000;
/// How long the first record of a parcel waits for others: a transaction costs the broker some round trips and the disk
/// an fsync, whatever it holds.
const LINGER: Duration = Duration::from_millis(50);
/// Key, in the coverage topic, of the record that says who ingests.
const OWNER_KEY: &str = "owner";
/// How often the ends of the topics are noted, from which on a parcel in doubt is looked for, and up to which the index
/// of known ids holds what the topic does.
const NOTE_ENDS_EVERY: Duration = Duration::from_secs(10);
/// How long a log that is away is waited for once we are told to end.
const PATIENCE_AT_END: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

/// Who ingests into a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// Host and process, for people.
    place: String,
    /// When it began, RFC 3339.
    since: String,
    /// It has ended in good order, and the topic is free.
    #[serde(default)]
    ended: bool,
}

/// The topics of a raw topic.
#[derive(Clone, Debug)]
struct Topics {
    raw: String,
    rejected: String,
    coverage: String,
    gaps: String,
    /// None where sightings are not wanted.
    sightings: Option<String>,
}

/// What a publisher needs beside the log.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    /// Fires when no more will come.
    pub(crate) stop: CancellationToken,
    /// Copies to be noted, where sightings are wanted.
    pub(crate) copies: Copies,
}

/// Owner of the log's writer.
pub(crate) struct Publisher {
    log: Arc<dyn Log>,
    writer: Box<dyn Writer>,
    topics: Topics,
    desk: Desk,
    owner: Owner,
    /// Offsets from which on what this run wrote last is to be found, by topic.
    ends: HashMap<String, Offsets>,
    noted_at: Instant,
}

impl Publisher {
    /// Takes the raw topic over: whoever published to it before cannot any more; with `if_free` only where nobody does.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached, `Fenced` when the topic is not free.
    pub(crate) async fn open(log: Arc<dyn Log>, raw_topic: &str, desk: Desk, if_free: bool) -> Result<Self> {
        let topics = Topics {
            raw: raw_topic.to_owned(),
            rejected: rejected_topic(raw_topic),
            coverage: coverage_topic(raw_topic),
            gaps: gap_topic(raw_topic),
            sightings: desk.copies.are_wanted().then(|| sighting_topic(raw_topic)),
        };
        let since = event::EventTime::from_millis(desk.clock.now_ms()).map(|now| now.to_string()).unwrap_or_default();
        if let Some(other) = owner(log.as_ref(), &topics.coverage).await.filter(|other| if_free && !other.ended) {
            let message = format!(
                "{} ingests into topic `{raw_topic}` since {}, or did and was cut off: end it first, or take over from it with --take-over",
                other.place, other.since
            );
            return Err(Error::new(ErrorKind::Fenced, message));
        }
        let writer = writer(log.as_ref(), raw_topic).await?;
        let owner = Owner { place: event::place(), since, ended: false };
        let (ends, noted_at) = (HashMap::new(), Instant::now());
        let mut publisher = Self { log, writer, topics, desk, owner, ends, noted_at };
        publisher.note_ends().await?;
        publisher.tell_owner().await?;
        Ok(publisher)
    }

    async fn tell_owner(&mut self) -> Result<()> {
        let value = serde_json::to_vec(&self.owner).expect("text always has a JSON form");
        let owner = Record { key: Some(OWNER_KEY.into()), value: Some(value.into()), ..Record::default() };
        self.deliver(Parcel { coverage: vec![owner], ..Parcel::default() }).await
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
            let mut parcel = Parcel::of(waiting.drain(..));
            parcel.ids.iter().for_each(|id| self.desk.dedup.placed(id));
            self.desk.copies.pack(&mut parcel, &self.desk.dedup);
            // Only now: the last shares in what relays answered are given up by packing.
            (parcel.coverage, parcel.gaps) = self.desk.ledger.take_unwritten();
            self.desk.copies.mark(&mut parcel, &self.owner.since);
            if !parcel.is_empty() {
                self.deliver(parcel).await?;
            }
            if self.noted_at.elapsed() >= NOTE_ENDS_EVERY {
                self.note_ends().await?;
            }
        }
        while self.desk.copies.take_rest().await {
            let mut parcel = Parcel::default();
            self.desk.copies.pack(&mut parcel, &self.desk.dedup);
            (parcel.coverage, parcel.gaps) = self.desk.ledger.take_unwritten();
            self.desk.copies.mark(&mut parcel, &self.owner.since);
            self.deliver(parcel).await?;
        }
        self.owner.ended = true;
        self.tell_owner().await
    }

    /// Has the parcel committed, once.
    async fn deliver(&mut self, parcel: Parcel) -> Result<()> {
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
                    parcel.ids.iter().for_each(|id| self.desk.dedup.release(id));
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
        add(&self.desk.counters.published, parcel.ids.len() as u64);
        add(&self.desk.counters.sightings, parcel.sightings.len() as u64);
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
                    return Err(Error::of_log(format!("could not write to topic `{}`", self.topics.raw), error));
                }
            };
            if self.desk.stop.is_cancelled()
                && Instant::now() >= *end_by.get_or_insert(Instant::now() + PATIENCE_AT_END)
            {
                let message = format!("topic `{}` did not take the last {} events", self.topics.raw, parcel.ids.len());
                return Err(Error::of_log(message, error));
            }
            failures += 1;
            tracing::warn!(topic = self.topics.raw, failures, %error, "could not publish, will try again");
            sleep(BACKOFF.delay(failures, rand::random())).await;
            outcome = self.again(parcel).await;
        }
    }

    /// After an outcome that is not known: ends the transaction for certain, and writes anew only what is not there.
    async fn again(&mut self, parcel: &Parcel) -> topic::Result<()> {
        self.writer = self.log.writer(Some(&transactional_id(&self.topics.raw))).await?;
        if self.holds(parcel).await? {
            return Ok(());
        }
        self.transact(parcel).await
    }

    async fn transact(&mut self, parcel: &Parcel) -> topic::Result<()> {
        self.writer.begin().await?;
        for (topic, records) in self.topics.of(parcel) {
            if !records.is_empty() {
                self.writer.send(topic, records.clone()).await?;
            }
        }
        self.writer.commit().await
    }

    /// Whether a parcel was committed: all of it was or nothing, so that one record tells.
    async fn holds(&mut self, parcel: &Parcel) -> topic::Result<bool> {
        let Some((topic, record)) = self.topics.of(parcel).find_map(|(topic, records)| Some((topic, records.first()?)))
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
        let Topics { raw, rejected, coverage, gaps, sightings } = &self.topics;
        for topic in [raw, rejected, coverage, gaps].into_iter().chain(sightings) {
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

    /// Says who took over.
    async fn fenced(&mut self, source: topic::Error) -> Error {
        let who = match owner(self.log.as_ref(), &self.topics.coverage).await.filter(|owner| *owner != self.owner) {
            Some(owner) => format!("{}, which began at {}", owner.place, owner.since),
            None => "another process".to_owned(),
        };
        let message = format!("ingest into topic `{}` was taken over by {who}", self.topics.raw);
        Error::new(ErrorKind::Fenced, message).with_source(source)
    }
}

impl Topics {
    /// The records of a parcel by topic; what comes first tells whether the parcel is there.
    fn of<'a>(&'a self, parcel: &'a Parcel) -> impl Iterator<Item = (&'a str, &'a Vec<Record>)> {
        let always = [
            (self.raw.as_str(), &parcel.events),
            (&self.rejected, &parcel.rejected),
            (&self.gaps, &parcel.gaps),
            (&self.coverage, &parcel.coverage),
        ];
        always.into_iter().chain(self.sightings.as_deref().map(|topic| (topic, &parcel.sightings)))
    }
}

/// One for each raw topic, so that it has one owner.
fn transactional_id(raw_topic: &str) -> String {
    format!("tidegate.ingest.{raw_topic}")
}

/// Who ingests, or did last, as far as that can be read.
async fn owner(log: &dyn Log, coverage_topic: &str) -> Option<Owner> {
    let record = log.last_by_key(coverage_topic, OWNER_KEY.as_bytes()).await.ok().flatten()?;
    serde_json::from_slice(record.value.as_deref()?).ok()
}

async fn writer(log: &dyn Log, raw_topic: &str) -> Result<Box<dyn Writer>> {
    let opened = log.writer(Some(&transactional_id(raw_topic))).await;
    opened.map_err(|source| Error::of_log(format!("could not open a writer for topic `{raw_topic}`"), source))
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
