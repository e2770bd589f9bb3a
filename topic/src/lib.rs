//! The partitioned log as both halves of the house see it: topics, partitions, offsets, transactions.
//!
//! Two implementations stand behind one small interface: [`KafkaLog`] (a Kafka cluster through librdkafka) and
//! [`EmbeddedLog`] (one machine, no server, on fjall). One contract suite holds both to the same words.
//!
//! *Offset* is Kafka's committed-offset sense everywhere: the next record to read. Offsets need not be dense: a
//! transaction that was aborted, or its marker, takes some. Readers see committed records only (`read_committed`).

mod embedded;
mod error;
mod group;
mod kafka;
mod name;
mod partitioner;
mod tail;
mod transaction;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use embedded::EmbeddedLog;
pub use error::{Error, ErrorKind, Result};
pub use group::{Change, GroupSpec, Membership, Turn};
pub use kafka::{KafkaLog, KafkaSettings};
pub use partitioner::partition_for_key;
pub use tail::{Tail, reached};

/// A name and bytes beside a record's value; names may repeat, order is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name, UTF-8.
    pub name: String,
    /// Value, any bytes.
    pub value: Bytes,
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition where `partition` is none (murmur2, as Kafka's Java client does); without a key,
    /// partitions take turns.
    pub key: Option<Bytes>,
    /// Payload; none is a tombstone.
    pub value: Option<Bytes>,
    /// In the order they are to be kept.
    pub headers: Vec<Header>,
    /// Record time (CreateTime), milliseconds since 1970, at least 1; none lets the log put its own now. A Kafka topic
    /// takes no time more than an hour ahead, unless its `message.timestamp.after.max.ms` says so.
    pub timestamp_ms: Option<i64>,
    /// A fixed partition instead of the key's.
    pub partition: Option<i32>,
}

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Partition it lies in.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Record time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key, as written.
    pub key: Option<Bytes>,
    /// Payload, as written.
    pub value: Option<Bytes>,
    /// Headers, as written, in order.
    pub headers: Vec<Header>,
}

impl StoredRecord {
    /// Value of the first header called `name`, if it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.name == name)?;
        std::str::from_utf8(&header.value).ok()
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Name: letters, digits, `.`, `_`, `-`, at most 249 (Kafka's rule, held on both).
    pub name: String,
    /// Number of partitions, at least one.
    pub partitions: i32,
    /// Topic settings in Kafka's names (`cleanup.policy`, `retention.ms`, `max.message.bytes`); the embedded log
    /// keeps everything and ignores them.
    pub config: Vec<(String, String)>,
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
}

/// What a partition holds: `[start, end)`. `end` is the offset after the last committed record (last stable offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// Partition.
    pub partition: i32,
    /// First offset still there.
    pub start: i64,
    /// Next offset to be written, or the last stable offset where a transaction is open.
    pub end: i64,
}

/// Partition and next offset.
pub type Offsets = Vec<(i32, i64)>;

/// A partitioned log.
#[async_trait]
pub trait Log: Send + Sync + Debug {
    /// Creates a topic unless it exists; `true` when it was created. One that exists is left as it is.
    ///
    /// # Errors
    /// `Config` when the name or partition count cannot be, `Unavailable` when the log cannot be reached.
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool>;

    /// All topics by name, those whose name starts with `__` left out.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached.
    async fn topics(&self) -> Result<Vec<TopicInfo>>;

    /// The range of every partition of `topic`, by partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>>;

    /// As [`Log::ranges`], but each end lies after all that was written by now, in transactions that are still open as
    /// well: a reader that has come there has seen all that can have been committed by now.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    async fn written(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        self.ranges(topic).await
    }

    /// For every partition, by partition, the offset of the first record whose time is at or after `timestamp_ms`,
    /// or the end where there is none.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets>;

    /// Opens a reader of the partitions named in `from`, each at its offset.
    ///
    /// # Errors
    /// `NotFound` when topic or partition do not exist; `Data` when an offset lies outside the partition's range
    /// (never a silent reset).
    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>>;

    /// Opens a writer. With a transactional id it fences every older writer of that id and aborts what that one had
    /// open; without, each record is durable once [`Writer::flush`] returns.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached.
    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>>;

    /// Offsets committed by [`Writer::send_offsets`] for `group`, for those partitions that have one.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets>;

    /// The last committed record with `key`, searched in the key's partition; none when there is none or it is a
    /// tombstone.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>>;

    /// Joins a group. Offsets that a writer of this log sends for the group from then on count only while this process
    /// is a member of it.
    ///
    /// # Errors
    /// `Config` when the log belongs to one process, or the group cannot be; `NotFound` when there is no such topic.
    async fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>> {
        let message = format!("group `{}` cannot be joined: this log belongs to one process, use Kafka", spec.group);
        Err(Error::new(ErrorKind::Config, message))
    }
}

/// Reads partitions of one topic in offset order each; the order between partitions is open.
#[async_trait]
pub trait Reader: Send {
    /// Up to `max_records` records; waits up to `max_wait` for the first one, and returns what is there then. Empty
    /// when nothing came, or when only positions moved. Cancelling loses no record.
    ///
    /// # Errors
    /// `Data` when the offset to read has been deleted, `Unavailable` when the log cannot be reached for long.
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>>;

    /// Next offset of every partition read, by partition: past all records returned, and past aborted ones and
    /// markers that lie before the next record as far as they are known.
    fn positions(&self) -> Offsets;
}

/// Writes records, within transactions or each on its own.
#[async_trait]
pub trait Writer: Send {
    /// Begins a transaction.
    ///
    /// # Errors
    /// `Internal` without a transactional id, `Fenced` when a newer writer took over.
    async fn begin(&mut self) -> Result<()>;

    /// Queues records in order, waiting while the queue is full.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic, `Data` when a record is larger than the log takes, `Fenced`.
    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()>;

    /// Waits until every record sent so far is acknowledged by the log (without a transactional id: is durable).
    ///
    /// # Errors
    /// The first failure of a record sent since the last flush.
    async fn flush(&mut self) -> Result<()>;

    /// Adds offsets of `group` to the open transaction; where this process has joined the group, as its member.
    ///
    /// # Errors
    /// `Internal` outside a transaction, `Fenced`; `Unavailable` when the member is not up to date with its group.
    async fn send_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()>;

    /// Commits: all records and offsets of the transaction become visible together, durably, or none does. On Kafka
    /// they are seen a few milliseconds after this returned.
    ///
    /// # Errors
    /// `Fenced` when a newer writer took over; `Unavailable` when the outcome is not known (open a new writer of the
    /// same id and read back what it finds); the first failure of a record otherwise, and then it can be aborted.
    async fn commit(&mut self) -> Result<()>;

    /// Aborts the open transaction.
    ///
    /// # Errors
    /// `Fenced`, `Unavailable`.
    async fn abort(&mut self) -> Result<()>;
}
