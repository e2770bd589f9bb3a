//! What the directory has read, dropped, written and fetched: figures for people, counted once what they count is
//! committed.

use std::sync::{Mutex, PoisonError};

/// Counters of one run.
#[derive(Debug, Default)]
pub struct DirectoryCounters(Mutex<DirectoryCounts>);

impl DirectoryCounters {
    /// What the counters say now.
    #[must_use]
    pub fn snapshot(&self) -> DirectoryCounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, counts: DirectoryCounts) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let relays = counts.relays;
        *all = DirectoryCounts {
            read: all.read + counts.read,
            lists: all.lists + counts.lists,
            reports: all.reports + counts.reports,
            superseded: all.superseded + counts.superseded,
            unreadable: all.unreadable + counts.unreadable,
            junk: all.junk + counts.junk,
            local: all.local + counts.local,
            beyond: all.beyond + counts.beyond,
            relays,
            written: all.written + counts.written,
            asked: all.asked + counts.asked,
            unanswered: all.unanswered + counts.unanswered,
        };
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryCounts {
    /// Records of the raw topic.
    pub read: u64,
    /// Relay lists (kinds 10002 and 3) newer than what their author had said.
    pub lists: u64,
    /// Monitors' reports (kind 30166) newer than what the monitor had said of the relay.
    pub reports: u64,
    /// Lists and reports older than what was known, or beyond what is kept.
    pub superseded: u64,
    /// Records that hold no event.
    pub unreadable: u64,
    /// Names of relays that are no URL of one.
    pub junk: u64,
    /// Names of relays that only a local network knows.
    pub local: u64,
    /// Names of relays beyond the first 100 of a list, or that came when there were as many relays as are kept.
    pub beyond: u64,
    /// Relays that there are documents of.
    pub relays: u64,
    /// Documents written.
    pub written: u64,
    /// Documents (NIP-11) and addresses that were asked for and came.
    pub asked: u64,
    /// Documents and addresses that were asked for and did not come.
    pub unanswered: u64,
}
