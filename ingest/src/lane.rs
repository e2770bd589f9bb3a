//! One relay's share of what all relays share: room in memory, place on disk, and whether it is worth its while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{Notify, Semaphore, watch};

use crate::metrics::{RelayCounters, add};

/// The part that one relay may have where there are enough others: a flood takes a quarter, not all.
pub(crate) const SHARE: usize = 4;

/// What one of `lanes` relays may have of `whole`: all of it alone, half of it of two, and a quarter at least.
pub(crate) fn share(whole: u64, lanes: usize) -> u64 {
    whole / lanes.clamp(1, SHARE) as u64
}

/// A relay as the intake knows it.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) counters: Arc<RelayCounters>,
    /// Its share of memory, KiB.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) room_kib: u32,
    /// Its bytes on disk, and how many they may be.
    pub(crate) spilled: AtomicU64,
    pub(crate) spilled_max: u64,
    /// Some of its bytes on disk were read back.
    pub(crate) freed: Notify,
    /// What it delivered lately, and what of it was new and genuine.
    delivered: AtomicU64,
    novel: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Lane {
    pub(crate) fn new(counters: Arc<RelayCounters>, room_kib: u32, spilled_max: u64) -> Self {
        Self {
            counters,
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
            spilled: AtomicU64::new(0),
            spilled_max,
            freed: Notify::new(),
            delivered: AtomicU64::new(0),
            novel: AtomicU64::new(0),
            closed: watch::Sender::new(false),
        }
    }

    /// URL of the relay.
    pub(crate) fn relay(&self) -> &Arc<str> {
        self.counters.url()
    }

    pub(crate) fn delivered(&self) {
        add(&self.delivered, 1);
    }

    pub(crate) fn was_novel(&self) {
        add(&self.novel, 1);
    }

    /// Share of what it delivered lately that was new and genuine, from 0 to 1; one that delivered little stands between.
    pub(crate) fn usefulness(&self) -> f64 {
        let count = |counter: &AtomicU64| f64::from(u32::try_from(counter.load(Relaxed)).unwrap_or(u32::MAX));
        (count(&self.novel) + 1.0) / (count(&self.delivered) + 2.0)
    }

    /// What was long ago counts less.
    pub(crate) fn fade(&self) {
        for counter in [&self.delivered, &self.novel] {
            counter.fetch_sub(counter.load(Relaxed) / 2, Relaxed);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Tells its session to end, or to begin again.
    pub(crate) fn close(&self, closed: bool) {
        self.closed.send_replace(closed);
    }

    /// Waits until it is closed, or open again.
    pub(crate) async fn until(&self, closed: bool) {
        // The sender lives as long as this does.
        drop(self.closed.subscribe().wait_for(|now| *now == closed).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counters;

    fn lane(delivered: u32, novel: u32) -> Lane {
        let lane = Lane::new(Counters::default().relay(&"wss://relay.example.org".into()), 1_024, 1 << 20);
        (0..delivered).for_each(|_| lane.delivered());
        (0..novel).for_each(|_| lane.was_novel());
        lane
    }

    #[test]
    fn a_share_is_a_quarter_unless_there_are_fewer() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1_000].map(|lanes| share(1_200, lanes)), [1_200, 1_200, 600, 400, 300, 300, 300]);
    }

    #[test]
    fn what_brings_copies_and_junk_is_least_useful_and_the_past_fades() {
        let (new, mixed, copies, silent) = (lane(100, 100), lane(100, 50), lane(100, 0), lane(0, 0));
        assert!(new.usefulness() > mixed.usefulness() && mixed.usefulness() > copies.usefulness());
        assert!(silent.usefulness() > copies.usefulness() && silent.usefulness() < new.usefulness());
        for _ in 0..10 {
            copies.fade();
        }
        (0..50).for_each(|_| copies.delivered());
        (0..50).for_each(|_| copies.was_novel());
        assert!(copies.usefulness() > 0.9, "{}", copies.usefulness());
    }
}
