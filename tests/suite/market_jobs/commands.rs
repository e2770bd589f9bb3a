//! The commands of opensea-data-streaming's README, run on a real Kafka and a real MinIO as they stand there: only
//! `python -m opensea_monitoring.cli` has become `tidegate`, and addresses, topics and bucket are this test's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{S3Test, finish, kafka, repository, s3, script, tidegate, unique};

use super::{SOON, expected, made_up};
use crate::crash::process::Process;

/// 2024-07-28T11:00:00Z, in the range that one of the commands asks for.
const START: &str = "1722164400";

const GLOBAL_BATCH: &str = "tidegate global '1 hour' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    -l INFO";
const COLLECTIONS_BATCH: &str = "tidegate collections '1 hour' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    -l INFO";
const RANGE_BATCH: &str = "tidegate global '1 hour' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    --timestamp-start '2024-07-28' \
    --timestamp-end '2024-07-28T12:00:00' \
    -l INFO";
const GLOBAL_STREAM: &str = "tidegate global '1 minute' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    --slide-duration '1 minute' \
    --watermark-duration '1 minute' \
    --checkpoint-dir s3a://processed-data/checkpoints/topics/OpenSeaEnrichedEvents/ \
    -l INFO";
const COLLECTIONS_STREAM: &str = "tidegate collections '1 minute' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    --slide-duration '1 minute' \
    --watermark-duration '1 minute' \
    --checkpoint-dir s3a://processed-data/checkpoints/topics/OpenSeaEnrichedEvents/";
const DEBUG_STREAM: &str = "tidegate global '1 minute' \
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \
    --raw-events-kafka-topic OpenSeaRawEvents \
    --kafka-brokers kafka:19092 \
    --kafka-topic OpenSeaEnrichedGlobalEvents \
    --slide-duration '1 minute' \
    --checkpoint-dir s3a://processed-data/checkpoints/topics/OpenSeaEnrichedEvents/ \
    --debug";

/// Kafka, a bucket, and frames that were taken in.
struct Ground {
    dir: tempfile::TempDir,
    brokers: String,
    store: S3Test,
    prefix: String,
    raw: String,
    frames: std::path::PathBuf,
}

impl Ground {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let frames = made_up(dir.path(), &["600", START, "--in-order"])?;
        let (brokers, store) = (kafka()?, s3()?);
        let ground = Self { dir, brokers, store, prefix: unique("seed"), raw: unique("OpenSeaRawEvents"), frames };
        let mut ingest = tidegate();
        ingest.args(["ingest", "file", &ground.frames.to_string_lossy(), "--table", "market"]);
        ingest.args(["--topic", &ground.raw, "--partitions", "1", "--kafka-brokers", &ground.brokers]);
        ingest.args(["--lake", &ground.store.url(&ground.prefix), "--data-dir", &ground.dir.path().to_string_lossy()]);
        finish(ingest.envs(ground.store.variables())).success();
        Some(ground)
    }

    /// A command as it is written, on this ground.
    fn command(&self, text: &str, output: &str) -> Command {
        let bucket = format!("s3a://{}/{}", self.store.bucket, self.prefix);
        let text = text
            .replace("s3a://raw-data/topics/OpenSeaRawEvents", &format!("{bucket}/topics/{}", self.raw))
            .replace("s3a://processed-data", &bucket)
            .replace("OpenSeaRawEvents ", &format!("{} ", self.raw))
            .replace("kafka:19092", &self.brokers)
            .replace("OpenSeaEnrichedGlobalEvents", output);
        let binary = tidegate().get_program().to_owned();
        let bin = std::path::Path::new(&binary).parent().expect("a directory").display().to_string();
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {text}")]).current_dir(&self.dir).env("PATH", path);
        command.env("OPENSEA_MONITORING_SPARK_MASTER", "spark://spark:7077").envs(self.store.variables());
        command
    }

    /// Values of an output topic, by their keys.
    fn written(&self, output: &str) -> BTreeMap<String, Value> {
        let mut read = tidegate();
        read.args(["topic", "read", output, "--until-latest", "--kafka-brokers", &self.brokers]);
        let records = finish(&mut read).success().ndjson();
        let written: BTreeMap<String, Value> =
            records.iter().map(|record| (record["key"].to_string(), record["value"].clone())).collect();
        assert_eq!(written.len(), records.len(), "a key is there twice");
        written
    }

    fn check_schema(&self, job: &str, rows: &BTreeMap<String, Value>) {
        let path = self.dir.path().join(unique("rows"));
        std::fs::write(&path, rows.values().map(|row| format!("{row}\n")).collect::<String>()).expect("written");
        let schema = repository().join(format!("jobs/{job}.schema.json"));
        let held = finish(script("schema.py").expect("Python was there").args([&schema, &path])).success().stdout();
        assert_eq!(held.trim(), rows.len().to_string(), "{job}");
    }
}

fn texts(rows: &BTreeMap<String, Value>) -> BTreeSet<String> {
    rows.values().map(Value::to_string).collect()
}

/// Waits until a stream has written what must be there at least, and stops it as an operator would.
fn follow(ground: &Ground, text: &str, job: &str, want: &BTreeSet<String>, last_end: &str) {
    let output = unique("enriched");
    let process = Process::start(ground.command(text, &output));
    let closed: BTreeSet<&String> = want
        .iter()
        .filter(|row| serde_json::from_str::<Value>(row).expect("a row")["window_end"].as_str() <= Some(last_end))
        .collect();
    let started = Instant::now();
    let (mut written, mut found) = (BTreeMap::new(), BTreeSet::new());
    while !closed.is_subset(&found.iter().collect()) {
        assert!(started.elapsed() < SOON, "{job}: {} of {} rows came", found.len(), closed.len());
        std::thread::sleep(Duration::from_millis(500));
        let mut list = tidegate();
        list.args(["topic", "ls", "--kafka-brokers", &ground.brokers]);
        if finish(&mut list).success().stdout().contains(&output) {
            written = ground.written(&output);
            found = texts(&written);
        }
    }
    process.terminate();
    process.ends_with(0, SOON);
    assert!(found.is_subset(want), "{job}: a row is written that must not be");
    ground.check_schema(job, &written);
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn the_commands_of_the_seed_run_as_they_stand() {
            let Some(ground) = Ground::new() else { return };
            let of = |job: &str, seconds: &str| -> BTreeSet<String> {
                expected(job, &ground.frames, &[seconds]).expect("Python was there").into_iter().collect()
            };
            for (text, job, until) in [
                (GLOBAL_BATCH, "global", "9"),
                (COLLECTIONS_BATCH, "collections", "9"),
                (RANGE_BATCH, "global", "2024-07-28T12:00:00Z"),
            ] {
                let output = unique("enriched");
                let said = finish(&mut ground.command(text, &output)).success().stderr();
                assert!(said.contains("is a batch") && said.contains("is not used"), "{said}");
                let mut want = of(job, "3600");
                want.retain(|row| {
                    serde_json::from_str::<Value>(row).expect("a row")["window_end"].as_str() <= Some(until)
                });
                assert!(want.len() > 10);
                let written = ground.written(&output);
                assert!(texts(&written) == want, "{job}: {} rows for {}", written.len(), want.len());
                ground.check_schema(job, &written);
            }
            for (text, job) in [(GLOBAL_STREAM, "global"), (COLLECTIONS_STREAM, "collections")] {
                // The last frames are of 12:59; a minute's window closes a minute later.
                follow(&ground, text, job, &of(job, "60"), "2024-07-28T12:50:00Z");
            }
            let output = unique("enriched");
            let mut debug = ground.command(DEBUG_STREAM, &output);
            let mut child = debug.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
            let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            let first = lines.next().expect("a row is printed").expect("text");
            assert!(
                of("global", "60").contains(&serde_json::from_str::<Value>(&first).expect("a row").to_string()),
                "{first}"
            );
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            let mut list = tidegate();
            list.args(["topic", "ls", "--kafka-brokers", &ground.brokers]);
            assert!(!finish(&mut list).success().stdout().contains(&output), "--debug writes no topic");
        }
    }
}
