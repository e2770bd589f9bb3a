//! What is done while arrivals find no place, neither in memory nor on disk: the relay of least use is closed, then the next,
//! and one stays; once most of the disk is free again they are opened, the most useful first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::intake::Overflow;
use crate::lane::Lane;
use crate::metrics::{Counters, add};

/// How often it is looked; a relay is closed when there was no place at two looks in a row.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks after which what relays delivered counts half.
const FADE_AFTER: u32 = 60;

/// Looks after the relays until it is ended.
pub(super) async fn govern(overflow: Arc<Overflow>, counters: Arc<Counters>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_full, mut closed, mut look) = (false, Vec::new(), 0);
    loop {
        looks.tick().await;
        look += 1;
        if look % FADE_AFTER == 0 {
            overflow.lanes().iter().for_each(|lane| lane.fade());
        }
        let full = overflow.is_full();
        if full && was_full {
            if let Some(lane) = least_useful(&overflow.lanes()) {
                add(&counters.relays_closed, 1);
                tracing::warn!(relay = %lane.relay(), usefulness = lane.usefulness(), "relay closed for want of room; what it has meanwhile is asked for later");
                lane.close(true);
                closed.push(lane);
            }
        } else if overflow.is_relieved() {
            overflow.relieve();
            if let Some(lane) = closed.pop() {
                tracing::info!(relay = %lane.relay(), "there is room again: relay opened");
                lane.close(false);
            }
        }
        was_full = full;
    }
}

/// The one that brought the least of what is new lately, and of two the one that has more on disk; none when only one
/// is connected.
fn least_useful(lanes: &[Arc<Lane>]) -> Option<Arc<Lane>> {
    let connected = |lane: &&Arc<Lane>| !lane.is_closed() && lane.counters.connected.load(Relaxed);
    let open: Vec<_> = lanes.iter().filter(connected).collect();
    if open.len() < 2 {
        return None;
    }
    let spilled = |lane: &Lane| lane.spilled.load(Relaxed);
    let least = open.into_iter().min_by(|one, other| {
        one.usefulness().total_cmp(&other.usefulness()).then_with(|| spilled(other).cmp(&spilled(one)))
    });
    least.map(Arc::clone)
}
