//! What is still to be fetched of a relay's past: what the coverage ledger does not prove, newest first.

use std::sync::Arc;

use crate::coverage::{Band, Gap, GapReason, LastPage, Ledger, Line, Page, Proof};
use crate::relay::walk::{Learned, PAGE_EVENTS_MIN, Turn, Walk};

/// Seconds of `created_at` that are wanted, and how they are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// First second; none is the beginning.
    pub(crate) since: Option<i64>,
    /// Last second; none is now.
    pub(crate) until: Option<i64>,
    /// How much older than their proof events may be that a relay got after it.
    pub(crate) overlap_secs: i64,
    /// Events of a page.
    pub(crate) limit: usize,
    /// Ask for what is proven as well.
    pub(crate) refetch: bool,
}

/// The past of one relay.
#[derive(Debug)]
pub(crate) struct History {
    ledger: Arc<Ledger>,
    line: Line,
    key: Arc<str>,
    wanted: Wanted,
    /// Seconds, both inclusive, that are listed by ids: they are here for the most part, or do not fit into pages.
    lists: Vec<(i64, i64)>,
    /// The last one is walked first.
    walks: Vec<Walk>,
    learned: Learned,
    /// When the walks were begun, seconds since 1970: what they prove is proven as of then.
    begun_at: i64,
    page: Option<Page>,
    last: LastPage,
}

impl History {
    pub(crate) fn new(ledger: &Arc<Ledger>, line: Line, wanted: Wanted) -> Self {
        let key = ledger.open(&line);
        Self {
            ledger: Arc::clone(ledger),
            line,
            key,
            wanted,
            lists: Vec::new(),
            walks: Vec::new(),
            learned: Learned::default(),
            begun_at: 0,
            page: None,
            last: LastPage::default(),
        }
    }

    /// A session begins; `now` is in seconds since 1970. What is proven is not asked for again, but for what the relay
    /// may have got since: this is listed where the relay can, and `lists` says so.
    pub(crate) fn begin_session(&mut self, now: i64, lists: bool) {
        self.begun_at = now;
        let first = self.wanted.since.unwrap_or(0).max(0);
        let last = self.wanted.until.unwrap_or(now);
        let mut proven = self.ledger.bands(&self.line);
        if std::mem::take(&mut self.wanted.refetch) {
            proven.forget(first, last);
        }
        let mut settled = proven.clone();
        for band in proven.as_slice() {
            settled.forget(band.from.max(band.proven_at.saturating_sub(self.wanted.overlap_secs)), band.to);
        }
        let doubtful = proven.as_slice().iter().flat_map(|band| settled.holes(band.from.max(first), band.to.min(last)));
        self.lists = if lists { doubtful.collect() } else { Vec::new() };
        let holes = if lists { &proven } else { &settled }.holes(first, last);
        self.walks = holes.into_iter().rev().map(|(from, to)| self.walk(from, to)).collect();
        self.page = None;
    }

    /// A session begins that only goes on with what the one before left.
    pub(crate) fn resume_session(&mut self, now: i64, lists: bool) {
        if self.begun_at == 0 {
            self.begin_session(now, lists);
        }
        self.page = None;
    }

    /// Asks for the last `back` seconds once more, whatever is proven, unless something is being fetched anyway.
    pub(crate) fn reconcile(&mut self, now: i64, back: i64, lists: bool) {
        if !self.walks.is_empty() || !self.lists.is_empty() {
            return;
        }
        self.begun_at = now;
        let from = now.saturating_sub(back).max(self.wanted.since.unwrap_or(0));
        match lists {
            true => self.lists.push((from, now)),
            false => self.walks.push(self.walk(from, now)),
        }
    }

    /// The next seconds to be listed.
    pub(crate) fn next_list(&mut self) -> Option<(i64, i64)> {
        self.lists.pop()
    }

    /// A second that pages cannot hold is to be listed.
    pub(crate) fn list_second(&mut self, second: i64) {
        self.lists.push((second, second));
    }

    /// Seconds that were being listed when the connection was lost.
    pub(crate) fn list_again(&mut self, band: (i64, i64)) {
        self.lists.push(band);
    }

    /// What could not be listed is walked; a single second was, and is a gap.
    pub(crate) fn list_failed(&mut self, from: i64, to: i64, now: i64) {
        if from == to {
            self.note_gap(GapReason::Dense, from, to, now);
        } else {
            self.walks.push(self.walk(from, to));
        }
    }

    /// The relay lists nothing: all that was to be listed is walked.
    pub(crate) fn walk_lists(&mut self, now: i64) {
        for (from, to) in std::mem::take(&mut self.lists) {
            self.list_failed(from, to, now);
        }
    }

    fn walk(&self, from: i64, to: i64) -> Walk {
        // What lies above now is there as well: some relays hold events of the far future.
        if self.wanted.until.is_none() && to >= self.begun_at {
            return Walk::newest((from > 0).then_some(from), self.begun_at, self.wanted.limit, self.learned);
        }
        Walk::between(from, to, self.wanted.limit, self.learned)
    }

    /// The walk under way; none when everything wanted has been fetched.
    pub(crate) fn current(&mut self) -> Option<&mut Walk> {
        self.walks.last_mut()
    }

    /// The answer to a new question begins.
    pub(crate) fn open_page(&mut self) {
        let page = self.new_page();
        page.follow(&mut self.last);
        self.page = Some(page);
        if let Some(walk) = self.current() {
            walk.forget_page();
        }
    }

    /// An answer of this relay.
    pub(crate) fn new_page(&self) -> Page {
        Page::new(&self.ledger, &self.key)
    }

    /// The answer under way, for its events to hold on to.
    pub(crate) fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    /// The answer has come to its end: what it proves is entered once all its events are on their way.
    pub(crate) fn end_page(&mut self, turn: &Turn, now: i64) {
        if let Some(walk) = self.walks.last() {
            self.learned = walk.learned();
        }
        let Some(page) = self.page.take() else { return };
        let proven_at = self.begun_at;
        let bands = turn.proven.map(|(from, to)| Band { from, to, proven_at, proof: Proof::Paged });
        let gap = turn.gap.map(|second| self.gap(GapReason::Dense, second, second, now));
        page.prove(bands.into_iter().collect(), gap.into_iter().collect());
    }

    /// Notes what cannot be had.
    pub(crate) fn note_gap(&self, reason: GapReason, from: i64, to: i64, now: i64) {
        self.ledger.enter(&self.key, &[], vec![self.gap(reason, from, to, now)]);
    }

    fn gap(&self, reason: GapReason, from: i64, to: i64, found_at: i64) -> Gap {
        Gap { relay: self.line.relay.to_string(), kinds: self.line.kinds.clone(), from, to, reason, found_at }
    }

    /// The walk under way has ended.
    pub(crate) fn end_walk(&mut self) {
        self.walks.pop();
    }

    /// Pages of at most so many events from now on.
    pub(crate) fn limit_pages(&mut self, events: usize) {
        self.wanted.limit = self.wanted.limit.min(events).max(PAGE_EVENTS_MIN);
    }

    /// Smaller pages from now on, in later sessions too.
    pub(crate) fn shrink(&mut self) -> bool {
        let Some(walk) = self.walks.last_mut() else { return false };
        let smaller = walk.shrink();
        self.wanted.limit = self.wanted.limit.min(walk.question().2);
        smaller
    }
}
