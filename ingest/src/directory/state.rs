//! Claims to documents: who said what last, counted by relay. Pure; the log is somebody else's business.
//!
//! What is kept is the newest of everything: of each author's lists, of all lists (`lists_max`), of each monitor's
//! reports, of all reports of a relay. The newest of a set do not depend on the order in which the set is read, so
//! neither do the documents.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use event::{Event, EventId, Limits, PublicKey};
use serde::{Deserialize, Serialize};
use topic::{Record, StoredRecord};

use crate::directory::address::{self, Dropped};
use crate::directory::claims::{self, Claim, FOLLOW_LIST, Marks, RELAY_LIST};
use crate::directory::counters::DirectoryCounts;
use crate::directory::document::{Policy, RelayDocument, Report, RoundTrips, Sources};
use crate::directory::place::{self, GeoDatabase};

/// What is taken, and how much is kept.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) allow_local: bool,
    pub(crate) relays_max: usize,
    pub(crate) lists_max: usize,
    pub(crate) database: Option<Arc<GeoDatabase>>,
}

impl Rules {
    /// Writes anew what follows from the rest of a document.
    fn sum_up(&self, document: &mut RelayDocument) {
        document.summarise();
        place::settle(document, self.database.as_deref());
    }
}

/// Whose list, of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListKey {
    author: PublicKey,
    kind: u16,
}

impl ListKey {
    /// The record's key.
    fn text(&self) -> String {
        format!("{} {}", self.kind, self.author)
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, author) = text.split_once(' ')?;
        Some(Self { author: PublicKey::from_hex(author)?, kind: kind.parse().ok()? })
    }
}

/// Age of a list: the newer is greater; of one second the lowest id is the newest, as NIP-01 has it.
type Age = (i64, Reverse<EventId>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    age: Age,
    relays: Vec<(Arc<str>, Marks)>,
}

/// A list as it lies in the lists topic.
#[derive(Debug, Serialize, Deserialize)]
struct StoredList {
    /// The event's date, seconds since 1970.
    created_at: i64,
    /// The event, hex.
    id: String,
    relays: Vec<StoredRelay>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredRelay {
    url: String,
    read: bool,
    write: bool,
}

/// All documents, and the lists that are counted in them.
#[derive(Debug)]
pub(crate) struct Directory {
    rules: Rules,
    relays: BTreeMap<Arc<str>, RelayDocument>,
    lists: BTreeMap<ListKey, List>,
    /// The same lists, oldest first.
    by_age: BTreeSet<(Age, ListKey)>,
    changed_relays: BTreeSet<Arc<str>>,
    changed_lists: BTreeSet<ListKey>,
    counts: DirectoryCounts,
}

impl Directory {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            relays: BTreeMap::new(),
            lists: BTreeMap::new(),
            by_age: BTreeSet::new(),
            changed_relays: BTreeSet::new(),
            changed_lists: BTreeSet::new(),
            counts: DirectoryCounts::default(),
        }
    }

    /// Reads back both topics, by key. Documents are summed up anew: what comes out otherwise than it was, by another
    /// database say, has changed. Records that hold no document or list are left alone.
    pub(crate) fn restore(rules: Rules, documents: &BTreeMap<String, Bytes>, lists: &BTreeMap<String, Bytes>) -> Self {
        let mut directory = Self::new(rules);
        let mut before = Vec::with_capacity(documents.len());
        for (url, value) in documents {
            let Ok(document) = serde_json::from_slice::<RelayDocument>(value) else { continue };
            let url: Arc<str> = url.as_str().into();
            // Counted with the lists.
            let uncounted =
                RelayDocument { policy: Policy::default(), sources: Sources::default(), ..document.clone() };
            directory.relays.insert(Arc::clone(&url), uncounted);
            before.push((url, document));
        }
        for (key, value) in lists {
            directory.restore_list(key, value);
        }
        // What stands is as it was; what was forgotten for want of room is to be deleted.
        directory.changed_lists.retain(|key| !directory.lists.contains_key(key));
        directory.changed_relays.clear();
        for (url, before) in before {
            let document = directory.relays.get_mut(&url).expect("it was put there");
            directory.rules.sum_up(document);
            if *document != before {
                directory.changed_relays.insert(url);
            }
        }
        directory
    }

    fn restore_list(&mut self, key: &str, value: &[u8]) {
        let Some(key) = ListKey::parse(key) else { return };
        let Ok(stored) = serde_json::from_slice::<StoredList>(value) else { return };
        let Some(id) = EventId::from_hex(&stored.id) else { return };
        let known = |stored: StoredRelay| {
            let (url, _) = self.relays.get_key_value(stored.url.as_str())?;
            Some((Arc::clone(url), Marks { read: stored.read, write: stored.write }))
        };
        let relays = stored.relays.into_iter().filter_map(known).collect();
        self.enter(key, List { age: (stored.created_at, Reverse(id)), relays });
    }

    /// Reads a record of the raw topic.
    pub(crate) fn take(&mut self, record: &StoredRecord) {
        self.counts.read += 1;
        let event = record.value.as_deref().and_then(|raw| Event::parse(raw, &Limits::default()).ok());
        let Some(event) = event else {
            self.counts.unreadable += 1;
            return;
        };
        let received = record.timestamp_ms.div_euclid(1_000);
        match claims::read(&event) {
            Some(Claim::List(named, beyond)) => {
                self.counts.beyond += beyond as u64;
                self.take_list(&event, named, received);
            }
            Some(Claim::Report(named, report)) => self.take_report(&named, *report, received),
            None => {}
        }
    }

    fn take_list(&mut self, event: &Event, named: Vec<(String, Marks)>, received: i64) {
        let mut relays: BTreeMap<Arc<str>, Marks> = BTreeMap::new();
        for (text, marks) in named {
            if let Some(url) = self.discover(&text, received) {
                let known = relays.entry(url).or_default();
                *known = known.or(marks);
            }
        }
        let key = ListKey { author: event.pubkey, kind: event.kind };
        let age = (event.created_at, Reverse(event.id));
        let newer = self.lists.get(&key).is_none_or(|known| known.age < age);
        if !newer || !self.enter(key, List { age, relays: relays.into_iter().collect() }) {
            self.counts.superseded += 1;
            return;
        }
        self.counts.lists += 1;
    }

    fn take_report(&mut self, named: &str, report: Report, received: i64) {
        let Some(url) = self.discover(named, received) else { return };
        let document = self.relays.get_mut(&url).expect("it was discovered");
        if document.take_report(report) {
            self.changed_relays.insert(url);
            self.counts.reports += 1;
        } else {
            self.counts.superseded += 1;
        }
    }

    /// The relay that somebody named, with a document from now on; none when it is none.
    fn discover(&mut self, text: &str, received: i64) -> Option<Arc<str>> {
        let named = match address::read(text, self.rules.allow_local) {
            Ok(named) => named,
            Err(why) => {
                let count = if why == Dropped::Junk { &mut self.counts.junk } else { &mut self.counts.local };
                *count += 1;
                return None;
            }
        };
        let url: Arc<str> = match self.relays.get_key_value(named.url.as_str()) {
            Some((url, _)) => Arc::clone(url),
            None if self.relays.len() >= self.rules.relays_max => {
                self.counts.beyond += 1;
                return None;
            }
            None => {
                let url: Arc<str> = named.url.as_str().into();
                self.relays.insert(Arc::clone(&url), document(named, received));
                self.changed_relays.insert(Arc::clone(&url));
                url
            }
        };
        let document = self.relays.get_mut(&url).expect("it is there or was put there");
        let seen = (document.first_seen.min(received), document.last_seen.max(received));
        if seen != (document.first_seen, document.last_seen) {
            (document.first_seen, document.last_seen) = seen;
            self.changed_relays.insert(Arc::clone(&url));
        }
        Some(url)
    }

    /// Puts a list in the place of its author's last one; `false` when there are as many newer ones as are kept.
    fn enter(&mut self, key: ListKey, list: List) -> bool {
        let full = self.lists.len() >= self.rules.lists_max && !self.lists.contains_key(&key);
        if full && self.by_age.first().is_none_or(|(oldest, _)| list.age < *oldest) {
            return false;
        }
        if full && let Some((_, oldest)) = self.by_age.first().copied() {
            self.change(oldest, None);
        }
        self.change(key, Some(list));
        true
    }

    /// Changes one list and the counts that come from its author.
    fn change(&mut self, key: ListKey, list: Option<List>) {
        self.count(key.author, u64::wrapping_sub);
        let old = match list {
            Some(list) => {
                self.by_age.insert((list.age, key));
                self.lists.insert(key, list)
            }
            None => self.lists.remove(&key),
        };
        if let Some(old) = old {
            self.by_age.remove(&(old.age, key));
        }
        self.count(key.author, u64::wrapping_add);
        self.changed_lists.insert(key);
    }

    /// Adds what an author says to the counts, or takes it off them.
    fn count(&mut self, author: PublicKey, step: fn(u64, u64) -> u64) {
        let slots = [RELAY_LIST, FOLLOW_LIST].map(|kind| (kind, self.lists.get(&ListKey { author, kind })));
        // The old form says something only where the new one does not.
        let decides = slots.iter().find_map(|(kind, list)| list.map(|_| *kind));
        for (kind, list) in slots {
            for (url, marks) in list.map(|list| list.relays.as_slice()).unwrap_or_default() {
                let Some(document) = self.relays.get_mut(url) else { continue };
                let RelayDocument { sources, policy, .. } = document;
                let source = if kind == RELAY_LIST { &mut sources.kind_10002 } else { &mut sources.kind_3 };
                *source = step(*source, 1);
                if decides == Some(kind) {
                    policy.read = step(policy.read, u64::from(marks.read));
                    policy.write = step(policy.write, u64::from(marks.write));
                }
                self.changed_relays.insert(Arc::clone(url));
            }
        }
    }

    /// All documents.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &RelayDocument> {
        self.relays.values()
    }

    /// Changes the document of a relay that is known.
    pub(crate) fn update(&mut self, url: &str, change: impl FnOnce(&mut RelayDocument)) {
        if let Some((url, _)) = self.relays.get_key_value(url) {
            let url = Arc::clone(url);
            self.relays.get_mut(&url).map(change);
            self.changed_relays.insert(url);
        }
    }

    /// Counts something that was fetched, or was not.
    pub(crate) fn count_errand(&mut self, came: bool) {
        let count = if came { &mut self.counts.asked } else { &mut self.counts.unanswered };
        *count += 1;
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed_relays.is_empty() || !self.changed_lists.is_empty()
    }

    /// Records of what changed since this was last called: for the relay topic and for the lists topic; and what was
    /// counted meanwhile.
    pub(crate) fn take_changed(&mut self) -> (Vec<Record>, Vec<Record>, DirectoryCounts) {
        let mut documents = Vec::with_capacity(self.changed_relays.len());
        for url in std::mem::take(&mut self.changed_relays) {
            if let Some(document) = self.relays.get_mut(&url) {
                self.rules.sum_up(document);
                documents.push(record(&url, Some(document)));
            }
        }
        let lists = std::mem::take(&mut self.changed_lists);
        let lists = lists.iter().map(|key| record(&key.text(), self.lists.get(key).map(stored).as_ref())).collect();
        let mut counts = std::mem::take(&mut self.counts);
        (counts.relays, counts.written) = (self.relays.len() as u64, documents.len() as u64);
        (documents, lists, counts)
    }
}

fn document(named: address::Named, received: i64) -> RelayDocument {
    RelayDocument {
        url: named.url,
        host: named.host,
        network: named.network,
        sources: Sources::default(),
        first_seen: received,
        last_seen: received,
        policy: Policy::default(),
        nip11: None,
        limits: None,
        software: None,
        version: None,
        rtt: RoundTrips::default(),
        reports: Vec::new(),
        address: None,
        place: None,
    }
}

fn stored(list: &List) -> StoredList {
    let relays = list.relays.iter();
    let relays = relays.map(|(url, marks)| StoredRelay { url: url.to_string(), read: marks.read, write: marks.write });
    let (created_at, Reverse(id)) = list.age;
    StoredList { created_at, id: id.to_string(), relays: relays.collect() }
}

fn record(key: &str, value: Option<&impl Serialize>) -> Record {
    let json = |value| serde_json::to_vec(value).expect("text and finite numbers always have a JSON form").into();
    Record { key: Some(key.to_owned().into()), value: value.map(json), ..Record::default() }
}
