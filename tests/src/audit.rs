//! Whether everything that was served is there, once, byte for byte: in the raw topic and in the lake.
//!
//! Comes in: the texts that relays put on the wire, the records of the raw topic, the rows of the lake. Goes out: every
//! breach in words. Which text is an event is the `nostr` crate's judgement; topic and lake are read with librdkafka and
//! the Parquet crate alone. Nothing here is tidegate's own, except for the embedded log, which only tidegate can read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use nostr::event::Event;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use topic::Log;

/// Breaches of one sort that are spelt out.
const SHOWN: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Events that are owed: by id, every form in which the event was served.
pub type Owed = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// A record of the topic, or a row of the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Partition and offset in the raw topic.
    pub place: (i32, i64),
    /// The record's key, the row's id in hex.
    pub key: String,
    /// The event's text.
    pub value: Vec<u8>,
}

/// What was compared, so that nobody takes an empty topic for a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Events owed, which are those in the topic, which are those in the lake.
    pub events: usize,
}

/// The valid events among texts, by the `nostr` crate's judgement: shape, id and signature.
pub fn owed<T: AsRef<str>>(served: impl IntoIterator<Item = T>) -> Owed {
    let mut owed = Owed::new();
    for text in served {
        let text = text.as_ref();
        if let Some(event) = serde_json::from_str::<Event>(text).ok().filter(|event| event.verify().is_ok()) {
            owed.entry(event.id.to_hex()).or_default().insert(text.as_bytes().to_vec());
        }
    }
    owed
}

/// Looks for breaches: an owed event that topic or lake lack, one that is there twice or with other bytes, one that is
/// owed to nobody, a row that is not the record of its place.
///
/// # Errors
/// All that were found.
pub fn audit(owed: &Owed, topic: &[Held], lake: &[Held]) -> Result<Audited, Vec<String>> {
    let mut breaches = audit_unfinished(owed, topic, lake).err().unwrap_or_default();
    for (name, held) in [("topic", topic), ("lake", lake)] {
        let there: BTreeSet<&str> = held.iter().map(|one| one.key.as_str()).collect();
        let lost = owed.keys().filter(|id| !there.contains(id.as_str()));
        spell(&mut breaches, &format!("events are not in the {name}"), lost.cloned());
    }
    if breaches.is_empty() { Ok(Audited { events: owed.len() }) } else { Err(breaches) }
}

/// As [`audit`] where work is still under way, so that events may be missing.
///
/// # Errors
/// All that were found.
pub fn audit_unfinished(owed: &Owed, topic: &[Held], lake: &[Held]) -> Result<(), Vec<String>> {
    let mut breaches = Vec::new();
    compare("topic", owed, topic, &mut breaches);
    compare("lake", owed, lake, &mut breaches);
    let records: BTreeMap<(i32, i64), &Held> = topic.iter().map(|record| (record.place, record)).collect();
    let strange = lake.iter().filter(|row| records.get(&row.place).is_none_or(|record| record != row));
    spell(&mut breaches, "rows of the lake are not the record at their place", strange.map(place));
    if breaches.is_empty() { Ok(()) } else { Err(breaches) }
}

fn compare(name: &str, owed: &Owed, held: &[Held], breaches: &mut Vec<String>) {
    let mut by_id: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for one in held {
        by_id.entry(&one.key).or_default().push(one);
    }
    let twice = by_id.iter().filter(|(_, places)| places.len() > 1);
    let places = |(id, places): (&&str, &Vec<&Held>)| {
        let places = places.iter().map(|one| format!("{}/{}", one.place.0, one.place.1));
        format!("{id} at {}", places.collect::<Vec<_>>().join(" and "))
    };
    spell(breaches, &format!("events are in the {name} more than once"), twice.map(places));
    let changed = held.iter().filter(|one| owed.get(&one.key).is_some_and(|forms| !forms.contains(&one.value)));
    spell(breaches, &format!("events of the {name} have bytes that nobody served"), changed.map(place));
    let beyond = held.iter().filter(|one| !owed.contains_key(&one.key));
    spell(breaches, &format!("events of the {name} were served by nobody, or are not valid"), beyond.map(place));
}

fn place(held: &Held) -> String {
    format!("{} at {}/{}", held.key, held.place.0, held.place.1)
}

fn spell(breaches: &mut Vec<String>, what: &str, found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    if !found.is_empty() {
        let more = if found.len() > SHOWN { ", …" } else { "" };
        breaches.push(format!("{} {what}: {}{more}", found.len(), found[..found.len().min(SHOWN)].join("; ")));
    }
}

/// Every committed record of a topic on Kafka, by plain librdkafka, from its beginning.
///
/// # Panics
/// When the topic is not there or cannot be read.
pub fn read_kafka(brokers: &str, topic: &str) -> Vec<Held> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tidegate-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "50")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    assert!(partitions > 0, "topic `{topic}` exists");
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("few partitions") {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("assigned");
    let (begun, mut held, mut ended) = (Instant::now(), Vec::new(), BTreeSet::new());
    while ended.len() < partitions {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => held.push(Held {
                place: (message.partition(), message.offset()),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                value: message.payload().unwrap_or_default().to_vec(),
            }),
            // A partition says so anew when another broker leads it.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            // One broker of several went away: librdkafka asks the others.
            Some(Err(error)) if away(&error) && begun.elapsed() < TIMEOUT => {}
            Some(Err(error)) => panic!("could not read topic `{topic}`: {error}"),
            None => panic!("nothing came from topic `{topic}` for {TIMEOUT:?}"),
        }
    }
    held
}

fn away(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure))
}

/// Every committed record of a topic of the embedded log.
///
/// # Panics
/// When the topic is not there or cannot be read.
pub async fn read_log(log: &dyn Log, topic: &str) -> Vec<Held> {
    let ranges = log.ranges(topic).await.expect("the topic exists");
    let from = ranges.iter().map(|range| (range.partition, range.start)).collect();
    let mut reader = log.reader(topic, from).await.expect("a reader");
    let mut held = Vec::new();
    while reader.positions().iter().zip(&ranges).any(|((_, next), range)| *next < range.end) {
        let text = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
        held.extend(reader.read(10_000, TIMEOUT).await.expect("records").into_iter().map(|record| Held {
            place: (record.partition, record.offset),
            key: String::from_utf8(text(record.key.as_deref())).expect("an id in hex"),
            value: text(record.value.as_deref()),
        }));
    }
    held
}

/// Every row of a topic's lake objects, by the Parquet crate.
///
/// # Panics
/// When an object cannot be read, or is not what a lander writes.
pub async fn read_lake(store: &dyn ObjectStore, topic: &str) -> Vec<Held> {
    let prefix = Path::from(format!("topics/{topic}"));
    let objects: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("the lake can be listed");
    let mut held = Vec::new();
    for object in objects {
        let bytes = store.get(&object.location).await.expect("an object").bytes().await.expect("its bytes");
        let rows = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        for batch in rows.unwrap_or_else(|error| panic!("object `{}`: {error}", object.location)) {
            let batch = batch.unwrap_or_else(|error| panic!("object `{}`: {error}", object.location));
            let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap_or_else(|| panic!("no `{name}`")));
            let (ids, raws) = (column("id"), column("raw"));
            let (partitions, offsets) = (column("kafka_partition"), column("kafka_offset"));
            held.extend((0..batch.num_rows()).map(|row| Held {
                place: (
                    partitions.as_primitive::<Int32Type>().value(row),
                    offsets.as_primitive::<Int64Type>().value(row),
                ),
                key: hex(ids.as_fixed_size_binary().value(row)),
                value: raws.as_binary::<i32>().value(row).to_vec(),
            }));
        }
    }
    held
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed;

    /// Ten events, each once in the topic and in the lake.
    fn sound() -> (Owed, Vec<Held>, Vec<Held>) {
        let events = signed::notes_of_one_second(1_700_000_000, 10);
        let owed = owed(&events);
        let record = |(offset, (id, forms)): (i64, (&String, &BTreeSet<Vec<u8>>))| Held {
            place: (0, offset),
            key: id.clone(),
            value: forms.first().expect("a form").clone(),
        };
        let topic: Vec<Held> = (0..).zip(&owed).map(record).collect();
        let lake = topic.clone();
        (owed, topic, lake)
    }

    fn breach(owed: &Owed, topic: &[Held], lake: &[Held], words: &str) {
        let found = audit(owed, topic, lake).expect_err("a breach").join("\n");
        assert!(found.contains(words), "{found}");
    }

    #[test]
    fn what_is_there_once_is_sound() {
        let (owed, topic, lake) = sound();
        assert_eq!(audit(&owed, &topic, &lake), Ok(Audited { events: 10 }));
    }

    #[test]
    fn a_lost_event_is_seen() {
        let (owed, mut topic, mut lake) = sound();
        lake.pop();
        breach(&owed, &topic, &lake, "1 events are not in the lake");
        assert_eq!(audit_unfinished(&owed, &topic, &lake), Ok(()));
        topic.pop();
        breach(&owed, &topic, &lake, "1 events are not in the topic");
    }

    #[test]
    fn a_doubled_event_is_seen() {
        let (owed, mut topic, lake) = sound();
        topic.push(Held { place: (1, 0), ..topic[3].clone() });
        breach(&owed, &topic, &lake, "1 events are in the topic more than once");
        let mut twice = lake.clone();
        twice.push(lake[0].clone());
        breach(&owed, &topic[..10], &twice, "1 events are in the lake more than once");
        assert!(audit_unfinished(&owed, &topic[..10], &twice).is_err());
    }

    #[test]
    fn a_changed_event_is_seen() {
        let (owed, mut topic, mut lake) = sound();
        lake[2].value.push(b' ');
        breach(&owed, &topic, &lake, "1 events of the lake have bytes that nobody served");
        breach(&owed, &topic, &lake, "1 rows of the lake are not the record at their place");
        topic[2].value.push(b' ');
        breach(&owed, &topic, &lake, "1 events of the topic have bytes that nobody served");
    }

    #[test]
    fn a_row_at_another_place_is_seen() {
        let (owed, topic, mut lake) = sound();
        lake[5].place = (0, 99);
        breach(&owed, &topic, &lake, "1 rows of the lake are not the record at their place");
    }

    #[test]
    fn what_nobody_served_is_seen() {
        let (mut owed, topic, lake) = sound();
        owed.pop_first();
        breach(&owed, &topic, &lake, "1 events of the topic were served by nobody");
    }

    #[test]
    fn only_what_is_valid_is_owed_in_every_form_that_was_served() {
        let good = signed::note(1_700_000_000, "gm");
        let spaced = good.replacen(':', ": ", 1);
        let forged = signed::note(1_700_000_001, "gm").replace("\"gm\"", "\"gn\"");
        let owed = owed([good.as_str(), spaced.as_str(), forged.as_str(), "{}", "junk"]);
        assert_eq!(owed.len(), 1);
        assert_eq!(owed.values().next().expect("one").len(), 2);
    }
}
