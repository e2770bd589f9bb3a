//! The way back through what a relay has stored: pages by `until`, newest first, without losing the events that share
//! a second with the end of a page, and without ever turning in a circle. Pure: events and ends of pages in, the next
//! question out.
//!
//! The cursor is a second, not an event, and the next page begins with that second once more (`until` is inclusive);
//! the ids at the edge tell what is new. A relay may return fewer events than asked, in any order; only a page in
//! which nothing is new, and an empty one below it, end the walk. A relay that leaves out the second itself (`until`
//! taken as exclusive) gives itself away by not repeating the edge, and is asked one second higher from then on.

use std::collections::HashSet;

use event::EventId;

/// Seconds stepped over in a row before a relay counts as one that cannot be paged.
const STEPS_MAX: u32 = 64;
/// Pages that may bring new events of one and the same second.
const PAGES_PER_SECOND_MAX: u32 = 1_000;
/// Ids kept for one second; a relay that sends more of them in one page is not asked further.
const EDGE_IDS_MAX: usize = 1 << 20;
/// Smallest page worth asking for.
const PAGE_EVENTS_MIN: usize = 10;

/// What to do after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for the next page.
    Page,
    /// Everything has been seen.
    Drained,
    /// The relay does not answer what it is asked: what it still holds cannot be reached this way.
    Unpageable,
}

/// What a page amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) next: Next,
    /// A second that holds more events than the relay gives out at once, so that some may be missing.
    pub(crate) gap: Option<i64>,
}

#[derive(Debug, Default)]
struct Page {
    count: usize,
    /// Oldest second at or below the cursor, with the ids seen in it.
    oldest: Option<i64>,
    /// Whether the second of the cursor came again.
    at_cursor: bool,
    ids: HashSet<EventId>,
    flooded: bool,
}

/// A band of `created_at` that is walked from its newest second to its oldest.
#[derive(Debug)]
pub(crate) struct Walk {
    since: Option<i64>,
    until: Option<i64>,
    limit: usize,
    edge: HashSet<EventId>,
    page: Page,
    /// Whether the relay takes `until` as exclusive, once that is known.
    exclusive: Option<bool>,
    /// A second that was stepped over, and the size of the page that brought nothing new of it.
    stepped: Option<(i64, usize)>,
    steps: u32,
    pages_here: u32,
}

impl Walk {
    /// A walk from the newest event down to `since` (none: to the beginning), in pages of at most `limit` events.
    pub(crate) fn new(since: Option<i64>, limit: usize) -> Self {
        Self {
            since,
            until: None,
            limit: limit.max(1),
            edge: HashSet::new(),
            page: Page::default(),
            exclusive: None,
            stepped: None,
            steps: 0,
            pages_here: 0,
        }
    }

    /// `since`, `until` and `limit` of the page to ask for.
    pub(crate) fn question(&self) -> (Option<i64>, Option<i64>, usize) {
        let above = i64::from(self.exclusive == Some(true));
        (self.since, self.until.map(|until| until.saturating_add(above)), self.limit)
    }

    /// Whether a page has been finished.
    pub(crate) const fn has_begun(&self) -> bool {
        self.until.is_some()
    }

    /// Oldest second that the walk is to reach.
    pub(crate) const fn since(&self) -> Option<i64> {
        self.since
    }

    /// Events seen in the page that is under way.
    pub(crate) const fn page_events(&self) -> usize {
        self.page.count
    }

    /// Begins the page anew: a torn one proves nothing.
    pub(crate) fn forget_page(&mut self) {
        self.page = Page::default();
    }

    /// Asks for smaller pages from now on; `false` when they are as small as they get.
    pub(crate) fn shrink(&mut self) -> bool {
        let before = self.limit;
        self.limit = (self.limit / 2).max(PAGE_EVENTS_MIN).min(before);
        self.limit < before
    }

    /// Takes note of an event of the page, by what it claims of itself.
    pub(crate) fn saw(&mut self, id: Option<EventId>, created_at: Option<i64>) {
        self.page.count += 1;
        // What stands above the cursor was not asked for, and what has no date moves nothing.
        let Some(at) = created_at.filter(|at| *at >= 0 && self.until.is_none_or(|until| *at <= until)) else { return };
        self.page.at_cursor |= self.until == Some(at);
        if self.page.oldest.is_none_or(|oldest| at < oldest) {
            self.page.oldest = Some(at);
            self.page.ids.clear();
        }
        if self.page.oldest == Some(at) {
            self.page.flooded |= self.page.ids.len() >= EDGE_IDS_MAX;
            self.page.ids.extend(id.filter(|_| !self.page.flooded));
        }
    }

    /// The relay says that the page is through.
    pub(crate) fn turn(&mut self) -> Turn {
        let page = std::mem::take(&mut self.page);
        if self.exclusive.is_none() && !self.edge.is_empty() {
            self.exclusive = Some(!page.at_cursor);
            if !page.at_cursor {
                return Turn { next: Next::Page, gap: None };
            }
        }
        let gap = self.gap_behind(&page);
        match page.oldest {
            None if page.count == 0 => Turn { next: Next::Drained, gap },
            None => Turn { next: Next::Unpageable, gap },
            _ if page.flooded => Turn { next: Next::Unpageable, gap },
            Some(oldest) if self.until == Some(oldest) => {
                let (next, here) = self.stay(oldest, page);
                Turn { next, gap: gap.or(here) }
            }
            Some(oldest) => Turn { next: self.advance(oldest, page), gap },
        }
    }

    /// A second was stepped over, and something lies below it: the relay holds more than it gave at once, so that the
    /// second may hold more as well. A full page says the same by itself.
    fn gap_behind(&mut self, page: &Page) -> Option<i64> {
        let (second, count) = self.stepped.take()?;
        (page.count > 0 || count >= self.limit).then_some(second)
    }

    fn advance(&mut self, oldest: i64, page: Page) -> Next {
        if self.since.is_some_and(|since| oldest < since) {
            return Next::Drained;
        }
        (self.until, self.edge) = (Some(oldest), page.ids);
        (self.steps, self.pages_here) = (0, 0);
        Next::Page
    }

    /// All of the page lies in the second it began with.
    fn stay(&mut self, second: i64, page: Page) -> (Next, Option<i64>) {
        let before = self.edge.len();
        self.edge.extend(page.ids);
        self.pages_here += 1;
        if self.edge.len() > before && self.pages_here < PAGES_PER_SECOND_MAX && self.edge.len() < EDGE_IDS_MAX {
            self.steps = 0;
            return (Next::Page, None);
        }
        // Nothing new: the second is through, or it holds more than the relay gives at once. Look below it.
        if second <= self.since.unwrap_or(0).max(0) {
            return (Next::Drained, (page.count >= self.limit).then_some(second));
        }
        if self.steps >= STEPS_MAX {
            return (Next::Unpageable, Some(second));
        }
        self.stepped = Some((second, page.count));
        self.steps += 1;
        (self.until, self.pages_here) = (Some(second - 1), 0);
        self.edge.clear();
        (Next::Page, None)
    }
}

/// What is still to be fetched from a relay: the walk under way and those that wait behind it.
///
/// After a reconnect the newest band comes first, from now down to a while before the last session began; a walk that
/// the old session left unfinished goes on after it. Kept for the run; to keep it longer is the coverage ledger's part.
#[derive(Debug)]
pub(crate) struct History {
    /// The last one is walked first; at most two.
    walks: Vec<Walk>,
    last_session: Option<i64>,
    overlap_secs: i64,
    limit: usize,
}

impl History {
    pub(crate) const fn new(overlap_secs: i64, limit: usize) -> Self {
        Self { walks: Vec::new(), last_session: None, overlap_secs, limit }
    }

    /// A session begins; `now` is in seconds since 1970.
    pub(crate) fn begin_session(&mut self, now: i64) {
        self.walks.iter_mut().for_each(Walk::forget_page);
        let since = self.last_session.map(|last| last.saturating_sub(self.overlap_secs).max(0));
        match self.walks.last() {
            // It has not got anywhere, so it still begins at the newest event.
            Some(walk) if !walk.has_begun() => {}
            // The newest band was under way itself: begin it anew, down to where it was to go.
            Some(walk) if self.walks.len() > 1 => {
                let since = walk.since();
                self.walks.pop();
                self.walks.push(Walk::new(since, self.limit));
            }
            _ => self.walks.push(Walk::new(since, self.limit)),
        }
        self.last_session = Some(now);
    }

    /// A session begins that only goes on with what the one before left.
    pub(crate) fn resume_session(&mut self) {
        self.walks.iter_mut().for_each(Walk::forget_page);
        if self.last_session.replace(0).is_none() {
            self.walks.push(Walk::new(None, self.limit));
        }
    }

    /// The walk under way; none when everything stored has been fetched.
    pub(crate) fn current(&mut self) -> Option<&mut Walk> {
        self.walks.last_mut()
    }

    /// The walk under way has ended.
    pub(crate) fn end_walk(&mut self) {
        self.walks.pop();
    }
}

#[cfg(test)]
mod tests;
