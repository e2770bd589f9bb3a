//! The log on a Kafka cluster, through librdkafka.
//!
//! Readers are consumers without a group, with partitions and offsets assigned by hand, `read_committed`; writers are
//! idempotent producers with `acks=all`. Partitions are chosen here (murmur2), not by librdkafka, so that both logs
//! agree. librdkafka's blocking calls run on blocking threads. Two promises are Kafka's own: what a commit wrote
//! becomes visible a few milliseconds after it returned (the markers follow), and a topic holds records of at most its
//! `max.message.bytes`.

mod client;
mod group;
mod reader;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use self::client::{KafkaContext, error_of, joined};
use self::group::{KafkaMembership, Member};
use self::reader::{KafkaReader, Poller};
use self::writer::KafkaWriter;
use crate::name::{check_spec, no_partition, no_topic, out_of_range};
use crate::partitioner::partition_for_key;
use crate::{
    Error, ErrorKind, GroupSpec, Log, Membership, OffsetRange, Offsets, Reader, Result, StoredRecord, TopicInfo,
    TopicSpec, Writer,
};

/// How often a cluster is asked again for what it does not have yet.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Where the cluster is and how to speak with it.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Name that brokers see in their logs and quotas. Default `tidegate`.
    pub client_id: String,
    /// Of what is written: `lz4` (the default: cheapest for the processor), `zstd` (smallest) or `none`.
    pub compression: String,
    /// Further settings in librdkafka's names; those on which exactly-once rests cannot be overridden.
    pub options: Vec<(String, String)>,
    /// How long a call may take before the cluster counts as not reachable. Default 30 s.
    pub timeout: Duration,
    /// Records that a reader fetches ahead, in KiB. Default 32,768.
    pub queue_kib: usize,
}

impl KafkaSettings {
    /// The defaults, for the cluster at `brokers`.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "tidegate".to_owned(),
            compression: "lz4".to_owned(),
            options: Vec::new(),
            timeout: Duration::from_secs(30),
            queue_kib: 32 * 1024,
        }
    }
}

/// A log on a Kafka cluster. Cheap to clone; clones share one connection for questions, while every reader and writer
/// has its own.
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    settings: KafkaSettings,
    /// Answers questions about topics and offsets; reads no records.
    asker: BaseConsumer<KafkaContext>,
    /// Groups that this process has joined, left ones as well.
    members: Mutex<HashMap<String, Weak<Member>>>,
}

impl KafkaLog {
    /// Prepares to speak with the cluster; whether it can be reached shows at the first call.
    ///
    /// # Errors
    /// `Config` when a setting is not one of librdkafka's or has no value that it takes.
    pub fn connect(settings: KafkaSettings) -> Result<Self> {
        let asker = client::consumer(&settings, "tidegate")?;
        Ok(Self { shared: Arc::new(Shared { settings, asker, members: Mutex::default() }) })
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        joined(spawn_blocking(move || work(&shared)).await)
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("brokers", &self.shared.settings.brokers).finish_non_exhaustive()
    }
}

/// Questions that block.
impl Shared {
    fn error(&self, tried: &str, error: KafkaError) -> Error {
        error_of(&format!("could not {tried} on Kafka at `{}`", self.settings.brokers), error)
    }

    /// Asks until there is an answer other than "not yet", or time is up: the cluster is then as good as away, whatever
    /// the answer's own name.
    fn ask<T>(&self, tried: &str, mut question: impl FnMut() -> std::result::Result<T, KafkaError>) -> Result<T> {
        let deadline = Instant::now() + self.settings.timeout;
        loop {
            match question() {
                Ok(answer) => return Ok(answer),
                Err(error) if !client::not_yet(&error) => return Err(self.error(tried, error)),
                Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(self.error(tried, error).of_kind(ErrorKind::Unavailable)),
            }
        }
    }

    /// Number of partitions of a topic that exists.
    fn partitions(&self, topic: &str) -> Result<i32> {
        let tried = format!("look up topic `{topic}`");
        let known = self.ask(&tried, || {
            let metadata = self.asker.fetch_metadata(Some(topic), self.settings.timeout)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let Some(found) = found else { return Ok(None) };
            match found.error().map(RDKafkaErrorCode::from) {
                None => Ok(i32::try_from(found.partitions().len()).ok()),
                // A name that cannot be is not there either.
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::InvalidTopic,
                ) => Ok(None),
                Some(code) => Err(KafkaError::MetadataFetch(code)),
            }
        });
        known?.filter(|partitions| *partitions > 0).ok_or_else(|| no_topic(topic))
    }

    /// For every partition the offset that `question` asks for: the start, the end, or a time's.
    fn offsets(&self, topic: &str, partitions: i32, question: Offset) -> Result<Vec<Offset>> {
        let answer = self.ask(&format!("list offsets of topic `{topic}`"), || {
            let mut list = TopicPartitionList::new();
            for partition in 0..partitions {
                list.add_partition_offset(topic, partition, question)?;
            }
            // ListOffsets takes the wire values of "beginning" and "end" for times, and keeps to read_committed: the
            // end is the last stable offset.
            let answer = self.asker.offsets_for_times(list, self.settings.timeout)?;
            answer.elements().iter().try_for_each(|element| element.error())?;
            Ok(answer)
        })?;
        let of = |partition| answer.find_partition(topic, partition).map(|element| element.offset());
        Ok((0..partitions).filter_map(of).collect())
    }

    fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        let partitions = self.partitions(topic)?;
        let starts = self.offsets(topic, partitions, Offset::Beginning)?;
        let ends = self.offsets(topic, partitions, Offset::End)?;
        let ranges = (0..).zip(starts.into_iter().zip(ends)).map(|(partition, range)| match range {
            (Offset::Offset(start), Offset::Offset(end)) => Ok(OffsetRange { partition, start, end }),
            other => {
                let message = format!("topic `{topic}` partition {partition} has no range but {other:?}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        });
        ranges.collect()
    }

    fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        let ranges = self.ranges(topic)?;
        let partitions = i32::try_from(ranges.len()).unwrap_or(i32::MAX);
        // No record of Kafka is older than 1970.
        let found = self.offsets(topic, partitions, Offset::Offset(timestamp_ms.max(0)))?;
        let offsets = ranges.iter().zip(found).map(|(range, found)| match found {
            Offset::Offset(offset) => (range.partition, offset.clamp(range.start, range.end)),
            _ => (range.partition, range.end),
        });
        Ok(offsets.collect())
    }

    fn check_offsets(&self, topic: &str, from: &Offsets) -> Result<()> {
        let ranges = self.ranges(topic)?;
        for (partition, offset) in from {
            let range = usize::try_from(*partition).ok().and_then(|at| ranges.get(at));
            let count = i32::try_from(ranges.len()).unwrap_or(i32::MAX);
            let range = range.ok_or_else(|| no_partition(topic, *partition, count))?;
            if !(range.start..=range.end).contains(offset) {
                return Err(out_of_range(topic, *partition, *offset, range.start, range.end));
            }
        }
        Ok(())
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        let partitions = self.partitions(topic)?;
        let member = client::consumer(&self.settings, group)?;
        let answer = self.ask(&format!("look up offsets of group `{group}`"), || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(topic, 0, partitions - 1);
            member.committed_offsets(list, self.settings.timeout)
        })?;
        let of = |partition| match answer.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => Some((partition, offset)),
            _ => None,
        };
        Ok((0..partitions).filter_map(of).collect())
    }

    /// Starts and ends of partitions, whatever in them is committed: the transaction of another writer that is open hides
    /// what was committed after it, so that the last stable offset does not say what there is to know.
    fn written(&self, topic: &str, partitions: impl Iterator<Item = i32>) -> Result<Vec<OffsetRange>> {
        let settings = &self.settings;
        let mut config = client::base(settings);
        config
            .set("group.id", "tidegate")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_uncommitted");
        let asker: BaseConsumer<KafkaContext> =
            config.create_with_context(KafkaContext).map_err(|error| client::setup_error(settings, error))?;
        let tried = format!("look up the end of topic `{topic}`");
        let range = |partition| {
            let (start, end) = self.ask(&tried, || asker.fetch_watermarks(topic, partition, settings.timeout))?;
            Ok(OffsetRange { partition, start, end })
        };
        partitions.map(range).collect()
    }

    fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        let partition = partition_for_key(key, self.partitions(topic)?);
        let written = self.written(topic, std::iter::once(partition))?;
        let Some(OffsetRange { start, end, .. }) = written.first().copied().filter(|range| range.start < range.end)
        else {
            return Ok(None);
        };
        let mut poller = Poller::new(&self.settings, topic, &vec![(partition, start)])?;
        let mut last = None;
        poller.read_to(end, self.settings.timeout, |record| {
            if record.offset < end && record.key.as_deref() == Some(key) {
                last = Some(record);
            }
        })?;
        Ok(last.filter(|record| record.value.is_some()))
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        check_spec(spec)?;
        // The cluster's own replication factor; on one that is smaller than its default asks for, one replica.
        let created = match self.create(spec, -1).await {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::InvalidReplicationFactor)) => {
                tracing::warn!(topic = spec.name, "cluster is too small for its replication factor: one replica");
                self.create(spec, 1).await
            }
            created => created,
        };
        match created {
            Ok(()) => self.await_leaders(spec).await.map(|()| true),
            Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
            Err(error) => Err(self.shared.error(&format!("create topic `{}`", spec.name), error)),
        }
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.blocking(|shared| {
            let metadata = shared.ask("list topics", || shared.asker.fetch_metadata(None, shared.settings.timeout))?;
            let shown = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
            let mut topics: Vec<_> = shown
                .map(|topic| TopicInfo {
                    name: topic.name().to_owned(),
                    partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                })
                .collect();
            topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(topics)
        })
        .await
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.ranges(&topic)).await
    }

    async fn written(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.written(&topic, 0..shared.partitions(&topic)?)).await
    }

    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.offsets_at(&topic, timestamp_ms)).await
    }

    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        let topic = topic.to_owned();
        let reader = self.blocking(move |shared| {
            shared.check_offsets(&topic, &from)?;
            Ok(KafkaReader::new(Poller::new(&shared.settings, &topic, &from)?, from))
        });
        Ok(Box::new(reader.await?))
    }

    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(KafkaWriter::open(self.clone(), transactional_id).await?))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.blocking(move |shared| shared.committed(&group, &topic)).await
    }

    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        let (topic, key) = (topic.to_owned(), key.to_vec());
        self.blocking(move |shared| shared.last_by_key(&topic, &key)).await
    }

    async fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>> {
        Ok(Box::new(KafkaMembership::join(self, spec).await?))
    }
}

impl KafkaLog {
    async fn create(&self, spec: &TopicSpec, replication: i32) -> std::result::Result<(), KafkaError> {
        let settings = &self.shared.settings;
        let admin: AdminClient<KafkaContext> = client::base(settings).create_with_context(KafkaContext)?;
        let replication = TopicReplication::Fixed(replication);
        let mut topic = NewTopic::new(&spec.name, spec.partitions, replication);
        topic.config = spec.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let options =
            AdminOptions::new().request_timeout(Some(settings.timeout)).operation_timeout(Some(settings.timeout));
        let results = admin.create_topics([&topic], &options).await?;
        let failed = results.into_iter().find_map(|result| result.err());
        failed.map_or(Ok(()), |(_, code)| Err(KafkaError::AdminOp(code)))
    }

    /// Waits until the new topic can be written: brokers learn of it a little later than the controller.
    async fn await_leaders(&self, spec: &TopicSpec) -> Result<()> {
        let (name, partitions) = (spec.name.clone(), spec.partitions);
        self.blocking(move |shared| {
            let deadline = Instant::now() + shared.settings.timeout;
            loop {
                // Offsets are answered only once every partition has a leader, and maybe by a broker that knows less.
                let ends = shared.partitions(&name).and_then(|known| match known >= partitions {
                    true => shared.offsets(&name, partitions, Offset::End),
                    false => Err(no_topic(&name)),
                });
                match ends {
                    Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < deadline => {
                        std::thread::sleep(RETRY_PAUSE);
                    }
                    ends => return ends.map(drop),
                }
            }
        })
        .await
    }
}
