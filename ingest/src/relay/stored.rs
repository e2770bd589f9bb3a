//! What a relay has stored, page after page: asks what the walk wants to know, notes what comes, and decides what an
//! end, a refusal or a silence means. One page is under way at a time.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use event::EventId;
use tokio::time::Instant;

use crate::coverage::GapReason;
use crate::metrics::add;
use crate::relay::closed::Closed;
use crate::relay::list::Compares;
use crate::relay::message::{self, Filter};
use crate::relay::session::{End, Session, Step};
use crate::relay::walk::{Next, Turn};

/// How long the first page waits for the live subscription to be on, so that the two overlap.
const LIVE_FIRST: Duration = Duration::from_secs(5);
/// Refusals and silences in a row after which a session stops asking for stored events.
const FAILURES_MAX: u32 = 3;
/// An event younger than this may still be on its way through the live subscription.
const LIVE_WITHIN_SECS: i64 = 30;
/// A relay whose answers cannot be paged is asked again after so long.
const UNPAGEABLE_WAIT: Duration = Duration::from_secs(6 * 3600);

/// How often it is looked whether there is room again for what is stored.
pub(crate) const ROOM_WAIT: Duration = Duration::from_millis(250);

/// State of the page under way.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    page: Page,
    failures: u32,
    /// What is under way is a look back at what the live subscription should have brought.
    looks_back: bool,
    /// Events that it should have brought, and did not.
    missed: u64,
}

#[derive(Debug, Default)]
enum Page {
    /// To be asked for at this time.
    Waiting(Instant),
    /// Asked for; idle at this time unless something new comes.
    Asked(String, Instant),
    /// A band is being listed by ids.
    Listing,
    /// Nothing more is to be asked in this session.
    #[default]
    Through,
}

impl Stored {
    pub(crate) const fn sub(&self) -> Option<&str> {
        match &self.page {
            Page::Asked(sub, _) => Some(sub.as_str()),
            Page::Waiting(_) | Page::Listing | Page::Through => None,
        }
    }

    pub(crate) fn is(&self, sub: &str) -> bool {
        self.sub() == Some(sub)
    }

    pub(crate) const fn wake(&self) -> Option<Instant> {
        match &self.page {
            Page::Waiting(at) | Page::Asked(_, at) => Some(*at),
            Page::Listing | Page::Through => None,
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
    /// Seconds since 1970.
    pub(crate) fn now_secs(&self) -> i64 {
        self.relay.shared.clock.now_ms().div_euclid(1_000)
    }

    pub(crate) fn begin_stored(&mut self) {
        let now = self.now_secs();
        let lists = self.relay.compares != Compares::No;
        match self.settings().once {
            true => self.relay.history.resume_session(now, lists),
            false => self.relay.history.begin_session(now, lists),
        }
        self.list = None;
        self.stored.looks_back = false;
        let first = Instant::now() + if self.settings().once { Duration::ZERO } else { LIVE_FIRST };
        self.stored.page = Page::Waiting(first);
    }

    pub(crate) async fn tick_stored(&mut self, now: Instant) -> Step {
        match &self.stored.page {
            Page::Waiting(at) if now >= *at => self.ask_page().await,
            Page::Asked(_, idle) if now >= *idle => self.page_idle().await,
            Page::Listing if self.list.as_ref().is_some_and(|list| now >= list.wake()) => self.tick_list(now).await,
            Page::Through if self.look_due().is_some_and(|due| now >= due) => {
                self.look_back(now);
                self.ask_page().await
            }
            _ => Ok(()),
        }
    }

    /// When the next look back is due, if nothing else is being fetched.
    pub(crate) fn look_due(&self) -> Option<Instant> {
        let free = matches!(self.stored.page, Page::Through) && !self.settings().once;
        self.relay.due.iter().min().copied().filter(|_| free)
    }

    /// Begins the widest of the looks back that are due.
    fn look_back(&mut self, now: Instant) {
        let looks = self.relay.shared.settings.reconcile.iter();
        let mut back = Some(0);
        for (look, due) in looks.zip(&mut self.relay.due).filter(|(_, due)| now >= **due) {
            *due = now + look.every;
            let secs = look.back.map(|span| span.micros() / 1_000_000);
            back = back.and_then(|back: i64| Some(back.max(secs?)));
        }
        let now = self.now_secs();
        let lists = self.relay.compares != Compares::No;
        self.relay.history.reconcile(now, back.unwrap_or(i64::MAX), lists);
        (self.stored.looks_back, self.stored.missed) = (true, 0);
    }

    /// Asks for what comes next, as soon as the relay's pace allows.
    pub(crate) async fn ask_page(&mut self) -> Step {
        if self.relay.shared.intake.is_strained() {
            self.stored.page = Page::Waiting(Instant::now() + ROOM_WAIT);
            return Ok(());
        }
        if let Err(at) = self.relay.pace.take(Instant::now()) {
            self.stored.page = Page::Waiting(at);
            return Ok(());
        }
        if self.relay.compares == Compares::No {
            let now = self.now_secs();
            self.relay.history.walk_lists(now);
        }
        if let Some((from, to)) = self.relay.history.next_list() {
            self.stored.page = Page::Listing;
            return self.open_list(from, to).await;
        }
        self.relay.history.open_page();
        let Some(walk) = self.relay.history.current() else { return self.all_fetched().await };
        let (since, until, limit) = walk.question();
        // There are relays that answer a filter without a condition with nothing.
        let since = since.or(Some(0));
        let sub = self.fresh_sub("stored");
        let text = message::req(&sub, &Filter { kinds: self.kinds(), since, until, limit: Some(limit) });
        self.stored.page = Page::Asked(sub, Instant::now() + self.settings().idle_timeout);
        self.send_text(text).await
    }

    async fn all_fetched(&mut self) -> Step {
        self.stored.page = Page::Through;
        if std::mem::take(&mut self.stored.looks_back) {
            return self.looked_back().await;
        }
        self.relay.counters.stored_done.store(true, Relaxed);
        tracing::info!(relay = %self.relay.url, "everything stored has been fetched");
        match self.settings().once {
            true => Err(End::Done),
            false => Ok(()),
        }
    }

    /// What the live subscription should have brought is here now; one that keeps events back is opened anew.
    async fn looked_back(&mut self) -> Step {
        let missed = std::mem::take(&mut self.stored.missed);
        if missed == 0 {
            return Ok(());
        }
        add(&self.relay.shared.counters.missed_live, missed);
        tracing::warn!(relay = %self.relay.url, missed, "the live subscription has not brought all events; it is opened anew");
        self.relay.live_with_condition = !self.relay.live_with_condition;
        if let Some(text) = self.live.sub().map(message::close) {
            self.send_text(text).await?;
        }
        self.open_live().await
    }

    /// An event of a page was not known; `created_at` in seconds.
    pub(crate) fn stored_was_unknown(&mut self, received_at_ms: i64, created_at: Option<i64>) {
        let lately = received_at_ms.div_euclid(1_000).saturating_sub(LIVE_WITHIN_SECS);
        // A late event may have come to the relay just now, and be on its way to us.
        self.stored.missed += u64::from(self.stored.looks_back && created_at.is_some_and(|at| at < lately));
    }

    /// Notes an event of the page under way; returns its `created_at`, seconds.
    pub(crate) fn saw_stored(&mut self, id: Option<EventId>, raw: &[u8]) -> Option<i64> {
        let created_at = std::str::from_utf8(raw).ok().and_then(message::created_at);
        let walk = self.relay.history.current()?;
        walk.saw(id, created_at);
        // A relay that repeats itself beyond what was asked is not making headway.
        if walk.page_events() <= walk.question().2 {
            self.stored_is_new();
        }
        created_at
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
        let Some(walk) = self.relay.history.current() else { return self.all_fetched().await };
        let turn = if finished { walk.finish() } else { walk.turn() };
        self.stored.failures = 0;
        self.turned(turn).await
    }

    /// No end of the page came: what did come still moves the cursor, but proves no end.
    async fn page_idle(&mut self) -> Step {
        self.close_page().await?;
        let Some(walk) = self.relay.history.current() else { return self.all_fetched().await };
        if walk.page_events() > 0 {
            let turn = Turn { proven: None, ..walk.turn() };
            if turn.next == Next::Page {
                return self.turned(turn).await;
            }
        }
        let why = format!("no end of stored events (EOSE) within {:?}", self.settings().idle_timeout);
        self.page_failed(why, Duration::ZERO)
    }

    async fn turned(&mut self, mut turn: Turn) -> Step {
        self.progress = true;
        let now = self.now_secs();
        if self.relay.compares != Compares::No
            && let Some(second) = turn.gap.take()
        {
            self.relay.history.list_second(second);
        }
        self.relay.history.end_page(&turn, now);
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
        let now = self.now_secs();
        if let Some((from, to)) = self.relay.history.current().map(|walk| walk.left()) {
            self.relay.history.note_gap(GapReason::Unpageable, from, to, now);
        }
        tracing::warn!(relay = %self.relay.url, why, "stored events are not complete");
        match self.settings().once {
            true => Err(End::Refused { why, wait: UNPAGEABLE_WAIT }),
            false => Ok(()),
        }
    }

    /// Asks for nothing before `at`.
    pub(crate) fn hold_until(&mut self, at: Instant) {
        if matches!(self.stored.page, Page::Waiting(_)) {
            self.stored.page = Page::Waiting(at);
        }
        self.live.reopen_at(at);
    }

    /// The relay has ended the page's subscription without an EOSE.
    pub(crate) async fn page_refused(&mut self, text: &str) -> Step {
        tracing::debug!(relay = %self.relay.url, text, "the relay has refused a page");
        let why = format!("the relay says: {text}");
        match Closed::of(text) {
            Closed::Refused(wait) => Err(End::Refused { why, wait }),
            Closed::Auth => {
                self.stored.page = Page::Waiting(Instant::now());
                self.auth_required(text).await
            }
            Closed::Retry(wait) => self.page_failed(why, wait),
            Closed::Simpler if self.relay.history.shrink() => {
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
        if self.stored.sub().is_some() && self.relay.history.current().is_some_and(|walk| walk.page_events() > 0) {
            self.relay.history.shrink();
        }
    }

    pub(crate) async fn close_page(&mut self) -> Step {
        match self.stored.sub().map(message::close) {
            Some(text) => self.send_text(text).await,
            None => Ok(()),
        }
    }
}
