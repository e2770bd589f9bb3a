//! Who is asking (NIP-42): the challenge of a connection, and whether what comes back answers it.
//!
//! Pure: the event that comes back has been verified before, the time is handed in.

use event::Event;
use event::sign::CLIENT_AUTH;
use event::tags;

/// How far from now an answer may be dated, seconds; NIP-42 says about ten minutes.
const AGE_SECS_MAX: u64 = 600;

/// The challenge of one connection, and whether it has been met.
#[derive(Debug)]
pub(crate) struct Door {
    challenge: String,
    port: u16,
    open: bool,
}

impl Door {
    /// A closed door. The challenge has to differ between connections; nothing of worth lies behind it.
    pub(crate) const fn new(challenge: String, port: u16) -> Self {
        Self { challenge, port, open: false }
    }

    pub(crate) fn challenge(&self) -> &str {
        &self.challenge
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Opens for a verified event that answers the challenge.
    ///
    /// # Errors
    /// What is wrong with the answer, in a few words.
    pub(crate) fn enter(&mut self, event: &Event, now_secs: i64) -> Result<(), &'static str> {
        if event.kind != CLIENT_AUTH {
            return Err("its kind is not 22242");
        }
        if event.created_at.abs_diff(now_secs) > AGE_SECS_MAX {
            return Err("it is dated more than ten minutes from now");
        }
        if tags::first(&event.tags, "challenge") != Some(&self.challenge) {
            return Err("it does not repeat the challenge");
        }
        // Under which name the client has found us is not known here; the port is.
        let port = format!(":{}", self.port);
        if !tags::first(&event.tags, "relay").is_some_and(|url| url.trim_end_matches('/').ends_with(&port)) {
            return Err("it names another relay");
        }
        self.open = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use event::SecretKey;

    use super::*;

    #[test]
    fn only_the_right_answer_opens() {
        let key = SecretKey::from_bytes([7; 32]).expect("a key");
        let refused = |event: &Event| {
            let mut door = Door::new("c1".into(), 7777);
            let why = door.enter(event, 1_000).expect_err("refused");
            assert!(!door.is_open());
            why
        };
        let answer = |at: i64, relay: &str, challenge: &str| key.sign_auth(at, relay, challenge);
        assert!(refused(&answer(1_000, "ws://x:7777", "c2")).contains("challenge"));
        assert!(refused(&answer(1_601, "ws://x:7777", "c1")).contains("ten minutes"));
        assert!(refused(&answer(399, "ws://x:7777", "c1")).contains("ten minutes"));
        assert!(refused(&answer(1_000, "ws://x:7778", "c1")).contains("another relay"));
        let right = answer(1_600, "ws://x:7777/", "c1");
        assert!(refused(&Event { kind: 1, ..right.clone() }).contains("22242"));
        let mut door = Door::new("c1".into(), 7777);
        assert_eq!(door.enter(&right, 1_000), Ok(()));
        assert!(door.is_open());
    }
}
