//! The lake read: objects made by hand, as a lander, Kafka Connect or a stranger would have written them.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use event::layout::footer;
use event::schema::{self, events_schema};
use event::{Event, EventBatchBuilder, Limits, Origin};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;

use super::{LakeObject, LakeTable};
use crate::error::{ErrorKind, Result};

const HOUR: &str = "year=2026/month=11/day=21/hour=04";

fn event(created_at: i64) -> String {
    let (id, sig) = (format!("{created_at:064x}"), format!("{created_at:0128x}"));
    format!(
        r#"{{"id":"{id}","pubkey":"{id}","created_at":{created_at},"kind":1,"tags":[["t","a"],[]],"content":"ü","sig":"{sig}"}}"#
    )
}

fn rows(times: &[i64], start: i64) -> RecordBatch {
    let mut builder = EventBatchBuilder::new();
    for (offset, time) in (start..).zip(times) {
        let raw = event(*time);
        let parsed = Event::parse(raw.as_bytes(), &Limits::default()).expect("an event");
        let origin = Origin { relay: Some("wss://r/"), received_at_ms: Some(5), phase: None, partition: 0, offset };
        builder.append(&parsed, &origin, raw.as_bytes());
    }
    builder.finish()
}

fn parquet(rows: &RecordBatch, facts: &[(&str, i64)]) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("a writer");
    writer.write(rows).expect("written");
    for (name, value) in facts {
        writer.append_key_value_metadata(KeyValue::new((*name).to_owned(), value.to_string()));
    }
    writer.into_inner().expect("closed")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("packed");
    encoder.finish().expect("packed")
}

/// A lake in memory under `prefix`, whose objects are named as the pairs say.
async fn lake(folder: &str, objects: Vec<(String, Vec<u8>)>) -> LakeTable {
    let store = InMemory::new();
    for (name, bytes) in objects {
        store.put(&Path::from(format!("{folder}/{name}")), bytes.into()).await.expect("put");
    }
    LakeTable::at(Arc::new(store), Path::from(folder))
}

/// An object of rows at these event times, in seconds, with the footer that a lander writes.
fn landed(partition: i32, start: i64, times: &[i64]) -> (String, Vec<u8>) {
    let end = start + i64::try_from(times.len()).expect("few");
    let mut facts = vec![(footer::START, start), (footer::END, end)];
    let micros = |secs: &i64| secs * 1_000_000;
    facts.extend(times.iter().min().map(|least| (footer::EVENT_TIME_MIN, micros(least))));
    facts.extend(times.iter().max().map(|most| (footer::EVENT_TIME_MAX, micros(most))));
    (format!("{HOUR}/t-{partition}-{start:020}.parquet"), parquet(&rows(times, start), &facts))
}

async fn read(lake: &LakeTable, columns: &[usize]) -> Result<Vec<RecordBatch>> {
    let mut all = Vec::new();
    for object in lake.objects().await? {
        all.extend(lake.read(&object, columns).try_collect::<Vec<_>>().await?);
    }
    Ok(all)
}

fn starts(objects: &[LakeObject]) -> Vec<(i32, i64)> {
    objects.iter().map(|object| (object.ranges[0].partition, object.ranges[0].start)).collect()
}

#[tokio::test]
async fn objects_come_by_least_event_time_and_the_unknown_first() {
    let json = (format!("{HOUR}/t-2-{:020}.json.gz", 7), gzip(&event(1)));
    let lake = lake(
        "lake/topics/t",
        vec![landed(0, 0, &[50, 70]), landed(0, 2, &[30]), landed(1, 0, &[40, 90]), json, landed(1, 2, &[])],
    )
    .await;
    let objects = lake.objects().await.expect("listed");
    assert_eq!(starts(&objects), [(1, 2), (2, 7), (0, 2), (1, 0), (0, 0)]);
    let last = objects.last().expect("objects");
    assert_eq!((last.rows, last.ranges[0].end, last.event_time), (Some(2), Some(2), Some((50_000_000, 70_000_000))));
    assert_eq!((objects[1].rows, objects[1].ranges[0].end, objects[1].event_time), (None, None, None));
}

#[tokio::test]
async fn only_what_provably_holds_no_row_is_left_out() {
    let json = (format!("{HOUR}/t-2-{:020}.json.gz", 7), gzip(&event(1)));
    let unknown = (format!("{HOUR}/t-3-{:020}.parquet", 0), parquet(&rows(&[1], 0), &[]));
    let lake = lake("t", vec![landed(0, 0, &[10, 20]), landed(0, 2, &[30]), landed(1, 0, &[]), json, unknown]).await;
    let objects = lake.objects().await.expect("listed");
    let kept = |start: Option<i64>, end: Option<i64>| {
        let range = start.map(|secs| secs * 1_000_000)..end.map(|secs| secs * 1_000_000);
        let (kept, skipped) = LakeTable::prune(objects.clone(), &range);
        assert_eq!(kept.len() + skipped, objects.len());
        starts(&kept)
    };
    assert_eq!(kept(None, None), [(2, 7), (3, 0), (0, 0), (0, 2)]);
    assert_eq!(kept(Some(21), None), [(2, 7), (3, 0), (0, 2)]);
    assert_eq!(kept(Some(20), Some(30)), [(2, 7), (3, 0), (0, 0)]);
    assert_eq!(kept(None, Some(10)), [(2, 7), (3, 0)]);
    assert_eq!(kept(Some(11), Some(12)), [(2, 7), (3, 0), (0, 0)], "times between least and greatest may be there");
}

#[tokio::test]
async fn objects_that_cover_the_same_offsets_are_an_error() {
    let second = format!("{HOUR}/t-0-{:020}", 2);
    for other in [landed(0, 1, &[1]), (format!("{HOUR}/t-0-{:020}.json.gz", 0), gzip(&event(1)))] {
        let lake = lake("t", vec![landed(0, 0, &[1, 2]), landed(0, 2, &[3]), other.clone()]).await;
        let error = lake.objects().await.expect_err("rows would count twice");
        assert_eq!(error.kind(), ErrorKind::Data);
        let words = error.to_string();
        assert!(words.contains(&other.0) && !words.contains(&second), "{words}");
    }
    // What retention or an erasure took leaves a gap, which is no error.
    let lake = lake("t", vec![landed(0, 0, &[1]), landed(0, 9, &[2]), landed(1, 0, &[3])]).await;
    assert_eq!(lake.objects().await.expect("listed").len(), 3);
}

#[tokio::test]
async fn rows_have_the_columns_that_are_wanted() {
    let lake = lake("t", vec![landed(0, 4, &[10, 20, 30])]).await;
    let all: Vec<usize> = (0..events_schema().fields().len()).collect();
    assert_eq!(read(&lake, &all).await.expect("rows"), [rows(&[10, 20, 30], 4)]);
    for columns in [vec![2, 3], vec![4], vec![12, 10, 0]] {
        let got = read(&lake, &columns).await.expect("rows");
        assert_eq!(got, [rows(&[10, 20, 30], 4).project(&columns).expect("columns")]);
    }
    // `count(*)` wants no column at all.
    let counted: usize = read(&lake, &[]).await.expect("rows").iter().map(RecordBatch::num_rows).sum();
    assert_eq!(counted, 3);
}

#[tokio::test]
async fn json_lines_are_read_as_kafka_connect_wrote_them() {
    // Two gzip members, ten digits, a line that is no event, no line feed at the end.
    let mut bytes = gzip(&format!("{}\n{{\"type\":\"heartbeat\"}}\n", event(10)));
    bytes.extend(gzip(&event(20)));
    let name = "year=2024/month=07/day=28/hour=09/nostr-event-3-0000000042.json.gz";
    let lake = lake("topics/nostr-event", vec![(name.to_owned(), bytes)]).await;
    let all: Vec<usize> = (0..events_schema().fields().len()).collect();
    let batches = read(&lake, &all).await.expect("rows");
    let [batch] = batches.as_slice() else { panic!("{} batches", batches.len()) };
    let column = |name: &str| batch.column_by_name(name).expect("a column");
    assert_eq!(column(schema::KAFKA_OFFSET).as_primitive::<Int64Type>().values(), &[42, 44]);
    assert_eq!(column(schema::RAW).as_binary::<i32>().value(1), event(20).as_bytes());
    for name in [schema::RELAY, schema::RECEIVED_AT, schema::PHASE] {
        assert_eq!(column(name).null_count(), 2, "{name}");
    }
    assert_eq!(lake.unreadable(), 1);
    assert_eq!(read(&lake, &[]).await.expect("rows").iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_folder_that_was_copied_is_read_and_strangers_are_passed_over() {
    let strangers = ["_manifest/1.json", "part-0.parquet", "year=2026/month=11/day=21/hour=04/t-0.parquet"];
    let mut objects = vec![landed(0, 0, &[1])];
    objects.extend(strangers.map(|name| (name.to_owned(), b"x".to_vec())));
    let lake = lake("backup/of-yesterday", objects).await;
    let objects = lake.objects().await.expect("listed");
    assert_eq!(starts(&objects), [(0, 0)]);
    assert_eq!(objects[0].topic, "t");
}

#[tokio::test]
async fn a_lake_that_is_not_there_is_empty() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = LakeTable::new(store, &Path::from("lake"), "t");
    assert_eq!(lake.folder().as_ref(), "lake/topics/t");
    assert_eq!(lake.objects().await.expect("listed"), []);
}

#[tokio::test]
async fn what_no_lander_wrote_is_an_error_that_names_the_object() {
    let broken = (format!("{HOUR}/t-0-{:020}.parquet", 0), b"PAR1 and then nothing".to_vec());
    let error = lake("t", vec![broken]).await.objects().await.expect_err("no footer");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("t-0-00000000000000000000.parquet"), "{error}");

    let mut whole = gzip(&event(1));
    whole.truncate(whole.len() / 2);
    let torn = lake("t", vec![(format!("{HOUR}/t-0-{:020}.json.gz", 0), whole)]).await;
    assert_eq!(read(&torn, &[0]).await.expect_err("torn").kind(), ErrorKind::Data);

    let only_kind = Arc::new(Schema::new(vec![Field::new(schema::KIND, DataType::Int32, false)]));
    let strange = RecordBatch::try_new(only_kind, vec![Arc::new(Int32Array::from(vec![1]))]).expect("a batch");
    let other = lake("t", vec![(format!("{HOUR}/t-0-{:020}.parquet", 0), parquet(&strange, &[]))]).await;
    let error = read(&other, &[0]).await.expect_err("no id");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("`id`"), "{error}");
    assert_eq!(read(&other, &[3]).await.expect("kinds").len(), 1);
}
