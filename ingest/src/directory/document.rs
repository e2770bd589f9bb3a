//! What is known of one relay: a record of the relay topic, and how its summary follows from what was reported.
//!
//! `docs/nostr-relay.schema.json` is the same as a JSON schema.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::nip11;

/// How a relay is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The internet.
    Clear,
    /// An onion service.
    Tor,
    /// A hidden service of I2P.
    I2p,
    /// This machine.
    Loopback,
}

impl Network {
    /// As it stands in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Tor => "tor",
            Self::I2p => "i2p",
            Self::Loopback => "loopback",
        }
    }
}

/// How many keys name a relay, by what they name it with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Authors whose newest kind 3 has it in its content.
    pub kind_3: u64,
    /// Authors whose newest kind 10002 (NIP-65) has it in an `r` tag.
    pub kind_10002: u64,
    /// Monitors whose reports (kind 30166, NIP-66) are kept.
    pub kind_30166: u64,
}

/// How many authors use a relay for what. An author's kind 10002 counts; kind 3 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Authors who read from it: where others send what mentions them.
    pub read: u64,
    /// Authors who write to it: where their events are found.
    pub write: u64,
}

/// A relay's description of itself (NIP-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nip11 {
    /// The document, a JSON object, as it was fetched.
    pub document: String,
    /// When, seconds since 1970.
    pub fetched_at: i64,
    /// SHA-256 of `document`, lower-case hex.
    pub sha256: String,
}

/// Limits that a relay claims: `limitation` of its NIP-11 document. What it does not name, or not as it should, is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limitation {
    /// Longest message, bytes.
    pub max_message_length: Option<u64>,
    /// Most subscriptions of a connection.
    pub max_subscriptions: Option<u64>,
    /// Greatest `limit` of a filter.
    pub max_limit: Option<u64>,
    /// `limit` of a filter that has none.
    pub default_limit: Option<u64>,
    /// Longest subscription id, characters.
    pub max_subid_length: Option<u64>,
    /// Most tags of an event.
    pub max_event_tags: Option<u64>,
    /// Longest content, characters.
    pub max_content_length: Option<u64>,
    /// Least difficulty (NIP-13), bits.
    pub min_pow_difficulty: Option<u64>,
    /// Whether one must authenticate (NIP-42) first.
    pub auth_required: Option<bool>,
    /// Whether one must pay first.
    pub payment_required: Option<bool>,
    /// Whether some condition must be met to write.
    pub restricted_writes: Option<bool>,
    /// How old an event may be, seconds.
    pub created_at_lower_limit: Option<u64>,
    /// How far ahead an event may be dated, seconds.
    pub created_at_upper_limit: Option<u64>,
}

/// Milliseconds that monitors measured: the median over their newest reports, the lower of the middle two where their
/// number is even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// To open a connection.
    pub open_ms: Option<u32>,
    /// From a request to its answer.
    pub read_ms: Option<u32>,
    /// From an event to its `OK`.
    pub write_ms: Option<u32>,
    /// Reports that hold any of the three.
    pub reports: u64,
}

/// What a monitor last said of a relay (kind 30166, NIP-66): claims, not findings of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The monitor's key, hex.
    pub monitor: String,
    /// The event, hex.
    pub id: String,
    /// Its date, seconds since 1970.
    pub created_at: i64,
    /// `rtt-open`, milliseconds.
    pub rtt_open_ms: Option<u32>,
    /// `rtt-read`, milliseconds.
    pub rtt_read_ms: Option<u32>,
    /// `rtt-write`, milliseconds.
    pub rtt_write_ms: Option<u32>,
    /// `n`: `clearnet`, `tor`, `i2p`, `loki`.
    pub network: Option<String>,
    /// `N`: NIPs that it supports, in order.
    pub nips: Vec<u16>,
    /// `R`: requirements, as `auth`, `!payment`.
    pub requirements: Vec<String>,
    /// `T`: what sort of relay it is.
    pub types: Vec<String>,
    /// `s`: its software.
    pub software: Option<String>,
    /// The longest `g` that is a geohash.
    pub geohash: Option<String>,
    /// Country of the report, ISO 3166-1 alpha-3.
    pub country: Option<String>,
}

impl Report {
    /// Place in the order of reports: newer first; of one second the lowest id first, as NIP-01 has it.
    pub(crate) fn order(&self) -> impl Ord + use<'_> {
        (Reverse(self.created_at), &self.id)
    }
}

/// An address that the system's resolver gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// IPv4 or IPv6.
    pub ip: String,
    /// When, seconds since 1970.
    pub resolved_at: i64,
}

/// Who placed a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceSource {
    /// The geohash of the newest report that has one.
    Nip66,
    /// The operator's database.
    Mmdb,
}

impl PlaceSource {
    /// As it stands in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nip66 => "nip66",
            Self::Mmdb => "mmdb",
        }
    }
}

/// Where a relay stands, all of it from one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// ISO 3166-1 alpha-3.
    pub country: Option<String>,
    /// Degrees north, to four digits (11 m).
    pub lat: Option<f64>,
    /// Degrees east, to four digits.
    pub lon: Option<f64>,
    /// Who says so.
    pub source: PlaceSource,
    /// When the database was built, seconds since 1970.
    pub database_built: Option<i64>,
}

/// What is known of one relay: a record of the relay topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayDocument {
    /// URL in normal form; the record's key.
    pub url: String,
    /// Host of the URL, without brackets.
    pub host: String,
    /// Told by the host.
    pub network: Network,
    /// Who names it.
    pub sources: Sources,
    /// When the first event that names it was received, seconds since 1970, also one that its author has replaced.
    pub first_seen: i64,
    /// When the last event that names it was received, seconds since 1970, also one that its author has replaced.
    pub last_seen: i64,
    /// What authors use it for.
    pub policy: Policy,
    /// What it says of itself, if it was asked.
    pub nip11: Option<Nip11>,
    /// Limits that it claims.
    pub limits: Option<Limitation>,
    /// Its software: its own word, else the newest report's.
    pub software: Option<String>,
    /// Version of its software, by its own word.
    pub version: Option<String>,
    /// What monitors measured.
    pub rtt: RoundTrips,
    /// The newest report of each monitor, newest first, 16 at most.
    pub reports: Vec<Report>,
    /// Where its name leads, if that was asked.
    pub address: Option<Address>,
    /// Where it stands; none when nobody knows.
    pub place: Option<Place>,
}

/// Reports that are kept of a relay.
pub(crate) const REPORTS_MAX: usize = 16;

impl RelayDocument {
    /// Keeps a report unless a newer one of its monitor, or as many newer ones as are kept, are there.
    pub(crate) fn take_report(&mut self, report: Report) -> bool {
        if let Some(at) = self.reports.iter().position(|known| known.monitor == report.monitor) {
            if self.reports[at].order() <= report.order() {
                return false;
            }
            self.reports.remove(at);
        }
        let place = self.reports.partition_point(|known| known.order() < report.order());
        self.reports.insert(place, report);
        self.reports.truncate(REPORTS_MAX);
        place < REPORTS_MAX
    }

    /// Writes anew what follows from the relay's own document and from the reports.
    pub(crate) fn summarise(&mut self) {
        let own = self.nip11.as_ref().map(|nip11| nip11::read(&nip11.document)).unwrap_or_default();
        let reported = || self.reports.iter().find_map(|report| report.software.clone());
        self.software = own.software.or_else(reported);
        (self.version, self.limits) = (own.version, own.limits);
        self.sources.kind_30166 = self.reports.len() as u64;
        let measured = |report: &&Report| {
            report.rtt_open_ms.is_some() || report.rtt_read_ms.is_some() || report.rtt_write_ms.is_some()
        };
        self.rtt = RoundTrips {
            open_ms: self.median(|report| report.rtt_open_ms),
            read_ms: self.median(|report| report.rtt_read_ms),
            write_ms: self.median(|report| report.rtt_write_ms),
            reports: self.reports.iter().filter(measured).count() as u64,
        };
    }

    fn median(&self, of: fn(&Report) -> Option<u32>) -> Option<u32> {
        let mut values: Vec<u32> = self.reports.iter().filter_map(of).collect();
        values.sort_unstable();
        values.get(values.len().saturating_sub(1) / 2).copied()
    }
}
