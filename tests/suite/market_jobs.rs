//! The market's jobs: batch and stream against `tests/python/market_jobs.py`, which reads the frames anew, and the commands
//! of opensea-data-streaming with nothing changed but the program's name.

mod commands;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stage::Stage;
use tests::traffic::Traffic;
use tests::{finish, script, shared, sorted};

use crate::crash::process::Process;

/// By then a process has done what is expected, on a busy machine too.
const SOON: Duration = Duration::from_secs(90);
/// Nothing in the frames is so old.
const NOTHING_LATE: &str = "99999 days";
/// Window and slide: of the jobs, and in seconds as the script takes them.
type Windows = (&'static [&'static str], &'static [&'static str]);
const WINDOWS: [Windows; 4] = [
    (&["1 minute"], &["60"]),
    (&["1 hour"], &["3600"]),
    (&["1 hour", "--slide-duration", "10 minutes"], &["3600", "600"]),
    (&["all time"], &["all"]),
];
const WIDE: [&str; 4] = ["market_totals", "collection_totals", "top_collections", "top_assets"];

/// Frames made up by seed; none without Python.
fn made_up(dir: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let path = dir.join("frames.jsonl");
    let frames = finish(script("market_frames.py")?.args(arguments)).success().stdout();
    fs::write(&path, frames).expect("written");
    Some(path)
}

/// The script's rows; those of several jobs or outputs by its name.
fn answers(job: &str, frames: &Path, windows: &[&str]) -> Option<BTreeMap<String, Vec<Value>>> {
    let rows = finish(script("market_jobs.py")?.arg(job).arg(frames).args(windows)).success().ndjson();
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut row in rows {
        let object = row.as_object_mut().expect("a row");
        let name = object.remove("output").or_else(|| object.remove("job"));
        answers.entry(name.map_or_else(String::new, |name| name.to_string())).or_default().push(row);
    }
    Some(answers)
}

/// The same in one; of `all`, columns tell an output.
fn expected(job: &str, frames: &Path, windows: &[&str]) -> Option<Vec<String>> {
    Some(sorted(answers(job, frames, windows)?.into_values().flatten().collect::<Vec<_>>()))
}

fn rows(command: &mut Command) -> Vec<String> {
    sorted(finish(command).success().ndjson())
}

fn take_in(stage: &Stage, frames: &Path) {
    finish(&mut stage.ingest(&["file", &frames.to_string_lossy(), "--table", "market"])).success();
}

/// Batch and stream against what must come.
fn compare(stage: &Stage, job: &str, windows: &[&str], want: &[String]) {
    assert!(!want.is_empty());
    let arguments = [&[job], windows].concat();
    let same = |got: Vec<String>, what: &str| {
        let first = got.iter().zip(want).find(|(got, want)| got != want);
        assert!(got == want, "{job} {windows:?}, {what}: {} rows for {}: {first:?}", got.len(), want.len());
    };
    same(rows(stage.batch(&arguments).arg("--debug")), "batch");
    same(rows(stage.stream(&arguments).args(["--debug", "--watermark-duration", NOTHING_LATE])), "stream");
}

fn the_real_messages_give_what_the_script_says(stage: &Stage) {
    let Some(frames) = shared().map(|shared| shared.join("data/opensea/messages.jsonl")) else { return };
    take_in(stage, &frames);
    for job in ["all", "global", "collections"] {
        for (windows, seconds) in WINDOWS {
            let Some(want) = expected(job, &frames, seconds) else { return };
            compare(stage, job, windows, &want);
        }
    }
}

/// Few collections and assets, and everything that is odd: the jobs of the seed.
fn odd_frames_give_what_the_script_says(stage: &Stage) {
    let Some(frames) = made_up(stage.dir(), &["4000"]) else { return };
    take_in(stage, &frames);
    for (windows, seconds) in WINDOWS {
        let Some(want) = expected("all", &frames, seconds) else { return };
        compare(stage, "all", windows, &want);
    }
}

/// Days of many collections: a column a metric.
fn traffic_of_days_gives_what_the_script_says(stage: &Stage) {
    let count = std::env::var("TIDEGATE_MARKET_FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let path = stage.dir().join("traffic.jsonl");
    let mut file = fs::File::create(&path).map(BufWriter::new).expect("a file");
    Traffic::write(1, count, &mut file).and_then(|()| file.flush()).expect("written");
    take_in(stage, &path);
    for (windows, seconds) in WINDOWS {
        let Some(wide) = answers("wide", &path, seconds) else { return };
        for job in WIDE {
            compare(stage, job, windows, &sorted(&wide[&format!("\"{job}\"")]));
        }
    }
}

/// What a compacted topic keeps of a stream that showed unfinished answers, was stopped and went on, is what a batch
/// says: nobody who fell out of a top is left in it.
fn updates_leave_nothing_behind(stage: &Stage) {
    let Some(frames) = made_up(stage.dir(), &["900"]) else { return };
    let text = fs::read_to_string(&frames).expect("frames");
    let lines: Vec<&str> = text.lines().collect();
    for (name, part) in [("first.jsonl", &lines[..300]), ("second.jsonl", &lines[300..])] {
        let path = stage.dir().join(name);
        fs::write(&path, part.join("\n")).expect("written");
        take_in(stage, &path);
        for (job, window) in [("global", "all time"), ("collections", "all time"), ("global", "1 hour")] {
            let out = format!("{}.{job}.{}", stage.topic(), window.len());
            let top = ["--var", "top=2", "--var", "top_assets=3", "--var", "top_assets_all_time=3"];
            let late = ["--output-mode", "update", "--watermark-duration", NOTHING_LATE, "--kafka-topic", &out];
            let arguments =
                [&["stream", job, window, "--raw-events-kafka-topic", stage.topic()], &top[..], &late].concat();
            let mut stream = stage.log_command(&arguments);
            if name == "first.jsonl" {
                let process = Process::start({
                    stream.args(["--progress", "json"]);
                    stream
                });
                process.must_hear("commit", SOON, |heard| heard.told.iter().any(|told| told.commit_ms > 0.0));
                process.terminate();
                process.ends_with(0, SOON);
                continue;
            }
            finish(stream.arg("--until-latest")).success();
            let records = finish(&mut stage.log_command(&["topic", "read", &out, "--until-latest"])).success().ndjson();
            let mut kept: BTreeMap<String, Value> = BTreeMap::new();
            let mut emitted = 0;
            for record in &records {
                emitted += 1;
                kept.insert(record["key"].to_string(), record["value"].clone());
            }
            assert!(emitted > kept.len(), "{job} {window}: nothing was shown before it was finished");
            for row in kept.values_mut() {
                let last = row.as_object_mut().expect("a row").remove("final");
                assert_eq!(last, Some(Value::Bool(true)), "{job} {window}: {row} is left behind");
            }
            let kept = sorted(kept.into_values().collect::<Vec<_>>());
            assert!(kept == rows(&mut stage.batch(&[&[job, window], &top[..]].concat())), "{job} {window}");
        }
    }
}

/// Copies in other frames are one event; a tenth that is sent again changes nothing.
fn what_is_sent_again_counts_once(stage: &Stage) {
    let Some(frames) = made_up(stage.dir(), &["2000"]) else { return };
    let Some(want) = expected("all", &frames, &["3600"]) else { return };
    let Some(twice) = made_up(stage.dir(), &["2000", "--resend"]) else { return };
    assert_eq!(fs::read_to_string(&twice).expect("frames").lines().count(), 2200);
    take_in(stage, &twice);
    assert_eq!(rows(stage.batch(&["all", "1 hour"]).arg("--debug")), want);
}

mod embedded {
    use super::*;

    #[test]
    fn the_real_messages_give_what_the_script_says() {
        super::the_real_messages_give_what_the_script_says(&Stage::embedded());
    }

    #[test]
    fn odd_frames_give_what_the_script_says() {
        super::odd_frames_give_what_the_script_says(&Stage::embedded());
    }

    #[test]
    fn traffic_of_days_gives_what_the_script_says() {
        super::traffic_of_days_gives_what_the_script_says(&Stage::embedded());
    }

    #[test]
    fn updates_leave_nothing_behind() {
        super::updates_leave_nothing_behind(&Stage::embedded());
    }

    #[test]
    fn what_is_sent_again_counts_once() {
        super::what_is_sent_again_counts_once(&Stage::embedded());
    }
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn the_real_messages_give_what_the_script_says() {
            if let Some(stage) = Stage::services() {
                super::super::the_real_messages_give_what_the_script_says(&stage);
            }
        }
    }
}
