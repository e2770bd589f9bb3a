//! What a server of the market's stream does to `ingest opensea`, each with what has to come of it. The other side is a
//! scripted server of Phoenix channels; afterwards an audit demands that every event that it served is in the topic and in
//! the lake, once, in the bytes of one of its frames, or else lies in a gap of each channel on which it was served.

mod channels;
mod connection;
mod key;
mod killed;
mod load;
mod up;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use event::Clock;
use ingest::coverage::{Gap, GapReason, coverage, gaps};
use ingest::{ApiKey, Backoff, IntakeSettings, OpenSeaSettings};
use serde_json::{Value, json};
use tests::audit::{Held, read_lake};
use tests::scripted_phoenix::{News, ScriptedPhoenix, Served};
use topic::Log;

use super::lab::{Lab, SOON, until};

/// The key of the tests, which is to be found nowhere.
const KEY: &str = "opensea+key/4711";
const TOPIC: &str = "OpenSeaRawEvents";

/// A transfer; the number is its own.
fn transfer(number: usize, slug: &str) -> News {
    let text = json!({
        "event_type": "item_transferred",
        "payload": {
            "chain": "ethereum",
            "collection": {"slug": slug},
            "event_timestamp": "2026-09-09T10:18:42.160000Z",
            "from_account": {"address": "0x33d11c2dd0de6bf29beaebfdf948fedf7bc3f271"},
            "item": {"metadata": {"name": null}, "nft_id": format!("ethereum/0x670fd103b1a08628e9557cd66b87ded841115190/{number}")},
            "quantity": 1,
            "to_account": {"address": "0x8a90cab2b38dba80c64b7734e58ee1db38b8992e"},
            "transaction": {"hash": format!("{number:#066x}"), "timestamp": "1788949122"},
        },
        "sent_at": "2026-09-09T10:18:42.742000Z",
        "version": 2,
    });
    News { slug: slug.into(), event: "item_transferred".into(), text: text.to_string().into() }
}

/// The number of a transfer, whatever frame it stands in.
fn number(text: &[u8]) -> usize {
    let frame: Value = serde_json::from_slice(text).expect("JSON");
    let event = match &frame {
        Value::Array(parts) => &parts[4],
        frame if frame["event_type"].is_string() => frame,
        frame => &frame["payload"],
    };
    let hash = event["payload"]["transaction"]["hash"].as_str().expect("a hash");
    usize::from_str_radix(hash.trim_start_matches("0x"), 16).expect("a number")
}

/// Settings in which nobody waits for long, except for answers: what is missed does not come again.
fn quick(phoenix: &ScriptedPhoenix, collections: &[&str]) -> OpenSeaSettings {
    at(&phoenix.url(), collections)
}

fn at(endpoint: &str, collections: &[&str]) -> OpenSeaSettings {
    let defaults = OpenSeaSettings::default();
    OpenSeaSettings {
        endpoint: endpoint.parse().expect("an endpoint"),
        key: Some(ApiKey::new(KEY, "variable OPENSEA_API_KEY").expect("a key")),
        collections: collections.iter().map(|&slug| slug.to_owned()).collect(),
        all_collections: true,
        intake: IntakeSettings { partitions: 2, ..defaults.intake },
        backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_millis(100) },
        connect_timeout: SOON,
        join_timeout: SOON,
        heartbeat_interval: Duration::from_millis(50),
        reply_timeout: SOON,
        user_agent: "tidegate-test (ops@example.org)".to_owned(),
        ..defaults
    }
}

/// A lab at the time of the server.
fn lab() -> Lab {
    Lab::at(Clock::system())
}

/// Waits until so many joins have come, on all connections.
async fn joins(phoenix: &ScriptedPhoenix, count: usize) {
    until(&format!("{count} joins"), || phoenix.asked_for("phx_join").len() >= count).await;
}

/// Waits until heartbeats sent from now on are answered, so that everything that was served before has come.
async fn heard(phoenix: &ScriptedPhoenix) {
    let beats = phoenix.asked_for("heartbeat").len();
    until("two more heartbeats", || phoenix.asked_for("heartbeat").len() >= beats + 2).await;
}

/// What was audited, so that nobody takes an empty topic for a good one.
#[derive(Clone, Copy, Debug)]
struct Audited {
    /// Events in the topic.
    held: usize,
    /// Events that were served and are in gaps alone.
    missed: usize,
    /// Events in the topic that no gap would excuse.
    outside: usize,
}

fn is_in_gap(served: &Served, gaps: &[Gap]) -> bool {
    let second = served.at_ms.div_euclid(1_000);
    let hit = |gap: &&Gap| gap.kinds == *served.topic && (gap.from..=gap.to).contains(&second);
    gaps.iter().any(|gap| hit(&gap))
}

/// Compares what was served with what is there.
fn audit(served: &[Served], topic: &[Held], lake: &[Held], gaps: &[Gap]) -> Audited {
    let frames: BTreeSet<&[u8]> = served.iter().map(|one| one.frame.as_bytes()).collect();
    let mut held = BTreeMap::new();
    for record in topic {
        assert!(frames.contains(&record.value[..]), "nobody served {}", String::from_utf8_lossy(&record.value));
        assert!(record.key.len() == 64 && record.key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", record.key);
        let number = number(&record.value);
        assert_eq!(held.insert(number, record), None, "event {number} is in the topic twice");
    }
    let keys: BTreeSet<&str> = topic.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(keys.len(), topic.len(), "each event has an id of its own");
    let sorted = |rows: &[Held]| {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| row.place);
        rows
    };
    assert_eq!(sorted(lake), sorted(topic), "the lake holds what the topic holds");
    let (mut missed, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for one in served {
        let (number, in_gap) = (number(one.event.as_bytes()), is_in_gap(one, gaps));
        match held.contains_key(&number) {
            true if !in_gap => drop(outside.insert(number)),
            true => {}
            false => {
                assert!(
                    in_gap,
                    "event {number}, served at {} on {}, is neither there nor in {gaps:?}",
                    one.at_ms, one.topic
                );
                missed.insert(number);
            }
        }
    }
    Audited { held: topic.len(), missed: missed.len(), outside: outside.len() }
}

/// The gaps of a log, all of which say that nobody listened.
async fn gaps_of(log: &dyn Log, topic: &str) -> Vec<Gap> {
    let gaps = gaps(log, topic).await.expect("gaps");
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::NotLive && gap.from <= gap.to), "{gaps:?}");
    gaps
}

/// Audits a lab, in which nothing runs any more.
async fn audit_lab(lab: &Lab, phoenix: &ScriptedPhoenix) -> Audited {
    let (topic, lake) = (lab.records_of(TOPIC).await, read_lake(lab.lake.as_ref(), TOPIC).await);
    audit(&phoenix.served(), &topic, &lake, &gaps_of(lab.log(), TOPIC).await)
}

/// Demands that everything is there that was served, and that it is so many events.
async fn audit_whole(lab: &Lab, phoenix: &ScriptedPhoenix, events: usize) {
    let audited = audit_lab(lab, phoenix).await;
    assert_eq!((audited.held, audited.missed), (events, 0), "{audited:?}");
}

/// Seconds that are proven of a channel.
async fn proven(lab: &Lab, channel: &str) -> Vec<(i64, i64)> {
    let lines = coverage(lab.log(), TOPIC).await.expect("a ledger");
    let bands = lines.into_iter().filter(|line| line.kinds == channel).flat_map(|line| line.bands);
    bands.map(|band| (band.from, band.to)).collect()
}

/// Demands that the records of each partition stand in the order in which their events were served first.
async fn demand_order(lab: &Lab, phoenix: &ScriptedPhoenix) {
    let mut places = BTreeMap::new();
    for (place, served) in phoenix.served().iter().enumerate() {
        places.entry(number(served.event.as_bytes())).or_insert(place);
    }
    let mut by_partition: BTreeMap<i32, Vec<(i64, usize)>> = BTreeMap::new();
    for record in lab.records_of(TOPIC).await {
        let place = places[&number(&record.value)];
        by_partition.entry(record.place.0).or_default().push((record.place.1, place));
    }
    assert_eq!(by_partition.len(), 2, "both partitions have records");
    for records in by_partition.values_mut() {
        records.sort_unstable();
        assert!(records.iter().is_sorted_by_key(|(_, place)| place), "a partition is out of order");
    }
}
