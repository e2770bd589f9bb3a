//! What every log must do, as plain functions: each takes a log, brings topics of its own, and fails by panicking.
//!
//! [`run_all`] is run on the embedded log and on a real Kafka. Knows nothing of either: what one of them alone
//! promises is tested beside it.

#![allow(clippy::missing_panics_doc, reason = "these are tests")]

mod reading;
mod transactions;
mod writing;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use topic::{Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Record, StoredRecord, TopicSpec, Writer};

/// Runs the whole contract on `log`; returns the name and time of each part.
pub async fn run_all(log: &dyn Log) -> Vec<(&'static str, Duration)> {
    macro_rules! parts {
        ($($module:ident: $($part:ident),+;)+) => {{
            let mut parts = Vec::new();
            $($(
                let began = Instant::now();
                $module::$part(log).await;
                parts.push((concat!(stringify!($module), "::", stringify!($part)), began.elapsed()));
            )+)+
            parts
        }};
    }
    parts! {
        writing:
            a_topic_is_created_once,
            what_cannot_be_a_topic_is_refused,
            what_is_not_there_is_not_found,
            records_come_back_byte_for_byte,
            order_holds_within_a_partition,
            a_key_decides_its_partition,
            interleaved_writers_lose_nothing,
            a_flush_makes_records_visible,
            records_have_a_largest_size,
            the_last_record_of_a_key_is_found;
        reading:
            offsets_are_found_by_time,
            a_reader_starts_at_its_offset,
            offsets_out_of_range_are_refused,
            a_read_waits_no_longer_than_needed,
            a_cancelled_read_loses_nothing,
            positions_reach_the_end;
        transactions:
            nothing_is_visible_before_commit,
            an_abort_leaves_nothing,
            offsets_are_committed_with_records,
            an_older_writer_is_fenced,
            calls_out_of_order_are_refused,
            one_transaction_spans_topics;
    }
}

/// How long what was committed may take to be seen: Kafka's markers follow the commit.
const PATIENCE: Duration = Duration::from_secs(60);

/// A name that no other run has used.
fn fresh(what: &str) -> String {
    format!("contract-{what}-{:016x}", RandomState::new().hash_one(what))
}

/// Creates a topic of its own with `partitions`.
async fn fresh_topic(log: &dyn Log, what: &str, partitions: i32) -> String {
    let name = fresh(what);
    let config = vec![("max.message.bytes".to_owned(), "4194304".to_owned())];
    let spec = TopicSpec { name: name.clone(), partitions, config };
    assert!(log.create_topic(&spec).await.expect("a topic is created"));
    name
}

fn record(key: &str, value: &str) -> Record {
    Record { key: Some(key.to_owned().into()), value: Some(value.to_owned().into()), ..Record::default() }
}

fn values(records: &[StoredRecord]) -> Vec<String> {
    let text =
        |record: &StoredRecord| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    records.iter().map(text).collect()
}

async fn writer(log: &dyn Log) -> Box<dyn Writer> {
    log.writer(None).await.expect("a writer opens")
}

async fn transactional(log: &dyn Log, id: &str) -> Box<dyn Writer> {
    log.writer(Some(id)).await.expect("a transactional writer opens")
}

async fn ranges(log: &dyn Log, topic: &str) -> Vec<OffsetRange> {
    log.ranges(topic).await.expect("the topic has ranges")
}

/// Offsets at which all partitions start.
async fn starts(log: &dyn Log, topic: &str) -> Offsets {
    ranges(log, topic).await.into_iter().map(|range| (range.partition, range.start)).collect()
}

/// Reads `topic` from its start until `count` records have come, and a little longer to see that no more do.
async fn read_all(log: &dyn Log, topic: &str, count: usize) -> Vec<StoredRecord> {
    let from = starts(log, topic).await;
    let mut reader = log.reader(topic, from).await.expect("a reader opens");
    let mut all = read_until(reader.as_mut(), count).await;
    all.extend(reader.read(usize::MAX, Duration::from_millis(200)).await.expect("a read"));
    assert_eq!(all.len(), count, "records in `{topic}`: {:?}", values(&all));
    all
}

async fn read_until(reader: &mut dyn Reader, count: usize) -> Vec<StoredRecord> {
    let (mut all, began) = (Vec::new(), Instant::now());
    while all.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} records came: {:?}", all.len(), values(&all));
        all.extend(reader.read(1_000, Duration::from_millis(500)).await.expect("a read"));
    }
    all
}

/// Records of every partition, in the order they came.
fn by_partition(records: &[StoredRecord]) -> BTreeMap<i32, Vec<&StoredRecord>> {
    let mut partitions: BTreeMap<i32, Vec<&StoredRecord>> = BTreeMap::new();
    for record in records {
        partitions.entry(record.partition).or_default().push(record);
    }
    partitions
}

#[track_caller]
fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("went through where {kind:?} was due"),
        Err(error) => assert_eq!(error.kind(), kind, "{error}"),
    }
}
