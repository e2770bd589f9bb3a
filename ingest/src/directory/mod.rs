//! The relay directory: what authors and monitors say of relays, one document a relay in a compacted topic.
//!
//! ```text
//!              ┌ kind 10002, 3: lists ──▶ <relay topic>.lists   newest list of each author
//! raw topic ───┤                              │ counted
//!              └ kind 30166: reports ─────────┴─▶ <relay topic>   one document a relay
//! relay's NIP-11 document, the operator's .mmdb ──┘
//! ```
//!
//! Events of the raw topic are verified, so it is certain who says something; whether it is true is not. A document is
//! a function of the newest list of each author and the newest report of each monitor, whatever the order in which they
//! came. Both topics and the offsets of the raw topic are written in one transaction, and what is kept in memory is read
//! back from them at the start.
//!
//! Read in this order: `document` (what is known of a relay), `claims` (what an event says, pure), `address` (what is a
//! relay's URL, pure), `place` (geohash and database), `geo` (what a database says, pure), `state` (claims to documents,
//! pure), `errands` (what is fetched), `follow` (the loop).

mod address;
mod claims;
mod counters;
mod document;
mod errands;
mod follow;
mod geo;
mod place;
mod state;

#[cfg(test)]
mod mmdb;
#[cfg(test)]
mod tests;

use event::layout::{NOSTR_EVENT_TOPIC, NOSTR_RELAY_TOPIC};
use topic::{Log, Tail};

use crate::error::{Error, Result};

pub(crate) use address::is_public;
pub use counters::{DirectoryCounters, DirectoryCounts};
pub use document::{
    Address, Limitation, Network, Nip11, Place, PlaceSource, Policy, RelayDocument, Report, RoundTrips, Sources,
};
pub use follow::follow;
pub use place::GeoDatabase;

/// What is followed, how much is kept, and whom else to ask.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Topic of verified events; `nostr-event` by default.
    pub raw_topic: String,
    /// Topic of the documents; `nostr-relay` by default. Lists go to `<relay topic>.lists`. Both are created where they
    /// do not exist.
    pub relay_topic: String,
    /// Return once what is in the raw topic now is in the documents. Default false.
    pub until_latest: bool,
    /// Take private and loopback addresses and names that only a local network knows. Default false.
    pub allow_local: bool,
    /// Relays at most; those that are named when there are so many are counted only. Default 50,000.
    pub relays_max: usize,
    /// Lists at most, the newest; about 300 bytes of memory each. Default 500,000.
    pub lists_max: usize,
    /// Ask each relay for its NIP-11 document once a day. Default false.
    pub nip11: bool,
    /// Ask the system's resolver for the addresses of hosts that the database is to place. Default false.
    pub resolve: bool,
    /// Relays that are asked at once. Default 8.
    pub errands_max: usize,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            raw_topic: NOSTR_EVENT_TOPIC.to_owned(),
            relay_topic: NOSTR_RELAY_TOPIC.to_owned(),
            until_latest: false,
            allow_local: false,
            relays_max: 50_000,
            lists_max: 500_000,
            nip11: false,
            resolve: false,
            errands_max: 8,
        }
    }
}

/// The documents in `relay_topic`, by URL; records that hold none are left out.
///
/// # Errors
/// `Config` when there is no such topic, `Unavailable` when the log cannot be read.
pub async fn documents(log: &dyn Log, relay_topic: &str) -> Result<Vec<RelayDocument>> {
    let newest = newest_by_key(log, relay_topic).await?;
    Ok(newest.into_values().filter_map(|value| serde_json::from_slice(&value).ok()).collect())
}

/// The newest value of each key of a compacted topic; tombstones and keys that are no text are left out.
async fn newest_by_key(log: &dyn Log, topic: &str) -> Result<std::collections::BTreeMap<String, bytes::Bytes>> {
    let failed = |source| Error::of_log(format!("could not read back topic `{topic}`"), source);
    let mut newest = std::collections::BTreeMap::new();
    let mut tail = Tail::whole(log, topic).await.map_err(failed)?;
    while let Some(records) = tail.next().await.map_err(failed)? {
        for record in records {
            let Some(key) = record.key.and_then(|key| String::from_utf8(key.into()).ok()) else { continue };
            match record.value {
                Some(value) => drop(newest.insert(key, value)),
                None => drop(newest.remove(&key)),
            }
        }
    }
    Ok(newest)
}
