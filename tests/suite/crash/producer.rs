//! Events that never stop coming: unsigned, in an event time that runs much faster than the clock, some late on purpose.
//!
//! A stream parses what lies in the raw topic and does not verify it, so nothing here is signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;

use super::chance::Chance;

/// Partitions of the raw topic.
pub(super) const PARTITIONS: i32 = 3;
/// Between two bursts.
const TICK: Duration = Duration::from_millis(20);
/// Events of a burst: 250 a second.
const BURST: u64 = 5;
/// Events share a second by fours, so that an hour of event time passes in a minute.
const EVENTS_A_SECOND: u64 = 4;
/// One event in so many is late.
const LATE_ONE_IN: u64 = 25;
/// Events from which on rows and late rows are enough to prove something: eight minutes of event time, 80 late events.
const ENOUGH: u64 = 2_000;

/// Writes until it is told to stop.
#[derive(Debug)]
pub(super) struct Writing {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<u64>>,
}

impl Writing {
    /// Starts writing to a topic of [`PARTITIONS`] partitions.
    pub(super) fn start(brokers: &str, topic: &str, chance: Chance) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || write(&brokers, &topic, chance, &stopped, &count));
        Self { stop, written, thread: Some(thread) }
    }

    /// Stops once there are enough; how many events there are, every one of them acknowledged.
    pub(super) fn finish(mut self) -> u64 {
        // A trial on a fast machine may be over before much has happened.
        while self.written.load(Ordering::Relaxed) < ENOUGH && self.thread.as_ref().is_some_and(|it| !it.is_finished())
        {
            std::thread::sleep(TICK);
        }
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        thread.join().expect("everything was written")
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(brokers: &str, topic: &str, mut chance: Chance, stop: &AtomicBool, written: &AtomicU64) -> u64 {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .expect("a producer");
    // Days ago: an event from after its receipt would not move the watermark.
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let begin = i64::try_from(now).expect("before the year 292277026596") - 5 * 86_400;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let event = event(number, begin, &mut chance);
            let partition = i32::try_from(chance.below(PARTITIONS.unsigned_abs().into())).expect("few");
            send(&producer, topic, partition, &event);
            number += 1;
        }
        written.store(number, Ordering::Relaxed);
        producer.poll(TICK);
        std::thread::sleep(TICK);
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes what was written");
    number
}

fn event(number: u64, begin: i64, chance: &mut Chance) -> (String, String) {
    let (id, author) = (format!("{number:064x}"), format!("{:064x}", 1 + chance.below(40)));
    let mut created_at = begin + i64::try_from(number / EVENTS_A_SECOND).expect("small");
    if chance.below(LATE_ONE_IN) == 0 {
        created_at -= i64::try_from(20 + chance.below(300)).expect("small");
    }
    let kind = [0, 1, 1, 1, 6, 7, 7][usize::try_from(chance.below(7)).expect("small")];
    let event = json!({
        "id": id, "pubkey": author, "created_at": created_at, "kind": kind, "tags": [["t", "tide"]],
        "content": format!("number {number}"), "sig": "0".repeat(128),
    });
    (id, event.to_string())
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, (id, event): &(String, String)) {
    let mut record = BaseRecord::to(topic).partition(partition).key(id).payload(event);
    while let Err((error, back)) = producer.send(record) {
        let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        assert!(full, "could not write an event: {error}");
        producer.poll(TICK);
        record = back;
    }
}
