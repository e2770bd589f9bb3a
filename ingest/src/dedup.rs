//! Which event ids are known: exact, bounded, and filled only with ids whose events were verified here or read back
//! from the raw topic.
//!
//! An id goes `unknown → in flight → known`: [`Dedup::claim`] when its event has been verified, [`Dedup::confirm`]
//! when the log has acknowledged it, [`Dedup::release`] when the log has not. Nothing unverified enters, so a forged
//! event cannot shadow the true one of that id. The topic is the truth, this is derived from it: the newest ids are in
//! memory, and all of them on disk where a run has a place for an index ([`index`], [`restore`]).
//!
//! A copy of an event in flight leaves its share of the relay's answer ([`Page`]) with that event: what the answer
//! proves must not be written before the event is.

mod index;
mod restore;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use event::EventId;
use topic::{Log, StoredRecord, Tail};

use crate::coverage::Page;
use crate::error::{Error, ErrorKind, Result};

use index::Index;

/// Locks that do not wait for each other; many more than there are verifiers.
const SHARDS: usize = 64;

/// The first half of a SHA-256. Ids can be ground, so half of the bits is the least that is safe to compare by: to
/// shadow an event of somebody else takes 2^128 tries; two of one's own that shadow each other, 2^64, and hurt nobody.
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

/// An event between its verification and the log's answer.
#[derive(Debug, Default)]
struct InFlight {
    /// Shares in answers that its copies were in.
    pages: Vec<Page>,
    /// It has its place in a transaction.
    placed: bool,
}

#[derive(Debug)]
struct Shard {
    in_flight: HashMap<Prefix, InFlight>,
    known: Generations,
}

/// Ids of verified events, shared by all sockets, verifiers and the publisher.
#[derive(Debug)]
pub(crate) struct Dedup {
    shards: Vec<Mutex<Shard>>,
    /// Known ids that are held in memory for certain.
    sure: usize,
    index: OnceLock<Arc<Index>>,
    /// Known ids that could not be added to the index.
    not_indexed: AtomicUsize,
}

impl Dedup {
    /// At most `ids_max` known ids, in memory.
    pub(crate) fn new(ids_max: usize) -> Self {
        let shard = || Shard { in_flight: HashMap::new(), known: Generations::new(ids_max.div_ceil(SHARDS)) };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            sure: ids_max / 4,
            index: OnceLock::new(),
            not_indexed: AtomicUsize::new(0),
        }
    }

    /// Whether an event with this id has been verified before; while it is in flight it takes `page` along.
    pub(crate) fn is_copy(&self, id: &EventId, page: Option<&Page>) -> bool {
        let (mut shard, prefix) = (self.shard(id), prefix(&id.0));
        if shard.known.contains(prefix) {
            return true;
        }
        if let Some(event) = shard.in_flight.get_mut(&prefix) {
            event.pages.extend(page.cloned());
            return true;
        }
        drop(shard);
        let indexed = self.is_indexed(prefix);
        if indexed {
            // Where one relay's copy comes from, others' are to follow.
            self.shard(id).known.insert(prefix);
        }
        indexed
    }

    /// Ids are added to the index before they leave the ones in flight, so that none is ever in neither.
    fn is_indexed(&self, prefix: Prefix) -> bool {
        self.index.get().is_some_and(|index| index.contains(prefix))
    }

    /// Takes a verified event's id into flight; `false` when another was there first, and this one is a copy.
    pub(crate) fn claim(&self, id: &EventId, page: Option<&Page>) -> bool {
        let (mut shard, prefix) = (self.shard(id), prefix(&id.0));
        if shard.known.contains(prefix) {
            return false;
        }
        match shard.in_flight.entry(prefix) {
            Entry::Occupied(mut event) => {
                event.get_mut().pages.extend(page.cloned());
                false
            }
            // With the lock held: nobody else's copy can be settled and forgotten meanwhile.
            Entry::Vacant(_) if self.is_indexed(prefix) => false,
            Entry::Vacant(place) => {
                place.insert(InFlight::default());
                true
            }
        }
    }

    /// Fails once something was taken for new because it could not be looked up.
    ///
    /// # Errors
    /// `Data`.
    pub(crate) fn sound(&self) -> Result<()> {
        self.index.get().map_or(Ok(()), |index| index.sound())
    }

    /// The event has its place in a transaction: answers that it was a copy in need not wait for it any more.
    pub(crate) fn placed(&self, id: &EventId) {
        let pages = self.shard(id).in_flight.get_mut(&prefix(&id.0)).map(|event| {
            event.placed = true;
            std::mem::take(&mut event.pages)
        });
        // The last share enters the answer in the ledger, which has a lock of its own.
        drop(pages);
    }

    /// Whether the event is in flight and has no place in a transaction yet.
    pub(crate) fn is_waiting(&self, id: &EventId) -> bool {
        self.shard(id).in_flight.get(&prefix(&id.0)).is_some_and(|event| !event.placed)
    }

    /// The log has acknowledged these events, and every record before `ends` is one of ours or was read back: they are
    /// added to the index, if there is one, and are known.
    ///
    /// An index that cannot be written stays behind, and the next run reads on from there; until then memory knows.
    ///
    /// # Errors
    /// `Unavailable` when memory would have to forget what the index does not hold.
    pub(crate) async fn confirm_all(&self, ids: &[EventId], ends: &[(i32, i64)]) -> Result<()> {
        let stuck = self.not_indexed.load(Ordering::Relaxed) > 0;
        if let Some(index) = self.index.get().filter(|_| !stuck && !ids.is_empty()) {
            let (index, prefixes, ends) = (Arc::clone(index), prefixes(ids), ends.to_vec());
            let added = tokio::task::spawn_blocking(move || index.add(&prefixes, &ends)).await;
            if let Err(error) = added.unwrap_or_else(|panic| Err(std::io::Error::other(panic).into())) {
                self.not_indexed.fetch_add(ids.len(), Ordering::Relaxed);
                tracing::warn!(%error, "the index of known ids cannot be written any more; the next run reads on from where it stays");
            }
        } else if stuck {
            self.not_indexed.fetch_add(ids.len(), Ordering::Relaxed);
        }
        ids.iter().for_each(|id| self.confirm(id));
        if self.not_indexed.load(Ordering::Relaxed) > self.sure {
            let message = "the index of known ids could not be written, and memory cannot hold more ids; make room below \
                           --data-dir and start again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// The log has acknowledged the event.
    pub(crate) fn confirm(&self, id: &EventId) {
        let (mut shard, prefix) = (self.shard(id), prefix(&id.0));
        let event = shard.in_flight.remove(&prefix);
        shard.known.insert(prefix);
        drop(shard);
        drop(event);
    }

    /// The log has not taken the event: the next copy of it is new again.
    pub(crate) fn release(&self, id: &EventId) {
        let event = self.shard(id).in_flight.remove(&prefix(&id.0));
        drop(event);
    }

    /// Reads back the ids of about the `last` newest records of `topic`; returns how many there were.
    pub(crate) async fn replay(&self, log: &dyn Log, topic: &str, last: u64) -> Result<u64> {
        let failed = |source| Error::of_log(format!("could not read back the ids of topic `{topic}`"), source);
        let mut tail = Tail::newest(log, topic, last).await.map_err(failed)?;
        let mut count = 0;
        while let Some(records) = tail.next().await.map_err(failed)? {
            count += records.iter().map(|record| u64::from(self.learn(record))).sum::<u64>();
        }
        Ok(count)
    }

    /// The raw topic holds this record; whether its key is an id.
    pub(crate) fn learn(&self, record: &StoredRecord) -> bool {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let id = key.and_then(EventId::from_hex);
        id.inspect(|id| self.confirm(id)).is_some()
    }

    fn shard(&self, id: &EventId) -> MutexGuard<'_, Shard> {
        // The last byte, which the prefix does not hold: grinding one does not help with the other.
        self.shards[usize::from(id.0[31]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prefixes(ids: &[EventId]) -> Vec<Prefix> {
    ids.iter().map(|id| prefix(&id.0)).collect()
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
        assert!(!dedup.is_copy(&id(1), None));
        assert!(dedup.claim(&id(1), None));
        assert!(dedup.is_copy(&id(1), None), "a copy of an event in flight is a copy");
        assert!(!dedup.claim(&id(1), None) && dedup.is_waiting(&id(1)));
        dedup.placed(&id(1));
        assert!(dedup.is_copy(&id(1), None) && !dedup.is_waiting(&id(1)));
        dedup.confirm(&id(1));
        assert!(!dedup.is_waiting(&id(1)));
        assert!(dedup.is_copy(&id(1), None) && !dedup.claim(&id(1), None));
    }

    #[test]
    fn what_the_log_refused_is_new_again() {
        let dedup = Dedup::new(1_000);
        assert!(dedup.claim(&id(1), None));
        dedup.release(&id(1));
        assert!(!dedup.is_copy(&id(1), None) && dedup.claim(&id(1), None));
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
                .map(|_| scope.spawn(|| (0..10_000).filter(|number| dedup.claim(&id(*number), None)).count()))
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("no racer panics")).sum()
        });
        assert_eq!(won, 10_000);
    }
}
