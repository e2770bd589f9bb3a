//! Which event ids are known: exact, bounded, and filled only with ids whose events were verified here or read back
//! from the raw topic.
//!
//! An id goes `unknown → in flight → known`: [`Dedup::claim`] when its event has been verified, [`Dedup::confirm`]
//! when the log has acknowledged it, [`Dedup::release`] when the log has not. Nothing unverified enters, so a forged
//! event cannot shadow the true one of that id. Memory only: the topic is the truth, this is derived from it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event::EventId;
use topic::{Log, OffsetRange};

use crate::error::{Error, ErrorKind, Result};

/// Locks that do not wait for each other; many more than there are verifiers.
const SHARDS: usize = 64;
/// Records read back at once.
const REPLAY_RECORDS: usize = 10_000;
/// Silence after which reading back is given up.
const REPLAY_WAIT: Duration = Duration::from_secs(30);

/// The first half of a SHA-256. Ids can be ground, so half of the bits is the least that is safe to compare by.
type Prefix = u128;

pub(crate) fn prefix(hash: &[u8; 32]) -> Prefix {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Prefix::from_be_bytes(half)
}

/// A set that forgets: once the young half is full it becomes the old one, and the old one goes.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    young: HashSet<Prefix>,
    old: HashSet<Prefix>,
    half_max: usize,
}

impl Generations {
    /// A set of at most `max` members that always holds the newest half of them.
    pub(crate) fn new(max: usize) -> Self {
        Self { half_max: (max / 2).max(1), ..Self::default() }
    }

    pub(crate) fn contains(&self, member: Prefix) -> bool {
        self.young.contains(&member) || self.old.contains(&member)
    }

    /// `true` when `member` was not there.
    pub(crate) fn insert(&mut self, member: Prefix) -> bool {
        if self.contains(member) {
            return false;
        }
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(member)
    }
}

#[derive(Debug)]
struct Shard {
    in_flight: HashSet<Prefix>,
    known: Generations,
}

/// Ids of verified events, shared by all sockets, verifiers and the publisher.
#[derive(Debug)]
pub(crate) struct Dedup {
    shards: Vec<Mutex<Shard>>,
}

impl Dedup {
    /// An index of at most `ids_max` known ids.
    pub(crate) fn new(ids_max: usize) -> Self {
        let shard = || Shard { in_flight: HashSet::new(), known: Generations::new(ids_max.div_ceil(SHARDS)) };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect() }
    }

    /// Whether an event with this id has been verified before.
    pub(crate) fn contains(&self, id: &EventId) -> bool {
        let (shard, prefix) = (self.shard(id), prefix(&id.0));
        shard.known.contains(prefix) || shard.in_flight.contains(&prefix)
    }

    /// Takes a verified event's id into flight; `false` when another was there first, and this one is a copy.
    pub(crate) fn claim(&self, id: &EventId) -> bool {
        let (mut shard, prefix) = (self.shard(id), prefix(&id.0));
        !shard.known.contains(prefix) && shard.in_flight.insert(prefix)
    }

    /// The log has acknowledged the event.
    pub(crate) fn confirm(&self, id: &EventId) {
        let (mut shard, prefix) = (self.shard(id), prefix(&id.0));
        shard.in_flight.remove(&prefix);
        shard.known.insert(prefix);
    }

    /// The log has not taken the event: the next copy of it is new again.
    pub(crate) fn release(&self, id: &EventId) {
        self.shard(id).in_flight.remove(&prefix(&id.0));
    }

    /// Reads back the ids of about the `last` newest records of `topic`; returns how many there were.
    pub(crate) async fn replay(&self, log: &dyn Log, topic: &str, last: u64) -> Result<u64> {
        let failed = |source| Error::of_log(format!("could not read back the ids of topic `{topic}`"), source);
        let ranges = log.ranges(topic).await.map_err(failed)?;
        let share = last.div_ceil(u64::try_from(ranges.len()).unwrap_or(1).max(1));
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        let held: Vec<OffsetRange> = ranges.into_iter().filter(|range| range.end > range.start).collect();
        let from =
            held.iter().map(|range| (range.partition, range.start.max(range.end.saturating_sub(share)))).collect();
        if held.is_empty() || share == 0 {
            return Ok(0);
        }
        let mut reader = log.reader(topic, from).await.map_err(failed)?;
        let mut count = 0;
        while !reached(&reader.positions(), &held) {
            let records = reader.read(REPLAY_RECORDS, REPLAY_WAIT).await.map_err(failed)?;
            if records.is_empty() && !reached(&reader.positions(), &held) {
                let message =
                    format!("topic `{topic}` does not give back its newest records: nothing in {REPLAY_WAIT:?}");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            for record in records {
                let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                if let Some(id) = key.and_then(EventId::from_hex) {
                    self.confirm(&id);
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn shard(&self, id: &EventId) -> MutexGuard<'_, Shard> {
        // The last byte, which the prefix does not hold: grinding one does not help with the other.
        self.shards[usize::from(id.0[31]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reached(positions: &[(i32, i64)], ranges: &[OffsetRange]) -> bool {
    ranges
        .iter()
        .all(|range| positions.iter().any(|(partition, next)| *partition == range.partition && *next >= range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> EventId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes[31] = number.to_be_bytes()[3];
        EventId(bytes)
    }

    #[test]
    fn an_id_is_claimed_once_and_known_once_confirmed() {
        let dedup = Dedup::new(1_000);
        assert!(!dedup.contains(&id(1)));
        assert!(dedup.claim(&id(1)));
        assert!(dedup.contains(&id(1)), "a copy of an event in flight is a copy");
        assert!(!dedup.claim(&id(1)));
        dedup.confirm(&id(1));
        assert!(dedup.contains(&id(1)) && !dedup.claim(&id(1)));
    }

    #[test]
    fn what_the_log_refused_is_new_again() {
        let dedup = Dedup::new(1_000);
        assert!(dedup.claim(&id(1)));
        dedup.release(&id(1));
        assert!(!dedup.contains(&id(1)) && dedup.claim(&id(1)));
    }

    #[test]
    fn the_newest_half_is_always_held_and_the_oldest_goes() {
        let mut set = Generations::new(100);
        for member in 0..1_000_u128 {
            assert!(set.insert(member));
            assert!((member.saturating_sub(49)..=member).all(|recent| set.contains(recent)), "at {member}");
            assert!(set.young.len() + set.old.len() <= 100);
        }
        assert!(!set.contains(0) && !set.insert(999));
    }

    #[test]
    fn threads_that_race_for_an_id_get_it_once() {
        let dedup = Dedup::new(100_000);
        let won: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..10_000).filter(|number| dedup.claim(&id(*number))).count()))
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("no racer panics")).sum()
        });
        assert_eq!(won, 10_000);
    }
}
