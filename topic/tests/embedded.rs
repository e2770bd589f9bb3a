//! The contract on the embedded log, and on Kafka where `TIDEGATE_TEST_KAFKA=host:port` names one; beside it what
//! only the embedded log promises: reopening, one process at a time, and that a kill loses nothing committed.
//! `-- --ignored --nocapture rates` measures both.

#![allow(clippy::print_stdout, reason = "tests say what they saw")]

#[allow(unreachable_pub, reason = "the same file is a public module of the crate `tests`")]
#[path = "../../tests/src/log_contract/mod.rs"]
mod contract;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use event::Clock;
use topic::{EmbeddedLog, ErrorKind, KafkaLog, KafkaSettings, Log, Record, TopicSpec};

fn open(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, Clock::system()).expect("the log opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("a directory");
    report("the embedded log", &contract::run_all(&open(dir.path())).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    let Ok(brokers) = std::env::var("TIDEGATE_TEST_KAFKA") else {
        eprintln!("SKIPPED: TIDEGATE_TEST_KAFKA is not set, the contract was not run on Kafka");
        return;
    };
    let log = KafkaLog::connect(KafkaSettings::new(brokers)).expect("settings");
    report("Kafka", &contract::run_all(&log).await);
}

fn report(on: &str, parts: &[(&str, Duration)]) {
    for (name, took) in parts {
        println!("  {name}: {took:?}");
    }
    println!("contract: {} parts on {on}", parts.len());
}

async fn topic(log: &EmbeddedLog, name: &str, partitions: i32) {
    let spec = TopicSpec { name: name.to_owned(), partitions, config: Vec::new() };
    assert!(log.create_topic(&spec).await.expect("created"));
}

fn record(value: String) -> Record {
    Record { value: Some(value.into()), timestamp_ms: Some(1_700_000_000_000), ..Record::default() }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    topic(&log, "kept", 3).await;
    let mut writer = log.writer(Some("id")).await.expect("a writer");
    writer.begin().await.expect("begun");
    writer.send("kept", (0..10).map(|n| record(n.to_string())).collect()).await.expect("sent");
    writer.send_offsets("group", "kept", &[(1, 4)]).await.expect("sent");
    writer.commit().await.expect("committed");
    writer.begin().await.expect("begun");
    writer.send("kept", vec![record("lost".to_owned())]).await.expect("sent");
    let before = (log.topics().await.expect("topics"), log.ranges("kept").await.expect("ranges"));
    drop((writer, log));
    let log = open(dir.path());
    assert_eq!((log.topics().await.expect("topics"), log.ranges("kept").await.expect("ranges")), before);
    assert_eq!(log.committed("group", "kept").await.expect("offsets"), [(1, 4)]);
    let offsets = log.offsets_at("kept", 1_700_000_000_001).await.expect("offsets");
    assert_eq!(offsets, [(0, 4), (1, 3), (2, 3)]);
    let mut writer = log.writer(Some("id")).await.expect("a writer of the same id");
    writer.begin().await.expect("begun");
    writer.send("kept", (10..13).map(|n| record(n.to_string())).collect()).await.expect("sent");
    writer.commit().await.expect("committed");
    let mut reader = log.reader("kept", vec![(0, 0), (1, 0), (2, 0)]).await.expect("a reader");
    let mut all = Vec::new();
    while all.len() < 13 {
        all.extend(reader.read(100, Duration::from_secs(5)).await.expect("a read"));
    }
    let value = |record: &topic::StoredRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
    };
    let mut values: Vec<u32> = all.iter().map(|record| value(record).parse().expect("a number")).collect();
    values.sort_unstable();
    assert!(values.into_iter().eq(0..13));
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let _log = open(dir.path());
    let refused = EmbeddedLog::open(dir.path(), Clock::system()).expect_err("it is in use");
    assert_eq!(refused.kind(), ErrorKind::Config);
    let message = refused.to_string();
    assert!(message.contains("is in use by another tidegate process") && message.contains("tidegate up"), "{message}");
}

#[tokio::test]
async fn a_log_half_created_by_a_killed_process_is_created_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    // As it is before the version marker is written.
    std::fs::remove_file(dir.path().join("version")).expect("the marker is there");
    let log = open(dir.path());
    topic(&log, "works", 1).await;
}

#[tokio::test]
async fn records_without_a_time_get_the_clocks() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = EmbeddedLog::open(dir.path(), Clock::mock(1_234_567)).expect("the log opens");
    topic(&log, "timed", 1).await;
    let mut writer = log.writer(None).await.expect("a writer");
    writer.send("timed", vec![Record::default()]).await.expect("sent");
    writer.flush().await.expect("durable");
    let mut reader = log.reader("timed", vec![(0, 0)]).await.expect("a reader");
    assert_eq!(reader.read(1, Duration::from_secs(5)).await.expect("a read")[0].timestamp_ms, 1_234_567);
}

/// Records of a transaction in the test that kills.
const KILLED_RECORDS: i64 = 100;
const KILLED_DIR: &str = "TIDEGATE_TEST_KILLED_DIR";

/// The process that is killed: commits transactions and says after each how many have been.
#[tokio::test]
#[ignore = "run by a_kill_loses_nothing_committed, in a process of its own"]
async fn commits_until_killed() {
    let Ok(dir) = std::env::var(KILLED_DIR) else { return };
    let log = open(Path::new(&dir));
    let spec = TopicSpec { name: "killed".to_owned(), partitions: 1, config: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let done = log.ranges("killed").await.expect("ranges")[0].end / KILLED_RECORDS;
    let mut writer = log.writer(Some("killed")).await.expect("a writer");
    for commit in done + 1.. {
        writer.begin().await.expect("begun");
        writer
            .send("killed", (0..KILLED_RECORDS).map(|n| record(format!("{commit} {n}"))).collect())
            .await
            .expect("sent");
        writer.send_offsets("group", "killed", &[(0, commit * KILLED_RECORDS)]).await.expect("sent");
        writer.commit().await.expect("committed");
        println!("\ncommitted {commit}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_committed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut said = 0;
    for round in 0..4_u64 {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--ignored", "--exact", "commits_until_killed", "--nocapture"])
            .env(KILLED_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut commits =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse::<i64>().ok());
        said = commits.next().expect("a commit");
        // At another point of a commit each time.
        std::thread::sleep(Duration::from_micros(20_000 + 3_700 * round));
        child.kill().expect("killed");
        said = commits.last().unwrap_or(said);
        child.wait().expect("ended");
        let log = open(dir.path());
        let end = log.ranges("killed").await.expect("ranges")[0].end;
        assert!(end >= said * KILLED_RECORDS, "{end} records after {said} commits");
        assert_eq!(end % KILLED_RECORDS, 0, "half a transaction");
        assert_eq!(log.committed("group", "killed").await.expect("offsets"), [(0, end)]);
        let mut reader = log.reader("killed", vec![(0, 0)]).await.expect("a reader");
        let mut read = 0;
        while read < end {
            for stored in reader.read(1_000, Duration::from_secs(5)).await.expect("a read") {
                let value = format!("{} {}", read / KILLED_RECORDS + 1, read % KILLED_RECORDS);
                assert_eq!(stored.value.as_deref(), Some(value.as_bytes()));
                read += 1;
            }
        }
    }
    println!("killed four times, after {said} commits nothing was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rates() {
    let dir = tempfile::tempdir().expect("a directory");
    measure("embedded", &open(dir.path())).await;
    if let Ok(brokers) = std::env::var("TIDEGATE_TEST_KAFKA") {
        measure("kafka", &KafkaLog::connect(KafkaSettings::new(brokers)).expect("settings")).await;
    }
}

/// Records a second, written in flushes of 5,000 and read back; milliseconds a small transaction.
async fn measure(on: &str, log: &dyn Log) {
    const RECORDS: u32 = 500_000;
    let name = format!("rates-{}", std::process::id());
    log.create_topic(&TopicSpec { name: name.clone(), partitions: 4, config: Vec::new() }).await.expect("created");
    let mut state = 1_u64;
    let hex = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"0123456789abcdef"[usize::from(state.to_be_bytes()[0] & 15)]
    });
    let noise: bytes::Bytes = hex.take(4_000_000).collect();
    let header = |name: &str, value: &'static str| topic::Header { name: name.to_owned(), value: value.into() };
    let chunk: Vec<_> = (0..5_000)
        .map(|n| Record {
            key: Some(noise.slice(700 * n..700 * n + 64)),
            value: Some(noise.slice(700 * n..700 * n + 900)),
            headers: vec![header("source", "nostr"), header("relay", "wss://relay.example"), header("phase", "live")],
            ..Record::default()
        })
        .collect();
    let mut writer = log.writer(None).await.expect("a writer");
    let began = Instant::now();
    for _ in 0..RECORDS / 5_000 {
        writer.send(&name, chunk.clone()).await.expect("sent");
        writer.flush().await.expect("durable");
    }
    let wrote = f64::from(RECORDS) / began.elapsed().as_secs_f64();
    let began = Instant::now();
    let from = (0..4).map(|partition| (partition, 0)).collect();
    let mut reader = log.reader(&name, from).await.expect("a reader");
    let opened = began.elapsed();
    let (mut read, mut bytes) = (0, 0);
    while read < RECORDS as usize {
        let some = reader.read(10_000, Duration::from_secs(5)).await.expect("a read");
        bytes += some.iter().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum::<usize>();
        read += some.len();
    }
    let rate = f64::from(RECORDS) / began.elapsed().as_secs_f64();
    assert_eq!(bytes, 900 * RECORDS as usize);
    let began = Instant::now();
    drop(reader);
    let dropped = began.elapsed();
    let mut writer = log.writer(Some(&name)).await.expect("a writer");
    let began = Instant::now();
    for _ in 0..20 {
        writer.begin().await.expect("begun");
        writer.send(&name, vec![record("small".to_owned())]).await.expect("sent");
        writer.send_offsets("rates", &name, &[(0, 1)]).await.expect("sent");
        writer.commit().await.expect("committed");
    }
    let commit = began.elapsed() / 20;
    println!(
        "{on}: wrote {wrote:.0}/s, read {rate:.0}/s (opened in {opened:?}, dropped in {dropped:?}), {commit:?} a transaction"
    );
}
