//! What comes in: events a little out of order, written to the raw topic bit by bit while the job reads it.
//!
//! Events are not signed: a stream parses what it reads and leaves belief to ingest.

use std::collections::VecDeque;

use bytes::Bytes;
use event::id::{EventId, PublicKey};
use event::{Event, layout};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use topic::{Header, StoredRecord};

use super::broker::Broker;
use crate::oracle::PlainEvent;

/// Name of the raw topic.
pub(super) const RAW_TOPIC: &str = layout::NOSTR_EVENT_TOPIC;
/// When the first event is received, seconds since 1970.
pub(super) const BEGIN_SECS: i64 = 1_700_000_000;
/// A date that a stranger claims, seconds ahead: it moves no watermark.
const AHEAD_SECS: i64 = 400 * 24 * 3_600;

/// The sort of input that a seed has.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Partitions of the raw topic.
    pub partitions: i32,
    /// Events.
    pub rows: usize,
    /// An event is received so many seconds after its date at most.
    pub disorder_secs: i64,
    /// Some records come in transactions, some of which are aborted or stay open for a while.
    pub transactions: bool,
}

/// Records that are still to be written to the raw topic.
#[derive(Debug, Default)]
pub(super) struct Feed {
    records: VecDeque<StoredRecord>,
    seed: u64,
    turn: u64,
    transactions: bool,
    open: Option<u64>,
}

impl Feed {
    /// Makes the input of a seed: what is to be written, and the events in it.
    pub(super) fn new(seed: u64, input: Input) -> (Self, Vec<PlainEvent>) {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut records, mut events) = (VecDeque::new(), Vec::new());
        let mut received_ms = BEGIN_SECS * 1_000;
        for number in 0..input.rows {
            received_ms += dice.random_range(0..6_000);
            let partition = dice.random_range(0..input.partitions);
            // Now and then a record of the raw topic holds no event.
            let value = if dice.random_ratio(1, 60) {
                "{\"no\": \"event\"}".to_owned()
            } else {
                let mut created_at = received_ms / 1_000 - dice.random_range(0..=input.disorder_secs);
                if dice.random_ratio(1, 40) {
                    created_at = received_ms / 1_000 + AHEAD_SECS + dice.random_range(0..300);
                }
                let event = event(number, created_at, &mut dice);
                events.push(plain(&event));
                event.to_json()
            };
            records.push_back(record(partition, received_ms, value));
        }
        (Self { records, seed, turn: 0, transactions: input.transactions, open: None }, events)
    }

    /// Whether all of it is written and committed.
    pub(super) fn is_dry(&self) -> bool {
        self.records.is_empty() && self.open.is_none()
    }

    /// Writes the next bit, or nothing.
    pub(super) fn flow(&mut self, broker: &mut Broker) {
        self.turn += 1;
        let mut dice = StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(self.turn));
        if let Some(open) = self.open.take() {
            broker.end_transaction(open, true);
        }
        if self.is_dry() || dice.random_ratio(1, 4) {
            return;
        }
        let transactional = self.transactions && dice.random_ratio(1, 3);
        if transactional && dice.random_bool(0.5) {
            let aborted = broker.begin(None);
            let junk = record(0, BEGIN_SECS * 1_000, "never committed".to_owned());
            broker.append(RAW_TOPIC, junk, Some(aborted)).expect("the raw topic is there");
            broker.end_transaction(aborted, false);
        }
        let transaction = transactional.then(|| broker.begin(None));
        let some = dice.random_range(1..=14).min(self.records.len());
        for record in self.records.drain(..some) {
            broker.append(RAW_TOPIC, record, transaction).expect("the raw topic is there");
        }
        match transaction {
            Some(open) if dice.random_bool(0.5) => self.open = Some(open),
            Some(whole) => broker.end_transaction(whole, true),
            None => {}
        }
    }
}

fn event(number: usize, created_at: i64, dice: &mut StdRng) -> Event {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&(number as u64).to_be_bytes());
    let tags = (0..dice.random_range(0..3)).map(|_| vec!["t".to_owned(), format!("tag{}", dice.random_range(0..4))]);
    Event {
        id: EventId(id),
        created_at,
        tags: tags.collect(),
        kind: [0, 1, 7, 30_023][dice.random_range(0..4)],
        pubkey: PublicKey([dice.random_range(1..6); 32]),
        content: String::new(),
        sig: [7; 64],
    }
}

fn plain(event: &Event) -> PlainEvent {
    PlainEvent {
        id: event.id.to_string(),
        created_at: event.created_at,
        kind: event.kind.into(),
        pubkey: event.pubkey.to_string(),
        tags: event.tags.clone(),
    }
}

fn record(partition: i32, timestamp_ms: i64, value: String) -> StoredRecord {
    let phase = Header { name: layout::HEADER_PHASE.to_owned(), value: Bytes::from_static(b"live") };
    let value = Some(Bytes::from(value));
    StoredRecord { partition, offset: 0, timestamp_ms, key: None, value, headers: vec![phase] }
}
