//! What a stream does beside counting: the lake first, unfinished windows, a changed file.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::oracle::{Late, PlainEvent, Windows, answer};
use tests::stage::Stage;
use tests::{finish, sorted};

use super::answers::stopped_after_a_commit;
use super::input::development_set;

const HOUR: Windows = Windows { size: 3_600, slide: 3_600 };
const NOTHING_LATE: &[&str] = &["--watermark-duration", "99999 days"];

fn write(stage: &Stage, name: &str, events: &[Value]) -> String {
    let path = stage.dir().join(name);
    fs::write(&path, events.iter().map(|event| format!("{event}\n")).collect::<String>()).expect("written");
    path.to_string_lossy().into_owned()
}

fn expected(events: &[Value]) -> Vec<String> {
    let plain: Vec<PlainEvent> = events.iter().map(PlainEvent::parse).collect();
    sorted(answer("kinds", &plain, HOUR, &Late::default()))
}

/// Half of the events lie in the lake, the others in the topic only.
pub(super) fn a_stream_that_starts_with_the_lake_misses_nothing_and_repeats_nothing(stage: &Stage) {
    let Some(events) = development_set() else { return };
    let (first, second) = events.split_at(events.len() / 2);
    let landed = write(stage, "first.jsonl", first);
    finish(&mut stage.ingest(&["file", &landed, "--max-future", "off"])).success();
    let more = write(stage, "second.jsonl", second);
    finish(&mut stage.ingest(&["file", &more, "--max-future", "off", "--no-lake"])).success();
    let batch = finish(&mut stage.batch(&["kinds", "1 hour"])).success().ndjson();
    assert_eq!(sorted(&batch), expected(first), "the lake holds the first half only");

    let mut command = stage.command(&["stream", "kinds", "1 hour", "--start", "lake", "--until-latest"]);
    command.args(["--raw-events-kafka-topic", stage.topic(), "--format", "ndjson", "--progress", "json"]);
    let done = finish(command.args(NOTHING_LATE)).success();
    let progress: Vec<Value> = done
        .stderr()
        .lines()
        .filter(|line| line.starts_with("{\"batchId\""))
        .map(|line| serde_json::from_str(line).expect("a progress record"))
        .collect();
    let begun = progress[0]["sources"][0]["endOffset"].as_object().expect("offsets").values();
    let begun: i64 = begun.map(|offset| offset.as_i64().expect("an offset")).sum();
    assert!(begun > 0 && begun < i64::try_from(events.len()).expect("few"), "the topic is read from {begun}");
    assert_eq!(sorted(done.ndjson()), expected(&events));
}

pub(super) fn updates_end_with_what_append_emits(stage: &Stage) {
    let Some(events) = development_set() else { return };
    let path = write(stage, "events.jsonl", &events);
    finish(&mut stage.ingest(&["file", &path, "--max-future", "off", "--no-lake"])).success();
    let more = [&["kinds", "1 hour", "--output-mode", "update", "--debug"], NOTHING_LATE].concat();
    let rows = finish(&mut stage.stream(&more)).success().ndjson();
    let done: Vec<Value> = rows
        .into_iter()
        .filter(|row| row["final"] == true)
        .map(|mut row| {
            row.as_object_mut().expect("a row").remove("final");
            row
        })
        .collect();
    assert_eq!(sorted(done), expected(&events));
}

/// HAVING may change while the state is used; WHERE may not.
pub(super) fn a_checkpoint_of_another_query_is_refused_and_one_changed_above_is_not(stage: &Stage) {
    let Some(events) = development_set() else { return };
    let path = write(stage, "events.jsonl", &events);
    finish(&mut stage.ingest(&["file", &path, "--max-future", "off", "--no-lake"])).success();
    let job = stage.dir().join("busy.sql").to_string_lossy().into_owned();
    let text = |filter: &str, least: u32| {
        let sql = format!(
            "SELECT window.start AS s, window.end AS e, kind, count(*) AS n FROM events WHERE {filter} \
             GROUP BY window(created_at, '1 hour'), kind HAVING count(*) >= {least}"
        );
        fs::write(&job, sql).expect("written");
    };
    let out = format!("{}.busy", stage.topic());
    let run = |more: &[&str]| -> Command {
        let mut command = stage.log_command(&["stream", &job, "--raw-events-kafka-topic", stage.topic()]);
        command.args(["--kafka-topic", &out]).args(NOTHING_LATE).args(more);
        command
    };
    text("kind >= 0", 1);
    stopped_after_a_commit(run(&[]));

    text("kind >= 1", 1);
    let said = finish(&mut run(&["--until-latest"])).code(5).stderr();
    assert!(said.contains("- ") && said.contains("kind >= ") && said.contains("--restart"), "{said}");

    text("kind >= 0", 3);
    finish(&mut run(&["--until-latest"])).success();
    let records = finish(&mut stage.log_command(&["topic", "read", &out, "--until-latest"])).success().ndjson();
    let mut want = std::collections::BTreeMap::new();
    for event in &events {
        let hour = event["created_at"].as_i64().expect("a time").div_euclid(3_600);
        *want.entry((hour, event["kind"].as_u64().expect("a kind"))).or_insert(0) += 1;
    }
    want.retain(|_, count: &mut u64| *count >= 3);
    assert_eq!(records.len(), want.len());
    for record in &records {
        let key: Value = serde_json::from_str(record["key"].as_str().expect("a key")).expect("JSON");
        let names: Vec<&String> = key.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["e", "job", "kind", "s"], "the key is the job, the window and the group");
    }
}
