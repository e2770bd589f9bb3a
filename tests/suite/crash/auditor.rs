//! Whether what a job wrote is exactly what it owed: every row once, with the right numbers, and nothing else.
//!
//! Comes in: the raw topic as it is, the records of an output topic and of its late topic, and offsets. Goes out: every
//! breach in words. It computes nothing by itself; the numbers are the oracle's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tests::oracle::{Late, PlainEvent, Windows, answer, instant};

/// Breaches of one sort that are spelt out.
const SHOWN: usize = 4;

/// A record of a topic, as a `read_committed` consumer got it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<String>,
    pub(super) value: String,
}

/// What is known of one output of a job.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// Name of the job.
    pub(super) job: String,
    /// The built-in job whose definition the output has, for the oracle.
    pub(super) definition: &'static str,
    pub(super) by: Windows,
    /// The raw topic.
    pub(super) raw: Vec<Found>,
    pub(super) rows: Vec<Found>,
    pub(super) late: Vec<Found>,
    /// Offsets of the job's group in the raw topic, and where the topic's partitions end.
    pub(super) committed: BTreeMap<i32, i64>,
    pub(super) ends: BTreeMap<i32, i64>,
}

/// How much was audited, so that nobody takes an empty topic for a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Audited {
    pub(super) events: usize,
    pub(super) rows: usize,
    pub(super) late: usize,
}

/// Looks for breaches of the promise.
///
/// # Errors
/// All that were found.
pub(super) fn audit(evidence: &Evidence) -> Result<Audited, Vec<String>> {
    let mut breaches = Vec::new();
    let events = events(&evidence.raw, &mut breaches);
    let rows = keyed_rows(evidence, &mut breaches);
    let late = late_pairs(evidence, &mut breaches);
    compare(&answer(evidence.definition, &events, evidence.by, &late), &rows, &mut breaches);
    if evidence.committed != evidence.ends {
        breaches.push(format!(
            "offsets of the group are {:?}, but the topic ends at {:?}",
            evidence.committed, evidence.ends
        ));
    }
    let audited = Audited { events: events.len(), rows: rows.len(), late: late.len() };
    if breaches.is_empty() { Ok(audited) } else { Err(breaches) }
}

fn events(raw: &[Found], breaches: &mut Vec<String>) -> Vec<PlainEvent> {
    let mut ids = BTreeSet::new();
    let mut events = Vec::with_capacity(raw.len());
    for record in raw {
        let event = PlainEvent::parse(&serde_json::from_str(&record.value).expect("the producer writes JSON"));
        if !ids.insert(event.id.clone()) {
            // The late topic names rows by id, so that this would make the audit itself meaningless.
            breaches.push(format!("event {} is in the raw topic twice", event.id));
        }
        events.push(event);
    }
    events
}

/// The rows, each of which must have a key of its own that says what the row says.
fn keyed_rows(evidence: &Evidence, breaches: &mut Vec<String>) -> Vec<Value> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut rows = Vec::with_capacity(evidence.rows.len());
    for found in &evidence.rows {
        let place = format!("{}/{}", found.partition, found.offset);
        let row: Value = serde_json::from_str(&found.value).unwrap_or_default();
        match found.key.as_deref() {
            Some(key) => {
                if !says(key, &evidence.job, &row) {
                    breaches.push(format!("the record at {place} has key {key} but value {}", found.value));
                }
                places.entry(key).or_default().push(place);
            }
            None => breaches.push(format!("the record at {place} has no key")),
        }
        rows.push(row);
    }
    let twice: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    for (key, places) in twice.iter().take(SHOWN) {
        breaches.push(format!("key {key} was written {} times, at {}", places.len(), places.join(", ")));
    }
    if twice.len() > SHOWN {
        breaches.push(format!("… {} keys were written more than once in all", twice.len()));
    }
    rows
}

/// Whether a key names the job, and otherwise only what the row has too, its window among it.
fn says(key: &str, job: &str, row: &Value) -> bool {
    let Ok(Value::Object(mut key)) = serde_json::from_str(key) else { return false };
    key.remove("job") == Some(Value::from(job))
        && key.contains_key("window_start")
        && key.iter().all(|(name, value)| row.get(name) == Some(value))
}

/// The (row, window) pairs of the late topic, each of which must be there once and belong to a row that there is.
fn late_pairs(evidence: &Evidence, breaches: &mut Vec<String>) -> Late {
    let raw: BTreeMap<(i64, i64), &str> =
        evidence.raw.iter().map(|found| ((i64::from(found.partition), found.offset), found.value.as_str())).collect();
    let mut late = Late::new();
    let mut twice = 0;
    for found in &evidence.late {
        let line: Value = serde_json::from_str(&found.value).unwrap_or_default();
        let at = (line["kafka_partition"].as_i64().unwrap_or(-1), line["kafka_offset"].as_i64().unwrap_or(-1));
        let written = raw.get(&at).and_then(|raw| serde_json::from_str::<Value>(raw).ok());
        let Some(event) = written.filter(|event| *event == line["event"]).map(|event| PlainEvent::parse(&event)) else {
            breaches.push(format!("a late row is none of the raw topic: {}", found.value));
            continue;
        };
        let start = evidence.by.of(event.created_at).find(|start| {
            line["window_start"] == instant(*start) && line["window_end"] == instant(start + evidence.by.size)
        });
        let Some(start) = start else {
            breaches.push(format!("a late row lies in no such window: {}", found.value));
            continue;
        };
        if !late.insert((event.id, start)) {
            twice += 1;
            if twice <= SHOWN {
                breaches.push(format!("a (row, window) pair is late twice: {}", found.value));
            }
        }
    }
    if twice > SHOWN {
        breaches.push(format!("… {twice} late pairs were written again in all"));
    }
    late
}

/// The rows as bags: what is owed and not there, and what is there and not owed.
fn compare(owed: &[Value], rows: &[Value], breaches: &mut Vec<String>) {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    for row in owed {
        *balance.entry(row.to_string()).or_default() += 1;
    }
    for row in rows {
        *balance.entry(row.to_string()).or_default() -= 1;
    }
    let missing: Vec<&String> = balance.iter().filter(|(_, count)| **count > 0).map(|(row, _)| row).collect();
    let excess: Vec<&String> = balance.iter().filter(|(_, count)| **count < 0).map(|(row, _)| row).collect();
    for (what, rows) in [("missing", missing), ("not owed, or too often there", excess)] {
        breaches.extend(rows.iter().take(SHOWN).map(|row| format!("row is {what}: {row}")));
        if rows.len() > SHOWN {
            breaches.push(format!("… {} rows are {what} in all", rows.len()));
        }
    }
}

mod tests_of_the_auditor {
    use serde_json::json;

    use super::*;

    const BY: Windows = Windows { size: 60, slide: 20 };

    fn event(number: i64, created_at: i64, kind: i64) -> Value {
        json!({
            "id": format!("{number:064x}"), "pubkey": format!("{:064x}", number % 2), "created_at": created_at,
            "kind": kind, "tags": [], "content": "", "sig": "0".repeat(128),
        })
    }

    fn found(offset: i64, key: Option<String>, value: &Value) -> Found {
        Found { partition: 0, offset, key, value: value.to_string() }
    }

    /// Four events, one of which came too late for the first of its three windows.
    fn good() -> Evidence {
        let events = [event(1, 100, 1), event(2, 100, 1), event(3, 110, 7), event(4, 90, 1)];
        let raw: Vec<Found> = (0..).zip(&events).map(|(offset, event)| found(offset, None, event)).collect();
        let plain: Vec<PlainEvent> = events.iter().map(PlainEvent::parse).collect();
        let late = json!({
            "window_start": instant(40), "window_end": instant(100), "kafka_partition": 0, "kafka_offset": 3,
            "event": events[3],
        });
        let pairs = Late::from([(plain[3].id.clone(), 40)]);
        let rows = answer("kinds", &plain, BY, &pairs);
        let key = |row: &Value| {
            let (start, end) = (&row["window_start"], &row["window_end"]);
            json!({ "job": "kinds", "window_start": start, "window_end": end, "kind": row["kind"] }).to_string()
        };
        let rows = (0..).zip(&rows).map(|(offset, row)| found(offset, Some(key(row)), row)).collect();
        Evidence {
            job: "kinds".to_owned(),
            definition: "kinds",
            by: BY,
            raw,
            rows,
            late: vec![found(0, None, &late)],
            committed: BTreeMap::from([(0, 4)]),
            ends: BTreeMap::from([(0, 4)]),
        }
    }

    /// Demands that the evidence is refused, with these words and for nothing else.
    fn refused(evidence: &Evidence, words: &[&str]) {
        let breaches = audit(evidence).expect_err("the auditor has to see it");
        assert_eq!(breaches.len(), words.len(), "{breaches:#?}");
        for word in words {
            assert!(breaches.iter().any(|breach| breach.contains(word)), "`{word}` is not in {breaches:#?}");
        }
    }

    #[test]
    fn what_is_right_passes() {
        let evidence = good();
        let audited = Audited { events: 4, rows: evidence.rows.len(), late: 1 };
        assert_eq!(audit(&evidence), Ok(audited));
        assert!(evidence.rows.len() > 4);
    }

    #[test]
    fn a_row_that_was_written_twice_is_seen() {
        let mut evidence = good();
        let again = Found { offset: 99, ..evidence.rows[2].clone() };
        evidence.rows.push(again);
        refused(&evidence, &["was written 2 times, at 0/2, 0/99", "too often there"]);
    }

    #[test]
    fn a_row_that_is_missing_is_seen() {
        let mut evidence = good();
        evidence.rows.remove(1);
        refused(&evidence, &["row is missing"]);
    }

    #[test]
    fn a_row_with_a_wrong_number_is_seen() {
        let mut evidence = good();
        let mut row: Value = serde_json::from_str(&evidence.rows[0].value).expect("a row");
        row["events"] = Value::from(row["events"].as_i64().expect("a number") + 1);
        evidence.rows[0].value = row.to_string();
        refused(&evidence, &["row is missing", "not owed"]);
    }

    #[test]
    fn a_row_under_the_key_of_another_or_of_none_is_seen() {
        let mut evidence = good();
        evidence.rows[0].key = evidence.rows[0].key.as_ref().map(|key| key.replace("kinds", "other"));
        refused(&evidence, &["has key"]);
        evidence.rows[0].key = None;
        refused(&evidence, &["has no key"]);
    }

    #[test]
    fn a_late_pair_that_was_written_twice_is_seen() {
        let mut evidence = good();
        evidence.late.push(evidence.late[0].clone());
        refused(&evidence, &["late twice"]);
    }

    #[test]
    fn a_late_pair_that_is_missing_is_seen() {
        let mut evidence = good();
        evidence.late.clear();
        // The window of the pair has no other row, so that nothing of it was written.
        refused(&evidence, &["row is missing"]);
    }

    #[test]
    fn a_late_row_that_never_came_is_seen() {
        let mut evidence = good();
        let strange = evidence.late[0].value.replace("\"kafka_offset\":3", "\"kafka_offset\":2");
        evidence.late.push(Found { value: strange, ..evidence.late[0].clone() });
        refused(&evidence, &["none of the raw topic"]);
    }

    #[test]
    fn a_late_row_in_a_window_that_does_not_cover_it_is_seen() {
        let mut evidence = good();
        let strange = evidence.late[0].value.replace(&instant(40), &instant(20));
        evidence.late.push(Found { value: strange, ..evidence.late[0].clone() });
        refused(&evidence, &["in no such window"]);
    }

    #[test]
    fn offsets_that_stay_behind_are_seen() {
        let mut evidence = good();
        evidence.committed.insert(0, 3);
        refused(&evidence, &["offsets of the group"]);
    }
}
