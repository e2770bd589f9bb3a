//! The meeting place of connections: what is stored, and who listens.
//!
//! An event is stored and handed to the listeners under one lock, and a query takes its snapshot under the same lock,
//! so that no event falls between the stored part of a subscription and its live part, and none comes twice. Each
//! listener has a bounded queue; one that is full ends that connection, since an event must not vanish in silence.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::entry::Entry;
use crate::filter::Filter;
use crate::settings::Settings;
use crate::store::{Store, Verdict};

/// A live event with its number in the order of delivery.
pub(crate) type Live = (u64, Arc<Entry>);

/// One connection's end of the hub.
pub(crate) struct Listener {
    pub(crate) number: u64,
    pub(crate) live: mpsc::Receiver<Live>,
    /// Cancelled when the connection was too slow for its live events.
    pub(crate) overrun: CancellationToken,
}

/// Stored events and listeners.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    nip01: bool,
    live_kept_max: usize,
    live_waiting_max: usize,
}

#[derive(Default)]
struct Inner {
    store: Store,
    listeners: HashMap<u64, (mpsc::Sender<Live>, CancellationToken)>,
    joined: u64,
    delivered: u64,
}

impl Hub {
    pub(crate) fn new(store: Store, settings: &Settings) -> Self {
        Self {
            inner: Mutex::new(Inner { store, ..Inner::default() }),
            nip01: settings.nip01,
            live_kept_max: settings.live_kept_max,
            live_waiting_max: settings.live_waiting_max,
        }
    }

    /// Takes in an event that a client published, and delivers it if it is new and allowed.
    pub(crate) fn publish(&self, entry: Entry, now_secs: i64) -> Verdict {
        let entry = Arc::new(entry);
        let mut inner = self.lock();
        let verdict = if self.nip01 {
            inner.store.apply(&entry, now_secs, Some(self.live_kept_max))
        } else if inner.store.holds(&entry.id) {
            Verdict::Duplicate
        } else {
            inner.store.keep_live(Arc::clone(&entry), self.live_kept_max);
            Verdict::Stored
        };
        if verdict.delivered() {
            inner.deliver(&entry);
        }
        verdict
    }

    /// Takes in a generated event. A forged one passes by the rules: to let it through is this relay's part.
    pub(crate) fn generated(&self, entry: Entry, forged: bool, now_secs: i64) {
        if !forged {
            self.publish(entry, now_secs);
            return;
        }
        let entry = Arc::new(entry);
        let mut inner = self.lock();
        inner.store.keep_live(Arc::clone(&entry), self.live_kept_max);
        inner.deliver(&entry);
    }

    /// The stored events of a subscription, newest first, each once, and the number of the first live event after
    /// them. Every filter comes with its limit.
    pub(crate) fn query(&self, filters: &[(Filter, usize)], now_secs: i64) -> (Vec<Arc<Entry>>, u64) {
        let expiry = self.nip01.then_some(now_secs);
        let inner = self.lock();
        let mut found = BTreeMap::new();
        for (filter, limit) in filters {
            found.extend(inner.store.query(filter, *limit, expiry));
        }
        (found.into_values().collect(), inner.delivered)
    }

    /// Starts listening.
    pub(crate) fn join(&self) -> Listener {
        let (sender, live) = mpsc::channel(self.live_waiting_max.max(1));
        let overrun = CancellationToken::new();
        let mut inner = self.lock();
        inner.joined += 1;
        let number = inner.joined;
        inner.listeners.insert(number, (sender, overrun.clone()));
        Listener { number, live, overrun }
    }

    /// Stops listening.
    pub(crate) fn leave(&self, number: u64) {
        self.lock().listeners.remove(&number);
    }

    /// Number of events held.
    pub(crate) fn len(&self) -> usize {
        self.lock().store.len()
    }

    /// A panic elsewhere leaves the maps whole enough to go on serving.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn deliver(&mut self, entry: &Arc<Entry>) {
        let number = self.delivered;
        self.delivered += 1;
        self.listeners.retain(|_, (sender, overrun)| match sender.try_send((number, Arc::clone(entry))) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                overrun.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }
}
