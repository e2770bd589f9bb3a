//! What landing must do on every store, as plain functions: each takes a store, works below a prefix of its own on an
//! embedded log of its own, and fails by panicking.
//!
//! [`run_all`] is run in memory, on a local directory and on a real MinIO. Objects are read back with the parquet crate
//! alone. What goes wrong between lander and store or log is tested beside the lander.

#![allow(unreachable_pub, dead_code, reason = "this file is a module of two test binaries")]
#![allow(clippy::missing_panics_doc, reason = "these are tests")]
#![allow(clippy::cast_possible_truncation, reason = "numbers are small here")]

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use event::layout::{HEADER_PHASE, HEADER_RELAY, LakeFormat, LakeKey, footer};
use event::schema::{KAFKA_OFFSET, KAFKA_PARTITION, PHASE, RAW, RECEIVED_AT, RELAY};
use event::{Clock, EventTime};
use flate2::read::MultiGzDecoder;
use futures::TryStreamExt;
use ingest::lake::{LanderSettings, land};
use ingest::{Components, Counters, ErrorKind};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Header, Log, OffsetRange, Record, StoredRecord, TopicSpec};

/// Name of the topic in every test.
pub const TOPIC: &str = "nostr-event";
/// 2026-11-21T04:30:00Z, milliseconds.
pub const NOW: i64 = 1_795_235_400_000;
/// Milliseconds of an hour.
pub const HOUR: i64 = 3_600_000;

/// Runs the whole contract on `store`; returns the name and time of each part.
pub async fn run_all(store: &Arc<dyn ObjectStore>) -> Vec<(&'static str, Duration)> {
    macro_rules! parts {
        ($($part:ident),+ $(,)?) => {{
            let mut parts = Vec::new();
            $(
                let began = Instant::now();
                $part(store).await;
                parts.push((stringify!($part), began.elapsed()));
            )+
            parts
        }};
    }
    parts![
        a_name_is_given_once,
        every_record_lands_once_byte_for_byte,
        a_restart_goes_on_where_the_lake_ends,
        an_object_never_spans_an_hour_and_hours_never_go_back,
        age_closes_an_object,
        two_landers_neither_overlap_nor_lose,
        json_lines_hold_the_values_alone,
        both_forms_lie_in_one_lake,
        a_record_without_an_event_is_counted,
        a_topic_made_anew_is_refused,
    ]
}

/// A log with a topic, and the lake it is landed in.
pub struct Bench {
    _dir: TempDir,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store of the lake.
    pub store: Arc<dyn ObjectStore>,
    /// Prefix of the lake in the store.
    pub prefix: Path,
    chance: Chance,
}

impl Bench {
    /// A new log with a topic of `partitions`, and an empty lake in `store`.
    pub async fn new(store: &Arc<dyn ObjectStore>, what: &str, partitions: i32) -> Self {
        let dir = TempDir::new().expect("a directory");
        let log = EmbeddedLog::open(dir.path(), Clock::mock(NOW)).expect("a log");
        let spec = TopicSpec { name: TOPIC.to_owned(), partitions, config: Vec::new() };
        log.create_topic(&spec).await.expect("a topic");
        // A prefix with the word that all keys hold: it must not be taken for part of the key.
        let prefix = Path::from(format!("lake/my-topics/{what}-{}", fresh()));
        Self { _dir: dir, log: Arc::new(log), store: Arc::clone(store), prefix, chance: Chance(7) }
    }

    /// Writes events received at the given times, to partitions by turns.
    pub async fn receive(&mut self, times_ms: impl IntoIterator<Item = i64>) {
        let partitions = self.log.topics().await.expect("topics")[0].partitions;
        let records = times_ms.into_iter().enumerate().map(|(at, time)| {
            let partition = at as i32 % partitions;
            Record { partition: Some(partition), ..record(event_json(&mut self.chance), time) }
        });
        let records = records.collect();
        self.send(records).await;
    }

    /// Writes records as they are.
    pub async fn send(&self, records: Vec<Record>) {
        let mut writer = self.log.writer(None).await.expect("a writer");
        writer.send(TOPIC, records).await.expect("sent");
        writer.flush().await.expect("flushed");
    }

    /// Lands what is in the topic now.
    pub async fn land(&self, settings: LanderSettings) -> ingest::Result<ingest::CountersSnapshot> {
        let drain = CancellationToken::new();
        drain.cancel();
        self.land_until(settings, drain).await
    }

    /// Lands until `drain` fires.
    pub async fn land_until(
        &self,
        settings: LanderSettings,
        drain: CancellationToken,
    ) -> ingest::Result<ingest::CountersSnapshot> {
        let components = components(&self.log);
        let counters = Arc::clone(&components.counters);
        land(settings, components, Arc::clone(&self.store), self.prefix.clone(), drain).await?;
        Ok(counters.snapshot())
    }

    /// What lies in the lake.
    pub async fn objects(&self) -> Vec<Object> {
        objects(self.store.as_ref(), &self.prefix).await
    }

    /// Everything the topic holds is in the lake, once and in order.
    pub async fn check(&self) -> Vec<Object> {
        let objects = self.objects().await;
        check_tiling(&objects, &records(self.log.as_ref()).await, &self.log.ranges(TOPIC).await.expect("ranges"));
        objects
    }
}

/// What a lander works with.
pub fn components(log: &Arc<dyn Log>) -> Components {
    Components { log: Arc::clone(log), clock: Clock::mock(NOW), counters: Arc::new(Counters::default()) }
}

/// Objects small enough for rare paths to run.
pub fn small(rows_max: usize) -> LanderSettings {
    LanderSettings { topic: TOPIC.to_owned(), rows_max, ..LanderSettings::default() }
}

async fn a_name_is_given_once(store: &Arc<dyn ObjectStore>) {
    let path = Path::from(format!("lake/once-{}", fresh()));
    store.put_opts(&path, "first".into(), PutMode::Create.into()).await.expect("the name is free");
    let second = store.put_opts(&path, "second".into(), PutMode::Create.into()).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
    let there = store.get(&path).await.expect("an object").bytes().await.expect("bytes");
    assert_eq!(&there[..], b"first");
}

async fn every_record_lands_once_byte_for_byte(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "once", 3).await;
    bench.receive((0..2_000).map(|at| NOW + at)).await;
    let counters = bench.land(small(150)).await.expect("landed");
    let objects = bench.check().await;
    assert_eq!((counters.landed_rows, counters.landed_objects), (2_000, objects.len() as u64));
    assert!(objects.len() >= 14 && objects.iter().all(|object| object.rows.len() <= 150), "{}", objects.len());
    for object in &objects {
        let fact = |name: &str| object.facts.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", object.facts));
        assert_eq!(fact(footer::TOPIC), TOPIC);
        assert_eq!(fact(footer::ROWS), &object.rows.len().to_string());
        assert_eq!(fact(footer::SHA256).len(), 64);
        let times = object.rows.iter().map(|row| {
            let event = event::Event::parse(&row.raw, &event::Limits::default()).expect("an event");
            event.event_time().micros()
        });
        let (least, most) = (times.clone().min().expect("rows"), times.max().expect("rows"));
        assert_eq!(
            (fact(footer::EVENT_TIME_MIN), fact(footer::EVENT_TIME_MAX)),
            (&least.to_string(), &most.to_string())
        );
    }
    // Nothing new: nothing is written.
    let again = bench.land(small(150)).await.expect("landed");
    assert_eq!((again.landed_objects, bench.objects().await.len()), (0, objects.len()));
}

async fn a_restart_goes_on_where_the_lake_ends(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "restart", 2).await;
    let mut chance = Chance(11);
    let mut time = NOW;
    for _ in 0..12 {
        let count = chance.below(90);
        bench.receive((0..count).map(|at| time + at as i64)).await;
        time += chance.below(30) as i64 * 60_000;
        bench.land(small(1 + chance.below(40) as usize)).await.expect("landed");
    }
    bench.check().await;
}

async fn an_object_never_spans_an_hour_and_hours_never_go_back(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "hours", 1).await;
    // The clock goes back by an hour in between, and jumps ahead by five.
    let times = [0, 1, HOUR, 0, 2, HOUR + 1, 6 * HOUR, 2 * HOUR, 5 * HOUR, 6 * HOUR + 1].map(|time| NOW + time);
    bench.receive(times).await;
    bench.land(small(1_000)).await.expect("landed");
    let objects = bench.check().await;
    let hours: Vec<(i64, usize)> = objects.iter().map(|object| (object.key.hour, object.rows.len())).collect();
    let first = NOW / HOUR;
    assert_eq!(hours, [(first, 2), (first + 1, 4), (first + 6, 4)]);
    // The greatest time so far survives a restart.
    bench.receive([NOW]).await;
    bench.land(small(1_000)).await.expect("landed");
    assert_eq!(bench.check().await.last().map(|object| object.key.hour), Some(first + 6));
}

async fn age_closes_an_object(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "age", 1).await;
    bench.receive([NOW, NOW + 1]).await;
    let drain = CancellationToken::new();
    let settings = LanderSettings { age_max: Duration::from_millis(50), ..small(1_000) };
    let seen = async {
        let began = Instant::now();
        while bench.objects().await.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing was written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drain.cancel();
    };
    let (landed, ()) = tokio::join!(bench.land_until(settings, drain.clone()), seen);
    assert_eq!(landed.expect("landed").landed_objects, 1);
    bench.check().await;
}

async fn two_landers_neither_overlap_nor_lose(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "race", 2).await;
    bench.receive((0..600).map(|at| NOW + at * 20_000)).await;
    let (one, other) = tokio::join!(bench.land(small(17)), bench.land(small(23)));
    let (one, other) = (one.expect("landed"), other.expect("landed"));
    let objects = bench.check().await;
    // An object that both wrote alike counts for both.
    assert!(one.landed_objects + other.landed_objects >= objects.len() as u64);
}

async fn json_lines_hold_the_values_alone(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "json", 2).await;
    let settings = || LanderSettings { format: LakeFormat::JsonGz, ..small(40) };
    bench.receive((0..130).map(|at| NOW + at * 60_000)).await;
    bench.land(settings()).await.expect("landed");
    bench.receive((0..70).map(|at| NOW + at * 60_000)).await;
    bench.land(settings()).await.expect("landed");
    let objects = bench.check().await;
    assert!(objects.iter().all(|object| object.key.format == LakeFormat::JsonGz));
    // Line feeds between tokens are written as blanks.
    let spread = event_json(&mut Chance(3)).replace(",\"", ",\r\n \"");
    bench.send(vec![Record { partition: Some(0), ..record(spread.clone(), NOW) }]).await;
    bench.land(settings()).await.expect("landed");
    let objects = bench.objects().await;
    let last = objects.iter().rfind(|object| object.key.partition == 0).and_then(|object| object.rows.last());
    assert_eq!(last.map(|row| row.raw.clone()), Some(spread.replace("\r\n", "  ").into_bytes()));
}

async fn both_forms_lie_in_one_lake(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "forms", 2).await;
    for (at, format) in
        [LakeFormat::Parquet, LakeFormat::JsonGz, LakeFormat::JsonGz, LakeFormat::Parquet].into_iter().enumerate()
    {
        bench.receive((0..50).map(|row| NOW + at as i64 * HOUR / 2 + row)).await;
        bench.land(LanderSettings { format, ..small(20) }).await.expect("landed");
    }
    bench.check().await;
}

async fn a_record_without_an_event_is_counted(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "strange", 1).await;
    bench.receive([NOW]).await;
    bench.send(vec![record("no event".to_owned(), NOW), Record { value: None, ..record(String::new(), NOW) }]).await;
    // A time that no folder can be named after.
    bench.receive([i64::MAX, NOW]).await;
    bench.land(small(100)).await.expect("landed");
    let objects = bench.objects().await;
    let [object] = objects.as_slice() else { panic!("{} objects", objects.len()) };
    let offsets: Vec<i64> = object.rows.iter().map(|row| row.offset).collect();
    assert_eq!((object.key.start, object.end, offsets), (0, 5, vec![0, 3, 4]));
    assert_eq!(object.facts.get(footer::UNREADABLE).map(String::as_str), Some("2"));
}

async fn a_topic_made_anew_is_refused(store: &Arc<dyn ObjectStore>) {
    let mut bench = Bench::new(store, "anew", 1).await;
    bench.receive((0..20).map(|at| NOW + at)).await;
    bench.land(small(100)).await.expect("landed");
    let mut anew = Bench::new(store, "unused", 1).await;
    anew.prefix = bench.prefix.clone();
    anew.receive((0..10).map(|at| NOW + at)).await;
    let refused = anew.land(small(100)).await.expect_err("the lake is ahead of the topic");
    assert_eq!(refused.kind(), ErrorKind::Data);
    let words = refused.to_string();
    assert!(words.contains("offset 10") && words.contains("20") && words.contains("made anew"), "{words}");
}

/// One row, as it was landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Offset in the topic.
    pub offset: i64,
    /// Record value.
    pub raw: Vec<u8>,
    /// Relay, received time in microseconds and phase, where the form keeps them.
    pub origin: Option<(String, i64, String)>,
}

/// One object, read back.
#[derive(Clone, Debug)]
pub struct Object {
    /// What its name says.
    pub key: LakeKey,
    /// Where the next one starts.
    pub end: i64,
    /// Its rows in order.
    pub rows: Vec<Row>,
    /// Key-value metadata of a Parquet footer.
    pub facts: HashMap<String, String>,
}

/// All raw objects of a lake, by partition and start.
pub async fn objects(store: &dyn ObjectStore, prefix: &Path) -> Vec<Object> {
    let listed: Vec<_> = store.list(Some(&prefix.clone().join("topics"))).try_collect().await.expect("a list");
    let mut objects = Vec::new();
    for meta in listed {
        objects.push(object(store, prefix, &meta.location).await);
    }
    objects.sort_by_key(|object| (object.key.partition, object.key.start));
    objects
}

/// One raw object, read back.
pub async fn object(store: &dyn ObjectStore, prefix: &Path, path: &Path) -> Object {
    let key = LakeKey::parse(path.as_ref()).unwrap_or_else(|| panic!("a strange name: {path}"));
    assert_eq!(path.as_ref(), format!("{prefix}/{key}"), "the name is the one that the key prints");
    let bytes = store.get(path).await.expect("an object").bytes().await.expect("bytes");
    match key.format {
        LakeFormat::Parquet => parquet_object(key, bytes),
        LakeFormat::JsonGz => json_object(key, &bytes),
    }
}

fn parquet_object(key: LakeKey, bytes: bytes::Bytes) -> Object {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet object");
    let entries = reader.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let facts: HashMap<String, String> =
        entries.filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?))).collect();
    assert_eq!(facts[footer::START], key.start.to_string());
    assert_eq!(facts[footer::PARTITION], key.partition.to_string());
    let batches = reader.build().expect("a reader").collect::<Result<Vec<_>, _>>().expect("rows");
    let rows = batches.iter().flat_map(|batch| rows_of(batch, key.partition)).collect();
    let end = facts[footer::END].parse().expect("a number");
    Object { key, end, rows, facts }
}

fn rows_of(batch: &RecordBatch, partition: i32) -> Vec<Row> {
    let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    let row = |at: usize| {
        assert_eq!(column(KAFKA_PARTITION).as_primitive::<Int32Type>().value(at), partition);
        let text = |name: &str| column(name).as_string::<i32>().value(at).to_owned();
        let received = column(RECEIVED_AT).as_primitive::<TimestampMicrosecondType>().value(at);
        Row {
            offset: column(KAFKA_OFFSET).as_primitive::<Int64Type>().value(at),
            raw: column(RAW).as_binary::<i32>().value(at).to_vec(),
            origin: Some((text(RELAY), received, text(PHASE))),
        }
    };
    (0..batch.num_rows()).map(row).collect()
}

fn json_object(key: LakeKey, bytes: &[u8]) -> Object {
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut text).expect("gzip");
    let lines = text.strip_suffix(b"\n").expect("lines end with a line feed").split(|byte| *byte == b'\n');
    let rows: Vec<Row> =
        (key.start..).zip(lines).map(|(offset, line)| Row { offset, raw: line.to_vec(), origin: None }).collect();
    let end = key.start + rows.len() as i64;
    Object { key, end, rows, facts: HashMap::new() }
}

/// The objects of every partition follow each other and hold its records, each in an hour that all its rows share.
pub fn check_tiling(objects: &[Object], records: &[StoredRecord], ranges: &[OffsetRange]) {
    for range in ranges {
        let objects: Vec<&Object> = objects.iter().filter(|object| object.key.partition == range.partition).collect();
        let records: Vec<&StoredRecord> = records.iter().filter(|record| record.partition == range.partition).collect();
        let mut at = range.start;
        for object in &objects {
            let hole = records.iter().all(|record| !(at..object.key.start).contains(&record.offset));
            let json = object.key.format == LakeFormat::JsonGz;
            assert!(object.key.start == at || (json && object.key.start > at && hole), "{} after {at}", object.key);
            assert!(object.rows.iter().all(|row| (object.key.start..object.end).contains(&row.offset)));
            at = object.end;
        }
        assert!(at <= range.end, "partition {} is landed up to {at} of {}", range.partition, range.end);
        let landed: Vec<&Row> = objects.iter().flat_map(|object| &object.rows).collect();
        let offsets = |landed: &[&Row]| landed.iter().map(|row| row.offset).collect::<Vec<_>>();
        let wanted: Vec<i64> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets(&landed), wanted, "offsets of partition {}", range.partition);
        for (row, record) in landed.iter().zip(&records) {
            assert_eq!(Some(&row.raw[..]), record.value.as_deref(), "bytes at offset {}", row.offset);
            let header = |name: &str| record.header(name).expect("a header").to_owned();
            let origin = (header(HEADER_RELAY), record.timestamp_ms * 1_000, header(HEADER_PHASE));
            assert!(row.origin.as_ref().is_none_or(|landed| *landed == origin), "{row:?}");
        }
        check_hours(&objects, &records);
    }
}

fn check_hours(objects: &[&Object], records: &[&StoredRecord]) {
    let mut most = i64::MIN;
    let mut hours = BTreeMap::new();
    for record in records {
        most = most.max(record.timestamp_ms);
        hours.insert(record.offset, EventTime::from_millis(most).expect("a time").hours());
    }
    for object in objects {
        let strange = object.rows.iter().find(|row| hours[&row.offset] != object.key.hour);
        assert_eq!(strange.map(|row| row.offset), None, "a row of {} was received in another hour", object.key);
    }
}

/// Everything that the topic holds, by partition and offset.
pub async fn records(log: &dyn Log) -> Vec<StoredRecord> {
    let ranges = log.ranges(TOPIC).await.expect("ranges");
    let from = ranges.iter().map(|range| (range.partition, range.start)).collect();
    let mut reader = log.reader(TOPIC, from).await.expect("a reader");
    let mut records = Vec::new();
    let ends: Vec<(i32, i64)> = ranges.iter().map(|range| (range.partition, range.end)).collect();
    while reader.positions().iter().zip(&ends).any(|(position, end)| position.1 < end.1) {
        records.extend(reader.read(10_000, Duration::from_secs(1)).await.expect("records"));
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// A record as ingest publishes it.
pub fn record(value: String, time_ms: i64) -> Record {
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned().into() };
    Record {
        value: Some(value.into()),
        headers: vec![header(HEADER_RELAY, "wss://relay.example/"), header(HEADER_PHASE, "live")],
        timestamp_ms: Some(time_ms),
        ..Record::default()
    }
}

/// An event with everything but a true id and signature: a lander believes its topic.
pub fn event_json(chance: &mut Chance) -> String {
    let (id, author, time) = (chance.below(u64::MAX), chance.below(50), 1_700_000_000 + chance.below(90_000_000));
    let kind = [0, 1, 1, 1, 7, 30_023][chance.below(6) as usize];
    let content = "ein Wort für 🦀 \\n ".repeat(chance.below(9) as usize);
    format!(
        r#"{{"id":"{id:064x}", "pubkey":"{author:064x}","created_at":{time},"kind":{kind},"tags":[["t","tide"],["e","{id:064x}",""]],"content":"{content}","sig":"{id:0128x}"}}"#
    )
}

/// Numbers that look like chance and are the same in every run (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A name that no other run has used; stores outlive runs.
fn fresh() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one("lake"))
}
