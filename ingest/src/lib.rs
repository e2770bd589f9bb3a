//! Events in, topic out, topic to lake: everything between a stranger's socket and the shelves others read from.
//!
//! ```text
//! relay ─┐ frames                       ┌─▶ <topic>           ──lake──▶ objects
//! relay ─┼────────▶ verifier ─▶ publish ┤
//! file  ─┘ lines     │   ▲              └─▶ <topic>.rejected
//!                    └─dedup
//! ```
//!
//! Every queue between two stations has a bound: when the log is slow, the verifiers wait, then arrivals wait on disk, then
//! the sockets do.
//!
//! Read in this order: `relay` (one connection: ask, read, page, come back), `file` (lines instead of frames), `intake`
//! (room in memory, and what is done without: `spill`, `lane`), `verifier` (bytes become belief, off the socket's task),
//! `dedup` (ids verified and acknowledged), `parcel` and `publish` (to the raw topic, then acknowledged), `sighting` (who
//! delivered what, if wanted), `rejected` (what is turned away, with its reason), `redrive` (once more), `pipeline` (the
//! stations put together), `owner` (who ingests into a topic), `group` (several processes that share the relays), [`lake`]
//! (topic to objects), [`directory`] (what the topic says of relays), `nip11` (what a relay says of itself), `metrics`.
//!
//! The crate reads no environment, prints nothing and never exits; log, store and clock are handed in.

pub mod coverage;
mod dedup;
pub mod directory;
#[cfg(test)]
#[path = "../../tests/src/edit.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the suite, where all of it is used and public")]
mod edit;
mod error;
mod file;
mod frame;
mod group;
mod intake;
mod kinds;
pub mod lake;
mod lane;
mod metrics;
mod nip11;
mod opensea;
mod owner;
mod parcel;
mod pipeline;
mod publish;
mod redrive;
mod rejected;
mod relay;
mod settings;
mod sighting;
mod spill;
mod verifier;
mod whole;

use std::sync::Arc;

pub use error::{Error, ErrorKind, Result};
pub use file::file;
pub use frame::event_in;
pub use kinds::Kinds;
pub use metrics::{Counters, CountersSnapshot, RelaySnapshot};
pub use opensea::{ApiKey, Endpoint, opensea};
pub use pipeline::create_topics;
pub use redrive::{RedriveCounts, RedriveSettings, Redriven, redrive};
pub use relay::{Answer, Backoff, Broadcast, BroadcastSettings, RelayAnswers, normal_relay_url, nostr};
pub use settings::{FileSettings, GroupSettings, IntakeSettings, NostrSettings, OpenSeaSettings, Reconcile};

/// What a run works with, and what its owner watches it by.
#[derive(Clone, Debug)]
pub struct Components {
    /// Where topics lie.
    pub log: Arc<dyn topic::Log>,
    /// Wall clock of received times.
    pub clock: event::Clock,
    /// Counters of the run.
    pub counters: Arc<Counters>,
}
