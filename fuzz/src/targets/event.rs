//! Events: the verdict on the bytes as they are, and on the same fields with a right id and signature, since no fuzzer
//! comes upon those.

use std::sync::LazyLock;

use event::{Event, EventId, Limits, Rejection, SecretKey};

#[path = "../../../event/tests/oracle/verdict.rs"]
mod verdict;

/// Of no use to anybody: it stands here.
static KEY: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([7; 32]).expect("a key of the curve"));

fn judge(json: &[u8]) -> Result<Event, Rejection> {
    let event = Event::parse(json, &Limits::default())?;
    event::verify::verify(event).map(event::VerifiedEvent::into_event)
}

/// The JSON text of an event.
pub fn event(bytes: &[u8]) {
    verdict::malformed_is_what_serde_json_cannot_read(bytes);
    let scanned = EventId::scan(bytes);
    let Ok(event) = Event::parse(bytes, &Limits::default()) else {
        verdict::agrees(bytes);
        return;
    };
    assert!(scanned.is_none_or(|id| id == event.id), "{scanned:?} is found, {} is read", event.id);
    let fields = (0, event.pubkey.to_string(), event.created_at, event.kind, &event.tags, &event.content);
    assert_eq!(event.canonical(), serde_json::to_vec(&fields).expect("JSON"));
    assert_eq!(Event::parse(event.to_json().as_bytes(), &Limits::default()).as_ref(), Ok(&event));
    let signed = KEY.sign(event.created_at, event.kind, event.tags, event.content);
    let json = signed.to_json();
    assert_eq!(judge(json.as_bytes()), Ok(signed));
    verdict::agrees(json.as_bytes());
}
