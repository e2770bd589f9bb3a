//! The coverage ledger: what of each relay's past is proven to be in the raw topic, and what is known to be missing.
//!
//! A relay is no log: it has no offsets, no order of arrival and no replay. The one thing to go on from is "this relay,
//! asked with this filter, has been read completely over these seconds of `created_at`, as of then". These bands are
//! kept in a topic beside the raw one, one record for each relay and filter, written in the transaction that holds the
//! last events of a band; so a band never says more than the raw topic holds. What cannot be had is written to the gap
//! topic, once.
//!
//! `bands` is pure; `ledger` holds the bands of a run and what of them is not written yet; `page` follows the events of
//! one answer of a relay until the last of them is on its way.

mod bands;
mod ledger;
mod page;

use serde::{Deserialize, Serialize};

pub(crate) use bands::Bands;
pub(crate) use ledger::{Ledger, Line};
pub use ledger::{coverage, gaps};
pub(crate) use page::{LastPage, Page};

/// How a band was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Pages by `until`, down to an empty one or past the band's end.
    Paged,
    /// Both sides hold the same ids (NIP-77).
    Reconciled,
    /// A stream without a past was listened to, and nothing of these seconds of receipt was missed.
    Heard,
}

/// Seconds of `created_at`, both ends inclusive, that are proven complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// First second since 1970.
    pub from: i64,
    /// Last second since 1970.
    pub to: i64,
    /// When the relay was asked, seconds since 1970: what it got later is not in the band.
    pub proven_at: i64,
    /// How.
    pub proof: Proof,
}

/// What is proven of one relay and one filter, or one channel of a stream: a record of the coverage topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// URL of the relay in normal form.
    pub relay: String,
    /// Kinds that were asked for: `all`, or as in `1,7,5000-6999`; of a stream the channel, as `collection:*`.
    pub kinds: String,
    /// By second, none over another.
    pub bands: Vec<Band>,
}

/// Why events of a relay may be missing for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// One second holds more events than the relay gives out at once.
    Dense,
    /// The relay's answers do not follow `until`.
    Unpageable,
    /// The live subscription was away: events that relays do not store were not seen, and nothing of a stream was.
    NotLive,
}

/// A stretch of a relay's events that may not be complete: a record of the gap topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// URL of the relay in normal form.
    pub relay: String,
    /// Kinds that were asked for, or the channel.
    pub kinds: String,
    /// First second: of `created_at`, or of receipt where the live subscription was away.
    pub from: i64,
    /// Last second.
    pub to: i64,
    /// Why.
    pub reason: GapReason,
    /// When that was found, seconds since 1970.
    pub found_at: i64,
}
