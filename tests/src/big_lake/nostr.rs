//! Nostr events and their deliveries, each a function of seed, partition and offset.
//!
//! What is drawn is drawn from a generator of its own place, so that any event can be made without those before it: one
//! that answers another names that one's id, and a delivery carries its event's. Kinds are mixed as on general relays;
//! authors, hashtags and targets are as unequal. An id is drawn, not computed, and a signature is id and key: nobody
//! verifies them here, and they compress like neither text nor chance alone.

use std::borrow::Cow;

use event::layout::{HEADER_PHASE, HEADER_RELAY};
use event::{Event, EventId, PublicKey, Sighting};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use topic::StoredRecord;

use super::market::header;
use super::{PARTITIONS, share};

/// 2025-11-03T00:00:00Z, when the first event is received.
const START_MS: i64 = 1_762_128_000_000;
/// Time over which events are received: two days.
const SPAN_MS: i64 = 2 * 86_400_000;
/// Authors.
const AUTHORS: i32 = 30_000;
/// Deliveries of an event that is sighted.
const COPIES: i64 = 4;

const RELAYS: [&str; 12] = [
    "wss://relay-1.example",
    "wss://relay-2.example",
    "wss://relay-3.example",
    "wss://relay-4.example",
    "wss://relay-5.example",
    "wss://relay-6.example",
    "wss://relay-7.example",
    "wss://relay-8.example",
    "wss://relay-9.example",
    "wss://relay-10.example",
    "wss://relay-11.example",
    "wss://relay-12.example",
];

/// Kinds, and how many of a thousand events are of each; what is left are notes.
const MIX: [(u16, u32); 16] = [
    (7, 260),
    (0, 30),
    (3, 12),
    (5, 18),
    (6, 50),
    (16, 8),
    (1059, 50),
    (1111, 15),
    (1984, 3),
    (9735, 60),
    (10_002, 15),
    (30_023, 5),
    (30_078, 14),
    // Data vending machines (NIP-90): one of the kinds of requests, or of results.
    (5000, 24),
    (6000, 20),
    (7000, 26),
];

/// Requests to data vending machines, above 5000; the last is a kind that NIP-90 leaves to others.
const REQUESTS: [u16; 10] = [0, 1, 2, 50, 100, 200, 250, 300, 301, 969];

const SYLLABLES: [&str; 24] = [
    "ba", "cor", "de", "fi", "gan", "hu", "is", "jo", "ka", "lum", "mi", "nor", "o", "pe", "qua", "ri", "sto", "ta",
    "u", "ven", "wa", "xi", "yo", "ze",
];

/// Everything that is said on made-up relays.
#[derive(Debug)]
pub(super) struct Nostr {
    seed: u64,
    events: u64,
    authors: Vec<PublicKey>,
}

/// What is known of an event before it is written.
struct Head {
    id: EventId,
    received_at_ms: i64,
    created_at: i64,
    relay: usize,
    phase: &'static str,
}

/// The generator of one place; `sort` keeps events, sightings and authors apart.
fn draws(seed: u64, sort: u8, partition: i32, number: i64) -> StdRng {
    let mut key = [sort; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&partition.to_le_bytes());
    key[12..20].copy_from_slice(&number.to_le_bytes());
    StdRng::from_seed(key)
}

/// A number below `end`; small ones are far more frequent.
#[expect(clippy::cast_possible_truncation, reason = "not above a number that fits")]
fn skewed(random: &mut StdRng, end: i32) -> i32 {
    let even: f64 = random.random();
    ((even * even * even * f64::from(end)) as i32).min(end - 1)
}

fn tag<const N: usize>(parts: [&str; N]) -> Vec<String> {
    parts.map(str::to_owned).to_vec()
}

impl Nostr {
    /// So many events of a seed.
    pub(super) fn new(seed: u64, events: u64) -> Self {
        let authors = (0..AUTHORS).map(|number| PublicKey(draws(seed, 1, number, 0).random())).collect();
        Self { seed, events, authors }
    }

    /// Number of events in a partition.
    pub(super) fn events(&self, partition: i32) -> i64 {
        share(self.events, partition, PARTITIONS)
    }

    /// The first draws of an event, and the generator for the others.
    fn head(&self, partition: i32, offset: i64) -> (Head, StdRng) {
        let mut random = draws(self.seed, 0, partition, offset);
        let id = EventId(random.random());
        // Below 2^63 for some ten thousand million events a partition.
        let received_at_ms = START_MS + SPAN_MS * offset / self.events(partition).max(1);
        let behind = match random.random_range(0..1_000) {
            0..10 => -random.random_range(1..60),
            10..30 => random.random_range(0..7_200),
            30..120 => random.random_range(0..90),
            _ => random.random_range(0..3),
        };
        let phase = if random.random_range(0..50) == 0 { "backfill" } else { "live" };
        let relay = usize::try_from(skewed(&mut random, 12)).unwrap_or_default();
        (Head { id, received_at_ms, created_at: received_at_ms / 1_000 - behind, relay, phase }, random)
    }

    /// An event as it lies in the raw topic.
    pub(super) fn event(&self, partition: i32, offset: i64) -> StoredRecord {
        let (head, mut random) = self.head(partition, offset);
        let pubkey = self.author(&mut random);
        let (kind, tags, content) = self.said(&mut random, offset);
        let mut sig = [0; 64];
        sig[..32].copy_from_slice(&head.id.0);
        sig[32..].copy_from_slice(&pubkey.0);
        let event = Event { id: head.id, pubkey, created_at: head.created_at, kind, tags, content, sig };
        StoredRecord {
            partition,
            offset,
            timestamp_ms: head.received_at_ms,
            key: None,
            value: Some(event.to_json().into()),
            headers: vec![header(HEADER_RELAY, RELAYS[head.relay]), header(HEADER_PHASE, head.phase)],
        }
    }

    /// A delivery as it lies in the topic of sightings, of which the partition has `sightings`: the first of an event that
    /// lies in the same partition of the raw topic, or a copy from another relay.
    pub(super) fn sighting(&self, partition: i32, offset: i64, sightings: i64) -> StoredRecord {
        let sighted = (sightings + COPIES - 1) / COPIES;
        let (number, copy) = (offset / COPIES, offset % COPIES);
        let (head, _) = self.head(partition, number * self.events(partition) / sighted.max(1));
        let behind = draws(self.seed, 2, partition, offset).random_range(1..400);
        let relay = (head.relay + usize::try_from(copy).unwrap_or_default()) % RELAYS.len();
        let sighting = Sighting {
            id: head.id,
            relay: Cow::Borrowed(RELAYS[relay]),
            received_at_ms: head.received_at_ms + copy * behind,
            phase: Cow::Borrowed(head.phase),
            first: copy == 0,
            created_at: (copy == 0).then_some(head.created_at),
        };
        StoredRecord {
            partition,
            offset,
            timestamp_ms: sighting.received_at_ms,
            key: None,
            value: Some(sighting.to_json().into()),
            headers: Vec::new(),
        }
    }

    fn author(&self, random: &mut StdRng) -> PublicKey {
        let number = skewed(random, AUTHORS);
        self.authors[usize::try_from(number).unwrap_or_default()]
    }

    fn p(&self, random: &mut StdRng) -> Vec<String> {
        tag(["p", &self.author(random).to_string()])
    }

    /// An `e` tag for an event of about the same time; some events are answered by many.
    fn e(&self, random: &mut StdRng, offset: i64) -> Vec<String> {
        let partition = random.random_range(0..PARTITIONS);
        let near = (offset - 1 - i64::from(skewed(random, 20_000))).max(0);
        let at = if random.random_range(0..10) < 4 { near - near % 2_000 } else { near };
        tag(["e", &EventId(draws(self.seed, 0, partition, at).random()).to_string()])
    }

    /// Kind, tags and content.
    fn said(&self, random: &mut StdRng, offset: i64) -> (u16, Vec<Vec<String>>, String) {
        let draw = random.random_range(0..1_000);
        let mut below = 0;
        let of_draw = MIX.iter().find(|(_, share)| {
            below += share;
            draw < below
        });
        let kind = of_draw.map_or(1, |(kind, _)| *kind);
        let job = REQUESTS[random.random_range(0..REQUESTS.len())];
        let number = usize::try_from(skewed(random, 30)).unwrap_or_default();
        match kind {
            0 => {
                (kind, Vec::new(), format!(r#"{{"name":"{}","about":"{}"}}"#, words(random, 1), words(random, number)))
            }
            3 => (kind, (0..5 + number).map(|_| self.p(random)).collect(), String::new()),
            5 | 1984 => (kind, vec![self.e(random, offset)], String::new()),
            // A few name no event.
            7 if random.random_range(0..100) == 0 => (kind, vec![self.p(random)], "+".to_owned()),
            7 => (kind, vec![self.e(random, offset), self.p(random)], ["+", "+", "-", "🤙"][number % 4].to_owned()),
            6 | 16 | 9735 => (kind, vec![self.e(random, offset), self.p(random)], String::new()),
            1059 => (kind, vec![self.p(random)], sealed(random, 6 + number)),
            10_002 => {
                let relays = (0..2 + number % 4).map(|at| tag(["r", RELAYS[(at * 5 + number) % RELAYS.len()]]));
                (kind, relays.collect(), String::new())
            }
            30_023 | 30_078 => (kind, vec![tag(["d", &words(random, 1)])], words(random, 20 + 4 * number)),
            5000 => (kind + job, vec![tag(["i", &words(random, 5), "text"]), self.p(random)], String::new()),
            6000 => (kind + job, vec![self.e(random, offset), self.p(random)], words(random, 4 + number)),
            7000 => {
                let status = tag(["status", ["processing", "success", "error", "payment-required"][number % 4]]);
                (kind, vec![status, self.e(random, offset), self.p(random)], String::new())
            }
            _ => (kind, self.tags_of_note(random, offset), words(random, 3 + number)),
        }
    }

    /// Notes answer each other, and some have hashtags, now and then one twice.
    fn tags_of_note(&self, random: &mut StdRng, offset: i64) -> Vec<Vec<String>> {
        let mut tags = Vec::new();
        if random.random_range(0..10) < 4 {
            tags.extend([self.e(random, offset), self.p(random)]);
        }
        let hashtags = [0, 0, 0, 0, 0, 0, 1, 1, 2, 4][random.random_range(0..10)];
        for _ in 0..hashtags {
            let number = skewed(random, 400);
            tags.push(tag(["t", &format!("topic{number}")]));
        }
        tags
    }
}

/// So many words, the short ones more often.
fn words(random: &mut StdRng, count: usize) -> String {
    let mut out = String::with_capacity(count * 7);
    for number in 0..count {
        if number > 0 {
            out.push(' ');
        }
        for _ in 0..=skewed(random, 4) {
            out.push_str(SYLLABLES[random.random_range(0..SYLLABLES.len())]);
        }
    }
    out
}

/// What looks like something encrypted: so many lots of eleven digits to the base of 64.
fn sealed(random: &mut StdRng, lots: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(lots * 11);
    for _ in 0..lots {
        let mut bits: u64 = random.random();
        for _ in 0..11 {
            out.push(char::from(DIGITS[usize::try_from(bits % 64).unwrap_or_default()]));
            bits /= 64;
        }
    }
    out
}
