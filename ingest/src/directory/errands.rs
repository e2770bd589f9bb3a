//! What is fetched beside the log: relays' own documents (NIP-11) and the addresses of their names, a few at once,
//! never two of one host, and after a failure not soon again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::directory::address;
use crate::directory::document::{Address, Network, Nip11, PlaceSource, RelayDocument};
use crate::directory::state::Directory;
use crate::nip11::{Asker, addresses, sha256};
use crate::relay::Backoff;

/// A document holds for a day.
const DOCUMENT_SECS: i64 = 24 * 3_600;
/// An address, of which only the place is wanted, holds for a month.
const ADDRESS_SECS: i64 = 30 * 24 * 3_600;
/// Waiting times after failures.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(600), max: Duration::from_secs(24 * 3_600) };
/// Errands that are looked up at once; looking goes through all documents.
const QUEUE_MAX: usize = 1_000;
/// Time between two looks that found nothing.
const LOOK_EVERY_SECS: i64 = 10;
/// A name that the resolver has not found by then is given up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be fetched for a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Document,
    Address,
}

#[derive(Clone, Debug)]
struct Errand {
    url: String,
    host: String,
    sort: Sort,
}

/// What came of an errand.
#[derive(Debug)]
pub(crate) struct Done {
    errand: Errand,
    outcome: Result<String, String>,
}

/// Failures in a row, and when to try again, seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    times: u32,
    not_before: i64,
}

/// What may be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Documents, by whom they are asked for.
    pub(crate) documents: Option<Asker>,
    /// Addresses of names.
    pub(crate) addresses: bool,
    pub(crate) allow_local: bool,
    /// How many at once.
    pub(crate) at_once: usize,
}

/// Errands of a run.
#[derive(Debug)]
pub(crate) struct Errands {
    wanted: Wanted,
    queue: VecDeque<Errand>,
    running: JoinSet<Done>,
    hosts: BTreeSet<String>,
    failed: BTreeMap<(String, Sort), Failed>,
    /// When it was last looked for what is due, seconds since 1970.
    looked_at: Option<i64>,
}

impl Errands {
    pub(crate) fn new(wanted: Wanted) -> Self {
        let (queue, running) = (VecDeque::new(), JoinSet::new());
        Self { wanted, queue, running, hosts: BTreeSet::new(), failed: BTreeMap::new(), looked_at: None }
    }

    pub(crate) fn idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts as much as may run of what is due at `now`. It is looked for now and then, or if need be at once: `look`.
    pub(crate) fn start(&mut self, directory: &Directory, now: i64, look: bool) {
        if self.wanted.documents.is_none() && !self.wanted.addresses || self.running.len() >= self.wanted.at_once {
            return;
        }
        let look = look || self.looked_at.is_none_or(|looked_at| looked_at + LOOK_EVERY_SECS <= now);
        if self.queue.is_empty() && look {
            self.looked_at = Some(now);
            let due = directory.documents().flat_map(|document| self.due(document, now)).take(QUEUE_MAX);
            self.queue = due.collect();
        }
        for _ in 0..self.queue.len() {
            let Some(errand) = self.queue.pop_front() else { return };
            if self.running.len() >= self.wanted.at_once {
                self.queue.push_front(errand);
                return;
            }
            if self.hosts.insert(errand.host.clone()) {
                self.run(errand);
            } else {
                self.queue.push_back(errand);
            }
        }
    }

    fn due<'a>(&'a self, document: &'a RelayDocument, now: i64) -> impl Iterator<Item = Errand> + use<'a> {
        [Sort::Document, Sort::Address]
            .into_iter()
            .filter(move |sort| self.is_due(document, *sort, now))
            .map(|sort| Errand { url: document.url.clone(), host: document.host.clone(), sort })
    }

    fn is_due(&self, document: &RelayDocument, sort: Sort, now: i64) -> bool {
        let due = match sort {
            Sort::Document => {
                let fresh = document.nip11.as_ref().is_some_and(|nip11| nip11.fetched_at + DOCUMENT_SECS > now);
                self.wanted.documents.is_some() && !fresh
            }
            Sort::Address => {
                let fresh = document.address.as_ref().is_some_and(|address| address.resolved_at + ADDRESS_SECS > now);
                let placed = document.place.as_ref().is_some_and(|place| place.source == PlaceSource::Nip66);
                let named = document.host.parse::<std::net::IpAddr>().is_err();
                self.wanted.addresses && named && !placed && !fresh
            }
        };
        let waits = || self.failed.get(&(document.url.clone(), sort)).is_some_and(|failed| failed.not_before > now);
        let reachable = || {
            matches!(document.network, Network::Clear | Network::Loopback)
                && address::read(&document.url, self.wanted.allow_local).is_ok()
        };
        due && !waits() && reachable()
    }

    fn run(&mut self, errand: Errand) {
        let (asker, allow_local) = (self.wanted.documents.clone(), self.wanted.allow_local);
        self.running.spawn(async move {
            let outcome = match (errand.sort, asker) {
                (Sort::Document, Some(asker)) => asker.ask(&errand.url).await,
                _ => resolve(&errand.host, allow_local).await,
            };
            Done { errand, outcome }
        });
    }

    /// The next errand that ends; waits for ever when there is none. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Done {
        match self.running.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => std::future::pending().await,
        }
    }

    /// Enters what came of an errand.
    pub(crate) fn enter(&mut self, done: Done, directory: &mut Directory, now: i64) {
        let Done { errand: Errand { url, host, sort }, outcome } = done;
        self.hosts.remove(&host);
        directory.count_errand(outcome.is_ok());
        match outcome {
            Ok(found) => {
                self.failed.remove(&(url.clone(), sort));
                directory.update(&url, |document| match sort {
                    Sort::Document => {
                        let sha256 = sha256(&found);
                        document.nip11 = Some(Nip11 { document: found, fetched_at: now, sha256 });
                    }
                    Sort::Address => document.address = Some(Address { ip: found, resolved_at: now }),
                });
            }
            Err(why) => {
                tracing::debug!(url, ?sort, why, "nothing was fetched");
                let failed = self.failed.entry((url, sort)).or_default();
                failed.times += 1;
                let wait = i64::try_from(AGAIN.bound(failed.times).as_secs()).unwrap_or(i64::MAX);
                failed.not_before = now.saturating_add(wait);
            }
        }
    }
}

async fn resolve(host: &str, allow_local: bool) -> Result<String, String> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, addresses(host, allow_local)).await {
        Ok(Ok(found)) => found.first().map(ToString::to_string).ok_or_else(|| "no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}
