//! What can be chosen about a run: plain data with defaults. Components (log, clock) are passed beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event::layout::{NOSTR_EVENT_TOPIC, OPENSEA_RAW_TOPIC};
use event::{EventTime, Limits, SecretKey, Span, Table};

use crate::kinds::Kinds;
use crate::opensea::{ApiKey, Endpoint};
use crate::relay::Backoff;

/// What relays see as the `User-Agent` of whoever gives none.
pub(crate) const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// What holds for every source: where events go, and what is believed.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// Raw topic; refused input goes to `<topic>.rejected`. Both are created where they do not exist.
    pub topic: String,
    /// What the topic holds: events, or frames of the market. None is what its name says, and events where that says
    /// nothing. Default none.
    pub table: Option<Table>,
    /// Refuse to take the raw topic over from a process that ingests into it, or was cut off doing so. Default false: a
    /// service that is started anew takes over from itself.
    pub if_free: bool,
    /// Partitions of the raw topic, if it has to be created. Default 4.
    pub partitions: i32,
    /// Keep a record of every delivery of an event by a relay, in [`event::layout::sighting_topic`]; of relays only.
    /// Default false.
    pub sightings: bool,
    /// Kinds that are kept; the others are counted as filtered. Default all.
    pub kinds: Kinds,
    /// How far an event may be dated ahead of its receipt; none switches the rule off. Default 15 minutes.
    pub max_future: Option<Span>,
    /// Sizes beyond which an event is refused.
    pub limits: Limits,
    /// Threads that verify; 0 means one for each processor. Default 0.
    pub verifiers: usize,
    /// Where the index of known ids lies, in a directory called after the topic; no two processes share one. None keeps
    /// ids in memory alone, so that an event is taken for new once it is forgotten. Default none.
    pub ids_dir: Option<PathBuf>,
    /// Ids kept in memory to know copies by; at least half as many of the newest are always held. Default 10 million,
    /// about 280 MB when full; with an index 1 million does.
    pub dedup_ids_max: usize,
    /// Without an index: newest records of the raw topic whose ids are read back at start. Default 2 million.
    pub dedup_replay_max: u64,
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self {
            topic: NOSTR_EVENT_TOPIC.to_owned(),
            table: None,
            if_free: false,
            partitions: 4,
            sightings: false,
            kinds: Kinds::all(),
            max_future: Some(Span::from_secs(15 * 60)),
            limits: Limits::default(),
            verifiers: 0,
            ids_dir: None,
            dedup_ids_max: 10_000_000,
            dedup_replay_max: 2_000_000,
        }
    }
}

impl IntakeSettings {
    /// What the raw topic holds.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table.unwrap_or_else(|| Table::of_topic(&self.topic))
    }

    /// How many threads verify.
    pub(crate) fn verifier_threads(&self) -> usize {
        match self.verifiers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            chosen => chosen,
        }
    }
}

/// A place among several processes that share the relays of one raw topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Name of the group; all its members have the same raw topic and the same relays.
    pub name: String,
    /// Silence after which a member counts as gone and others take over from it. Default 20 seconds.
    pub session_timeout: Duration,
}

impl GroupSettings {
    /// The defaults, for the group of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), session_timeout: Duration::from_secs(20) }
    }
}

/// A look at what a relay has stored, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconcile {
    /// Time between two looks.
    pub every: Duration,
    /// How far back it reaches; none is everything that is wanted.
    pub back: Option<Span>,
}

/// Settings of [`crate::nostr`].
#[derive(Clone, Debug)]
pub struct NostrSettings {
    /// Relay URLs, `ws://` or `wss://`; spellings of one relay are merged.
    pub relays: Vec<String>,
    /// A file of more of them, a line each, with `paused` behind those that are not to be followed now; it is read again
    /// when it has changed, unless `once`. Default none.
    pub relay_file: Option<PathBuf>,
    /// Where events go, and what is believed.
    pub intake: IntakeSettings,
    /// Share the relays with the other members of a group; on Kafka only, and not with `once`. Default none.
    pub group: Option<GroupSettings>,
    /// Return once everything stored has been fetched from every relay and published. Default false.
    pub once: bool,
    /// With `once`: sessions in a row without progress after which a relay is given up. Default 5.
    pub attempts_max: u32,
    /// Waiting times between sessions.
    pub backoff: Backoff,
    /// Events asked for in one page of stored events; less where a relay shows that it is too much. Default 500.
    pub page_events_max: usize,
    /// How far behind the previous session's start stored events are asked for again after a reconnect: relays get
    /// events late, gift wraps are dated up to two days back. Default 3 days.
    pub overlap: Span,
    /// How often what a relay has stored lately is asked for once more although its live subscription stands: relays
    /// drop live events without a word. Default: two hours back every 15 minutes, three days every 6 hours, everything
    /// every week.
    pub reconcile: Vec<Reconcile>,
    /// Stored events are wanted from this time on; none is the beginning. What is live comes whatever its date.
    pub since: Option<EventTime>,
    /// Stored events are wanted before this time; none is now.
    pub until: Option<EventTime>,
    /// Ask for what is proven to be there as well. Default false.
    pub refetch: bool,
    /// Memory for events between their sockets and the log, bytes; one relay of many has a quarter of it at most. Default
    /// 128 MiB.
    pub room_bytes: u64,
    /// Where arrivals wait that find no room in memory, in files without a name; none means that their sockets wait.
    /// Default none.
    pub spill_dir: Option<PathBuf>,
    /// Bytes that may wait there; one relay of many has a quarter of it at most. Default 1 GiB.
    pub spill_bytes_max: u64,
    /// Time for TCP, TLS and the WebSocket handshake. Default 15 seconds.
    pub connect_timeout: Duration,
    /// Longest silence within a page of stored events. Default 30 seconds.
    pub idle_timeout: Duration,
    /// Time between pings. Default 30 seconds.
    pub ping_interval: Duration,
    /// Silence after a ping that means the connection is half-open. Default 20 seconds.
    pub pong_timeout: Duration,
    /// Says who we are to relays that let nobody else read (NIP-42); none leaves them.
    pub auth_key: Option<Arc<SecretKey>>,
    /// `User-Agent` of the handshake; put a contact into it.
    pub user_agent: String,
    /// Ask each relay once a day what it says of itself (NIP-11), and keep to the limits that it names. Default true.
    pub nip11: bool,
    /// Requests a second that a relay is asked at most; five seconds' worth may follow each other at once. A relay that
    /// answers `rate-limited:` is asked half as often, and twice as often again after ten minutes without a complaint.
    /// At least 1. Default 10.
    pub requests_per_sec_max: u32,
}

impl Default for NostrSettings {
    fn default() -> Self {
        Self {
            relays: Vec::new(),
            relay_file: None,
            intake: IntakeSettings::default(),
            group: None,
            once: false,
            attempts_max: 5,
            backoff: Backoff::default(),
            page_events_max: 500,
            overlap: Span::from_secs(3 * 24 * 3600),
            reconcile: vec![
                Reconcile { every: Duration::from_secs(15 * 60), back: Some(Span::from_secs(2 * 3600)) },
                Reconcile { every: Duration::from_secs(6 * 3600), back: Some(Span::from_secs(3 * 24 * 3600)) },
                Reconcile { every: Duration::from_secs(7 * 24 * 3600), back: None },
            ],
            since: None,
            until: None,
            refetch: false,
            room_bytes: 128 << 20,
            spill_dir: None,
            spill_bytes_max: 1 << 30,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
            auth_key: None,
            user_agent: USER_AGENT.to_owned(),
            nip11: true,
            requests_per_sec_max: 10,
        }
    }
}

/// Settings of [`crate::opensea()`].
#[derive(Clone, Debug)]
pub struct OpenSeaSettings {
    /// Which server. Default OpenSea's stream of all main chains.
    pub endpoint: Endpoint,
    /// The key to it; the stream of test chains wants none. Default none.
    pub key: Option<ApiKey>,
    /// Slugs of collections whose channels are joined. Default none.
    pub collections: Vec<String>,
    /// Join the channel of all collections as well; where no collection is named it is joined anyway. Default false.
    pub all_collections: bool,
    /// Where frames go.
    pub intake: IntakeSettings,
    /// Waiting times between connections, and between joins that fail.
    pub backoff: Backoff,
    /// Memory for frames between the socket and the log, bytes. Default 128 MiB.
    pub room_bytes: u64,
    /// Where frames wait that find no room in memory, in files without a name; none means that the socket waits.
    /// Default none.
    pub spill_dir: Option<PathBuf>,
    /// Bytes that may wait there. Default 1 GiB.
    pub spill_bytes_max: u64,
    /// Time for TCP, TLS and the WebSocket handshake. Default 15 seconds.
    pub connect_timeout: Duration,
    /// Time for the answer to a join. Default 10 seconds.
    pub join_timeout: Duration,
    /// Time between heartbeats; Phoenix closes a connection without one for a minute. Default 25 seconds.
    pub heartbeat_interval: Duration,
    /// Time for the answer to a heartbeat; without one the connection is half-open. Default 20 seconds.
    pub reply_timeout: Duration,
    /// `User-Agent` of the handshake; put a contact into it.
    pub user_agent: String,
}

impl Default for OpenSeaSettings {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::main(),
            key: None,
            collections: Vec::new(),
            all_collections: false,
            // One verifier, so that the order of the frames stays; reading one costs a fraction of a signature.
            intake: IntakeSettings {
                topic: OPENSEA_RAW_TOPIC.to_owned(),
                table: Some(Table::Market),
                verifiers: 1,
                ..IntakeSettings::default()
            },
            backoff: Backoff::default(),
            room_bytes: 128 << 20,
            spill_dir: None,
            spill_bytes_max: 1 << 30,
            connect_timeout: Duration::from_secs(15),
            join_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(25),
            reply_timeout: Duration::from_secs(20),
            user_agent: USER_AGENT.to_owned(),
        }
    }
}

/// Settings of [`crate::file()`].
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// JSON lines or JSON arrays of events, plain, gzip or zstd; `-` is standard input.
    pub path: PathBuf,
    /// What stands in the records' `relay` header; none means the path.
    pub label: Option<String>,
    /// Where events go, and what is believed.
    pub intake: IntakeSettings,
    /// Bytes of a line beyond which it is refused without being held whole. Default 16 MiB.
    pub line_bytes_max: usize,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { path: PathBuf::from("-"), label: None, intake: IntakeSettings::default(), line_bytes_max: 16 << 20 }
    }
}
