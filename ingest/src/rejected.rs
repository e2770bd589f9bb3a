//! What is turned away: one record in `<raw topic>.rejected`, with its reason, whole up to a size.
//!
//! A relay sends what we refuse as often as it likes, and many relays send the same: within a run the same bytes are
//! written once and counted after that. Lines of a file are each their own, see `file`.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use event::Rejection;
use event::layout::{HEADER_DETAIL, HEADER_FULL_LEN, HEADER_REASON};
use sha2::{Digest, Sha256};
use topic::Record;

use crate::dedup::{Generations, prefix};
use crate::parcel::{Arrival, Outgoing, header};

/// Longest value of a rejected record; what is longer is cut, and `full_len` says so.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Refused bytes remembered by their hash; beyond it the oldest may be written once more.
const REMEMBERED_MAX: usize = 200_000;

/// Hash and length of input that may have been cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) sha256: [u8; 32],
    pub(crate) len: u64,
}

impl Whole {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::digest(bytes).into(), len: bytes.len() as u64 }
    }
}

/// Refused bytes of this run, by hash.
#[derive(Debug)]
pub(crate) struct Refused(Mutex<Generations>);

impl Refused {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Generations::new(REMEMBERED_MAX)))
    }

    /// `true` when these bytes had not been refused before.
    pub(crate) fn is_first(&self, whole: &Whole) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(prefix(&whole.sha256))
    }
}

/// The record of `rejection`: key = SHA-256 of all the bytes in hex, value = the bytes, up to 1 MiB of them.
pub(crate) fn record(arrival: &Arrival, whole: &Whole, rejection: Rejection) -> Outgoing {
    let reason = rejection.reason;
    let mut headers = arrival.headers();
    headers.push(header(HEADER_REASON, Bytes::from_static(reason.as_str().as_bytes())));
    headers.push(header(HEADER_DETAIL, rejection.detail.into()));
    headers.push(header(HEADER_FULL_LEN, whole.len.to_string().into()));
    let record = Record {
        key: Some(hex::encode(whole.sha256).into()),
        value: Some(arrival.raw.slice(..arrival.raw.len().min(VALUE_BYTES_MAX))),
        headers,
        timestamp_ms: Some(arrival.received_at_ms),
        partition: None,
    };
    Outgoing::Rejected(reason, record)
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;
    use crate::parcel::{Phase, Source};

    #[test]
    fn long_input_is_cut_and_says_how_long_it_was() {
        let raw = Bytes::from(vec![b'x'; VALUE_BYTES_MAX + 5]);
        let whole = Whole::of(&raw);
        let arrival =
            Arrival { raw, relay: "-".into(), received_at_ms: 7, source: Source::File, phase: Phase::Backfill };
        let Outgoing::Rejected(reason, record) = record(&arrival, &whole, Rejection::new(Reason::TooLarge, "much"))
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
}
