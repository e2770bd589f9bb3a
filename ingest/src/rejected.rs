//! What is turned away: one record in `<raw topic>.rejected`, with its reason, whole up to a size.
//!
//! A relay sends what we refuse as often as it likes, and many relays send the same: the same bytes are written once and
//! counted after that, over restarts too, since a run begins with what the topic holds. Lines of a file are each their
//! own, see `file`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use event::Rejection;
use event::layout::{HEADER_DETAIL, HEADER_FULL_LEN, HEADER_REASON};
use topic::{Log, Record, Tail};

use crate::dedup::{Generations, prefix};
use crate::error::{Error, Result};
use crate::parcel::{Arrival, Outgoing, header};
use crate::whole::{VALUE_BYTES_MAX, Whole};

/// Refused bytes remembered by their hash; beyond it the oldest may be written once more.
pub(crate) const REMEMBERED_MAX: usize = 200_000;

/// Refused bytes by hash: those that the topic held when the run began, and those of the run.
#[derive(Debug)]
pub(crate) struct Refused {
    before: Arc<Mutex<Generations>>,
    now: Mutex<Generations>,
}

impl Refused {
    pub(crate) fn new() -> Self {
        let generations = || Mutex::new(Generations::new(REMEMBERED_MAX));
        Self { before: Arc::new(generations()), now: generations() }
    }

    /// A run that begins while others may go on: what this one refuses and does not come to write is forgotten with it,
    /// and what `self` learns of the topic meanwhile counts.
    pub(crate) fn anew(&self) -> Self {
        Self { before: Arc::clone(&self.before), ..Self::new() }
    }

    /// The rejected topic holds a record with this key.
    pub(crate) fn learn(&self, key: &[u8]) {
        let mut sha256 = [0; 32];
        if hex::decode_to_slice(key, &mut sha256).is_ok() {
            lock(&self.before).insert(prefix(&sha256));
        }
    }

    /// Remembers the newest records of the rejected topic `topic`.
    pub(crate) async fn read_back(log: &dyn Log, topic: &str) -> Result<Self> {
        let failed = |source| Error::of_log(format!("could not read back topic `{topic}`"), source);
        let refused = Self::new();
        let mut tail = Tail::newest(log, topic, REMEMBERED_MAX as u64).await.map_err(failed)?;
        while let Some(records) = tail.next().await.map_err(failed)? {
            records.iter().filter_map(|record| record.key.as_deref()).for_each(|key| refused.learn(key));
        }
        Ok(refused)
    }

    /// `true` when these bytes had not been refused before.
    pub(crate) fn is_first(&self, whole: &Whole) -> bool {
        !self.before(whole) && lock(&self.now).insert(prefix(&whole.sha256))
    }

    /// Whether these bytes had been refused before the run began.
    pub(crate) fn before(&self, whole: &Whole) -> bool {
        lock(&self.before).contains(prefix(&whole.sha256))
    }
}

fn lock(generations: &Mutex<Generations>) -> MutexGuard<'_, Generations> {
    generations.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The record of `rejection` on its way.
pub(crate) fn record(arrival: &Arrival, whole: &Whole, rejection: Rejection) -> Outgoing {
    let reason = rejection.reason;
    Outgoing::Rejected(reason, record_of(arrival, whole, rejection), arrival.held.clone())
}

/// The record of `rejection`: key = SHA-256 of all the bytes in hex, value = the bytes, up to 1 MiB of them.
pub(crate) fn record_of(arrival: &Arrival, whole: &Whole, rejection: Rejection) -> Record {
    let record = Record {
        key: None,
        value: Some(arrival.raw.clone()),
        headers: arrival.headers(),
        timestamp_ms: Some(arrival.received_at_ms),
        partition: None,
    };
    turned_away(record, whole, rejection)
}

/// The rejected record of one that was meant for the raw topic.
pub(crate) fn of_record(record: Record, rejection: Rejection) -> Record {
    let whole = Whole::of(record.value.as_deref().unwrap_or_default());
    turned_away(record, &whole, rejection)
}

fn turned_away(mut record: Record, whole: &Whole, rejection: Rejection) -> Record {
    record.key = Some(hex::encode(whole.sha256).into());
    record.value = record.value.map(|raw| raw.slice(..raw.len().min(VALUE_BYTES_MAX)));
    record.headers.push(header(HEADER_REASON, Bytes::from_static(rejection.reason.as_str().as_bytes())));
    record.headers.push(header(HEADER_DETAIL, rejection.detail.into()));
    record.headers.push(header(HEADER_FULL_LEN, whole.len.to_string().into()));
    record
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;
    use crate::parcel::{Held, Phase, Source};

    #[test]
    fn long_input_is_cut_and_says_how_long_it_was() {
        let raw = Bytes::from(vec![b'x'; VALUE_BYTES_MAX + 5]);
        let whole = Whole::of(&raw);
        let arrival = Arrival {
            raw,
            relay: "-".into(),
            received_at_ms: 7,
            source: Source::File,
            phase: Phase::Backfill,
            held: Held::default(),
        };
        let Outgoing::Rejected(reason, record, _) = record(&arrival, &whole, Rejection::new(Reason::TooLarge, "much"))
        else {
            panic!("a rejection");
        };
        assert_eq!(reason, Reason::TooLarge);
        assert_eq!(record.value.expect("a value").len(), VALUE_BYTES_MAX);
        assert_eq!(record.key.expect("a key"), hex::encode(whole.sha256));
        let text = |name: &str| {
            let found = record.headers.iter().find(|one| one.name == name).expect(name);
            String::from_utf8(found.value.to_vec()).expect("text")
        };
        assert_eq!(text("full_len"), (VALUE_BYTES_MAX + 5).to_string());
        assert_eq!((text("reason"), text("detail")), ("too_large".into(), "much".into()));
    }

    #[test]
    fn the_same_bytes_are_first_once() {
        let refused = Refused::new();
        assert!(refused.is_first(&Whole::of(b"junk")));
        assert!(!refused.is_first(&Whole::of(b"junk")));
        assert!(refused.is_first(&Whole::of(b"other junk")));
    }

    #[test]
    fn what_a_run_has_not_written_is_forgotten_with_it_and_what_the_topic_holds_is_not() {
        let topic = Refused::new();
        assert!(topic.anew().is_first(&Whole::of(b"junk")));
        let run = topic.anew();
        assert!(run.is_first(&Whole::of(b"junk")) && !run.is_first(&Whole::of(b"junk")));
        topic.learn(hex::encode(Whole::of(b"written elsewhere").sha256).as_bytes());
        assert!(!run.is_first(&Whole::of(b"written elsewhere")));
    }
}
