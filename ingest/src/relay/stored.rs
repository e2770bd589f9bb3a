//! What a relay has stored, page after page: asks what the walk wants to know, notes what comes, and decides what an
//! end, a refusal or a silence means. One page is under way at a time.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use event::EventId;
use tokio::time::Instant;

use crate::metrics::add;
use crate::relay::closed::Closed;
use crate::relay::message::{self, Filter};
use crate::relay::session::{End, Session, Step};
use crate::relay::walk::{Next, Turn};

/// How long the first page waits for the live subscription to be on, so that the two overlap.
const LIVE_FIRST: Duration = Duration::from_secs(5);
/// Refusals and silences in a row after which a session stops asking for stored events.
const FAILURES_MAX: u32 = 3;
/// A relay whose answers cannot be paged is asked again after so long.
const UNPAGEABLE_WAIT: Duration = Duration::from_secs(6 * 3600);

/// State of the page under way.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    page: Page,
    failures: u32,
}

#[derive(Debug, Default)]
enum Page {
    /// To be asked for at this time.
    Waiting(Instant),
    /// Asked for; idle at this time unless something new comes.
    Asked(String, Instant),
    /// Nothing more is to be asked in this session.
    #[default]
    Through,
}

impl Stored {
    pub(crate) const fn sub(&self) -> Option<&str> {
        match &self.page {
            Page::Asked(sub, _) => Some(sub.as_str()),
            Page::Waiting(_) | Page::Through => None,
        }
    }

    pub(crate) fn is(&self, sub: &str) -> bool {
        self.sub() == Some(sub)
    }

    pub(crate) const fn wake(&self) -> Option<Instant> {
        match &self.page {
            Page::Waiting(at) | Page::Asked(_, at) => Some(*at),
            Page::Through => None,
        }
    }

    /// The live subscription is settled: the first page need not wait for it.
    pub(crate) fn hurry(&mut self) {
        if let (Page::Waiting(at), 0) = (&mut self.page, self.failures) {
            *at = Instant::now();
        }
    }
}

impl Session<'_> {
    pub(crate) fn begin_stored(&mut self) {
        let once = self.settings().once;
        match once {
            true => self.relay.history.resume_session(),
            false => self.relay.history.begin_session(self.relay.shared.clock.now_ms().div_euclid(1_000)),
        }
        let first = Instant::now() + if once { Duration::ZERO } else { LIVE_FIRST };
        self.stored.page = Page::Waiting(first);
    }

    pub(crate) async fn tick_stored(&mut self, now: Instant) -> Step {
        match &self.stored.page {
            Page::Waiting(at) if now >= *at => self.ask_page().await,
            Page::Asked(_, idle) if now >= *idle => self.page_idle().await,
            _ => Ok(()),
        }
    }

    async fn ask_page(&mut self) -> Step {
        let Some(walk) = self.relay.history.current() else { return self.all_fetched() };
        walk.forget_page();
        let (since, until, limit) = walk.question();
        let sub = self.fresh_sub("stored");
        let text = message::req(&sub, &Filter { kinds: self.kinds(), since, until, limit });
        self.stored.page = Page::Asked(sub, Instant::now() + self.settings().idle_timeout);
        self.send_text(text).await
    }

    fn all_fetched(&mut self) -> Step {
        self.stored.page = Page::Through;
        self.relay.counters.stored_done.store(true, Relaxed);
        tracing::info!(relay = %self.relay.url, "everything stored has been fetched");
        match self.settings().once {
            true => Err(End::Done),
            false => Ok(()),
        }
    }

    /// Notes an event of the page under way.
    pub(crate) fn saw_stored(&mut self, id: Option<EventId>, raw: &[u8]) {
        let created_at = std::str::from_utf8(raw).ok().and_then(message::created_at);
        let Some(walk) = self.relay.history.current() else { return };
        walk.saw(id, created_at);
        // A relay that repeats itself beyond what was asked is not making headway.
        if walk.page_events() <= walk.question().2 {
            self.stored_is_new();
        }
    }

    /// The page makes headway: it is not idle.
    pub(crate) fn stored_is_new(&mut self) {
        let idle = Instant::now() + self.settings().idle_timeout;
        if let Page::Asked(_, at) = &mut self.stored.page {
            *at = idle;
        }
    }

    /// The relay says that the page is through.
    pub(crate) async fn page_through(&mut self, finished: bool) -> Step {
        self.close_page().await?;
        let Some(walk) = self.relay.history.current() else { return self.all_fetched() };
        let mut turn = walk.turn();
        if finished {
            turn.next = Next::Drained;
        }
        self.stored.failures = 0;
        self.turned(turn).await
    }

    /// No end of the page came: what did come still moves the cursor, but proves no end.
    async fn page_idle(&mut self) -> Step {
        self.close_page().await?;
        let Some(walk) = self.relay.history.current() else { return self.all_fetched() };
        if walk.page_events() > 0 {
            let turn = walk.turn();
            if turn.next == Next::Page {
                return self.turned(turn).await;
            }
        }
        let why = format!("no end of stored events (EOSE) within {:?}", self.settings().idle_timeout);
        self.page_failed(why, Duration::ZERO)
    }

    async fn turned(&mut self, turn: Turn) -> Step {
        self.progress = true;
        if let Some(second) = turn.gap {
            add(&self.relay.shared.counters.gaps, 1);
            tracing::warn!(relay = %self.relay.url, second, "the relay may hold more events of this second than it gives out");
        }
        match turn.next {
            Next::Page => {}
            Next::Drained => self.relay.history.end_walk(),
            Next::Unpageable => {
                let why = "its answers do not follow `until`, so that older events cannot be reached";
                return self.unpageable(why.to_owned());
            }
        }
        self.ask_page().await
    }

    /// What is left cannot be reached by asking as we do; the live subscription is worth keeping.
    fn unpageable(&mut self, why: String) -> Step {
        add(&self.relay.shared.counters.gaps, 1);
        self.stored.page = Page::Through;
        tracing::warn!(relay = %self.relay.url, why, "stored events are not complete");
        match self.settings().once {
            true => Err(End::Refused { why, wait: UNPAGEABLE_WAIT }),
            false => Ok(()),
        }
    }

    /// The relay has ended the page's subscription without an EOSE.
    pub(crate) fn page_refused(&mut self, text: &str) -> Step {
        tracing::debug!(relay = %self.relay.url, text, "the relay has refused a page");
        let why = format!("the relay says: {text}");
        match Closed::of(text) {
            Closed::Refused(wait) => Err(End::Refused { why, wait }),
            Closed::Retry(wait) => self.page_failed(why, wait),
            Closed::Simpler if self.relay.history.current().is_some_and(super::walk::Walk::shrink) => {
                self.stored.page = Page::Waiting(Instant::now());
                Ok(())
            }
            Closed::Simpler if self.kinds().is_some() => {
                self.relay.without_kinds = true;
                self.stored.page = Page::Waiting(Instant::now());
                Ok(())
            }
            Closed::Simpler => self.unpageable(why),
        }
    }

    fn page_failed(&mut self, why: String, wait: Duration) -> Step {
        self.stored.failures += 1;
        if self.stored.failures < FAILURES_MAX {
            let wait = wait.max(self.relay.jittered(self.stored.failures));
            self.stored.page = Page::Waiting(Instant::now() + wait);
            return Ok(());
        }
        if self.settings().once {
            return Err(End::Lost { why, wait });
        }
        // The live subscription is worth keeping; the walk goes on with the next session.
        add(&self.relay.shared.counters.gaps, 1);
        tracing::warn!(relay = %self.relay.url, why, "stored events are left for the next session");
        self.stored.page = Page::Through;
        Ok(())
    }

    /// The connection was lost in the middle of a page: perhaps a smaller one comes through.
    pub(crate) fn stored_is_torn(&mut self) {
        if self.stored.sub().is_some()
            && let Some(walk) = self.relay.history.current()
            && walk.page_events() > 0
        {
            walk.shrink();
        }
    }

    pub(crate) async fn close_page(&mut self) -> Step {
        match self.stored.sub().map(message::close) {
            Some(text) => self.send_text(text).await,
            None => Ok(()),
        }
    }
}
