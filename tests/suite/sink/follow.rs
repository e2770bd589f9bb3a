//! `tidegate sink`: a topic into a table, by processes that are killed and by rivals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event::Clock;
use processor::database::{Database as Place, End, Follower};
use processor::{ErrorKind, Job, JobOptions, JobSource};
use serde_json::json;
use tests::postgres::Database;
use tests::{finish, signal, tidegate, unique};
use tokio_util::sync::CancellationToken;
use topic::{KafkaLog, KafkaSettings, Log, Record, TopicSpec};

use super::Home;
use crate::crash::chance::Chance;
use crate::crash::process::Process;

const ROWS: &str = "SELECT id, kind FROM events";

/// A record as the job above writes one.
fn record(number: u64, partition: Option<i32>) -> Record {
    let value = json!({"id": format!("{number:064x}"), "kind": number % 9});
    Record { value: Some(value.to_string().into_bytes().into()), partition, ..Record::default() }
}

async fn job() -> Job {
    let source = JobSource { name: "rows".into(), sql: ROWS.into(), path: None };
    Job::plan(&source, &JobOptions::default()).await.expect("a job")
}

/// Every row once, of those with these numbers.
fn compare(database: &Database, numbers: std::ops::Range<u64>) {
    let found = database.ask("SELECT encode(id, 'hex'), kind FROM rows ORDER BY id");
    let expected: Vec<String> = numbers.map(|number| format!("{number:064x}|{}", number % 9)).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
}

mod postgres {
    use super::*;

    #[test]
    fn whoever_starts_last_keeps_the_table_and_the_other_says_so() {
        let Some(database) = Database::create() else { return };
        let home = Home::new();
        home.write("out", 2, (0..2_000).map(|number| record(number, None)).collect());
        let place = Place::parse(&database.url).expect("a URL");
        home.with_log(async |log| {
            let (job, clock) = (job().await, Clock::system());
            let open = || Follower::open(Arc::clone(&log), &place, &job, (0, "out"), false, &clock);
            let first = open().await.expect("opened");
            let second = open().await.expect("opened");
            let error = first.run(End::Latest, CancellationToken::new()).await.expect_err("it was taken over");
            assert_eq!(error.kind(), ErrorKind::Fenced);
            assert!(error.to_string().contains("table `rows` was taken over by process"), "{error}");
            let done = second.run(End::Latest, CancellationToken::new()).await.expect("it has the table");
            assert_eq!((done.records, done.written), (2_000, 2_000));
            // Nothing is left to be done.
            let done = open().await.expect("opened").run(End::Latest, CancellationToken::new()).await.expect("done");
            assert_eq!(done.records, 0);
        });
        compare(&database, 0..2_000);
        let mut again = home.command(&["sink", &home.job("rows", ROWS), "--kafka-topic", "out", "--until-latest"]);
        let said = finish(again.args(["--sink", &database.url])).success().stderr();
        assert!(said.contains("0 records read, 0 rows written"), "{said}");
    }

    #[test]
    fn a_topic_that_is_another_than_before_is_refused() {
        let Some(database) = Database::create() else { return };
        let homes = [Home::new(), Home::new()];
        for (home, (records, code)) in homes.iter().zip([(100, 0), (10, 4)]) {
            home.write("out", 2, (0..records).map(|number| record(number, Some(1))).collect());
            let mut command =
                home.command(&["sink", &home.job("rows", ROWS), "--kafka-topic", "out", "--until-latest"]);
            let said = finish(command.args(["--sink", &database.url])).code(code).stderr();
            assert!(
                code == 0 || said.contains("another topic of this name") && said.contains("DELETE FROM tidegate_sink"),
                "{said}"
            );
        }
        compare(&database, 0..100);
    }

    #[test]
    fn a_record_of_another_job_is_told_by_its_place() {
        let Some(database) = Database::create() else { return };
        let home = Home::new();
        let other = Record { value: Some(br#"{"id":"00","n":1}"#.to_vec().into()), ..record(0, Some(1)) };
        home.write("out", 2, vec![record(0, Some(0)), other]);
        let mut command = home.command(&["sink", &home.job("rows", ROWS), "--kafka-topic", "out", "--until-latest"]);
        let said = finish(command.args(["--sink", &database.url])).code(4).stderr();
        assert!(said.contains("record 0 of partition 1 of topic `out` is no row of table `rows`"), "{said}");
        assert!(said.contains("no column `n`"), "{said}");
        compare(&database, 0..0);
    }

    #[test]
    fn updates_of_one_key_end_with_the_last() {
        let Some(database) = Database::create() else { return };
        let home = Home::new();
        let key = |window: u64| format!("{{\"job\":\"j\",\"window_end\":\"2025-01-0{window}T00:00:00Z\"}}");
        let update = |number: u64| {
            let window = 1 + number % 3;
            let value =
                json!({"window_end": format!("2025-01-0{window}T00:00:00Z"), "n": number, "final": number >= 297});
            let (key, value) = (Some(key(window).into_bytes().into()), Some(value.to_string().into_bytes().into()));
            Record { key, value, partition: Some(0), ..Record::default() }
        };
        home.write("out", 2, (0..300).map(update).collect());
        // By window alone, which is the primary key itself, and beside a text, which is in a digest.
        let sql = "SELECT window.end AS window_end, count(*) AS n FROM events GROUP BY window(created_at, '1 day')";
        let with_text = "SELECT window.end AS window_end, relay, count(*) AS n FROM events \
                         GROUP BY window(created_at, '1 day'), relay";
        let text = |record: Record| {
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            Record { value: Some(value.replacen('{', "{\"relay\":\"r\",", 1).into_bytes().into()), ..record }
        };
        home.write("out-text", 2, (0..300).map(update).map(text).collect());
        for (name, topic, sql) in [("j", "out", sql), ("k", "out-text", with_text)] {
            let job = home.job(name, sql);
            let arguments = ["sink", &job, "--kafka-topic", topic, "--until-latest", "--sink", &database.url];
            let said = finish(home.command(&arguments).args(["--output-mode", "update"])).success().stderr();
            assert!(said.contains("300 records read, 3 rows written") && !said.contains("overwritten"), "{said}");
            let query = format!("SELECT n, final FROM {name} ORDER BY n");
            assert_eq!(database.ask(&query), ["297|t", "298|t", "299|t"]);
        }
    }
}

mod kafka {
    use super::*;

    /// Writes records in transactions, some of which are aborted, until it is told to stop; how many are committed.
    fn write(log: &KafkaLog, topic: &str, stop: &AtomicBool, mut chance: Chance) -> u64 {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut writer = log.writer(Some(&unique("writer"))).await.expect("a writer");
            let mut next = 0;
            while !stop.load(Ordering::Relaxed) || next < 2_000 {
                let (count, aborted) = (1 + chance.below(200), chance.below(4) == 0);
                writer.begin().await.expect("begun");
                writer
                    .send(topic, (next..next + count).map(|number| record(number, None)).collect())
                    .await
                    .expect("sent");
                if aborted {
                    // What nobody may see goes as far as the broker.
                    writer.flush().await.expect("flushed");
                    writer.abort().await.expect("aborted");
                } else {
                    writer.commit().await.expect("committed");
                    next += count;
                }
                tokio::time::sleep(chance.between(Duration::ZERO, Duration::from_millis(30))).await;
            }
            next
        })
    }

    mod postgres {
        use super::*;

        #[test]
        fn a_follower_that_is_killed_again_and_again_puts_each_record_in_once() {
            let (Some(brokers), Some(database)) = (tests::kafka(), Database::create()) else { return };
            let mut chance = Chance::of("follower kill loop");
            let home = Home::new();
            let (topic, job) = (unique("sink-out"), home.job("rows", ROWS));
            let log = KafkaLog::connect(KafkaSettings::new(&brokers)).expect("settings");
            let spec = TopicSpec { name: topic.clone(), partitions: 3, config: Vec::new() };
            home.runtime.block_on(log.create_topic(&spec)).expect("a topic");
            let command = || {
                let mut command = tidegate();
                command.args([
                    "sink",
                    &job,
                    "--kafka-topic",
                    &topic,
                    "--kafka-brokers",
                    &brokers,
                    "--sink",
                    &database.url,
                ]);
                command
            };
            let stop = AtomicBool::new(false);
            let written = std::thread::scope(|scope| {
                let dice = chance.fork();
                let writing = scope.spawn(|| write(&log, &topic, &stop, dice));
                for _ in 0..crate::crash::soak().unwrap_or(12) {
                    let process = Process::start(command());
                    process.must_hear("start", Duration::from_secs(90), |heard| heard.said("follows a topic"));
                    std::thread::sleep(chance.between(Duration::from_millis(20), Duration::from_millis(900)));
                    process.kill();
                }
                stop.store(true, Ordering::Relaxed);
                writing.join().expect("written")
            });
            finish(command().arg("--until-latest")).success();
            compare(&database, 0..written);
        }

        #[test]
        fn a_follower_that_wakes_up_after_another_took_over_writes_nothing() {
            let (Some(brokers), Some(database)) = (tests::kafka(), Database::create()) else { return };
            let home = Home::new();
            let (topic, job) = (unique("sink-out"), home.job("rows", ROWS));
            let log = KafkaLog::connect(KafkaSettings::new(&brokers)).expect("settings");
            let spec = TopicSpec { name: topic.clone(), partitions: 1, config: Vec::new() };
            home.runtime.block_on(log.create_topic(&spec)).expect("a topic");
            let start = || {
                let mut command = tidegate();
                command.args([
                    "sink",
                    &job,
                    "--kafka-topic",
                    &topic,
                    "--kafka-brokers",
                    &brokers,
                    "--sink",
                    &database.url,
                ]);
                let process = Process::start(command);
                process.must_hear("start", Duration::from_secs(90), |heard| heard.said("follows a topic"));
                process
            };
            let send = |numbers: std::ops::Range<u64>| {
                home.runtime.block_on(async {
                    let mut writer = log.writer(None).await.expect("a writer");
                    let records = numbers.map(|number| record(number, None)).collect();
                    writer.send(&topic, records).await.expect("sent");
                    writer.flush().await.expect("written");
                });
            };
            let first = start();
            send(0..100);
            signal("STOP", first.id());
            let second = start();
            send(100..200);
            let deadline = std::time::Instant::now() + Duration::from_secs(90);
            while database.ask("SELECT count(*) FROM rows") != ["200"] {
                assert!(std::time::Instant::now() < deadline, "{:?}", second.heard().lines);
                std::thread::sleep(Duration::from_millis(50));
            }
            signal("CONT", first.id());
            send(200..300);
            let said = first.ends_with(6, Duration::from_secs(90));
            assert!(said.said("table `rows` was taken over by process"), "{:?}", said.lines);
            second.terminate();
            second.ends_with(0, Duration::from_secs(90));
            let mut last = tidegate();
            last.args(["sink", &job, "--kafka-topic", &topic, "--kafka-brokers", &brokers, "--sink", &database.url]);
            finish(last.arg("--until-latest")).success();
            compare(&database, 0..300);
            let positions: BTreeMap<String, i64> =
                serde_json::from_str(&database.ask("SELECT next_offsets FROM tidegate_sink").concat())
                    .expect("offsets");
            assert_eq!(positions.len(), 1);
        }
    }
}
