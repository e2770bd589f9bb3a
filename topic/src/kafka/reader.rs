//! Reads Kafka: a consumer polled on a blocking thread, and the reader that hands over what it found.
//!
//! What was polled waits in the [`Poller`] until a read hands it over, so a read that is cancelled loses nothing.
//! librdkafka fetches ahead on its own threads, up to its queue's bound. Ends of partitions come as events: they carry
//! positions past aborted records and markers, which are no records themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use super::client::{self, KafkaContext, error_of, joined, kind_of};
use super::{KafkaSettings, RETRY_PAUSE};
use crate::{Error, ErrorKind, Header, Offsets, Reader, Result, StoredRecord};

/// A read ends once it holds this much, however many records were asked for.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How soon a poll notices that nobody waits for it any more.
const POLL_MAX: Duration = Duration::from_millis(50);

/// A consumer and what it has polled but not handed over.
pub(super) struct Poller {
    consumer: BaseConsumer<KafkaContext>,
    topic: String,
    timeout: Duration,
    found: VecDeque<Found>,
    records: usize,
    bytes: usize,
    /// Positions after everything in `found`.
    reached: BTreeMap<i32, i64>,
    /// Since when there were errors that may pass.
    trouble_since: Option<Instant>,
    /// Kind and words of an error after which nothing more comes.
    failed: Option<(ErrorKind, String)>,
}

enum Found {
    Record(StoredRecord),
    Position(i32, i64),
}

impl Poller {
    /// Opens a consumer at the given offsets, which exist.
    pub(super) fn new(settings: &KafkaSettings, topic: &str, from: &Offsets) -> Result<Self> {
        let consumer = client::consumer(settings, "tidegate")?;
        let tried = format!("could not assign partitions of topic `{topic}`");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| error_of(&tried, error))?;
        }
        consumer.assign(&list).map_err(|error| error_of(&tried, error))?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            timeout: settings.timeout,
            found: VecDeque::new(),
            records: 0,
            bytes: 0,
            reached: from.iter().copied().collect(),
            trouble_since: None,
            failed: None,
        })
    }

    /// Polls until something is found and nothing more is there at once, `records_max` are there, the deadline has
    /// passed, or `stop`.
    fn fill(&mut self, records_max: usize, deadline: Instant, stop: &AtomicBool) -> Result<()> {
        while self.records < records_max && self.bytes < READ_BYTES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if self.found.is_empty() { left.min(POLL_MAX) } else { Duration::ZERO };
            match self.poll(wait) {
                Ok(true) => {}
                Ok(false) if self.found.is_empty() && !left.is_zero() && !stop.load(Ordering::Relaxed) => {}
                Ok(false) => break,
                Err(error) if self.found.is_empty() => return Err(error),
                // What was found is handed over first; the error stands, or comes again.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// One poll; whether there was anything.
    fn poll(&mut self, wait: Duration) -> Result<bool> {
        if let Some((kind, message)) = &self.failed {
            return Err(Error::new(*kind, message.clone()));
        }
        self.check_trouble()?;
        match self.consumer.poll(wait) {
            None => return Ok(false),
            Some(Ok(message)) => {
                let record = stored(&message);
                drop(message);
                self.trouble_since = None;
                self.records += 1;
                self.bytes += record_bytes(&record);
                self.reached.insert(record.partition, record.offset + 1);
                self.found.push_back(Found::Record(record));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.trouble_since = None;
                self.note_position(partition)?;
            }
            Some(Err(error)) => self.note_error(error)?,
        }
        Ok(true)
    }

    /// At the end of a partition: where the consumer stands, past what is no record.
    fn note_position(&mut self, partition: i32) -> Result<()> {
        let tried = format!("could not read the position in topic `{}`", self.topic);
        let positions = self.consumer.position().map_err(|error| error_of(&tried, error))?;
        let element = positions.find_partition(&self.topic, partition);
        if let Some(Offset::Offset(position)) = element.map(|element| element.offset()) {
            let reached = self.reached.entry(partition).or_insert(position);
            if position > *reached {
                *reached = position;
                self.found.push_back(Found::Position(partition, position));
            }
        }
        Ok(())
    }

    fn note_error(&mut self, error: KafkaError) -> Result<()> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match kind_of(&error) {
            // librdkafka goes on trying by itself.
            ErrorKind::Unavailable | ErrorKind::NotFound | ErrorKind::Internal if !fatal => {
                tracing::debug!(topic = self.topic, %error, "reading goes on");
                self.trouble_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            kind => {
                let message = format!("could not read topic `{}` from {:?}", self.topic, self.reached);
                self.failed = Some((kind, format!("{message}: {error}")));
                Err(Error::new(kind, message).with_source(error))
            }
        }
    }

    /// Trouble that lasted may have gone silently, where nothing new was written since: ask.
    fn check_trouble(&mut self) -> Result<()> {
        if self.trouble_since.is_none_or(|since| since.elapsed() < self.timeout) {
            return Ok(());
        }
        let asked = self.consumer.fetch_metadata(Some(&self.topic), RETRY_PAUSE.max(self.timeout / 4));
        asked.map_err(|error| error_of(&format!("could not read topic `{}`", self.topic), error))?;
        self.trouble_since = None;
        Ok(())
    }

    /// Hands over up to `records_max` records, moving `positions` past them and past what is no record.
    fn take(&mut self, records_max: usize, positions: &mut BTreeMap<i32, i64>) -> Vec<StoredRecord> {
        let mut taken = Vec::with_capacity(self.records.min(records_max));
        while let Some(found) = self.found.pop_front() {
            match found {
                Found::Position(partition, position) => {
                    positions.insert(partition, position);
                }
                Found::Record(record) if taken.len() < records_max => {
                    self.records -= 1;
                    self.bytes = self.bytes.saturating_sub(record_bytes(&record));
                    positions.insert(record.partition, record.offset + 1);
                    taken.push(record);
                }
                record @ Found::Record(_) => {
                    self.found.push_front(record);
                    break;
                }
            }
        }
        taken
    }

    /// Reads the one partition assigned up to `end`, giving each record to `each`.
    pub(super) fn read_to(&mut self, end: i64, timeout: Duration, mut each: impl FnMut(StoredRecord)) -> Result<()> {
        let mut positions = self.reached.clone();
        let mut deadline = Instant::now() + timeout;
        while positions.values().any(|position| *position < end) {
            self.fill(usize::MAX, deadline, &AtomicBool::new(false))?;
            if self.found.is_empty() {
                let message = format!("topic `{}` was not read to offset {end} in {timeout:?}", self.topic);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            self.take(usize::MAX, &mut positions).into_iter().for_each(&mut each);
            deadline = Instant::now() + timeout;
        }
        Ok(())
    }
}

fn stored(message: &BorrowedMessage<'_>) -> StoredRecord {
    let headers = message.headers().map(|headers| {
        let all = headers.iter().map(|header| Header {
            name: header.key.to_owned(),
            value: header.value.map(Bytes::copy_from_slice).unwrap_or_default(),
        });
        all.collect()
    });
    StoredRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
    }
}

fn record_bytes(record: &StoredRecord) -> usize {
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len())
}

pub(super) struct KafkaReader {
    poller: Arc<Mutex<Poller>>,
    positions: BTreeMap<i32, i64>,
}

impl KafkaReader {
    pub(super) fn new(poller: Poller, from: Offsets) -> Self {
        Self { poller: Arc::new(Mutex::new(poller)), positions: from.into_iter().collect() }
    }
}

/// Tells a poll that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lock(poller: &Mutex<Poller>) -> MutexGuard<'_, Poller> {
    // Whatever panicked, what was found is still there.
    poller.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Reader for KafkaReader {
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>> {
        let stop = StopOnDrop(Arc::default());
        let (poller, stopped) = (Arc::clone(&self.poller), Arc::clone(&stop.0));
        let deadline = Instant::now() + max_wait;
        joined(spawn_blocking(move || lock(&poller).fill(max_records, deadline, &stopped)).await)?;
        Ok(lock(&self.poller).take(max_records, &mut self.positions))
    }

    fn positions(&self) -> Offsets {
        self.positions.iter().map(|(partition, position)| (*partition, *position)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KafkaLog, Log, TopicSpec};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_offset_that_is_gone_is_an_error_and_never_a_reset() {
        let Ok(brokers) = std::env::var("TIDEGATE_TEST_KAFKA") else {
            eprintln!("SKIPPED: TIDEGATE_TEST_KAFKA is not set");
            return;
        };
        let settings = KafkaSettings::new(brokers);
        let log = KafkaLog::connect(settings.clone()).expect("settings");
        let topic = format!("gone-{}", std::process::id());
        let spec = TopicSpec { name: topic.clone(), partitions: 1, config: Vec::new() };
        log.create_topic(&spec).await.expect("created");
        // As retention would do it to a reader that fell behind: the offset was good when it was checked.
        let mut poller = Poller::new(&settings, &topic, &vec![(0, 1_000)]).expect("a consumer");
        let deadline = Instant::now() + Duration::from_secs(20);
        for _ in 0..2 {
            let error = poller.fill(1, deadline, &AtomicBool::new(false)).expect_err("nothing is there");
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        }
    }
}
