//! What gets in, what does not, and that it is all accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use tests::stage::{RelayProcess, Stage};
use tests::{finish, shared};

/// Lines of the development set as plain JSON.
pub(crate) fn development_set() -> Option<Vec<Value>> {
    let packed = fs::File::open(shared()?.join("data/nostr/events.jsonl.gz")).expect("the development set");
    let lines = std::io::read_to_string(flate2::read::MultiGzDecoder::new(packed)).expect("it unpacks");
    Some(lines.lines().map(|line| serde_json::from_str(line).expect("an event")).collect())
}

/// Serves the development set from a relay of our own and ingests it whole.
pub(crate) fn ingest_development_set(stage: &Stage, more: &[&str]) -> Option<()> {
    let events = shared()?.join("data/nostr/events.jsonl.gz");
    let relay = RelayProcess::start(&["--events", &events.to_string_lossy()]);
    let mut command = stage.ingest(&["nostr", "--relay", &relay.url, "--once"]);
    finish(command.args(more)).success();
    Some(())
}

fn read(stage: &Stage, topic: &str) -> Vec<Value> {
    finish(&mut stage.log_command(&["topic", "read", topic, "--until-latest"])).success().ndjson()
}

pub(super) fn every_line_of_the_invalid_set_is_in_one_topic(stage: &Stage) {
    let Some(shared) = shared() else { return };
    let file = shared.join("data/nostr/invalid.jsonl");
    let bytes = fs::read(&file).expect("the invalid set");
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let path = file.to_string_lossy();
    let said = finish(&mut stage.ingest(&["file", &path, "--max-future", "off"])).success().stderr();
    // The verdicts of the reader itself were checked against the set by the event crate; here: nothing vanishes.
    let verdicts = finish(tests::tidegate().args(["verify", &path])).success().ndjson();
    assert_eq!(verdicts.len(), lines.len());
    let of = |verdict: &str| verdicts.iter().filter(|line| line["verdict"] == verdict).collect::<Vec<_>>();
    let accepted: BTreeSet<&str> = of("accept").iter().map(|line| line["id"].as_str().expect("an id")).collect();

    let raw = read(stage, stage.topic());
    let ids: Vec<&str> = raw.iter().map(|record| record["key"].as_str().expect("a key")).collect();
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), accepted);
    assert_eq!(ids.len(), accepted.len(), "an id is in the raw topic once");

    let rejected = read(stage, &format!("{}.rejected", stage.topic()));
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for record in &rejected {
        *reasons.entry(header(record, "reason")).or_default() += 1;
        assert_eq!(header(record, "source"), "file");
        assert!(header(record, "detail").len() <= 200);
    }
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for line in of("reject") {
        *expected.entry(line["reason"].as_str().expect("a reason").to_owned()).or_default() += 1;
    }
    assert_eq!(reasons, expected);
    // Two accepted lines carry one id; the second is a copy.
    let copies = of("accept").len() - accepted.len();
    assert_eq!(lines.len(), raw.len() + rejected.len() + copies);
    for figure in [
        format!("received {}", lines.len()),
        format!("published {}", raw.len()),
        format!("rejected {}", rejected.len()),
    ] {
        assert!(said.contains(&figure), "`{figure}` is not in: {said}");
    }
}

fn header(record: &Value, name: &str) -> String {
    record["headers"][name].as_str().unwrap_or_else(|| panic!("no header `{name}` in {record}")).to_owned()
}

pub(super) fn events_dated_ahead_are_rejected_by_default(stage: &Stage) {
    let Some(events) = development_set() else { return };
    ingest_development_set(stage, &[]).expect("the set is there");
    let rejected = read(stage, &format!("{}.rejected", stage.topic()));
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let ahead: BTreeSet<String> = events
        .iter()
        .filter(|event| event["created_at"].as_u64().expect("seconds") > now + 900)
        .map(|event| event["id"].as_str().expect("an id").to_owned())
        .collect();
    assert!(!ahead.is_empty(), "the set has an event that is dated ahead");
    let refused: BTreeSet<String> = rejected
        .iter()
        .map(|record| {
            assert_eq!(header(record, "reason"), "future");
            record["value"]["id"].as_str().expect("the event itself").to_owned()
        })
        .collect();
    assert_eq!(refused, ahead);
    assert_eq!(rejected.len(), ahead.len());
    let landed = finish(&mut stage.lake_command(&[
        "sql",
        "SELECT count(*) AS n FROM events",
        "--raw-events-kafka-topic",
        stage.topic(),
        "--format",
        "ndjson",
    ]));
    assert_eq!(landed.success().ndjson()[0]["n"], Value::from(events.len() - ahead.len()));
}

pub(super) fn what_was_landed_is_not_landed_again(stage: &Stage) {
    let Some(events) = development_set() else { return };
    for _ in 0..2 {
        ingest_development_set(stage, &["--max-future", "off"]).expect("the set is there");
    }
    let query = "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT raw) AS raws FROM events";
    let counted = finish(&mut stage.lake_command(&[
        "sql",
        query,
        "--raw-events-kafka-topic",
        stage.topic(),
        "--format",
        "ndjson",
    ]));
    let row = &counted.success().ndjson()[0];
    for column in ["n", "ids", "raws"] {
        assert_eq!(row[column], Value::from(events.len()), "{column}");
    }
}
