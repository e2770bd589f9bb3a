//! What the jobs answer over the development set.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::oracle::{Late, PlainEvent, Windows, answer, instant};
use tests::stage::Stage;
use tests::{finish, script, shared, sorted};

use super::input::{development_set, ingest_development_set};
use crate::crash::process::Process;

const HOUR: Windows = Windows { size: 3_600, slide: 3_600 };
const SLIDING: Windows = Windows { size: 3_600, slide: 600 };
/// By then a process has done what is expected, on a busy machine too.
const SOON: Duration = Duration::from_secs(90);
/// Nothing in the development set is older.
const NOTHING_LATE: &str = "99999 days";

fn slide_of(by: Windows) -> &'static [&'static str] {
    if by.slide == by.size { &[] } else { &["--slide-duration", "10 minutes"] }
}

fn arguments<'a>(job: &'a str, by: Windows, more: &[&'a str]) -> Vec<&'a str> {
    [&[job, "1 hour"], slide_of(by), more].concat()
}

/// Rows sorted as text, so that order does not count.
fn rows(command: &mut Command) -> Vec<String> {
    sorted(finish(command).success().ndjson())
}

/// The expected answers beside the development set, as rows of a job; they do not hold authors per kind.
fn expected(job: &str, by: Windows) -> Vec<Value> {
    let shared = shared().expect("asked for before");
    let packed = fs::File::open(shared.join("data/nostr/expected_windows.json.gz")).expect("the expected answers");
    let all: Value = serde_json::from_reader(flate2::read::GzDecoder::new(packed)).expect("they are JSON");
    let windows = &all[if by.slide == by.size { "hour" } else { "sliding" }];
    let mut rows = Vec::new();
    for window in windows.as_array().expect("windows") {
        let time = |name: &str| instant(window[name].as_i64().expect("seconds"));
        let mut push = |rest: Value| {
            let mut row = json!({ "window_start": time("start"), "window_end": time("end") });
            row.as_object_mut().expect("an object").extend(rest.as_object().expect("columns").clone());
            rows.push(row);
        };
        match job {
            "activity" => push(json!({ "events": window["events"], "authors": window["pubkeys"] })),
            "kinds" => {
                for (kind, events) in window["by_kind"].as_object().expect("kinds") {
                    push(json!({ "kind": kind.parse::<i64>().expect("a kind"), "events": events }));
                }
            }
            "hashtags" | "reactions" => {
                let (list, value, count) = if job == "hashtags" {
                    ("hashtags", "tag", "events")
                } else {
                    ("reacted", "event_id", "reactions")
                };
                for (rank, pair) in window[list].as_array().expect("a list").iter().enumerate() {
                    push(json!({ "rank": rank + 1, value: pair[0], count: pair[1] }));
                }
            }
            other => panic!("no expected answers for `{other}`"),
        }
    }
    rows
}

pub(super) fn the_built_in_jobs_give_the_expected_answers(stage: &Stage) {
    if ingest_development_set(stage, &["--max-future", "off"]).is_none() {
        return;
    }
    for job in ["kinds", "activity", "hashtags", "reactions"] {
        for by in [HOUR, SLIDING] {
            let mut got = finish(&mut stage.batch(&arguments(job, by, &[]))).success().ndjson();
            if job == "kinds" {
                // Authors per kind are checked against DuckDB.
                got.iter_mut().for_each(|row| drop(row.as_object_mut().expect("a row").remove("authors")));
            }
            assert_eq!(sorted(got), sorted(expected(job, by)), "{job} {by:?}");
        }
    }
}

pub(super) fn a_stream_prints_what_a_batch_prints(stage: &Stage) {
    if ingest_development_set(stage, &["--max-future", "off"]).is_none() {
        return;
    }
    for job in ["kinds", "activity", "hashtags", "reactions", "dvm"] {
        for by in [HOUR, SLIDING] {
            let batch = rows(&mut stage.batch(&arguments(job, by, &[])));
            assert!(!batch.is_empty());
            let more = ["--watermark-duration", NOTHING_LATE];
            assert_eq!(rows(&mut stage.stream(&arguments(job, by, &more))), batch, "{job} {by:?}");
        }
    }
}

pub(super) fn late_rows_are_exactly_what_a_stream_lacks(stage: &Stage) {
    let Some(events) = development_set() else { return };
    ingest_development_set(stage, &["--max-future", "off", "--partitions", "1"]).expect("the set is there");
    let events: Vec<PlainEvent> = events.iter().map(PlainEvent::parse).collect();
    let file = stage.dir().join("late.ndjson");
    let path = file.to_string_lossy();
    for job in ["kinds", "activity", "hashtags", "reactions"] {
        let more = ["--watermark-duration", "1 minute", "--late-output", &path];
        let got = rows(&mut stage.stream(&arguments(job, SLIDING, &more)));
        let lines = fs::read_to_string(&file).expect("the late rows");
        let mut late = Late::new();
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("a late row is JSON");
            let event = PlainEvent::parse(&line["event"]);
            let start = SLIDING.of(event.created_at).find(|start| line["window_start"] == instant(*start));
            assert!(late.insert((event.id, start.expect("a window of the event"))), "a pair is late once: {line}");
        }
        // The relay gives its past newest first, so that most of it comes too late for a live job. In one partition: of
        // several, the one that is read last holds the watermark back to the end.
        assert!(late.len() > 500, "{job}: {} late pairs", late.len());
        assert_eq!(got, sorted(answer(job, &events, SLIDING, &late)), "{job}");
        let all = answer(job, &events, SLIDING, &Late::new());
        assert_eq!(rows(&mut stage.batch(&arguments(job, SLIDING, &[]))), sorted(all), "{job}");
    }
}

pub(super) fn a_range_holds_its_start_and_not_its_end(stage: &Stage) {
    let Some(events) = development_set() else { return };
    ingest_development_set(stage, &["--max-future", "off"]).expect("the set is there");
    let (from, until) = (1_684_147_200, 1_700_000_000);
    let events: Vec<PlainEvent> = events.iter().map(PlainEvent::parse).collect();
    let inside: Vec<PlainEvent> =
        events.into_iter().filter(|event| (from..until).contains(&event.created_at)).collect();
    assert!(inside.len() > 100);
    let want = sorted(answer("activity", &inside, SLIDING, &Late::new()));
    // One end as a person writes it, the other in unix seconds.
    let range = ["--timestamp-start", "2023-05-15T10:40:00Z", "--timestamp-end", "1700000000"];
    assert_eq!(rows(&mut stage.batch(&arguments("activity", SLIDING, &range))), want);
    let more = [&range[..], &["--watermark-duration", NOTHING_LATE]].concat();
    assert_eq!(rows(&mut stage.stream(&arguments("activity", SLIDING, &more))), want);
}

pub(super) fn other_jobs_agree_with_duckdb(stage: &Stage) {
    let (Some(shared), Some(_)) = (shared(), script("oracle.py")) else { return };
    ingest_development_set(stage, &["--max-future", "off"]).expect("the set is there");
    let file = shared.join("data/nostr/events.jsonl.gz");
    for job in ["kinds", "activity", "dvm"] {
        for by in [HOUR, SLIDING] {
            let mut oracle = script("oracle.py").expect("asked for before");
            oracle.arg(job).arg(&file).args([by.size.to_string(), by.slide.to_string()]);
            let mut want = finish(&mut oracle).success().ndjson();
            for row in &mut want {
                for name in ["window_start", "window_end"] {
                    row[name] = instant(row[name].as_i64().expect("seconds")).into();
                }
            }
            assert_eq!(rows(&mut stage.batch(&arguments(job, by, &[]))), sorted(want), "{job} {by:?}");
        }
    }
}

pub(super) fn a_lake_of_json_lines_answers_the_same(stage: &Stage) {
    if ingest_development_set(stage, &["--max-future", "off", "--lake-format", "json", "--rotate-rows", "1000"])
        .is_none()
    {
        return;
    }
    let got = rows(&mut stage.batch(&arguments("activity", SLIDING, &[])));
    assert_eq!(got, sorted(expected("activity", SLIDING)));
}

/// Two runs with an interruption between them give each row once, as one run does.
pub(super) fn a_job_goes_on_where_it_was_stopped(stage: &Stage) {
    let Some(events) = development_set() else { return };
    let half = events.len() / 2;
    let out = format!("{}.out", stage.topic());
    let write = |name: &str, events: &[Value]| {
        let path = stage.dir().join(name);
        fs::write(&path, events.iter().map(|event| format!("{event}\n")).collect::<String>()).expect("written");
        path.to_string_lossy().into_owned()
    };
    let mut printed: Vec<String> = Vec::new();
    for (name, part) in [("first.jsonl", &events[..half]), ("second.jsonl", &events[half..])] {
        let path = write(name, part);
        finish(&mut stage.ingest(&["file", &path, "--max-future", "off"])).success();
        if name == "first.jsonl" {
            interrupted(stage, &out);
        } else {
            let more = ["--watermark-duration", "1 day", "--kafka-topic", &out];
            finish(&mut stage.stream(&arguments("kinds", HOUR, &more))).success();
        }
        let records = finish(&mut stage.log_command(&["topic", "read", &out, "--until-latest"])).success().ndjson();
        printed = records.iter().map(|record| record["value"].to_string()).collect();
    }
    let once: BTreeSet<&String> = printed.iter().collect();
    assert_eq!(once.len(), printed.len(), "a window is written once");
    printed.sort();
    // The file is in the order of time, so nothing is late but what the log's partitions put apart.
    assert_eq!(printed, rows(&mut stage.batch(&arguments("kinds", HOUR, &[]))));
}

/// Runs the job until it has written something, then stops it by a signal as an operator would.
fn interrupted(stage: &Stage, out: &str) {
    let mut command = stage.log_command(&["stream", "kinds", "1 hour", "--watermark-duration", "1 day"]);
    command.args(["--raw-events-kafka-topic", stage.topic(), "--kafka-topic", out]);
    stopped_after_a_commit(command);
}

/// Starts a stream, stops it by a signal once it has committed something, and demands a good end.
pub(super) fn stopped_after_a_commit(mut command: Command) {
    let process = Process::start({
        command.args(["--progress", "json"]);
        command
    });
    process.must_hear("commit", SOON, |heard| heard.told.iter().any(|told| told.commit_ms > 0.0));
    process.terminate();
    process.ends_with(0, SOON);
}
