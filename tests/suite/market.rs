//! The table `market` from frames to rows: what a script with exact decimals, which knows nothing of tidegate, makes of
//! the same frames, is what lies in log and lake and what queries and jobs read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use event::layout::LakeFormat;
use event::{Clock, MarketEvent, MarketFrame, Table};
use ingest::lake::{LanderSettings, land};
use ingest::{Components, Counters};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use serde_json::{Value, json};
use tests::stage::Stage;
use tests::traffic::Traffic;
use tests::{finish, repository, script, shared, sorted};
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, Record, TopicSpec};

const HOUR: i64 = 3_600_000;
/// All columns but those of the log.
const ROWS: &str = "SELECT encode(id, 'hex') AS id, event_type, event_time, sent_at, collection, chain, nft_id, item_name, \
                    item_url, image_url, from_account, to_account, maker, taker, quantity, price, payment_token, \
                    payment_symbol, payment_decimals, eth_price, usd_price, price_basis, amount, amount_eth, amount_usd, \
                    order_hash, transaction_hash, listing_type, is_private, expires_at FROM market";

/// Frames of a file, and what they must come to.
struct Golden {
    path: PathBuf,
    frames: Vec<String>,
    rows: Vec<Value>,
    /// Rows, copies, control frames, refused ones.
    counts: [u64; 4],
}

impl Golden {
    /// Writes the frames into `dir` and asks the script.
    fn of(dir: &FilePath, frames: Vec<String>) -> Option<Self> {
        let path = dir.join("frames.jsonl");
        fs::write(&path, frames.join("\n") + "\n").expect("written");
        let mut rows = finish(script("market.py")?.arg(&path)).success().ndjson();
        let counts = rows.pop().expect("counts");
        let counts = ["rows", "copies", "control", "refused"].map(|name| counts[name].as_u64().expect(name));
        Some(Self { path, frames, rows, counts })
    }
}

/// The frames of `suite/market/frames.jsonl`, made by hand: what is hard to count.
fn hard_frames() -> Vec<String> {
    let text = fs::read_to_string(repository().join("tests/suite/market/frames.jsonl")).expect("the hard frames");
    text.lines().map(str::to_owned).collect()
}

/// Real messages, payloads alone among them put beside their type; none where there is no data set.
fn real_frames() -> Vec<String> {
    let Some(shared) = shared() else { return Vec::new() };
    let read = |name: &str| fs::read_to_string(shared.join("data/opensea").join(name)).expect(name);
    let index = read("index.tsv");
    let forms = index.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let framed = |(line, form): (&str, Vec<&str>)| match form[2] {
        "inner" => format!("{{\"event_type\":\"{}\",\"payload\":{line}}}", form[1]),
        _ => line.to_owned(),
    };
    read("messages.jsonl").lines().zip(forms).map(framed).collect()
}

/// Real events of the testnet, which somebody had made flat, as events again; none where there is no data set.
fn testnet_frames() -> Vec<String> {
    let Some(shared) = shared() else { return Vec::new() };
    let table = fs::read_to_string(shared.join("data/opensea/testnet_rows.csv")).expect("the testnet's rows");
    let framed = |line: &str| {
        let cells: Vec<Value> =
            line.split(',').map(|cell| if cell.is_empty() { json!(null) } else { json!(cell) }).collect();
        let [event_type, sent_at, slug, chain, name, url, image, from, to, quantity, symbol, eth, usd] =
            cells.as_slice()
        else {
            panic!("13 cells: {line}");
        };
        let payload = json!({
            "collection": {"slug": slug}, "from_account": {"address": from}, "to_account": {"address": to},
            "item": {"chain": {"name": chain}, "permalink": url, "metadata": {"name": name, "image_url": image}},
            "quantity": quantity, "payment_token": {"symbol": symbol, "eth_price": eth, "usd_price": usd},
        });
        json!({"event_type": event_type, "sent_at": sent_at, "payload": payload}).to_string()
    };
    table.lines().skip(1).map(framed).collect()
}

fn rows_of(stage: &Stage) -> Vec<Value> {
    sql(stage, ROWS)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn sql(stage: &Stage, query: &str) -> Vec<Value> {
    let mut command = stage.lake_command(&["sql", query, "--format", "ndjson"]);
    finish(command.args(["--raw-events-kafka-topic", stage.topic()])).success().ndjson()
}

/// The first rows in which two lists differ, where they do.
fn assert_same_rows(read: &[Value], wanted: &[Value], what: &str) {
    let (read, wanted) = (sorted(read), sorted(wanted));
    let odd = read.iter().zip(&wanted).find(|(read, wanted)| read != wanted);
    assert!(odd.is_none() && read.len() == wanted.len(), "{what}: {} of {}; {odd:#?}", read.len(), wanted.len());
}

/// Frames go in by a file, and come out as the script has them.
fn frames_of_a_file_become_rows(stage: &Stage) {
    let mut frames = [real_frames(), testnet_frames(), hard_frames()].concat();
    let all = frames.len();
    frames.extend(Traffic::new(6, 4_000));
    // Once more, in other frames too: copies.
    frames.extend_from_within(..all);
    let Some(golden) = Golden::of(stage.dir(), frames) else { return };
    let [rows, copies, control, refused] = golden.counts;
    assert!(rows > 3_000 && copies > 300 && control > 4 && refused > 10, "{:?}", golden.counts);
    let path = golden.path.to_string_lossy().into_owned();
    let ingest = || finish(&mut stage.ingest(&["file", &path, "--table", "market"])).success().stderr();
    let said = ingest();
    for said_of in [format!("published {}", grouped(rows)), format!("filtered {control}")] {
        assert!(said.contains(&said_of), "{said_of}: {said}");
    }
    assert_same_rows(&rows_of(stage), &golden.rows, "Parquet");

    let read =
        |topic: &str| finish(&mut stage.log_command(&["topic", "read", topic, "--until-latest"])).success().ndjson();
    let raw = read(stage.topic());
    let keys: BTreeSet<&str> = raw.iter().map(|record| record["key"].as_str().expect("a key")).collect();
    let ids: BTreeSet<&str> = golden.rows.iter().map(|row| row["id"].as_str().expect("an id")).collect();
    assert_eq!((keys, raw.len() as u64), (ids, rows), "a record an event, under its id");
    for record in &raw {
        let said = ["source", "phase"].map(|name| record["headers"][name].as_str());
        assert_eq!(said, [Some("file"), Some("backfill")], "{record}");
    }
    let sent: BTreeSet<String> = golden.frames.iter().map(|frame| hex(frame)).collect();
    let kept = sql(stage, "SELECT encode(raw, 'hex') AS raw FROM market");
    assert!(kept.iter().all(|row| sent.contains(row["raw"].as_str().expect("hex"))), "byte for byte");
    let rejected = read(&format!("{}.rejected", stage.topic()));
    assert_eq!(rejected.len() as u64, refused, "whatever is no row is here");
    // What the topic holds is known to the next run.
    let said = ingest();
    assert!(said.contains("published 0") && rows_of(stage).len() as u64 == rows, "{said}");
}

#[test]
fn frames_of_a_file_become_the_rows_that_a_script_with_exact_decimals_makes_of_them() {
    frames_of_a_file_become_rows(&Stage::embedded());
}

mod kafka {
    mod minio {
        use tests::stage::Stage;

        #[test]
        fn frames_of_a_file_become_the_rows_that_a_script_makes_of_them() {
            let Some(stage) = Stage::services() else { return };
            super::super::frames_of_a_file_become_rows(&stage);
        }
    }
}

/// 1,204
fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

/// Lands events that were received some hours ago.
async fn received_earlier(stage: &Stage, format: LakeFormat, frames: &[String]) {
    let clock = Clock::system();
    let began = (clock.now_ms() - 6 * HOUR).div_euclid(HOUR) * HOUR;
    let dir = stage.dir().join("log");
    fs::create_dir_all(&dir).expect("a directory");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir, clock.clone()).expect("a log"));
    let topic = stage.topic().to_owned();
    let spec = TopicSpec { name: topic.clone(), partitions: 2, config: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    for (number, frame) in (0..).zip(frames) {
        let Ok(MarketFrame::Event(event)) = MarketEvent::parse(frame.as_bytes()) else { continue };
        let (key, at) = (event.id().to_string(), began + number * 3_000);
        let record = Record {
            key: Some(key.clone().into()),
            value: Some(frame.clone().into()),
            timestamp_ms: Some(at),
            ..Record::default()
        };
        records.entry(key).or_insert(record);
    }
    let mut records: Vec<Record> = records.into_values().collect();
    records.sort_by_key(|record| record.timestamp_ms);
    let mut writer = log.writer(None).await.expect("a writer");
    writer.send(&topic, records).await.expect("sent");
    writer.flush().await.expect("flushed");
    drop(writer);
    let lake = stage.dir().join("lake");
    fs::create_dir_all(&lake).expect("a directory");
    let store = Arc::new(LocalFileSystem::new_with_prefix(lake).expect("a store"));
    let drain = CancellationToken::new();
    drain.cancel();
    let settings =
        LanderSettings { topic, table: Some(Table::Market), format, rows_max: 300, ..LanderSettings::default() };
    let components = Components { log, clock, counters: Arc::new(Counters::default()) };
    land(settings, components, store, Path::default(), drain).await.expect("landed");
}

/// Landed in either form, compacted: rows and a job's answers stay, in batch and in stream.
#[tokio::test]
async fn the_market_lives_in_the_lake_as_events_do() {
    let mut batches = Vec::new();
    for format in [LakeFormat::Parquet, LakeFormat::JsonGz] {
        let stage = Stage::embedded();
        let frames = [hard_frames(), Traffic::new(7, 2_000).collect()].concat();
        let Some(golden) = Golden::of(stage.dir(), frames) else { return };
        received_earlier(&stage, format, &golden.frames).await;
        assert_same_rows(&rows_of(&stage), &golden.rows, &format!("{format:?}"));
        let job = stage.dir().join("by_type.sql").to_string_lossy().into_owned();
        let sql = "SELECT window.start AS start, event_type, count(*) AS events, sum(quantity) AS items, \
                   sum(amount_usd) AS usd FROM market GROUP BY window(event_time, '1 hour'), event_type";
        fs::write(&job, sql).expect("written");
        let batch = sorted(finish(&mut stage.batch(&[&job])).success().ndjson());
        assert!(batch.len() > 50);
        let stream = finish(&mut stage.stream(&[&job, "--watermark-duration", "6000 days"])).success().ndjson();
        assert_eq!(sorted(stream), batch, "{format:?}");
        let lake = |arguments: &[&str]| {
            let mut command = stage.lake_command(&[&["lake"], arguments].concat());
            finish(command.args(["--topic", stage.topic(), "--table", "market"])).success().stderr()
        };
        lake(&["verify", "--content", "--against-topic"]);
        let said = lake(&["compact"]);
        assert!(said.contains(&format!("{} rows", grouped(golden.counts[0]))), "{said}");
        lake(&["verify", "--content", "--against-topic"]);
        assert_same_rows(&rows_of(&stage), &golden.rows, &format!("{format:?}, compacted"));
        assert_eq!(sorted(finish(&mut stage.batch(&[&job])).success().ndjson()), batch, "{format:?}, compacted");
        batches.push(batch);
    }
    assert_eq!(batches.first(), batches.last(), "the form of the lake does not count");
}

#[test]
fn a_topic_of_the_market_is_told_by_its_name_or_by_the_table() {
    let stage = Stage::embedded();
    let path = stage.dir().join("frames.jsonl");
    let frame = hard_frames().remove(0);
    fs::write(&path, &frame).expect("written");
    let path = path.to_string_lossy().into_owned();
    // Whoever names no topic means OpenSea's.
    let said = finish(&mut stage.command(&["ingest", "file", &path, "--table", "market"])).success().stderr();
    assert!(said.contains("landed 1 rows"), "{said}");
    let count = ["sql", "SELECT count(*) AS n FROM market", "--format", "ndjson"];
    assert_eq!(finish(&mut stage.lake_command(&count)).success().ndjson(), [json!({"n": 1})]);
    let folder = stage.dir().join("lake/topics/OpenSeaRawEvents");
    assert!(folder.is_dir());
    let mut by_folder = stage.lake_command(&count);
    let read = finish(by_folder.args(["--raw-events-s3-uri", &folder.to_string_lossy()])).success().ndjson();
    assert_eq!(read, [json!({"n": 1})]);
    let known = finish(&mut stage.command(&["ingest", "file", &path, "--topic", "OpenSeaRawEvents"])).success();
    assert!(known.stderr().contains("copies 1"), "the name will do");
    finish(&mut stage.command(&["ingest", "file", &path, "--topic", "eth.market"])).success();
    for (arguments, says) in [
        (vec!["ingest", "file", &path, "--topic", "eth.market", "--table", "events"], "holds market, not events"),
        (vec!["ingest", "file", &path, "--table", "market", "--kinds", "1"], "no kinds"),
        (vec!["ingest", "file", &path, "--table", "markets"], "use events, sightings, market"),
        (vec!["ingest", "file", &path, "--table", "sightings"], "give the raw topic another one"),
        (vec!["ingest", "nostr", "--relay", "ws://127.0.0.1:9", "--topic", "eth.market"], "relays have none"),
        (vec!["lake", "ls", "--topic", "nostr-event", "--table", "market"], "holds events, not market"),
    ] {
        let mut command = match arguments[0] {
            "lake" => stage.lake_command(&arguments),
            _ => stage.command(&arguments),
        };
        let said = finish(&mut command).code(2).stderr();
        assert!(said.contains(says), "{says}: {said}");
    }
}
