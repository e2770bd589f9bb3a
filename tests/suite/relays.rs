//! The relay directory as the binary keeps it, over real events and over made ones, on the embedded log and on Kafka.
//!
//! The oracle sorts all that an author said and takes the newest; addresses are compared in a spelling of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flate2::read::GzDecoder;
use nostr::event::{EventBuilder, FinalizeEvent as _, Kind, Tag};
use nostr::key::Keys;
use serde_json::{Value, json};
use tests::stage::Stage;
use tests::{finish, repository, shared, unique};

macro_rules! on_every_stage {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            use super::*;
            $(#[test] fn $test() { super::$test(&Stage::embedded()); })*
        }

        mod kafka {
            use super::*;
            $(#[test] fn $test() {
                if let Some(stage) = Stage::services() { super::$test(&stage); }
            })*

            #[test]
            fn whoever_comes_later_takes_over() {
                if let Some(stage) = Stage::services() { super::whoever_comes_later_takes_over(&stage); }
            }
        }
    };
}

on_every_stage!(
    real_lists_and_reports_are_counted_as_the_oracle_counts_them,
    ten_relays_in_ten_rows_out,
    kills_and_restarts_change_no_document,
);

fn ingest(stage: &Stage, file: &Path) {
    let file = file.to_str().expect("a path");
    finish(&mut stage.ingest(&["file", file, "--max-future", "off", "--no-lake"])).success();
}

fn follow(stage: &Stage, relay_topic: &str) -> String {
    finish(&mut stage.log_command(&[
        "ingest",
        "relays",
        "--until-latest",
        "--topic",
        stage.topic(),
        "--relay-topic",
        relay_topic,
    ]))
    .success()
    .stderr()
}

/// The newest record of each key.
fn documents(stage: &Stage, relay_topic: &str) -> BTreeMap<String, Value> {
    let read = finish(&mut stage.log_command(&["topic", "read", relay_topic, "--until-latest"])).success().stdout();
    let records = read.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
    records.map(|mut record| (record["key"].as_str().expect("a key").to_owned(), record["value"].take())).collect()
}

fn real_events() -> Option<Vec<Value>> {
    let mut text = String::new();
    let file = fs::File::open(shared()?.join("data/nostr/events.jsonl.gz")).expect("the events");
    GzDecoder::new(file).read_to_string(&mut text).expect("JSON lines");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect())
}

/// Scheme and host in lower case, no default port, no lone slash; none for what only a local network knows, or is no
/// address of a relay.
fn plain_url(text: &str) -> Option<String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "wss" => ":443",
        "ws" => ":80",
        _ => return None,
    };
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(port).unwrap_or(&host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let numbers: Vec<u8> = name.split('.').filter_map(|number| number.parse().ok()).collect();
    let local = matches!(numbers[..], [127 | 10, _, _, _] | [192, 168, _, _] | [100, 64..128, _, _])
        || ["localhost", "local", "test", "lan"].iter().any(|end| name.rsplit('.').next() == Some(end));
    if !name.contains('.') || !name.chars().all(good) || local || path.contains(' ') {
        return None;
    }
    let path = match path {
        "/" => "",
        path => path.split('#').next().unwrap_or_default(),
    };
    let slash = if path.starts_with('?') { "/" } else { "" };
    Some(format!("{scheme}://{host}{slash}{path}"))
}

/// docs/relays.md: what stands beyond is left out. One real list is that long.
const LISTED_MAX: usize = 100;

/// What the newest list of each author says: url, kind, read, write.
fn said(events: &[Value]) -> Vec<(String, u64, bool, bool)> {
    let mut newest: BTreeMap<(String, u64), &Value> = BTreeMap::new();
    let mut sorted: Vec<&Value> = events.iter().collect();
    // Of one second the lowest id is the newest.
    sorted.sort_by_key(|event| (event["created_at"].as_i64(), std::cmp::Reverse(event["id"].as_str())));
    for event in sorted {
        let kind = event["kind"].as_u64().expect("a kind");
        newest.insert((event["pubkey"].as_str().expect("a key").to_owned(), kind), event);
    }
    let mut said = Vec::new();
    for ((_, kind), event) in newest {
        let mut marks: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        let mut mark = |url: &str, read: bool, write: bool| {
            if let Some(url) = plain_url(url) {
                let known = marks.entry(url).or_default();
                *known = (known.0 || read, known.1 || write);
            }
        };
        if kind == 10_002 {
            for tag in event["tags"].as_array().expect("tags").iter().filter(|tag| tag[0] == "r").take(LISTED_MAX) {
                mark(tag[1].as_str().unwrap_or_default(), tag[2] != "write", tag[2] != "read");
            }
        } else if kind == 3
            && let Ok(Value::Object(relays)) = serde_json::from_str(event["content"].as_str().expect("a content"))
        {
            relays
                .iter()
                .take(LISTED_MAX)
                .for_each(|(url, marks)| mark(url, marks["read"] == true, marks["write"] == true));
        }
        said.extend(marks.into_iter().map(|(url, (read, write))| (url, kind, read, write)));
    }
    said
}

/// Authors by URL: who names it by kind 3, by kind 10002, who reads, who writes.
fn counted(events: &[Value]) -> BTreeMap<String, [u64; 4]> {
    let with_list: BTreeSet<&str> =
        events.iter().filter(|event| event["kind"] == 10_002).filter_map(|event| event["pubkey"].as_str()).collect();
    let mut counts: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for of_author in by_author(events) {
        let author = of_author[0]["pubkey"].as_str().expect("a key");
        for (url, kind, read, write) in said(&of_author) {
            let count = counts.entry(url).or_default();
            count[usize::from(kind == 10_002)] += 1;
            if kind == 10_002 || !with_list.contains(author) {
                count[2] += u64::from(read);
                count[3] += u64::from(write);
            }
        }
    }
    counts
}

fn by_author(events: &[Value]) -> Vec<Vec<Value>> {
    let mut authors: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == 10_002 || event["kind"] == 3) {
        authors.entry(event["pubkey"].as_str().expect("a key")).or_default().push(event.clone());
    }
    authors.into_values().collect()
}

fn real_lists_and_reports_are_counted_as_the_oracle_counts_them(stage: &Stage) {
    let Some(events) = real_events() else { return };
    ingest(stage, &shared().expect("it was there").join("data/nostr/events.jsonl.gz"));
    let relay_topic = unique("nostr-relay");
    let totals = follow(stage, &relay_topic);
    for part in ["read 10,405 records", "reports 11", "beyond what is kept 222"] {
        assert!(totals.contains(part), "{totals}");
    }
    let documents = documents(stage, &relay_topic);

    let expected = counted(&events);
    assert!(expected.len() > 300, "the oracle finds {} relays", expected.len());
    let found: BTreeMap<String, [u64; 4]> = documents
        .iter()
        .map(|(url, document)| {
            let count = |value: &Value| value.as_u64().expect("a number");
            let (sources, policy) = (&document["sources"], &document["policy"]);
            let counts = [&sources["kind_3"], &sources["kind_10002"], &policy["read"], &policy["write"]].map(count);
            (url.clone(), counts)
        })
        .filter(|(_, counts)| *counts != [0; 4])
        .collect();
    for url in expected.keys().chain(found.keys()) {
        assert_eq!(found.get(url), expected.get(url), "{url}");
    }

    let reports: Vec<&Value> = events.iter().filter(|event| event["kind"] == 30_166).collect();
    let monitors: BTreeSet<(&str, String)> = reports
        .iter()
        .map(|event| {
            let tag = event["tags"].as_array().expect("tags").iter().find(|tag| tag[0] == "d").expect("a d");
            (event["pubkey"].as_str().expect("a key"), plain_url(tag[1].as_str().expect("a url")).expect("a relay"))
        })
        .collect();
    let kept: usize = documents.values().map(|document| document["reports"].as_array().expect("reports").len()).sum();
    assert_eq!(kept, monitors.len());
    // Johannesburg, by the monitor; and milliseconds as the other one wrote them.
    let place = &documents["wss://africa.nostr.joburg"]["place"];
    assert_eq!((&place["source"], &place["country"]), (&json!("nip66"), &json!("ZAF")));
    assert!((place["lat"].as_f64().expect("a latitude") + 26.2).abs() < 0.5, "{place}");
    assert_eq!(documents["wss://bostr.bitcointxoko.com"]["rtt"]["open_ms"], 4);

    let rows = finish(&mut stage.log_command(&["relays", "--relay-topic", &relay_topic, "--format", "ndjson"]));
    let rows = rows.success().stdout();
    let listed: BTreeSet<String> = rows
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).expect("a row")["url"].as_str().expect("a url").to_owned())
        .collect();
    assert_eq!((rows.lines().count(), listed), (documents.len(), documents.keys().cloned().collect()));
    check_schema(&documents);
}

/// An independent validator finds that documents hold the schema, and that one with a field too many does not.
fn check_schema(documents: &BTreeMap<String, Value>) {
    let schema = repository().join("docs/nostr-relay.schema.json");
    let dir = tempfile::tempdir().expect("a directory");
    let check = |name: &str, lines: String| {
        let rows = dir.path().join(name);
        fs::write(&rows, lines).expect("written");
        Some(finish(tests::script("schema.py")?.args([&schema, &rows])))
    };
    let lines: String = documents.values().map(|document| format!("{document}\n")).collect();
    let Some(held) = check("documents", lines) else { return };
    assert_eq!(held.success().stdout().trim(), documents.len().to_string());
    let mut broken = documents.values().next().expect("a document").clone();
    broken["relays"] = json!(1);
    assert!(check("broken", format!("{broken}\n")).is_some_and(|done| done.code(1).stderr().contains("relays")));
}

/// Ten authors, each with a relay of its own: those with an even number are read from, the others written to.
fn ingest_ten(stage: &Stage) {
    let lines: Vec<String> = (0..10)
        .map(|at| {
            let marker = if at % 2 == 0 { "read" } else { "write" };
            let tag = Tag::parse(["r", &format!("wss://relay-{at}.example.org"), marker]).expect("a tag");
            let event = EventBuilder::new(Kind::from_u16(10_002), "").tag(tag);
            serde_json::to_string(&event.finalize(&Keys::generate()).expect("signed")).expect("JSON")
        })
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lists.jsonl");
    fs::write(&file, lines.join("\n")).expect("written");
    ingest(stage, &file);
}

/// The source system kept one of ten, and swapped read and write.
fn ten_relays_in_ten_rows_out(stage: &Stage) {
    ingest_ten(stage);
    let relay_topic = unique("nostr-relay");
    follow(stage, &relay_topic);
    let rows = finish(&mut stage.log_command(&["relays", "--relay-topic", &relay_topic, "--format", "ndjson"]));
    let rows = rows.success().stdout();
    assert_eq!(rows.lines().count(), 10, "{rows}");
    for row in rows.lines().map(|row| serde_json::from_str::<Value>(row).expect("a row")) {
        let url = row["url"].as_str().expect("a url");
        let at: u64 = url["wss://relay-".len()..][..1].parse().expect("a digit");
        assert_eq!((row["read"].as_u64(), row["write"].as_u64()), (Some(1 - at % 2), Some(at % 2)), "{row}");
    }
}

fn kills_and_restarts_change_no_document(stage: &Stage) {
    let Some(events) = shared().map(|shared| shared.join("data/nostr/events.jsonl.gz")) else { return };
    ingest(stage, &events);
    let (straight, killed) = (unique("nostr-relay"), unique("nostr-relay"));
    follow(stage, &straight);
    for millis in [300, 700, 1_500, 200] {
        let mut command = stage.log_command(&["ingest", "relays", "--topic", stage.topic(), "--relay-topic", &killed]);
        let mut process = command.stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(millis));
        process.kill().expect("it is killed");
        process.wait().expect("it has ended");
    }
    follow(stage, &killed);
    assert_eq!(documents(stage, &killed), documents(stage, &straight));
    let totals = follow(stage, &killed);
    assert!(totals.contains("read 0 records") && totals.contains("written 0"), "{totals}");
}

/// The embedded log has one process at a time; on Kafka the earlier one ends as soon as it has something to write.
fn whoever_comes_later_takes_over(stage: &Stage) {
    ingest_ten(stage);
    let relay_topic = unique("nostr-relay");
    let mut earlier = stage.log_command(&["ingest", "relays", "--topic", stage.topic(), "--relay-topic", &relay_topic]);
    let mut earlier = earlier.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(earlier.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("documents read back")), "it never began");
    follow(stage, &relay_topic);
    ingest_ten(stage);
    let last = said.last().unwrap_or_default();
    assert_eq!(earlier.wait().expect("it has ended").code(), Some(6), "{last}");
    assert!(last.contains(&relay_topic) && last.contains("taken over"), "{last}");
    follow(stage, &relay_topic);
    assert_eq!(documents(stage, &relay_topic).len(), 10);
}
