//! The dumb way: every event into every window that covers it, one by one, with sets where the engine has state.
//!
//! Definitions are those of jobs/README.md; nothing is shared with the engine but the text of an instant.

use std::collections::{BTreeMap, BTreeSet};

use event::EventTime;
use serde_json::{Value, json};

/// An event as the oracle reads it: plain JSON.
#[derive(Debug, Clone)]
pub struct PlainEvent {
    /// Lower-case hex.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Kind.
    pub kind: i64,
    /// Lower-case hex.
    pub pubkey: String,
    /// Tags as signed.
    pub tags: Vec<Vec<String>>,
}

impl PlainEvent {
    /// Reads an event from its JSON.
    ///
    /// # Panics
    ///
    /// When a field is absent: the oracle is given real events only.
    pub fn parse(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().expect("text").to_owned();
        Self {
            id: text("id"),
            created_at: event["created_at"].as_i64().expect("seconds"),
            kind: event["kind"].as_i64().expect("a kind"),
            pubkey: text("pubkey"),
            tags: serde_json::from_value(event["tags"].clone()).expect("tags"),
        }
    }
}

/// A sighting as the oracle reads it: plain JSON.
#[derive(Debug, Clone)]
pub struct PlainSighting {
    /// Lower-case hex.
    pub id: String,
    /// URL of the relay.
    pub relay: String,
    /// Milliseconds since 1970.
    pub received_at: i64,
    /// Whether it came by a live subscription.
    pub live: bool,
    /// Whether it put its event into the raw topic.
    pub first: bool,
    /// Of a first one, the event's date in seconds since 1970.
    pub created_at: Option<i64>,
}

impl PlainSighting {
    /// Reads a sighting from its JSON.
    ///
    /// # Panics
    ///
    /// When a field is absent.
    pub fn parse(sighting: &Value) -> Self {
        let text = |name: &str| sighting[name].as_str().expect("text").to_owned();
        Self {
            id: text("id"),
            relay: text("relay"),
            received_at: sighting["received_at"].as_i64().expect("milliseconds"),
            live: text("phase") == "live",
            first: sighting["first"].as_bool().expect("yes or no"),
            created_at: sighting["created_at"].as_i64(),
        }
    }
}

/// Rows of the job `relays`, by window.
pub fn relays(sightings: &[PlainSighting], by: Windows) -> Vec<Value> {
    let mut windows: BTreeMap<(i64, &str), Vec<&PlainSighting>> = BTreeMap::new();
    for sighting in sightings {
        for start in by.of(sighting.received_at.div_euclid(1_000)) {
            windows.entry((start, &sighting.relay)).or_default().push(sighting);
        }
    }
    let mut rows = Vec::new();
    for ((start, relay), of) in windows {
        let late = |one: &&PlainSighting| Some(one.received_at - one.created_at.filter(|_| one.live)? * 1_000);
        let late: Vec<i64> = of.iter().filter(|one| one.first).filter_map(late).collect();
        let count = i64::try_from(late.len()).expect("few");
        let rest = json!({
            "relay": relay,
            "events": of.iter().map(|one| &one.id).collect::<BTreeSet<_>>().len(),
            "first_deliveries": of.iter().filter(|one| one.first).count(),
            "copies": of.iter().filter(|one| !one.first).count(),
            // A quotient of microseconds cut to milliseconds is that of milliseconds.
            "lateness_avg_ms": late.iter().sum::<i64>().checked_div(count),
            "lateness_max_ms": late.iter().max(),
        });
        rows.push(row(start, by, &rest));
    }
    rows
}

/// Size and slide in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Length of a window.
    pub size: i64,
    /// Distance between two starts.
    pub slide: i64,
}

impl Windows {
    /// Starts of the windows that cover `time`.
    pub fn of(self, time: i64) -> impl Iterator<Item = i64> {
        let last = time.div_euclid(self.slide) * self.slide;
        (0..).map(move |back| last - back * self.slide).take_while(move |start| start + self.size > time)
    }
}

/// Seconds since 1970 as outputs have them.
///
/// # Panics
///
/// Beyond the calendar.
pub fn instant(secs: i64) -> String {
    EventTime::from_secs(secs).expect("within the calendar").to_string()
}

/// (event id, window start) pairs that came too late.
pub type Late = BTreeSet<(String, i64)>;

fn windows(events: &[PlainEvent], by: Windows, late: &Late) -> BTreeMap<i64, Vec<PlainEvent>> {
    let mut windows: BTreeMap<i64, Vec<PlainEvent>> = BTreeMap::new();
    for event in events {
        for start in by.of(event.created_at) {
            if !late.contains(&(event.id.clone(), start)) {
                windows.entry(start).or_default().push(event.clone());
            }
        }
    }
    windows
}

fn row(start: i64, by: Windows, rest: &Value) -> Value {
    let mut row = json!({ "window_start": instant(start), "window_end": instant(start + by.size) });
    let rest = rest.as_object().expect("columns").clone();
    row.as_object_mut().expect("an object").extend(rest);
    row
}

fn authors<'a>(events: impl Iterator<Item = &'a PlainEvent>) -> usize {
    events.map(|event| &event.pubkey).collect::<BTreeSet<_>>().len()
}

/// Rows of the job `job` over `events`, by window, without the pairs in `late`.
///
/// # Panics
///
/// For a job that the oracle does not know.
pub fn answer(job: &str, events: &[PlainEvent], by: Windows, late: &Late) -> Vec<Value> {
    let mut rows = Vec::new();
    for (start, events) in windows(events, by, late) {
        match job {
            "activity" => {
                rows.push(row(start, by, &json!({ "events": events.len(), "authors": authors(events.iter()) })));
            }
            "kinds" => {
                let kinds: BTreeSet<i64> = events.iter().map(|event| event.kind).collect();
                for kind in kinds {
                    let of = || events.iter().filter(|event| event.kind == kind);
                    rows.push(row(
                        start,
                        by,
                        &json!({ "kind": kind, "events": of().count(), "authors": authors(of()) }),
                    ));
                }
            }
            "hashtags" => {
                let tags = events.iter().flat_map(|event| values(event, "t").into_iter().collect::<BTreeSet<_>>());
                for (rank, (tag, count)) in top(tags).into_iter().enumerate() {
                    rows.push(row(start, by, &json!({ "rank": rank + 1, "tag": tag, "events": count })));
                }
            }
            "reactions" => {
                let reactions = events.iter().filter(|event| event.kind == 7);
                for (rank, (id, count)) in
                    top(reactions.filter_map(|event| values(event, "e").pop())).into_iter().enumerate()
                {
                    rows.push(row(start, by, &json!({ "rank": rank + 1, "event_id": id, "reactions": count })));
                }
            }
            other => panic!("the oracle does not know the job `{other}`"),
        }
    }
    rows
}

fn values(event: &PlainEvent, name: &str) -> Vec<String> {
    event.tags.iter().filter(|tag| tag.len() >= 2 && tag[0] == name).map(|tag| tag[1].clone()).collect()
}

/// The ten most frequent values, count descending, then value ascending by its bytes.
fn top(values: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(10);
    counts
}
