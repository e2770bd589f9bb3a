//! The live subscription of a session: `limit:0`, and no `since` or `until`, which would also hold back events that
//! come late. A relay that ends it is asked again, and for what it stored meanwhile: a live stream that is silently
//! dead is the worst kind of loss.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::coverage::GapReason;
use crate::relay::HEALTHY;
use crate::relay::closed::Closed;
use crate::relay::message::{self, Filter};
use crate::relay::session::{End, Session, Step};

/// Kinds that relays pass on and do not store (NIP-01).
const EPHEMERAL: RangeInclusive<u16> = 20_000..=29_999;

/// State of the live subscription.
#[derive(Debug, Default)]
pub(crate) struct Live {
    sub: Option<String>,
    eose: bool,
    opened: Option<Instant>,
    /// When to ask again after the relay has ended it.
    reopen: Option<Instant>,
    refusals: u32,
}

impl Live {
    pub(crate) fn sub(&self) -> Option<&str> {
        self.sub.as_deref()
    }

    pub(crate) fn is(&self, sub: &str) -> bool {
        self.sub() == Some(sub)
    }

    /// Whether `sub` is the live subscription and past its EOSE: before it, some relays send history in spite of
    /// `limit:0`.
    pub(crate) fn is_on(&self, sub: &str) -> bool {
        self.is(sub) && self.eose
    }

    /// `true` when it was the live subscription's: it is on.
    pub(crate) fn eose(&mut self, sub: &str) -> bool {
        let own = self.is(sub);
        self.eose |= own;
        own
    }

    pub(crate) const fn wake(&self) -> Option<Instant> {
        self.reopen
    }
}

impl Live {
    /// Opens it anew at `at`, if it is not open.
    pub(crate) fn reopen_at(&mut self, at: Instant) {
        if self.sub.is_none() && self.opened.is_some() {
            self.reopen = Some(at);
        }
    }
}

impl Session<'_> {
    /// The live subscription is on; what relays do not store, and was sent since it was on last, is lost.
    pub(crate) fn live_is_on(&mut self) {
        let now = self.now_secs();
        if let Some(since) = self.relay.not_live_since.take()
            && EPHEMERAL.into_iter().any(|kind| self.settings().intake.kinds.contains(kind))
        {
            self.relay.history.note_gap(GapReason::NotLive, since, now, now);
        }
    }

    /// The live subscription is over, if it was on.
    pub(crate) fn live_is_over(&mut self) {
        if self.live.eose {
            self.live.eose = false;
            let now = self.now_secs();
            self.relay.not_live_since.get_or_insert(now);
        }
    }

    pub(crate) async fn open_live(&mut self) -> Step {
        let sub = self.fresh_sub("live");
        let limit = usize::from(self.relay.without_limit_0);
        // There are relays that are deaf to a filter without a condition; others hold back what is late once there is one.
        let since = self.relay.live_with_condition.then_some(0);
        let text = message::req(&sub, &Filter { kinds: self.kinds(), since, until: None, limit: Some(limit) });
        self.live =
            Live { sub: Some(sub), opened: Some(Instant::now()), refusals: self.live.refusals, ..Live::default() };
        self.send_text(text).await
    }

    pub(crate) async fn tick_live(&mut self, now: Instant) -> Step {
        match self.live.reopen {
            Some(at) if now >= at => {
                self.close_page().await?;
                self.begin_stored();
                self.open_live().await
            }
            _ => Ok(()),
        }
    }

    /// The relay has ended the live subscription.
    pub(crate) async fn live_refused(&mut self, text: &str) -> Step {
        tracing::warn!(relay = %self.relay.url, text, "the relay has ended the live subscription");
        self.live.sub = None;
        self.live_is_over();
        let lasted = self.live.opened.is_some_and(|opened| opened.elapsed() >= HEALTHY);
        self.live.refusals = if lasted { 1 } else { self.live.refusals + 1 };
        self.stored.hurry();
        let wait = match Closed::of(text) {
            Closed::Refused(wait) => return Err(End::Refused { why: format!("the relay says: {text}"), wait }),
            Closed::Auth => return self.auth_required(text).await,
            Closed::Retry(wait) => wait.max(self.relay.jittered(self.live.refusals)),
            Closed::Simpler if !self.relay.without_limit_0 => {
                self.relay.without_limit_0 = true;
                Duration::ZERO
            }
            Closed::Simpler if self.kinds().is_some() => {
                self.relay.without_kinds = true;
                Duration::ZERO
            }
            Closed::Simpler => self.settings().backoff.max,
        };
        self.live.reopen = Some(Instant::now() + wait);
        Ok(())
    }
}
