//! The way back through what a relay has stored: pages by `until`, newest first, without losing the events that share
//! a second with the end of a page, and without ever turning in a circle. Pure: events and ends of pages in, the next
//! question out.
//!
//! The cursor is a second, not an event, and the next page begins with that second once more (`until` is inclusive);
//! the ids at the edge tell what is new. A relay may return fewer events than asked, in any order; only a page in
//! which nothing is new, and an empty one below it, end the walk. A relay that leaves out the second itself (`until`
//! taken as exclusive) gives itself away by not repeating the edge, and is asked one second higher from then on.
//!
//! What a walk has been through is proven to be complete, second by second, as far as a relay's pages can prove it: a
//! second that filled the largest page this relay ever gave may hold more, and is not.

use std::collections::HashSet;

use event::EventId;

/// Seconds stepped over in a row before a relay counts as one that cannot be paged.
const STEPS_MAX: u32 = 64;
/// Pages that may bring new events of one and the same second.
const PAGES_PER_SECOND_MAX: u32 = 1_000;
/// Ids kept for one second; a relay that sends more of them in one page is not asked further.
const EDGE_IDS_MAX: usize = 1 << 20;
/// Smallest page worth asking for.
pub(crate) const PAGE_EVENTS_MIN: usize = 10;

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
    /// Seconds, both ends inclusive, of which everything has been seen now.
    pub(crate) proven: Option<(i64, i64)>,
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
    /// Newest second at or below the cursor.
    newest: Option<i64>,
    /// The second of the last event, and whether any came before an older or before a newer one.
    last: Option<i64>,
    falls: bool,
    rises: bool,
}

/// What its answers have told of a relay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Learned {
    /// Events of the largest page that it has given.
    largest: usize,
    /// Whether it takes `until` as exclusive, once that is known.
    exclusive: Option<bool>,
}

/// A band of `created_at` that is walked from its newest second to its oldest.
#[derive(Debug)]
pub(crate) struct Walk {
    since: Option<i64>,
    until: Option<i64>,
    limit: usize,
    edge: HashSet<EventId>,
    page: Page,
    learned: Learned,
    /// A second that was stepped over, and the size of the page that brought nothing new of it.
    stepped: Option<(i64, usize)>,
    steps: u32,
    pages_here: u32,
    /// Highest second that is not proven yet.
    above: i64,
    /// A page came oldest first: what lies above its newest second is asked for. If there is anything, the relay gives
    /// its oldest events first.
    probe: Option<Page>,
}

impl Walk {
    /// A walk from the newest event, which proves what lies up to `now`, down to `since` (none: to the beginning), in
    /// pages of at most `limit` events.
    pub(crate) fn newest(since: Option<i64>, now: i64, limit: usize, learned: Learned) -> Self {
        Self {
            since,
            until: None,
            limit: limit.max(1),
            edge: HashSet::new(),
            page: Page::default(),
            learned,
            stepped: None,
            steps: 0,
            pages_here: 0,
            above: now,
            probe: None,
        }
    }

    /// A walk through the seconds from `since` to `until`, both inclusive.
    pub(crate) fn between(since: i64, until: i64, limit: usize, learned: Learned) -> Self {
        // A relay that takes `until` as exclusive would leave the first second out, before anybody knows.
        let first = Some(until.saturating_add(1));
        Self { until: first, ..Self::newest(Some(since), until, limit, learned) }
    }

    /// `since`, `until` and `limit` of the page to ask for.
    pub(crate) fn question(&self) -> (Option<i64>, Option<i64>, usize) {
        let above = i64::from(self.learned.exclusive == Some(true));
        if let Some(newest) = self.probe.as_ref().and_then(|page| page.newest) {
            return (Some(newest + 1), Some(self.above.saturating_add(above)), self.limit);
        }
        (self.since, self.until.map(|until| until.saturating_add(above)), self.limit)
    }

    /// Seconds that are not proven yet.
    pub(crate) fn left(&self) -> (i64, i64) {
        (self.since.unwrap_or(0), self.above)
    }

    /// What is known of the relay by now.
    pub(crate) const fn learned(&self) -> Learned {
        self.learned
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
        self.page.falls |= self.page.last.is_some_and(|last| at < last);
        self.page.rises |= self.page.last.is_some_and(|last| at > last);
        self.page.last = Some(at);
        self.page.newest = self.page.newest.max(Some(at));
        if self.page.oldest.is_none_or(|oldest| at < oldest) {
            self.page.oldest = Some(at);
            self.page.ids.clear();
        }
        if self.page.oldest == Some(at) {
            self.page.flooded |= self.page.ids.len() >= EDGE_IDS_MAX;
            self.page.ids.extend(id.filter(|_| !self.page.flooded));
        }
    }

    /// The relay says that the page is through, and that there is nothing below it (NIP-67).
    pub(crate) fn finish(&mut self) -> Turn {
        if self.probe.is_some() {
            return self.turn();
        }
        let page = std::mem::take(&mut self.page);
        let gap = self.gap_behind(&page);
        self.end(Next::Drained, gap)
    }

    /// The relay says that the page is through.
    pub(crate) fn turn(&mut self) -> Turn {
        let mut page = std::mem::take(&mut self.page);
        if let Some(probed) = self.probe.take() {
            if page.count > 0 {
                return self.end(Next::Unpageable, None);
            }
            // Nothing lies above it: it was the newest part, in another order.
            page = Page { rises: false, ..probed };
        }
        if self.learned.exclusive.is_none() && !self.edge.is_empty() {
            self.learned.exclusive = Some(!page.at_cursor);
            if !page.at_cursor {
                return Turn { next: Next::Page, gap: None, proven: None };
            }
        }
        let gap = self.gap_behind(&page);
        self.learned.largest = self.learned.largest.max(page.count);
        match page.oldest {
            None if page.count == 0 => self.end(Next::Drained, gap),
            None => self.end(Next::Unpageable, gap),
            _ if page.flooded => self.end(Next::Unpageable, gap),
            Some(_) if page.rises && !page.falls => {
                self.probe = Some(page);
                Turn { next: Next::Page, gap, proven: None }
            }
            Some(oldest) if self.until == Some(oldest) && !self.edge.is_empty() => self.stay(oldest, page, gap),
            Some(oldest) => self.advance(oldest, page, gap),
        }
    }

    /// Ends the walk; all that was left is proven when there is nothing more.
    fn end(&mut self, next: Next, gap: Option<i64>) -> Turn {
        let (from, to) = self.left();
        Turn { next, gap, proven: (next == Next::Drained && from <= to).then_some((from, to)) }
    }

    /// A second was stepped over, and something lies below it: the relay holds more than it gave at once, so that the
    /// second may hold more as well. A full page says the same by itself.
    ///
    /// A second that filled no more than a part of the largest page was given whole.
    fn gap_behind(&mut self, page: &Page) -> Option<i64> {
        let (second, count) = self.stepped.take()?;
        if !self.may_be_cut(count) {
            return None;
        }
        self.above = self.above.min(second - 1);
        (page.count > 0 || count >= self.limit).then_some(second)
    }

    /// Whether a page of so many events may have been cut off: the relay has never given more at once, or we did not
    /// ask for more.
    fn may_be_cut(&self, count: usize) -> bool {
        count >= self.learned.largest.min(self.limit)
    }

    fn advance(&mut self, oldest: i64, page: Page, gap: Option<i64>) -> Turn {
        if self.since.is_some_and(|since| oldest < since) {
            return self.end(Next::Drained, gap);
        }
        let proven = (oldest < self.above).then_some((oldest + 1, self.above));
        self.above = self.above.min(oldest);
        (self.until, self.edge) = (Some(oldest), page.ids);
        (self.steps, self.pages_here) = (0, 0);
        Turn { next: Next::Page, gap, proven }
    }

    /// All of the page lies in the second it began with.
    fn stay(&mut self, second: i64, page: Page, gap: Option<i64>) -> Turn {
        let before = self.edge.len();
        self.edge.extend(page.ids);
        self.pages_here += 1;
        if self.edge.len() > before && self.pages_here < PAGES_PER_SECOND_MAX && self.edge.len() < EDGE_IDS_MAX {
            self.steps = 0;
            return Turn { next: Next::Page, gap, proven: None };
        }
        // Nothing new: the second is through, or it holds more than the relay gives at once. Look below it.
        if second <= self.since.unwrap_or(0).max(0) {
            let cut = self.may_be_cut(page.count);
            let left = self.end(Next::Drained, gap);
            // All above the floor is proven; the floor itself is not.
            let proven =
                left.proven.filter(|_| !cut).or((cut && second < self.above).then_some((second + 1, self.above)));
            return Turn { gap: gap.or((cut && page.count >= self.limit).then_some(second)), proven, ..left };
        }
        if self.steps >= STEPS_MAX {
            return self.end(Next::Unpageable, Some(second));
        }
        self.stepped = Some((second, page.count));
        self.steps += 1;
        (self.until, self.pages_here) = (Some(second - 1), 0);
        self.edge.clear();
        Turn { next: Next::Page, gap, proven: None }
    }
}

#[cfg(test)]
mod tests;
