//! Verdicts of other people's code on one text, beside ours; the fuzzer asks them, too.

use event::{Event, Limits, Reason};
use nostr::event as theirs;

use super::judge;

/// What we believe the `nostr` crate believes and writes alike, and the other way round but for what it is more lenient
/// in: upper-case hex, keys that stand twice, an array of the seven values, dates beyond the calendar, and what is
/// nested or no UTF-8 in fields that nobody reads. A tag without elements it cannot hold.
///
/// # Panics
/// Where the two do not agree.
pub(crate) fn agrees(json: &[u8]) {
    let theirs = theirs::Event::from_json(json).ok().filter(|event| event.verify().is_ok());
    match (judge(json), theirs) {
        (Ok(ours), Some(theirs)) => assert_eq!(ours.to_json(), theirs.as_json()),
        (Err(_), None) => {}
        (Err(ours), Some(_)) => {
            let upper = json.iter().any(|byte| (b'A'..=b'F').contains(byte));
            let lenient = match ours.reason {
                Reason::BadHex => upper,
                Reason::DuplicateKey | Reason::InvalidUtf8 | Reason::NotObject => true,
                Reason::OutOfRange | Reason::TooDeep => true,
                _ => false,
            };
            assert!(lenient, "only they accept: {ours}");
        }
        (Ok(ours), None) => assert!(ours.tags.iter().any(Vec::is_empty), "only we accept {}", ours.to_json()),
    }
}

/// What we call malformed is what `serde_json` cannot read.
///
/// # Panics
/// Where the two do not agree.
pub(crate) fn malformed_is_what_serde_json_cannot_read(json: &[u8]) {
    let Err(ours) = Event::parse(json, &Limits::default()) else { return };
    match str::from_utf8(json) {
        Err(_) => assert_eq!(ours.reason, Reason::InvalidUtf8),
        Ok(_) if ours.reason == Reason::TooDeep => {}
        Ok(text) => {
            let readable = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
            assert_eq!(ours.reason != Reason::MalformedJson, readable, "{ours}: {text}");
        }
    }
}
