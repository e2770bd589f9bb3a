//! Many relays at once, one task each: connect, subscribe, read, page through what is stored, come back when the
//! connection is lost. Bytes go to the verifiers as they came; nothing is believed here.
//!
//! Read in this order: `url`, `connect`, `message` (frames), `session` (one connection) with its parts `live`, `stored`
//! and `list`, `history` (what is not proven yet), `walk` (the pages, pure), `closed` (refusals, pure), `auth`, `backoff`
//! (waiting, pure); `broadcast` is the other direction, events to relays.

mod auth;
mod backoff;
mod broadcast;
mod closed;
mod connect;
mod govern;
mod history;
mod list;
mod live;
mod message;
mod session;
mod stored;
mod url;
mod walk;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use event::Clock;
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Components;
use crate::coverage::{Ledger, Line};
use crate::error::{Error, ErrorKind, Result};
use crate::intake::{Bounds, Intake};
use crate::lane::Lane;
use crate::metrics::{Counters, RelayCounters, add};
use crate::pipeline::Pipeline;
use crate::settings::NostrSettings;

pub use backoff::Backoff;
pub use broadcast::{Answer, Broadcast, BroadcastSettings, RelayAnswers};
pub(crate) use connect::tls;
use history::{History, Wanted};
use list::Compares;
use session::{End, Session};
use url::RelayUrl;

/// A session that lasted this long was healthy: the next failure waits as the first one does.
const HEALTHY: Duration = Duration::from_secs(60);
/// Kinds that a filter names one by one; a wider choice is made here instead of at the relay.
const FILTER_KINDS_MAX: usize = 2_000;

/// What all relays' tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: NostrSettings,
    /// Kinds to name in filters; none asks for all.
    pub(crate) kinds: Option<Vec<u16>>,
    pub(crate) clock: Clock,
    pub(crate) intake: Intake,
    pub(crate) counters: Arc<Counters>,
    tls: Arc<ClientConfig>,
}

/// Lands the events of many relays: verified, each id once, refused input to the rejected topic.
///
/// Runs until `shutdown`, then drains what was read. With `once` it returns as soon as everything stored has been
/// fetched from every relay and acknowledged by the log.
///
/// # Errors
/// `Config` when a relay's URL or the topics cannot be; `Unavailable` when the log fails or, with `once`, when a relay
/// was given up: what the others served is landed, the message names those that failed.
pub async fn nostr(settings: NostrSettings, components: Components, shutdown: CancellationToken) -> Result<()> {
    let urls = RelayUrl::parse_all(&settings.relays)?;
    let stop = shutdown.child_token();
    let tls = tls()?;
    let mut pipeline = Pipeline::open(&settings.intake, &components, stop.clone()).await?;
    let bounds = Bounds {
        room_kib: u32::try_from(settings.room_bytes / 1_024).unwrap_or(u32::MAX).max(1),
        spill_dir: settings.spill_dir.clone(),
        spill_bytes: settings.spill_bytes_max,
        lanes: urls.len(),
    };
    let shared = Arc::new(Shared {
        kinds: settings.intake.kinds.list(FILTER_KINDS_MAX),
        clock: components.clock.clone(),
        intake: pipeline.intake(&components.counters, bounds),
        counters: Arc::clone(&components.counters),
        tls,
        settings,
    });
    let mut tasks = JoinSet::new();
    for url in urls {
        let relay = Relay::new(url, &shared, &pipeline.ledger);
        let stop = stop.clone();
        tasks.spawn(async move { relay.follow(&stop).await });
    }
    let mut governing = JoinSet::new();
    governing.spawn(govern::govern(shared.intake.overflow(), Arc::clone(&shared.counters)));
    drop(shared);
    let mut given_up = Vec::new();
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(why)) => given_up.push(why),
            Err(panic) => {
                result = Err(Error::new(ErrorKind::Internal, "a relay's task panicked").with_source(panic));
                stop.cancel();
            }
        }
    }
    governing.shutdown().await;
    pipeline.finish().await.and(result)?;
    given_up.sort();
    match given_up.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Unavailable, given_up.join("; "))),
    }
}

/// A relay's URL in the one spelling that headers, counters and the coverage ledger use.
///
/// # Errors
/// `Config` when it is no `ws://` or `wss://` URL.
pub fn normal_relay_url(text: &str) -> Result<String> {
    RelayUrl::parse(text).map(|url| url.to_string())
}

/// One relay over all its sessions.
pub(crate) struct Relay {
    pub(crate) url: RelayUrl,
    pub(crate) counters: Arc<RelayCounters>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) history: History,
    /// Whether it compares sets (NIP-77).
    pub(crate) compares: Compares,
    /// When each look back of the settings is due.
    pub(crate) due: Vec<Instant>,
    /// Its live subscription was deaf without a condition: ask for all since 1970.
    pub(crate) live_with_condition: bool,
    /// When the live subscription was lost, seconds since 1970, unless it is on or never was.
    pub(crate) not_live_since: Option<i64>,
    /// The relay refused a list of kinds: ask for all, and choose here.
    pub(crate) without_kinds: bool,
    /// The relay refused `limit:0`: ask for one stored event.
    pub(crate) without_limit_0: bool,
}

impl Relay {
    fn new(url: RelayUrl, shared: &Arc<Shared>, ledger: &Arc<Ledger>) -> Self {
        let settings = &shared.settings;
        let wanted = Wanted {
            since: settings.since.map(|time| time.micros().div_euclid(1_000_000)),
            // The end of a range is not in it.
            until: settings.until.map(|time| (time.micros() - 1).div_euclid(1_000_000)),
            overlap_secs: settings.overlap.micros() / 1_000_000,
            limit: settings.page_events_max,
            refetch: settings.refetch,
        };
        let line = Line { relay: Arc::clone(url.text()), kinds: settings.intake.kinds.to_string() };
        let counters = shared.counters.relay(url.text());
        Self {
            lane: shared.intake.lane(&counters),
            counters,
            history: History::new(ledger, line, wanted),
            due: settings.reconcile.iter().map(|look| Instant::now() + look.every).collect(),
            shared: Arc::clone(shared),
            url,
            compares: Compares::default(),
            live_with_condition: false,
            not_live_since: None,
            without_kinds: false,
            without_limit_0: false,
        }
    }

    /// Session after session until `stop`, or, with `once`, until everything stored is fetched or the relay is given
    /// up; then says why.
    async fn follow(mut self, stop: &CancellationToken) -> std::result::Result<(), String> {
        let (once, attempts_max) = (self.shared.settings.once, self.shared.settings.attempts_max);
        let (mut failures, mut fruitless) = (0_u32, 0_u32);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.lane.until(false) => {}
            }
            let begun = Instant::now();
            let (end, progress) = self.session(stop).await;
            failures = if begun.elapsed() >= HEALTHY { 1 } else { failures + 1 };
            let (why, wait) = match end {
                End::Done | End::Stopped => return Ok(()),
                End::Closed => continue,
                End::Lost { why, wait } => (why, wait.max(self.jittered(failures))),
                End::Refused { why, .. } if once => return Err(self.given_up(&why)),
                End::Refused { why, wait } => (why, wait),
            };
            fruitless = if progress { 0 } else { fruitless + 1 };
            if once && fruitless >= attempts_max {
                return Err(self.given_up(&why));
            }
            tracing::warn!(relay = %self.url, why, wait_ms = wait.as_millis(), "relay lost, will be tried again");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn session(&mut self, stop: &CancellationToken) -> (End, bool) {
        let NostrSettings { user_agent, connect_timeout, .. } = &self.shared.settings;
        let connecting = connect::connect(&self.url, &self.shared.tls, user_agent, *connect_timeout);
        let socket = tokio::select! {
            () = stop.cancelled() => return (End::Stopped, false),
            socket = connecting => socket,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(no) => return (End::Lost { why: no.why, wait: no.retry_after.unwrap_or_default() }, false),
        };
        tracing::info!(relay = %self.url, "connected");
        add(&self.counters.connects, 1);
        self.counters.connected.store(true, Relaxed);
        let counters = Arc::clone(&self.counters);
        let ended = Box::pin(Session::new(self, socket).run(stop)).await;
        counters.connected.store(false, Relaxed);
        ended
    }

    /// The wait after so many failures in a row.
    pub(crate) fn jittered(&self, failures: u32) -> Duration {
        self.shared.settings.backoff.delay(failures, rand::random())
    }

    fn given_up(&self, why: &str) -> String {
        format!("could not fetch everything that relay `{}` has stored: {why}", self.url)
    }
}
