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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    /// Vector 0 of BIP-340's test-vectors.csv, as far as the key goes: secret key 3.
    const PUBKEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

    fn signed(created_at: i64) -> Event {
        let keys =
            secp256k1::Keypair::from_secret_bytes([[0; 31].as_slice(), &[3]].concat().try_into().expect("32 bytes"));
        let pubkey = PublicKey::from_hex(PUBKEY).expect("hex");
        let mut event = Event {
            id: EventId([0; 32]),
            pubkey,
            created_at,
            kind: 1,
            tags: vec![vec!["t".into(), "x".into()]],
            content: "hello".into(),
            sig: [0; 64],
        };
        event.id = EventId::of(&event.canonical());
        event.sig = schnorr::sign_no_aux_rand(&event.id.0, &keys.expect("a key")).to_byte_array();
        event
    }

    #[test]
    fn an_event_is_believed_with_its_id_and_signature_only() {
        let good = signed(0);
        assert_eq!(verify(good.clone()).map(VerifiedEvent::into_event), Ok(good.clone()));
        let refused = |change: fn(&mut Event)| {
            let mut event = good.clone();
            change(&mut event);
            let id = event.id;
            let rejection = verify(event).expect_err("refused");
            assert_eq!(rejection.id, Some(id));
            rejection.reason
        };
        assert_eq!(refused(|event| event.content.push(' ')), Reason::IdMismatch);
        assert_eq!(refused(|event| event.id.0[0] ^= 1), Reason::IdMismatch);
        assert_eq!(refused(|event| event.sig[63] ^= 1), Reason::BadSignature);
        assert_eq!(refused(|event| event.sig = [0; 64]), Reason::BadSignature);
    }

    #[test]
    fn a_key_off_the_curve_is_a_bad_signature() {
        let mut event = signed(0);
        for pubkey in [[0; 32], [0xff; 32]] {
            event.pubkey = PublicKey(pubkey);
            event.id = EventId::of(&event.canonical());
            assert_eq!(verify(event.clone()).expect_err("refused").reason, Reason::BadSignature);
        }
    }

    #[test]
    fn the_future_begins_after_the_span() {
        let span = Some(Span::from_secs(900));
        assert_eq!(check_future(&signed(1_900), 1_000_000, span), Ok(()));
        let rejection = check_future(&signed(1_901), 1_000_000, span).expect_err("refused");
        assert_eq!(rejection.reason, Reason::Future);
        assert_eq!(rejection.detail, "dated 1970-01-01T00:31:41Z, more than 15m after it was received");
        assert_eq!(check_future(&signed(1_901), 1_000_001, span).map_err(|r| r.reason), Err(Reason::Future));
        assert_eq!(check_future(&signed(1_901), 1_001_000, span), Ok(()));
        assert_eq!(check_future(&signed(i64::MAX), 0, None), Ok(()));
        assert!(check_future(&signed(i64::MAX), i64::MAX, span).is_ok(), "no overflow");
        assert!(check_future(&signed(0), i64::MIN, span).is_err(), "no overflow");
    }
}
