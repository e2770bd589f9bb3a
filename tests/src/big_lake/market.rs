//! The market's topic: the frames of made-up traffic, each event once, as ingest leaves them.

use std::collections::HashSet;

use event::layout::{HEADER_PHASE, HEADER_RELAY};
use event::{Row, Table};
use topic::{Header, StoredRecord};

use crate::traffic::Traffic;

/// Partitions of the topic.
pub(super) const PARTITIONS: i32 = 2;

/// The first `events` events of a seed, in turns over the partitions.
pub(super) fn records(seed: u64, events: u64) -> impl Iterator<Item = StoredRecord> + Send {
    // Every tenth frame is a copy, and some are none of an event.
    let frames = usize::try_from(events).unwrap_or(usize::MAX) / 7 * 8 + 100;
    let mut known = HashSet::new();
    let mut received_at_ms = 0;
    let novel = Traffic::new(seed, frames).filter_map(move |frame| {
        let Row { time, id } = Table::Market.row(frame.as_bytes()).ok()?;
        // An event counts once however often it was sent.
        known.insert(id?).then(|| {
            received_at_ms = received_at_ms.max(time.micros() / 1_000 + 700);
            (frame, received_at_ms)
        })
    });
    let turns = (0..).flat_map(|offset| (0..PARTITIONS).map(move |partition| (partition, offset)));
    turns.zip(novel).map(|((partition, offset), (frame, timestamp_ms))| StoredRecord {
        partition,
        offset,
        timestamp_ms,
        key: None,
        value: Some(frame.into()),
        headers: vec![header(HEADER_RELAY, "wss://stream.example"), header(HEADER_PHASE, "live")],
    })
}

/// A header of constant text.
pub(super) fn header(name: &str, value: &'static str) -> Header {
    Header { name: name.to_owned(), value: value.into() }
}
