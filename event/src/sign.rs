//! Signing: the one place that turns a secret key and some fields into a signed event.
//!
//! In come 32 secret bytes, which the caller has from a file or from the system's randomness; out go public keys and
//! [`Event`]s whose id and signature are right. Nothing here makes up a key, reads a file or a clock. What a stranger
//! signed is [`crate::verify`]'s affair.

use std::fmt;

use secp256k1::{Keypair, schnorr};

use crate::event::Event;
use crate::id::{EventId, PublicKey, canonical, decode_hex};

/// Kind of the event that proves to a relay who is asking (NIP-42).
pub const CLIENT_AUTH: u16 = 22_242;

/// A secret key. It prints its public key only, and its bytes are overwritten when it goes.
pub struct SecretKey(Keypair);

impl SecretKey {
    /// The key of these 32 bytes; `None` for zero and for what is not below the order of the curve.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        Keypair::from_secret_bytes(bytes).ok().map(Self)
    }

    /// Reads 64 hex digits, lower-case; anything else, and what is no key, is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Self::from_bytes(decode_hex(text.as_bytes())?)
    }

    /// The secret itself, for those who have to write it down.
    #[must_use]
    pub fn reveal(&self) -> [u8; 32] {
        self.0.to_secret_bytes()
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.x_only_public_key().0.to_byte_array())
    }

    /// The event of these fields, with its id and a BIP-340 signature without auxiliary randomness: the same fields
    /// give the same signature.
    #[must_use]
    pub fn sign(&self, created_at: i64, kind: u16, tags: Vec<Vec<String>>, content: String) -> Event {
        let pubkey = self.public_key();
        let id = EventId::of(&canonical(&pubkey, created_at, kind, &tags, &content));
        let sig = schnorr::sign_no_aux_rand(&id.0, &self.0).to_byte_array();
        Event { id, pubkey, created_at, kind, tags, content, sig }
    }

    /// The answer to a relay's challenge (NIP-42): who we are, to which relay, in response to what.
    #[must_use]
    pub fn sign_auth(&self, created_at: i64, relay: &str, challenge: &str) -> Event {
        let tag = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        self.sign(created_at, CLIENT_AUTH, vec![tag("relay", relay), tag("challenge", challenge)], String::new())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public_key())
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::verify;

    /// Vector 0 of BIP-340's test-vectors.csv: secret key 3 and its public key.
    const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000003";
    const PUBLIC: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

    #[test]
    fn a_key_shows_its_public_half_only() {
        let key = SecretKey::from_hex(SECRET).expect("a key");
        assert_eq!(key.public_key().to_string(), PUBLIC);
        assert_eq!(format!("{key:?}"), format!("SecretKey(of {PUBLIC})"));
        assert_eq!(key.reveal()[31], 3);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(SecretKey::from_bytes([0; 32]).is_none());
        assert!(SecretKey::from_bytes([0xff; 32]).is_none());
        assert!(SecretKey::from_hex(&SECRET[1..]).is_none());
    }

    #[test]
    fn what_is_signed_is_believed() {
        let key = SecretKey::from_hex(SECRET).expect("a key");
        let event = key.sign(7, 1, vec![vec!["t".into(), "x".into()], vec![]], "hello\n".into());
        assert_eq!(key.sign(7, 1, event.tags.clone(), event.content.clone()), event, "signing is deterministic");
        assert_eq!(verify(event).expect("believed").pubkey, key.public_key());
    }

    #[test]
    fn the_answer_to_a_challenge_has_the_tags_of_nip_42() {
        let key = SecretKey::from_hex(SECRET).expect("a key");
        let event = verify(key.sign_auth(9, "wss://r.example", "c\"h")).expect("believed");
        let tag = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        assert_eq!(event.tags, [tag("relay", "wss://r.example"), tag("challenge", "c\"h")]);
        assert_eq!((event.kind, event.created_at, event.content.as_str()), (22_242, 9, ""));
    }
}
