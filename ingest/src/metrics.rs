//! What was received, refused, published and landed: counters that only grow, and a snapshot of them as plain data.
//!
//! Once everything is published, `received = published + copies + filtered + rejected (all reasons) + rejected_again`; of
//! a group the sums over its members, since one receives what another publishes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event::Reason;

/// Counters of one process, shared by relays, verifiers, publisher and lander.
#[derive(Debug, Default)]
pub struct Counters {
    /// Inputs that get a verdict: EVENT frames, junk frames, lines of a file.
    pub received: AtomicU64,
    /// Events dropped because one with their id was verified before.
    pub copies: AtomicU64,
    /// Events nobody asked for: their kind is not in the filter. Not published, not rejected.
    pub filtered: AtomicU64,
    /// Refused bytes that had been refused before: counted here and not written again.
    pub rejected_again: AtomicU64,
    /// Events acknowledged by the raw topic.
    pub published: AtomicU64,
    /// Deliveries acknowledged by the sightings topic.
    pub sightings: AtomicU64,
    /// Frames that a member of a group has handed in: acknowledged by the intake topic.
    pub handed_in: AtomicU64,
    /// Stretches of a relay's past that could not be proven complete: a dense second, an answer that cannot be paged.
    pub gaps: AtomicU64,
    /// Events that a relay had stored and that its live subscription, which stood, had not brought.
    pub missed_live: AtomicU64,
    /// Arrivals that found no room in memory and went over the disk.
    pub spilled: AtomicU64,
    /// How often relays were not asked for what they have stored, for want of room.
    pub backfill_pauses: AtomicU64,
    /// How often a relay was closed for want of room.
    pub relays_closed: AtomicU64,
    /// Rows in lake objects written by this process.
    pub landed_rows: AtomicU64,
    /// Lake objects written by this process.
    pub landed_objects: AtomicU64,
    /// Bytes of the lake objects written by this process.
    pub landed_bytes: AtomicU64,
    rejected: Rejected,
    relays: Mutex<Vec<Arc<RelayCounters>>>,
}

#[derive(Debug)]
struct Rejected([AtomicU64; Reason::ALL.len()]);

impl Default for Rejected {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// State of one relay.
#[derive(Debug)]
pub(crate) struct RelayCounters {
    url: Arc<str>,
    pub(crate) connected: AtomicBool,
    pub(crate) stored_done: AtomicBool,
    pub(crate) events: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) connects: AtomicU64,
}

impl RelayCounters {
    /// URL in normal form.
    pub(crate) const fn url(&self) -> &Arc<str> {
        &self.url
    }
}

impl Counters {
    /// Counts inputs written to the rejected topic.
    pub(crate) fn add_rejected(&self, reason: Reason) {
        add(&self.rejected.0[reason as usize], 1);
    }

    /// Counts a copy from a relay that was taken for news when it came.
    pub(crate) fn add_copy_of(&self, url: &Arc<str>) {
        let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relay) = relays.iter().find(|relay| relay.url == *url) {
            add(&relay.copies, 1);
        }
    }

    /// The counters of the relay at `url`, from now on part of every snapshot.
    pub(crate) fn relay(&self, url: &Arc<str>) -> Arc<RelayCounters> {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = relays.iter().find(|relay| relay.url == *url) {
            return Arc::clone(known);
        }
        let relay = Arc::new(RelayCounters {
            url: Arc::clone(url),
            connected: AtomicBool::new(false),
            stored_done: AtomicBool::new(false),
            events: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            connects: AtomicU64::new(0),
        });
        relays.push(Arc::clone(&relay));
        relay
    }

    /// What the counters say now; taken one by one, so sums may be off by what happens meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rejected = Reason::ALL.iter().zip(&self.rejected.0).map(|(reason, counter)| (*reason, read(counter)));
        let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        let relays = relays.iter().map(|relay| RelaySnapshot {
            url: relay.url.to_string(),
            connected: relay.connected.load(Ordering::Relaxed),
            stored_done: relay.stored_done.load(Ordering::Relaxed),
            events: read(&relay.events),
            copies: read(&relay.copies),
            connects: read(&relay.connects),
        });
        CountersSnapshot {
            received: read(&self.received),
            copies: read(&self.copies),
            filtered: read(&self.filtered),
            rejected: rejected.filter(|(_, count)| *count > 0).collect(),
            rejected_again: read(&self.rejected_again),
            published: read(&self.published),
            sightings: read(&self.sightings),
            handed_in: read(&self.handed_in),
            gaps: read(&self.gaps),
            missed_live: read(&self.missed_live),
            spilled: read(&self.spilled),
            backfill_pauses: read(&self.backfill_pauses),
            relays_closed: read(&self.relays_closed),
            landed_rows: read(&self.landed_rows),
            landed_objects: read(&self.landed_objects),
            landed_bytes: read(&self.landed_bytes),
            relays: relays.collect(),
        }
    }
}

/// The counters at one moment; fields mean what they mean in [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Inputs that get a verdict.
    pub received: u64,
    /// Events whose id was known.
    pub copies: u64,
    /// Events outside the filter.
    pub filtered: u64,
    /// Records in the rejected topic by reason; reasons that never occurred are left out.
    pub rejected: Vec<(Reason, u64)>,
    /// Refused bytes that were refused before.
    pub rejected_again: u64,
    /// Events acknowledged by the raw topic.
    pub published: u64,
    /// Deliveries acknowledged by the sightings topic.
    pub sightings: u64,
    /// Frames acknowledged by the intake topic of a group.
    pub handed_in: u64,
    /// Stretches not proven complete.
    pub gaps: u64,
    /// Events that live subscriptions did not bring.
    pub missed_live: u64,
    /// Arrivals that went over the disk.
    pub spilled: u64,
    /// Times that nothing stored was asked for.
    pub backfill_pauses: u64,
    /// Times that a relay was closed for want of room.
    pub relays_closed: u64,
    /// Rows landed in the lake.
    pub landed_rows: u64,
    /// Objects landed in the lake.
    pub landed_objects: u64,
    /// Bytes landed in the lake.
    pub landed_bytes: u64,
    /// Every relay, in the order they were named.
    pub relays: Vec<RelaySnapshot>,
}

impl CountersSnapshot {
    /// Records in the rejected topic, all reasons together.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|(_, count)| count).sum()
    }
}

/// One relay at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySnapshot {
    /// URL in normal form.
    pub url: String,
    /// Whether a session is open.
    pub connected: bool,
    /// Whether everything it has stored was fetched to the end at least once.
    pub stored_done: bool,
    /// EVENT frames it sent.
    pub events: u64,
    /// How many of them were copies of what was verified before.
    pub copies: u64,
    /// Sessions opened so far.
    pub connects: u64,
}

/// Adds to a counter; they are figures for people, so no order between them is promised.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
