//! Saying who we are, to a relay that wants to know before it lets us read (NIP-42). Only where a key is configured, and
//! only once the relay has refused something: who reads what is nobody's business else.

use event::EventId;
use tokio::time::Instant;

use crate::relay::message;
use crate::relay::session::{End, Session, Step};

/// How far we are with a relay that wants to know who we are.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    /// What the relay wants to have signed.
    challenge: Option<String>,
    /// The relay has refused to go on without.
    wanted: bool,
    /// The answer that the relay has not accepted yet.
    sent: Option<EventId>,
    accepted: bool,
    /// How often the relay has refused something for want of it.
    refusals: u32,
}

/// Refusals after which a relay that does not answer our answer is left.
const REFUSALS_MAX: u32 = 4;

impl Session<'_> {
    /// The relay names its challenge: at once, or when it refuses something, before or after it.
    pub(crate) async fn challenged(&mut self, challenge: &str) -> Step {
        self.auth.challenge = Some(challenge.to_owned());
        self.auth.accepted = false;
        self.answer_challenge().await
    }

    /// The relay refuses what we asked for until it knows who we are; what to do until then.
    ///
    /// # Errors
    /// Ends the session where there is no key, or where the relay knows who we are and refuses all the same.
    pub(crate) async fn auth_required(&mut self, text: &str) -> Step {
        let why = format!("the relay says: {text}");
        if self.settings().auth_key.is_none() {
            let why = format!("{why} (name a key with --auth-key-file)");
            return Err(End::Refused { why, wait: super::closed::REFUSED });
        }
        self.auth.refusals += 1;
        if self.auth.accepted || self.auth.refusals > REFUSALS_MAX {
            return Err(End::Refused { why, wait: super::closed::REFUSED });
        }
        self.auth.wanted = true;
        self.hold_until(Instant::now() + self.settings().idle_timeout);
        self.answer_challenge().await
    }

    async fn answer_challenge(&mut self) -> Step {
        let (Some(key), Some(challenge), true, None) =
            (&self.settings().auth_key, &self.auth.challenge, self.auth.wanted, &self.auth.sent)
        else {
            return Ok(());
        };
        let event = key.sign_auth(self.now_secs(), self.relay.url.text(), challenge);
        self.auth.sent = Some(event.id);
        self.send_text(message::auth(&event.to_json())).await
    }

    /// What became of our answer; once it is accepted, everything is asked for anew.
    pub(crate) async fn answered(&mut self, id: &EventId, accepted: bool, text: &str) -> Step {
        if self.auth.sent.as_ref() != Some(id) {
            return Ok(());
        }
        self.auth.sent = None;
        if !accepted {
            let why = format!("the relay does not accept who we are: {text}");
            return Err(End::Refused { why, wait: super::closed::REFUSED });
        }
        tracing::info!(relay = %self.relay.url, "the relay knows who we are");
        (self.auth.accepted, self.auth.wanted) = (true, false);
        self.hold_until(Instant::now());
        Ok(())
    }
}
