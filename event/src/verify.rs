//! The door: an [`Event`] becomes a [`VerifiedEvent`] here and nowhere else.
//!
//! In comes a parsed event; out goes belief, or a [`Rejection`]. First the id is computed and compared, which is cheap
//! and stops most junk, then the signature is checked. Whether its date is believable is asked apart, by
//! [`check_future`], since history is fetched without that rule.

use std::ops::Deref;

use secp256k1::{XOnlyPublicKey, schnorr};

use crate::event::Event;
use crate::id::EventId;
use crate::rejection::{Reason, Rejection};
use crate::time::Span;

/// An event whose id is its hash and whose signature is its author's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvent(Event);

impl VerifiedEvent {
    /// The event alone, without the proof.
    #[must_use]
    pub fn into_event(self) -> Event {
        self.0
    }
}

impl Deref for VerifiedEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.0
    }
}

/// Checks that the id is the hash of the event, then the BIP-340 signature over the id.
///
/// # Errors
/// [`Reason::IdMismatch`] or [`Reason::BadSignature`]; the latter also when `pubkey` is no point of the curve.
pub fn verify(event: Event) -> Result<VerifiedEvent, Rejection> {
    let hash = EventId::of(&event.canonical());
    let refuse = |reason, detail: String| Err(Rejection::new(reason, detail).with_id(Some(event.id)));
    if hash != event.id {
        return refuse(Reason::IdMismatch, format!("the event hashes to {hash}"));
    }
    let Ok(pubkey) = XOnlyPublicKey::from_byte_array(event.pubkey.0) else {
        return refuse(Reason::BadSignature, format!("pubkey {} is no point of the curve", event.pubkey));
    };
    let sig = schnorr::Signature::from_byte_array(event.sig);
    match schnorr::verify(&sig, &event.id.0, &pubkey) {
        Ok(()) => Ok(VerifiedEvent(event)),
        Err(_) => refuse(Reason::BadSignature, format!("not a signature of {} over the id", event.pubkey)),
    }
}

/// Checks that the event is dated at most `max_future` after `received_at_ms` (milliseconds since 1970); `None` allows
/// any date.
///
/// # Errors
/// [`Reason::Future`].
pub fn check_future(event: &Event, received_at_ms: i64, max_future: Option<Span>) -> Result<(), Rejection> {
    let Some(max_future) = max_future else { return Ok(()) };
    let latest = received_at_ms.saturating_mul(1_000).saturating_add(max_future.micros());
    let at = event.event_time();
    if at.micros() <= latest {
        return Ok(());
    }
    let detail = format!("dated {at}, more than {max_future} after it was received");
    Err(Rejection::new(Reason::Future, detail).with_id(Some(event.id)))
}
