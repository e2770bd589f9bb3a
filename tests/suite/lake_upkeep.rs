//! The lake through its life, as an operator lives it with the binary: landed, compacted, cleared of raw objects, landed
//! again, damaged, expired. What a reader must see is the development set, taken from the file.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use event::{Clock, Table};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use ingest::lake::{Catalog, CompactProgress, CompactSettings, LanderSettings, compact, land};
use ingest::{Components, Counters};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use processor::lake::{Finding, LakeTable, VerifyProgress, VerifySettings, verify};
use processor::sql::sql;
use serde_json::{Value, json};
use tests::lake_contract::{Bench, Chance, HOUR, NOW, TOPIC, event_json, record, small};
use tests::stage::Stage;
use tests::{finish, script};
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, Record, TopicSpec};

use crate::main_job::input::development_set;

/// Hours over which the set is received.
const HOURS: i64 = 5;

/// A stage whose topic and lake hold the set, received in the last hours before this one.
async fn received_earlier(events: &[Value]) -> Stage {
    let stage = Stage::embedded();
    let clock = Clock::system();
    let began = clock.now_ms() - (HOURS + 2) * HOUR;
    let log = open_log(&stage);
    let spec = TopicSpec { name: stage.topic().to_owned(), partitions: 3, config: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let mut writer = log.writer(None).await.expect("a writer");
    let step = HOURS * HOUR / events.len() as i64;
    let records: Vec<Record> = events
        .iter()
        .zip(0..)
        .map(|(event, at)| Record {
            key: Some(id(event).to_owned().into()),
            ..record(event.to_string(), began + at * step)
        })
        .collect();
    writer.send(stage.topic(), records).await.expect("sent");
    writer.flush().await.expect("flushed");
    drop(writer);
    fs::create_dir_all(stage.dir().join("lake")).expect("a directory");
    let store: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(stage.dir().join("lake")).expect("a store"));
    let drain = CancellationToken::new();
    drain.cancel();
    let settings = LanderSettings { topic: stage.topic().to_owned(), ..small(40) };
    let components = Components { log, clock, counters: Arc::new(Counters::default()) };
    land(settings, components, store, Path::default(), drain).await.expect("landed");
    stage
}

fn open_log(stage: &Stage) -> Arc<dyn Log> {
    let dir = stage.dir().join("log");
    fs::create_dir_all(&dir).expect("a directory");
    Arc::new(EmbeddedLog::open(&dir, Clock::system()).expect("a log"))
}

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

/// What the lake's commands of the binary say to this stage.
fn lake(stage: &Stage, arguments: &[&str]) -> tests::Finished {
    finish(stage.lake_command(&[&["lake"], arguments].concat()).args(["--topic", stage.topic()]))
}

/// Ids that a query over the lake returns, none twice.
fn ids(stage: &Stage) -> BTreeSet<String> {
    let query = "SELECT encode(id, 'hex') AS id FROM events";
    let mut command = stage.lake_command(&["sql", query, "--format", "ndjson"]);
    let rows = finish(command.args(["--raw-events-kafka-topic", stage.topic()])).success().ndjson();
    let ids: BTreeSet<String> = rows.iter().map(|row| id(row).to_owned()).collect();
    assert_eq!(ids.len(), rows.len(), "an event is in the lake once");
    ids
}

fn kinds(stage: &Stage) -> Vec<Value> {
    finish(&mut stage.batch(&["kinds", "1 day"])).success().ndjson()
}

/// Files of the lake below `folder` with this ending.
fn files(stage: &Stage, folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &FilePath, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&stage.dir().join("lake").join(folder), &mut found);
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    found.sort();
    found
}

#[tokio::test]
async fn a_lake_is_compacted_cleared_landed_again_and_expired() {
    let Some(mut events) = development_set() else { return };
    let last = events.remove(0);
    let stage = received_earlier(&events).await;
    let wanted: BTreeSet<String> = events.iter().map(|event| id(event).to_owned()).collect();
    let raw = files(&stage, "topics", ".parquet");
    assert!(raw.len() as i64 > 3 * HOURS, "{} raw objects", raw.len());
    assert_eq!(ids(&stage), wanted);
    let kinds_before = kinds(&stage);
    lake(&stage, &["verify", "--content", "--against-topic"]).success();

    let said = lake(&stage, &["compact", "--target", "300KiB"]).success().stderr();
    assert!(said.contains(&format!("compacted {} objects", raw.len())), "{said}");
    let curated = files(&stage, "curated", ".parquet");
    assert!(curated.len() > 1 && curated.len() * 4 < raw.len(), "{} files of {}", curated.len(), raw.len());
    assert_eq!(lake(&stage, &["compact"]).success().stderr().trim(), "no closed hour is left to be compacted");
    assert_eq!((ids(&stage), kinds(&stage)), (wanted.clone(), kinds_before.clone()));

    // As when the grace is over: what a file holds is not needed raw.
    raw.iter().for_each(|path| fs::remove_file(path).expect("removed"));
    assert_eq!((ids(&stage), kinds(&stage)), (wanted.clone(), kinds_before.clone()));
    let proof = lake(&stage, &["verify", "--content", "--against-topic"]).success();
    assert_eq!(proof.stdout(), "");
    let compared = format!("{},{:03} records compared, nothing found", events.len() / 1_000, events.len() % 1_000);
    assert!(proof.stderr().contains(&compared), "{}", proof.stderr());
    readers_count_the_compacted_files(&stage, &events);

    // Landing goes on after what the manifest covers; a job that reads the lake first has each row once.
    let file = stage.dir().join("last.jsonl");
    fs::write(&file, last.to_string()).expect("a file");
    finish(&mut stage.ingest(&["file", &file.to_string_lossy(), "--max-future", "off"])).success();
    let listed = lake(&stage, &["ls", "--format", "ndjson"]).success().ndjson();
    let rows = |state: &str| -> u64 {
        listed.iter().filter(|line| line["state"] == state).map(|line| line["rows"].as_u64().expect("rows")).sum()
    };
    assert_eq!((rows("compacted"), rows("raw")), (events.len() as u64, 1));
    let from_lake = finish(stage.command(&["stream", "kinds", "1 day", "--start", "lake", "--until-latest"]).args([
        "--raw-events-kafka-topic",
        stage.topic(),
        "--format",
        "ndjson",
    ]))
    .success()
    .ndjson();
    let counted: u64 = from_lake.iter().map(|row| row["events"].as_u64().expect("a count")).sum();
    assert_eq!(counted, events.len() as u64 + 1);

    lake(&stage, &["expire", "--older-than", "1h", "--dry-run"]).success();
    assert_eq!(files(&stage, "curated", ".parquet"), curated);
    let said = lake(&stage, &["expire", "--older-than", "1h"]).success().stderr();
    assert!(said.starts_with("removed what was received before"), "{said}");
    assert_eq!(ids(&stage), BTreeSet::from([id(&last).to_owned()]));
    let removed = lake(&stage, &["ls", "--removed", "--format", "ndjson"]).success().ndjson();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0]["rows"], json!(events.len()));
    lake(&stage, &["verify", "--content", "--against-topic"]).success();
}

/// DuckDB and pyarrow, which know nothing of tidegate, read the compacted files.
fn readers_count_the_compacted_files(stage: &Stage, events: &[Value]) {
    let Some(mut counts) = script("lake_counts.py") else { return };
    let root = stage.dir().join("lake");
    let counted = finish(counts.arg(root).args([stage.topic(), "--compacted"])).success().ndjson().remove(0);
    assert_eq!(counted["rows"], json!(events.len()));
    let pubkeys: BTreeSet<&str> = events.iter().filter_map(|event| event["pubkey"].as_str()).collect();
    assert_eq!(counted["pubkeys"], json!(pubkeys.len()));
}

#[tokio::test]
async fn verify_says_what_is_not_as_it_should_be() {
    let Some(events) = development_set() else { return };
    let stage = received_earlier(&events).await;
    let findings = |options: &[&str]| {
        let finished = lake(&stage, &[&["verify", "--format", "ndjson"], options].concat()).code(4);
        finished.ndjson()
    };
    // A raw object that is gone is a hole, and its records have no row.
    let raw = files(&stage, "topics", ".parquet");
    let of_one: Vec<_> = raw.iter().filter(|path| path.to_string_lossy().contains("-1-00")).collect();
    let gone = of_one[of_one.len() / 2];
    let bytes = fs::read(gone).expect("an object");
    fs::remove_file(gone).expect("removed");
    let found = findings(&[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["finding"], &found[0]["partition"]), (&json!("hole"), &json!(1)));
    let found = findings(&["--against-topic"]);
    let no_row = found.iter().filter(|finding| finding["finding"] == "no_row").count();
    assert!(no_row > 0 && no_row <= 40 && found.len() == no_row + 1, "{no_row} of {}", found.len());
    fs::write(gone, &bytes).expect("written");
    lake(&stage, &["verify", "--against-topic"]).success();

    // A compacted file with other bytes, of the same size, is damaged.
    lake(&stage, &["compact"]).success();
    let file = files(&stage, "curated", ".parquet").remove(0);
    let mut bytes = fs::read(&file).expect("a file");
    bytes[5_000] ^= 1;
    fs::write(&file, &bytes).expect("written");
    lake(&stage, &["verify"]).success();
    let found = findings(&["--content"]);
    assert!(found.iter().any(|finding| finding["finding"] == "damaged"), "{found:?}");
    // A file that is gone is one, too.
    fs::remove_file(&file).expect("removed");
    let found = findings(&["--content"]);
    assert!(found.iter().all(|finding| finding["finding"] == "damaged"), "{found:?}");
}

#[tokio::test]
async fn a_row_with_other_bytes_than_its_record_is_found() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (landed, topic) = (Bench::new(&store, "landed", 1).await, Bench::new(&store, "topic", 1).await);
    let mut chance = Chance(1);
    let values: Vec<String> = (0..9).map(|_| event_json(&mut chance)).collect();
    landed.send(values.iter().map(|value| record(value.clone(), NOW)).collect()).await;
    landed.land(small(100)).await.expect("landed");
    // The topic of another lake differs in one record, and is one longer.
    let mut others = values.clone();
    others[4] = event_json(&mut chance);
    others.push(event_json(&mut chance));
    topic.send(others.iter().map(|value| record(value.clone(), NOW)).collect()).await;

    let lake = LakeTable::new(store, &landed.prefix, TOPIC);
    let settings = VerifySettings { content: false, topic: Some((Arc::clone(&topic.log), TOPIC.to_owned())) };
    let (progress, mut found) = (VerifyProgress::default(), Vec::new());
    let mut note = |finding: Finding| {
        found.push((finding.what, finding.offset));
        Ok(())
    };
    verify(&lake, &settings, &progress, &mut note).await.expect("verified");
    assert_eq!(found, [("other_bytes", Some(4))]);
}

/// A store that counts what is read from it.
#[derive(Debug)]
struct Counting {
    inner: Arc<InMemory>,
    bytes: AtomicU64,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that counts")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let read = self.inner.get_opts(path, options).await?;
        self.bytes.fetch_add(read.range.end - read.range.start, Ordering::Relaxed);
        Ok(read)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.bytes.fetch_add(ranges.iter().map(|range| range.end - range.start).sum(), Ordering::Relaxed);
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What `query` answers, and how many bytes of the store that took.
async fn cost(lake: &LakeTable, store: &Counting, query: &str) -> (Vec<String>, u64) {
    let before = store.bytes.load(Ordering::Relaxed);
    let rows: Vec<_> = sql(lake.clone(), query).await.expect("planned").rows.try_collect().await.expect("rows");
    let lines = rows.iter().flat_map(|batch| processor::row::json_rows(batch).expect("JSON")).collect();
    (lines, store.bytes.load(Ordering::Relaxed) - before)
}

#[tokio::test]
async fn a_compacted_lake_answers_alike_from_a_fifth_of_the_bytes() {
    let counting = Arc::new(Counting { inner: Arc::default(), bytes: AtomicU64::new(0) });
    let store: Arc<dyn ObjectStore> = Arc::clone(&counting) as Arc<dyn ObjectStore>;
    let bench = Bench::new(&store, "bytes", 2).await;
    // A day of live events: dates lie near the moment of receipt, some weeks before it.
    let mut chance = Chance(5);
    let events: Vec<(String, i64)> = (0..100_000)
        .map(|at| {
            let received = NOW - 24 * HOUR + at * (20 * HOUR / 100_000);
            let past = if chance.below(20) == 0 { chance.below(14 * 86_400) } else { chance.below(30) } as i64;
            let id = format!("{:016x}{:016x}{:016x}{at:016x}", chance.below(u64::MAX), chance.below(u64::MAX), at);
            let author = chance.below(5_000);
            let text: String = (0..chance.below(12)).map(|_| format!("{:08x} ", chance.below(u64::MAX))).collect();
            let json = format!(
                r#"{{"id":"{id}","pubkey":"{author:064x}","created_at":{},"kind":1,"tags":[],"content":"{text}","sig":"{id}{id}"}}"#,
                received / 1_000 - past
            );
            (json, received)
        })
        .collect();
    let wanted: Value = serde_json::from_str(&events[70_000].0).expect("an event");
    bench.send(events.into_iter().map(|(json, received)| record(json, received)).collect()).await;
    bench.land(small(900)).await.expect("landed");
    let lake = LakeTable::new(Arc::clone(&store), &bench.prefix, TOPIC);
    let queries = [
        format!("SELECT raw FROM events WHERE encode(id, 'hex') = '{}'", wanted["id"].as_str().expect("an id")),
        format!(
            "SELECT encode(id, 'hex') AS id, content FROM events WHERE id = X'{}'",
            wanted["id"].as_str().expect("an id")
        ),
        "SELECT count(*) AS n, min(content) AS least FROM events \
         WHERE created_at >= TIMESTAMP '2026-11-20T10:00:00Z' AND created_at < TIMESTAMP '2026-11-20T10:10:00Z'"
            .to_owned(),
    ];
    let mut before = Vec::new();
    for query in &queries {
        before.push(cost(&lake, &counting, query).await);
    }
    let catalog = Catalog {
        store,
        prefix: bench.prefix.clone(),
        topic: TOPIC.to_owned(),
        table: Table::Events,
        clock: Clock::mock(NOW),
    };
    let settings = CompactSettings::new(std::env::temp_dir());
    let progress = Arc::new(CompactProgress::default());
    compact(&catalog, &settings, progress, &CancellationToken::new()).await.expect("compacted");
    for (query, (answer, bytes)) in queries.iter().zip(before) {
        let (now, less) = cost(&lake, &counting, query).await;
        println!("{bytes} bytes before, {less} after: {query}");
        assert_eq!(answer, now);
        assert!(answer.len() == 1, "{answer:?}");
        assert!(less * 5 <= bytes, "{less} of {bytes} bytes for {query}");
    }
}
