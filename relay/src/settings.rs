//! Settings of a relay: plain data with defaults; nothing here reads files or clocks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Faults;
use crate::generate::Generate;

/// What a relay serves, on which address, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Files of events, one JSON object a line; `.gz` and `.zst` are read as such. Default none.
    pub events: Vec<PathBuf>,
    /// Live traffic to make up and sign. Default none.
    pub generate: Option<Generate>,
    /// Whether the rules for replaceable, addressable, ephemeral, deleted and expired events hold, and signatures in
    /// files are checked. Without it every event is served as it stands, like an archive. Default `false`.
    pub nip01: bool,
    /// Takes events only from clients that have said who they are (NIP-42). Default `false`.
    pub auth_to_publish: bool,
    /// Stored events a filter without `limit` gets; 0 = all. Default 500, as strfry has it.
    pub default_limit: usize,
    /// Stored events a filter gets at most, whatever its `limit`; 0 = no cap. Default 500, as strfry has it.
    pub max_limit: usize,
    /// Whether sets are compared (NIP-77). Default `true`.
    pub compares: bool,
    /// Subscriptions of one connection at most. Default 200, as strfry has it.
    pub subscriptions_max: usize,
    /// Open connections at most; further ones are closed at once. Default 1,024.
    pub connections_max: usize,
    /// Live events that may wait for a slow reader before it is disconnected. Default 16,384.
    pub live_waiting_max: usize,
    /// Live events (generated or published) that are kept as stored; the oldest arrivals give way. Events from files
    /// and generated history stay. Default 200,000.
    pub live_kept_max: usize,
    /// Length of a message from a client at most, bytes. Default 2 MiB: an event of 1 MiB with escapes.
    pub message_bytes_max: usize,
    /// Misbehaviour on demand. Default none.
    pub faults: Faults,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            events: Vec::new(),
            generate: None,
            nip01: false,
            auth_to_publish: false,
            default_limit: 500,
            max_limit: 500,
            compares: true,
            subscriptions_max: 200,
            connections_max: 1_024,
            live_waiting_max: 16_384,
            live_kept_max: 200_000,
            message_bytes_max: 2 << 20,
            faults: Faults::default(),
        }
    }
}

impl Settings {
    /// Stored events that a filter asking for `limit` gets at most.
    pub(crate) fn limit(&self, limit: Option<usize>) -> usize {
        let unless_zero = |cap: usize| if cap == 0 { usize::MAX } else { cap };
        limit.unwrap_or(unless_zero(self.default_limit)).min(unless_zero(self.max_limit))
    }
}

/// How long a graceful end waits for connections to take their close frame.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(1);
