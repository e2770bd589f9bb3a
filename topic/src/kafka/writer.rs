//! Writes to Kafka: an idempotent producer whose delivery reports are counted, with or without transactions.
//!
//! `send` queues, waiting while librdkafka's queue is full; `flush` waits for every report and gives the first
//! failure. Transaction calls block for a round trip or more and run on blocking threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::client::{self, error_of, joined, kind_of_code, log_line};
use super::{KafkaLog, RETRY_PAUSE};
use crate::name::{Turns, check_record};
use crate::transaction::Transaction;
use crate::{Error, ErrorKind, Record, Result, Writer};

/// How long the number of a topic's partitions is taken as known.
const PARTITIONS_KNOWN: Duration = Duration::from_secs(60);
/// Upper bound on one wait for room in the queue: reports are signalled, but not each of them.
const ROOM_WAIT: Duration = Duration::from_millis(20);
/// A waiting sender is woken every so many reports.
const SIGNAL_EVERY: u64 = 512;

type KafkaProducer = ThreadedProducer<Deliveries>;

/// Counts what was sent and what was reported.
#[derive(Clone, Default)]
struct Deliveries(Arc<DeliveryCounts>);

#[derive(Default)]
struct DeliveryCounts {
    sent: AtomicU64,
    reported: AtomicU64,
    failure: Mutex<Option<(RDKafkaErrorCode, String)>>,
    news: Notify,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka client");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut failure = self.0.failure();
            // Records that fail because an earlier one did say nothing of why.
            if failure.as_ref().is_none_or(|(known, _)| consequence(*known)) {
                *failure = Some((code, message.topic().to_owned()));
            }
        }
        let reported = self.0.reported.fetch_add(1, Ordering::SeqCst) + 1;
        let last = reported == self.0.sent.load(Ordering::SeqCst);
        if last || result.is_err() || reported.is_multiple_of(SIGNAL_EVERY) {
            self.0.news.notify_waiters();
        }
    }
}

impl DeliveryCounts {
    fn failure(&self) -> std::sync::MutexGuard<'_, Option<(RDKafkaErrorCode, String)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_reported(&self) -> bool {
        self.reported.load(Ordering::SeqCst) == self.sent.load(Ordering::SeqCst)
    }

    /// Waits until every record sent was reported, well or not.
    async fn settled(&self) {
        self.until(Self::all_reported).await;
    }

    /// Waits until every record sent was reported, or one as failed: in a transaction that failed, librdkafka holds
    /// the others back until it is aborted.
    async fn settled_or_failed(&self) {
        self.until(|counts| counts.all_reported() || counts.failure().is_some()).await;
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if !done(self) {
                news.await;
            }
        }
    }
}

/// How a transaction call failed.
struct Refusal {
    error: Error,
    /// The transaction has not been committed and waits to be aborted.
    abortable: bool,
}

pub(super) struct KafkaWriter {
    log: KafkaLog,
    producer: KafkaProducer,
    deliveries: Arc<DeliveryCounts>,
    transactional_id: Option<String>,
    transaction: Transaction,
    turns: Turns,
    partitions: HashMap<String, (i32, Instant)>,
    groups: HashMap<String, Arc<ConsumerGroupMetadata>>,
}

impl KafkaWriter {
    pub(super) async fn open(log: KafkaLog, transactional_id: Option<&str>) -> Result<Self> {
        let settings = &log.shared.settings;
        let deliveries = Deliveries::default();
        let config = client::producer(settings, transactional_id);
        let producer: KafkaProducer =
            config.create_with_context(deliveries.clone()).map_err(|error| client::setup_error(settings, error))?;
        let writer = Self {
            producer,
            deliveries: deliveries.0,
            transactional_id: transactional_id.map(str::to_owned),
            transaction: Transaction::new(transactional_id.is_some()),
            turns: Turns::default(),
            partitions: HashMap::new(),
            groups: HashMap::new(),
            log,
        };
        if transactional_id.is_some() {
            // Fences older writers and waits until their last transaction is decided.
            let opened =
                writer.transact("open a transactional writer", |producer, wait| producer.init_transactions(wait));
            opened.await.map_err(|refusal| refusal.error)?;
        }
        Ok(writer)
    }

    /// Runs a transaction call on a blocking thread, again as long as librdkafka says that it may be.
    ///
    /// Where the broker is gone that coordinates a group, librdkafka 2.12 waits until it is back, however long it was to
    /// wait (a request to a coordinator has a time limit at which nobody looks). Such a call is left to itself, and this
    /// writer with it: the one that takes its place fences what may still come of it.
    async fn transact(
        &self,
        tried: &str,
        call: impl Fn(&KafkaProducer, Duration) -> KafkaResult<()> + Send + 'static,
    ) -> std::result::Result<(), Refusal> {
        let (producer, wait) = (self.producer.clone(), self.log.shared.settings.timeout);
        let tried = self.tried(tried);
        let unanswered = format!("{tried}: no answer within {} s", 2 * wait.as_secs());
        let failure = Arc::clone(&self.deliveries);
        let done = spawn_blocking(move || {
            let deadline = Instant::now() + wait;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match call(&producer, left.max(RETRY_PAUSE)) {
                    Ok(()) => return Ok(Ok(())),
                    Err(error) if retriable(&error) && !left.is_zero() => std::thread::sleep(RETRY_PAUSE),
                    Err(error) => return Ok(Err(refusal(&tried, error, &producer, &failure))),
                }
            }
        });
        let done = match timeout(2 * wait, done).await {
            Ok(done) => joined(done),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, unanswered)),
        };
        done.unwrap_or_else(|error| Err(Refusal { error, abortable: false }))
    }

    fn tried(&self, tried: &str) -> String {
        let brokers = &self.log.shared.settings.brokers;
        match &self.transactional_id {
            Some(id) => format!("could not {tried} with transactional id `{id}` on Kafka at `{brokers}`"),
            None => format!("could not {tried} on Kafka at `{brokers}`"),
        }
    }

    async fn partitions(&mut self, topic: &str) -> Result<i32> {
        match self.partitions.get(topic) {
            Some((partitions, at)) if at.elapsed() < PARTITIONS_KNOWN => Ok(*partitions),
            _ => {
                let name = topic.to_owned();
                let partitions = self.log.blocking(move |shared| shared.partitions(&name)).await?;
                self.partitions.insert(topic.to_owned(), (partitions, Instant::now()));
                Ok(partitions)
            }
        }
    }

    async fn queue(&self, topic: &str, partition: i32, record: &Record) -> Result<()> {
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for header in &record.headers {
                headers = headers.insert(KafkaHeader { key: &header.name, value: Some(&header.value[..]) });
            }
            message = message.headers(headers);
        }
        loop {
            // Counted first: its report may come before `send` returns.
            self.deliveries.sent.fetch_add(1, Ordering::SeqCst);
            let Err((error, back)) = self.producer.send(message) else { return Ok(()) };
            self.deliveries.sent.fetch_sub(1, Ordering::SeqCst);
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                let tried = self.tried(&format!("send to topic `{topic}`"));
                return Err(refusal(&tried, error, &self.producer, &self.deliveries).error);
            }
            message = back;
            // Either outcome is a reason to try again.
            let _woken = timeout(ROOM_WAIT, self.deliveries.news.notified()).await;
        }
    }

    /// Who sends offsets for `group`: this process as a member of it, as of now, or nobody that the group knows.
    async fn group(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<Arc<ConsumerGroupMetadata>> {
        if let Some(member) = self.log.shared.member(group)? {
            let (topic, partitions) = (topic.to_owned(), offsets.iter().map(|(partition, _)| *partition).collect());
            return self.log.blocking(move |_| member.metadata(&topic, partitions).map(Arc::new)).await;
        }
        if let Some(known) = self.groups.get(group) {
            return Ok(Arc::clone(known));
        }
        let name = group.to_owned();
        let metadata = self.log.blocking(move |shared| {
            let metadata = client::consumer(&shared.settings, &name)?.group_metadata();
            metadata.ok_or_else(|| Error::new(ErrorKind::Internal, format!("group `{name}` has no metadata")))
        });
        let metadata = Arc::new(metadata.await?);
        self.groups.insert(group.to_owned(), Arc::clone(&metadata));
        Ok(metadata)
    }

    /// The first record that failed since the last flush.
    fn take_failure(&self) -> Result<()> {
        match self.deliveries.failure().take() {
            None => Ok(()),
            Some(failure) => Err(delivery_error(failure, &self.producer)),
        }
    }
}

fn retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort(),
        // Before a commit the bindings flush by themselves; that this took too long leaves the transaction open.
        KafkaError::Flush(_) => true,
        _ => false,
    }
}

/// Error of a record that was not delivered.
fn delivery_error((code, topic): (RDKafkaErrorCode, String), producer: &KafkaProducer) -> Error {
    let fatal = fatal_code(producer);
    let kind = kind_of_code(fatal.unwrap_or(code));
    let message = format!("a record for topic `{topic}` was not taken by Kafka");
    Error::new(kind, message).with_source(KafkaError::MessageProduction(fatal.unwrap_or(code)))
}

/// Whether a record failed with `code` merely because another one did, or the cluster was away.
fn consequence(code: RDKafkaErrorCode) -> bool {
    matches!(kind_of_code(code), ErrorKind::Unavailable | ErrorKind::Internal)
}

fn fatal_code(producer: &KafkaProducer) -> Option<RDKafkaErrorCode> {
    producer.client().fatal_error().map(|(code, _)| code)
}

fn refusal(tried: &str, error: KafkaError, producer: &KafkaProducer, deliveries: &DeliveryCounts) -> Refusal {
    if let Some(code) = fatal_code(producer) {
        let error = Error::new(kind_of_code(code), tried).with_source(KafkaError::MessageProduction(code));
        return Refusal { error, abortable: false };
    }
    let abortable = matches!(&error, KafkaError::Transaction(error) if error.txn_requires_abort());
    // A transaction that has to be aborted has its reason in the record that failed.
    let failure = deliveries.failure().clone().filter(|(code, _)| !consequence(*code));
    let error = match failure {
        Some(failure) => Error::new(kind_of_code(failure.0), tried).with_source(delivery_error(failure, producer)),
        None => error_of(tried, error),
    };
    Refusal { error, abortable }
}

#[async_trait]
impl Writer for KafkaWriter {
    async fn begin(&mut self) -> Result<()> {
        self.transaction.begin()?;
        *self.deliveries.failure() = None;
        // Begins locally, without a round trip.
        self.producer.begin_transaction().map_err(|error| {
            self.transaction.end();
            refusal(&self.tried("begin a transaction"), error, &self.producer, &self.deliveries).error
        })
    }

    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        self.transaction.check_send()?;
        let partitions = self.partitions(topic).await?;
        for record in &records {
            check_record(topic, record)?;
            let partition = self.turns.partition_of(topic, record, partitions)?;
            self.queue(topic, partition, record).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self.transaction {
            Transaction::Never => self.deliveries.settled().await,
            _ => self.deliveries.settled_or_failed().await,
        }
        self.take_failure()
    }

    async fn send_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        self.transaction.check_open("send offsets")?;
        // Kafka would take offsets of topics that do not exist.
        self.partitions(topic).await?;
        let metadata = self.group(group, topic, offsets).await?;
        let (topic, offsets) = (topic.to_owned(), offsets.to_vec());
        let sent = self.transact("send offsets", move |producer, wait| {
            let mut list = TopicPartitionList::new();
            for (partition, offset) in &offsets {
                list.add_partition_offset(&topic, *partition, Offset::Offset(*offset))?;
            }
            producer.send_offsets_to_transaction(&list, &metadata, wait)
        });
        sent.await.map_err(|refusal| refusal.error)
    }

    async fn commit(&mut self) -> Result<()> {
        self.transaction.check_open("commit")?;
        self.deliveries.settled_or_failed().await;
        self.transaction.begin_commit()?;
        match self.transact("commit", |producer, wait| producer.commit_transaction(wait)).await {
            Err(Refusal { error, abortable: true }) => {
                self.transaction.reopen();
                Err(error)
            }
            Err(Refusal { error, abortable: false }) => self.transaction.end_commit(Err(error)),
            Ok(()) => self.transaction.end_commit(Ok(())),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.transaction.check_open("abort")?;
        let aborted = self.transact("abort", |producer, wait| producer.abort_transaction(wait)).await;
        aborted.map_err(|refusal| refusal.error)?;
        // Records that were still queued are reported as purged, which is no failure.
        self.deliveries.settled().await;
        *self.deliveries.failure() = None;
        self.transaction.end();
        Ok(())
    }
}
