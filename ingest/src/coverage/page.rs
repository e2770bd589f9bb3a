//! One answer of a relay, followed until the last of its events is on its way to the log: only then may the ledger say
//! what the answer proves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::coverage::ledger::Ledger;
use crate::coverage::{Band, Gap};

/// A share in an answer; every event of it holds one while it is under way.
///
/// When the last share is dropped, what the answer proved is entered in the ledger. An event that some other relay's
/// answer is bringing along leaves its share with that one ([`crate::dedup::Dedup::is_copy`]), and a record that is being
/// sent gives its share up when it has its place in a transaction: the ledger's record goes into the same one or a later
/// one, never into an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Page(Arc<Answer>);

#[derive(Debug)]
struct Answer {
    ledger: Arc<Ledger>,
    line: Arc<str>,
    torn: AtomicBool,
    proven: Mutex<Proven>,
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
        Self(Arc::new(Answer { ledger, line, torn: AtomicBool::new(false), proven: Mutex::default() }))
    }

    /// One of its events was lost on the way: it proves nothing, whatever its end says.
    pub(crate) fn tear(&self) {
        self.0.torn.store(true, Ordering::Release);
    }

    /// What the answer proves, once its end has come; an answer that was torn proves nothing.
    pub(crate) fn prove(self, bands: Vec<Band>, gaps: Vec<Gap>) {
        *self.0.proven.lock().unwrap_or_else(PoisonError::into_inner) = Proven { bands, gaps };
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Proven { bands, gaps } = std::mem::take(self.proven.get_mut().unwrap_or_else(PoisonError::into_inner));
        if self.torn.load(Ordering::Acquire) {
            return;
        }
        if !bands.is_empty() || !gaps.is_empty() {
            self.ledger.enter(&self.line, &bands, gaps);
        }
    }
}
