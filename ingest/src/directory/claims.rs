//! What an event says of relays: kinds 10002 and 3 (an author's list), kind 30166 (a monitor's report). Pure.

use std::collections::BTreeMap;

use event::{Event, tags};
use serde_json::Value;

use crate::directory::document::Report;
use crate::directory::{geo, place};

/// Relay list (NIP-65).
pub(crate) const RELAY_LIST: u16 = 10_002;
/// Follow list; its content was the relay list before NIP-65.
pub(crate) const FOLLOW_LIST: u16 = 3;
/// Report of a monitor (NIP-66).
pub(crate) const RELAY_REPORT: u16 = 30_166;

/// Relays of a list at most. NIP-65 asks for two to four of each sort; of 128 real lists one, of addresses at random, has
/// more than 80.
const LISTED_MAX: usize = 100;
/// Longest text that is kept of a report, bytes.
const TEXT_BYTES_MAX: usize = 200;
/// Values of a tag that are kept of a report.
const VALUES_MAX: usize = 100;
/// A monitor that waited longer gave up; NIP-66's own examples wait 30 s at most.
const RTT_MS_MAX: f64 = 600_000.0;

/// What a relay is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Marks {
    /// Either says so.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self { read: self.read || other.read, write: self.write || other.write }
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Relays as the author wrote them, and what they are used for; the first of them, and how many more there are.
    List(Vec<(String, Marks)>, usize),
    /// A relay as the monitor wrote it, and what was found.
    Report(String, Box<Report>),
}

/// Reads an event; none when it says nothing of relays.
pub(crate) fn read(event: &Event) -> Option<Claim> {
    match event.kind {
        RELAY_LIST => Some(list(tagged(&event.tags))),
        FOLLOW_LIST => Some(list(in_content(&event.content))),
        RELAY_REPORT => Some(Claim::Report(tags::first(&event.tags, "d")?.to_owned(), Box::new(report(event)))),
        _ => None,
    }
}

fn list(mut relays: Vec<(String, Marks)>) -> Claim {
    let beyond = relays.len().saturating_sub(LISTED_MAX);
    relays.truncate(LISTED_MAX);
    Claim::List(relays, beyond)
}

/// `r` tags: without a marker, or with one that NIP-65 does not know, a relay is for both.
fn tagged(tags: &[Vec<String>]) -> Vec<(String, Marks)> {
    let listed = tags.iter().filter_map(|tag| match tag.as_slice() {
        [name, url, rest @ ..] if name == "r" => {
            let marks = match rest.first().map(String::as_str) {
                Some("read") => Marks { read: true, write: false },
                Some("write") => Marks { read: false, write: true },
                _ => Marks { read: true, write: true },
            };
            Some((url.clone(), marks))
        }
        _ => None,
    });
    listed.collect()
}

/// `{"wss://…": {"read": true, "write": false}}`; what is not said is not so.
fn in_content(content: &str) -> Vec<(String, Marks)> {
    let Ok(relays) = serde_json::from_str::<BTreeMap<String, Value>>(content) else { return Vec::new() };
    let said = |marks: &Value, name: &str| marks.get(name).and_then(Value::as_bool).unwrap_or(false);
    let listed = relays.into_iter().map(|(url, marks)| {
        let marks = Marks { read: said(&marks, "read"), write: said(&marks, "write") };
        (url, marks)
    });
    listed.collect()
}

fn report(event: &Event) -> Report {
    let text = |name| tags::first(&event.tags, name).filter(|text| text.len() <= TEXT_BYTES_MAX).map(str::to_owned);
    let texts = |name| {
        let short = tags::values(&event.tags, name).filter(|text| text.len() <= TEXT_BYTES_MAX);
        short.take(VALUES_MAX).map(str::to_owned).collect()
    };
    let rtt = |name| tags::first(&event.tags, name).and_then(millis);
    let mut nips: Vec<u16> = tags::values(&event.tags, "N").filter_map(|nip| nip.parse().ok()).collect();
    nips.sort_unstable();
    nips.dedup();
    nips.truncate(VALUES_MAX);
    Report {
        monitor: event.pubkey.to_string(),
        id: event.id.to_string(),
        created_at: event.created_at,
        rtt_open_ms: rtt("rtt-open"),
        rtt_read_ms: rtt("rtt-read"),
        rtt_write_ms: rtt("rtt-write"),
        network: text("n"),
        nips,
        requirements: texts("R"),
        types: texts("T"),
        software: text("s"),
        geohash: geohash(&event.tags),
        country: country(&event.tags),
    }
}

/// Whole milliseconds; what is negative, no number, or beyond all patience is none.
fn millis(text: &str) -> Option<u32> {
    let millis: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..=RTT_MS_MAX).contains(&millis).then(|| millis.round() as u32)
}

/// The longest: monitors give each prefix too. A third element names what a `g` holds, as monitors also put countries
/// there.
fn geohash(tags: &[Vec<String>]) -> Option<String> {
    let geohashes = tags.iter().filter_map(|tag| match tag.as_slice() {
        [name, hash, rest @ ..] if name == "g" && rest.first().is_none_or(|sort| sort == "geohash") => Some(hash),
        _ => None,
    });
    geohashes.filter(|hash| place::of_geohash(hash).is_some()).max_by_key(|hash| hash.len()).cloned()
}

/// `["g" or "l", "DE", "countryCode" or "ISO-3166-1"]`.
fn country(tags: &[Vec<String>]) -> Option<String> {
    tags.iter().find_map(|tag| match tag.as_slice() {
        [name, code, sort, ..] if (name == "g" || name == "l") && (sort == "countryCode" || sort == "ISO-3166-1") => {
            geo::country(code)
        }
        _ => None,
    })
}
