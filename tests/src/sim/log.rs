//! The model behind the traits of `topic`: every call is a step of its run, and may be befallen by a fault.
//!
//! A writer's own state (no transaction, one open, one in doubt) is kept here, as Kafka's client keeps it; what the
//! cluster knows is in `broker`.

use std::time::Duration;

use async_trait::async_trait;
use event::Clock;
use tokio::time::Instant;
use topic::{
    Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Record, Result, StoredRecord, TopicInfo, TopicSpec, Writer,
    partition_for_key,
};

use super::broker::{Broker, Rules};
use super::fault::{Hand, Op, Shared};
use super::input::Feed;

/// Largest record, key, value and headers together.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a reader that waits looks.
const LOOK: Duration = Duration::from_millis(2);

/// How a read passes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It waits as it was told to.
    Waits,
    /// It never waits.
    Never,
    /// It takes so long, whatever is there.
    Takes(Duration),
}

/// The cluster, and what is still to come in; shared by all runs of a seed.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) broker: Broker,
    pub(super) feed: Feed,
}

/// The simulated log, as one run sees it.
#[derive(Clone, Debug)]
pub struct SimLog {
    pub(super) cluster: Shared<Cluster>,
    pub(super) hand: Hand,
    pub(super) pace: Pace,
    pub(super) clock: Clock,
}

impl SimLog {
    /// A log of its own, in which nothing goes wrong and time is real.
    #[must_use]
    pub fn flawless(rules: Rules) -> Self {
        let cluster = Cluster { broker: Broker::new(rules), feed: Feed::default() };
        Self { cluster: Shared::new(cluster), hand: Hand::clean(), pace: Pace::Waits, clock: Clock::system() }
    }

    async fn step<T>(&self, op: Op, effect: impl FnOnce(&mut Broker) -> Result<T>) -> Result<T> {
        let done = self.hand.step(
            op,
            || unavailable(op),
            || {
                let broker = &mut self.cluster.lock().broker;
                broker.tick();
                effect(broker)
            },
        );
        let done = done.await;
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            self.hand.note_fenced();
        }
        done
    }
}

fn unavailable(op: Op) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the simulated log did not answer to {op:?}"))
}

fn internal(message: &str) -> Error {
    Error::new(ErrorKind::Internal, message)
}

#[async_trait]
impl Log for SimLog {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.step(Op::CreateTopic, |broker| broker.create_topic(spec)).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.step(Op::Topics, |broker| Ok(broker.topics())).await
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        self.step(Op::Ranges, |broker| broker.ranges(topic)).await
    }

    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        self.step(Op::OffsetsAt, |broker| broker.offsets_at(topic, timestamp_ms)).await
    }

    async fn reader(&self, topic: &str, mut from: Offsets) -> Result<Box<dyn Reader>> {
        from.sort_unstable();
        self.step(Op::OpenReader, |broker| {
            broker.partitions(topic)?;
            from.iter().try_for_each(|(partition, offset)| broker.check_offset(topic, *partition, *offset))
        })
        .await?;
        Ok(Box::new(SimReader { log: self.clone(), topic: topic.to_owned(), positions: from, first: 0 }))
    }

    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        let run = self.hand.run();
        let opened = self.step(Op::OpenWriter, |broker| {
            broker.newest_run = Some(run);
            Ok(transactional_id.map(|id| broker.open_producer(id)))
        });
        let epoch = opened.await?;
        let producer = transactional_id.map(str::to_owned).zip(epoch);
        Ok(Box::new(SimWriter { log: self.clone(), producer, transaction: Transaction::None, turn: 0 }))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        self.step(Op::Committed, |broker| {
            // Who asks for stable offsets waits for those that are decided.
            broker.settle();
            broker.committed(group, topic)
        })
        .await
    }

    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        self.step(Op::LastByKey, |broker| broker.last_by_key(topic, key)).await
    }
}

struct SimReader {
    log: SimLog,
    topic: String,
    positions: Offsets,
    /// Index into `positions` of the partition that goes first.
    first: usize,
}

impl SimReader {
    /// What is there now; moves the positions.
    fn take(&mut self, broker: &mut Broker, most: usize) -> Result<Vec<StoredRecord>> {
        let mut records = Vec::new();
        let count = self.positions.len();
        for turn in 0..count {
            let (partition, position) = &mut self.positions[(self.first + turn) % count];
            let (more, next) = broker.read(&self.topic, *partition, *position, most - records.len())?;
            records.extend(more);
            *position = next;
        }
        self.first = (self.first + 1) % count.max(1);
        Ok(records)
    }
}

#[async_trait]
impl Reader for SimReader {
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>> {
        if let Pace::Takes(time) = self.log.pace {
            tokio::time::sleep(time).await;
        }
        let deadline = Instant::now() + max_wait;
        let log = self.log.clone();
        loop {
            let before = self.positions.clone();
            let read = log.hand.step(
                Op::Read,
                || unavailable(Op::Read),
                || {
                    let cluster = &mut *log.cluster.lock();
                    cluster.feed.flow(&mut cluster.broker);
                    cluster.broker.tick();
                    self.take(&mut cluster.broker, max_records)
                },
            );
            let read = read.await?;
            let over = log.pace != Pace::Waits || Instant::now() >= deadline;
            if over || !read.is_empty() || before != self.positions {
                return Ok(read);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn positions(&self) -> Offsets {
        self.positions.clone()
    }
}

/// A writer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    /// None is open.
    None,
    /// One is open.
    Open(u64),
    /// A commit was begun and its outcome is not known.
    InDoubt,
}

struct SimWriter {
    log: SimLog,
    /// Transactional id and epoch.
    producer: Option<(String, u64)>,
    transaction: Transaction,
    turn: u32,
}

impl SimWriter {
    /// The number of the open transaction.
    fn open(&self, tried: &str) -> Result<u64> {
        match self.transaction {
            Transaction::Open(number) => Ok(number),
            Transaction::None => Err(internal(&format!("could not {tried} outside a transaction"))),
            Transaction::InDoubt => {
                let message = format!("could not {tried}: the outcome of the last commit is not known");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Whether calls before a commit still count; a fenced writer is told, unless the rules have it told later.
    fn counts(producer: Option<&(String, u64)>, broker: &Broker) -> Result<bool> {
        let Some((id, epoch)) = producer else { return Ok(true) };
        match broker.check_epoch(id, *epoch) {
            Ok(()) => Ok(true),
            Err(_) if broker.rules.late_fencing => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn partition_of(&mut self, record: &Record, partitions: i32) -> i32 {
        match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => {
                self.turn = self.turn.wrapping_add(1);
                i32::try_from(self.turn % partitions.unsigned_abs()).expect("less than an i32")
            }
        }
    }

    fn stored(&mut self, topic: &str, record: Record, partitions: i32) -> Result<StoredRecord> {
        let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        let bytes = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
        let size = headers + bytes(&record.key) + bytes(&record.value);
        if size > RECORD_BYTES_MAX || record.timestamp_ms.is_some_and(|time| time < 1) {
            let time = record.timestamp_ms;
            let message = format!("record of {size} bytes and time {time:?} cannot be in topic `{topic}`");
            return Err(Error::new(ErrorKind::Data, message));
        }
        Ok(StoredRecord {
            partition: self.partition_of(&record, partitions),
            offset: 0,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(|| self.log.clock.now_ms()),
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }
}

#[async_trait]
impl Writer for SimWriter {
    async fn begin(&mut self) -> Result<()> {
        let Some((id, _)) = &self.producer else {
            return Err(internal("could not begin a transaction: the writer has no transactional id"));
        };
        match self.transaction {
            Transaction::Open(_) => return Err(internal("could not begin a transaction: one is open")),
            Transaction::InDoubt => return self.open("begin a transaction").map(|_| ()),
            Transaction::None => {}
        }
        let producer = self.producer.as_ref();
        let begun = self
            .log
            .step(Op::Begin, |broker| Ok(if Self::counts(producer, broker)? { broker.begin(Some(id)) } else { 0 }));
        self.transaction = Transaction::Open(begun.await?);
        Ok(())
    }

    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        let transaction = if self.producer.is_some() { Some(self.open("send records")?) } else { None };
        let partitions = self.log.cluster.lock().broker.partitions(topic)?;
        let records: Result<Vec<_>> =
            records.into_iter().map(|record| self.stored(topic, record, partitions)).collect();
        let (records, producer) = (records?, self.producer.as_ref());
        let sent = self.log.step(Op::Send, |broker| {
            if Self::counts(producer, broker)? {
                for record in records {
                    broker.append(topic, record, transaction)?;
                }
            }
            Ok(())
        });
        sent.await
    }

    async fn flush(&mut self) -> Result<()> {
        let producer = self.producer.as_ref();
        self.log.step(Op::Flush, |broker| Self::counts(producer, broker).map(|_| ())).await
    }

    async fn send_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let transaction = self.open("send offsets")?;
        let producer = self.producer.as_ref();
        let sent = self.log.step(Op::SendOffsets, |broker| {
            broker.partitions(topic)?;
            if Self::counts(producer, broker)? {
                broker.add_offsets(transaction, group, topic, offsets);
            }
            Ok(())
        });
        sent.await
    }

    async fn commit(&mut self) -> Result<()> {
        let transaction = self.open("commit")?;
        self.transaction = Transaction::InDoubt;
        let producer = self.producer.as_ref();
        let done = self.log.step(Op::Commit, |broker| {
            producer.map_or(Ok(()), |(id, epoch)| broker.check_epoch(id, *epoch))?;
            broker.end_transaction(transaction, true);
            Ok(())
        });
        let done = done.await;
        self.transaction = match &done {
            Ok(()) => Transaction::None,
            Err(error) if error.kind() == ErrorKind::Unavailable => Transaction::InDoubt,
            Err(_) => Transaction::Open(transaction),
        };
        done
    }

    async fn abort(&mut self) -> Result<()> {
        let transaction = self.open("abort")?;
        self.transaction = Transaction::None;
        let producer = self.producer.as_ref();
        let done = self.log.step(Op::Abort, |broker| {
            producer.map_or(Ok(()), |(id, epoch)| broker.check_epoch(id, *epoch))?;
            broker.end_transaction(transaction, false);
            Ok(())
        });
        done.await
    }
}
