//! One answer of a relay, followed until the last of its events is on its way to the log: only then may the ledger say
//! what the answer proves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::coverage::ledger::Ledger;
use crate::coverage::{Band, Gap};

/// A share in an answer; every event of it holds one while it is under way.
///
/// When the last share is dropped, what the answer proved is entered in the ledger. An event that some other relay's
/// answer is bringing along leaves its share with that one ([`crate::dedup::Dedup::is_copy`]), and a record that is being
/// sent gives its share up when it has its place in a transaction: the ledger's record goes into the same one or a later
/// one, never into an earlier one.
///
/// Answers that follow each other are entered in their order: the end of a walk is an empty answer, which proves seconds
/// whose events came with the answers before it.
#[derive(Clone, Debug)]
pub(crate) struct Page(Arc<Answer>);

/// The answer that came last, if it is still under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastPage(Weak<Answer>);

#[derive(Debug)]
struct Answer {
    ledger: Arc<Ledger>,
    line: Arc<str>,
    torn: AtomicBool,
    proven: Mutex<Proven>,
    /// The answer that is not to be entered before this one.
    next: Mutex<Option<Page>>,
}

#[derive(Debug, Default)]
struct Proven {
    bands: Vec<Band>,
    gaps: Vec<Gap>,
}

impl Page {
    /// An answer that is to be entered under `line`.
    pub(crate) fn new(ledger: &Arc<Ledger>, line: &Arc<str>) -> Self {
        let (ledger, line) = (Arc::clone(ledger), Arc::clone(line));
        let torn = AtomicBool::new(false);
        Self(Arc::new(Answer { ledger, line, torn, proven: Mutex::default(), next: Mutex::default() }))
    }

    /// Has this answer follow the last one, and become the last one.
    pub(crate) fn follow(&self, last: &mut LastPage) {
        if let Some(before) = last.0.upgrade() {
            *before.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
        }
        last.0 = Arc::downgrade(&self.0);
    }

    /// One of its events was lost on the way: it proves nothing, whatever its end says, and neither do those that follow.
    pub(crate) fn tear(&self) {
        self.0.torn.store(true, Ordering::Release);
    }

    /// What the answer proves, once its end has come; an answer that was torn proves nothing.
    pub(crate) fn prove(self, bands: Vec<Band>, gaps: Vec<Gap>) {
        *self.0.proven.lock().unwrap_or_else(PoisonError::into_inner) = Proven { bands, gaps };
    }
}

impl Answer {
    /// Enters what is proven; returns the answer that may be entered from now on.
    fn settle(&mut self) -> Option<Page> {
        let Proven { bands, gaps } = std::mem::take(self.proven.get_mut().unwrap_or_else(PoisonError::into_inner));
        let next = self.next.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.torn.load(Ordering::Acquire) {
            next.iter().for_each(Page::tear);
        } else if !bands.is_empty() || !gaps.is_empty() {
            self.ledger.enter(&self.line, &bands, gaps);
        }
        next
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut next = self.settle();
        // One by one: thousands may have waited for the first of them.
        while let Some(mut answer) = next.and_then(|page| Arc::into_inner(page.0)) {
            next = answer.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Line, Proof};

    fn band(from: i64, to: i64) -> Vec<Band> {
        vec![Band { from, to, proven_at: 0, proof: Proof::Paged }]
    }

    fn proven(ledger: &Ledger, line: &Line) -> Vec<(i64, i64)> {
        ledger.bands(line).as_slice().iter().map(|band| (band.from, band.to)).collect()
    }

    /// The answers of a walk: one with an event that is under way, and those that follow without any.
    fn walk(answers: i64) -> (Arc<Ledger>, Line, Page) {
        let ledger = Arc::new(Ledger::default());
        let line = Line { relay: "wss://relay.example.org".into(), kinds: "all".to_owned() };
        let key = ledger.open(&line);
        let (mut last, mut share) = (LastPage::default(), None);
        for at in (0..answers).rev() {
            let page = Page::new(&ledger, &key);
            page.follow(&mut last);
            share.get_or_insert_with(|| page.clone());
            // Apart, so that each can be told.
            page.prove(band(2 * at, 2 * at), Vec::new());
        }
        (ledger, line, share.expect("an answer"))
    }

    #[test]
    fn an_answer_without_events_waits_for_those_before_it() {
        let (ledger, line, event) = walk(3);
        assert_eq!(proven(&ledger, &line), []);
        drop(event);
        assert_eq!(proven(&ledger, &line), [(0, 0), (2, 2), (4, 4)]);
    }

    #[test]
    fn after_an_answer_that_was_torn_none_proves_anything() {
        let (ledger, line, event) = walk(3);
        event.tear();
        drop(event);
        assert_eq!(proven(&ledger, &line), []);
    }

    #[test]
    fn any_number_of_answers_may_wait() {
        // Bands are kept apart up to some thousands; more would make the test slow, and the stack no deeper.
        let (ledger, line, event) = walk(4_000);
        drop(event);
        assert_eq!(proven(&ledger, &line).len(), 4_000);
    }
}
