//! The events that a relay holds, newest first, and what the rules of NIP-01, NIP-09 and NIP-40 make of a new one.
//!
//! Ordered maps in memory: a query walks from the newest event on and stops when it has enough, so a filter that
//! matches little walks through everything. Fine up to about a million events. Nothing here knows of connections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use event::{EventId, PublicKey};

use crate::entry::Entry;
use crate::filter::Filter;

/// Newest first; equal times lowest id first; equal ids (two signatures for one id) as they came.
type Place = (Reverse<i64>, EventId, u64);
/// What a replaceable or addressable event replaces: kind, author, and value of its `d` tag.
type Address = (u16, PublicKey, Box<str>);

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    /// Not kept, by its kind; delivered to those who listen.
    Ephemeral,
    Duplicate,
    /// A newer one of the same address is held.
    Replaced,
    /// Its author has asked for its deletion.
    Deleted,
    Expired,
}

impl Verdict {
    /// Whether the event goes to live subscriptions.
    pub(crate) const fn delivered(self) -> bool {
        matches!(self, Self::Stored | Self::Ephemeral)
    }
}

/// Events in memory.
#[derive(Default)]
pub(crate) struct Store {
    ordered: BTreeMap<Place, Arc<Entry>>,
    by_id: BTreeMap<(EventId, u64), Place>,
    arrivals: u64,
    /// Arrived live, oldest arrival first.
    live: VecDeque<Place>,
    newest: HashMap<Address, Place>,
    deleted_ids: HashSet<(EventId, PublicKey)>,
    /// Up to which date the events of an address were deleted.
    deleted_addresses: HashMap<Address, i64>,
}

impl Store {
    /// Number of events held.
    pub(crate) fn len(&self) -> usize {
        self.ordered.len()
    }

    /// Whether an event with this id is held.
    pub(crate) fn holds(&self, id: &EventId) -> bool {
        self.by_id.range((*id, 0)..=(*id, u64::MAX)).next().is_some()
    }

    /// Keeps an event as it stands, like an archive.
    pub(crate) fn keep(&mut self, entry: Arc<Entry>) {
        self.insert(entry);
    }

    /// Keeps an event that arrived live; with more than `kept_max` of them the oldest arrival gives way.
    pub(crate) fn keep_live(&mut self, entry: Arc<Entry>, kept_max: usize) {
        let place = self.insert(entry);
        self.note_live(place, kept_max);
    }

    /// Keeps an event if the rules allow it, and removes what it replaces or deletes.
    pub(crate) fn apply(&mut self, entry: &Arc<Entry>, now_secs: i64, live_kept_max: Option<usize>) -> Verdict {
        let address = address(entry);
        if self.holds(&entry.id) {
            return Verdict::Duplicate;
        }
        if entry.expired(now_secs) {
            return Verdict::Expired;
        }
        if self.deleted(entry, address.as_ref()) {
            return Verdict::Deleted;
        }
        if (20_000..30_000).contains(&entry.kind) {
            return Verdict::Ephemeral;
        }
        if let Some(held) = address.as_ref().and_then(|address| self.newest.get(address)).copied() {
            if held < (Reverse(entry.created_at), entry.id, 0) {
                return Verdict::Replaced;
            }
            self.remove(held);
        }
        let place = self.insert(Arc::clone(entry));
        if let Some(address) = address {
            self.newest.insert(address, place);
        }
        if let Some(kept_max) = live_kept_max {
            self.note_live(place, kept_max);
        }
        if entry.kind == 5 {
            self.delete_what_it_names(entry);
        }
        Verdict::Stored
    }

    /// The newest `limit` events that match `filter` and have not expired at `now_secs`, newest first.
    pub(crate) fn query(&self, filter: &Filter, limit: usize, now_secs: Option<i64>) -> Vec<(Place, Arc<Entry>)> {
        let fits = |entry: &Arc<Entry>| filter.matches(entry) && !now_secs.is_some_and(|now| entry.expired(now));
        let until = filter.until.unwrap_or(i64::MAX);
        let since = filter.since.unwrap_or(i64::MIN);
        if limit == 0 || since > until {
            return Vec::new();
        }
        if let Some(ids) = &filter.ids {
            let mut found: Vec<_> = ids
                .iter()
                .flat_map(|id| self.by_id.range((*id, 0)..=(*id, u64::MAX)))
                .filter_map(|(_, place)| Some((*place, self.ordered.get(place)?)))
                .filter(|(_, entry)| fits(entry))
                .map(|(place, entry)| (place, Arc::clone(entry)))
                .collect();
            found.sort_unstable_by_key(|(place, _)| *place);
            found.truncate(limit);
            return found;
        }
        let (first, last) = (EventId([0; 32]), EventId([0xff; 32]));
        self.ordered
            .range((Reverse(until), first, 0)..=(Reverse(since), last, u64::MAX))
            .filter(|(_, entry)| fits(entry))
            .take(limit)
            .map(|(place, entry)| (*place, Arc::clone(entry)))
            .collect()
    }

    fn insert(&mut self, entry: Arc<Entry>) -> Place {
        let place = (Reverse(entry.created_at), entry.id, self.arrivals);
        self.by_id.insert((entry.id, self.arrivals), place);
        self.arrivals += 1;
        self.ordered.insert(place, entry);
        place
    }

    fn note_live(&mut self, place: Place, kept_max: usize) {
        self.live.push_back(place);
        while self.live.len() > kept_max {
            let Some(oldest) = self.live.pop_front() else { break };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: Place) {
        let Some(entry) = self.ordered.remove(&place) else { return };
        self.by_id.remove(&(entry.id, place.2));
        if let Some(address) = address(&entry)
            && self.newest.get(&address) == Some(&place)
        {
            self.newest.remove(&address);
        }
    }

    fn deleted(&self, entry: &Entry, address: Option<&Address>) -> bool {
        // A deletion of a deletion has no effect (NIP-09).
        entry.kind != 5
            && (self.deleted_ids.contains(&(entry.id, entry.pubkey))
                || address
                    .and_then(|address| self.deleted_addresses.get(address))
                    .is_some_and(|until| entry.created_at <= *until))
    }

    fn delete_what_it_names(&mut self, deletion: &Entry) {
        for id in deletion.values(b'e').filter_map(EventId::from_hex) {
            self.deleted_ids.insert((id, deletion.pubkey));
            let held: Vec<Place> = self.by_id.range((id, 0)..=(id, u64::MAX)).map(|(_, place)| *place).collect();
            for place in held {
                let own = |entry: &Arc<Entry>| entry.pubkey == deletion.pubkey && entry.kind != 5;
                if self.ordered.get(&place).is_some_and(own) {
                    self.remove(place);
                }
            }
        }
        for address in deletion.values(b'a').filter_map(parse_address) {
            if address.1 != deletion.pubkey {
                continue;
            }
            let held = self.newest.get(&address).copied();
            if let Some(place) = held.filter(|place| place.0.0 <= deletion.created_at) {
                self.remove(place);
            }
            let until = self.deleted_addresses.entry(address).or_insert(deletion.created_at);
            *until = deletion.created_at.max(*until);
        }
    }
}

/// The address of a replaceable or addressable event; `None` for other kinds.
fn address(entry: &Entry) -> Option<Address> {
    match entry.kind {
        0 | 3 | 10_000..20_000 => Some((entry.kind, entry.pubkey, "".into())),
        30_000..40_000 => Some((entry.kind, entry.pubkey, entry.values(b'd').next().unwrap_or_default().into())),
        _ => None,
    }
}

/// `kind:pubkey:d`, as `a` tags have it.
fn parse_address(text: &str) -> Option<Address> {
    let mut parts = text.splitn(3, ':');
    let kind = parts.next()?.parse().ok()?;
    let pubkey = PublicKey::from_hex(parts.next()?)?;
    Some((kind, pubkey, parts.next().unwrap_or_default().into()))
}

#[cfg(test)]
mod tests;
