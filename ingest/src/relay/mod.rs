//! Many relays at once, one task each: connect, subscribe, read, page through what is stored, come back when the
//! connection is lost. Bytes go to the verifiers as they came; nothing is believed here.
//!
//! Read in this order: `url`, `roster` (which relays), `connect`, `message` (frames), `session` (one connection) with its parts `live`, `stored`
//! and `list`, `history` (what is not proven yet), `walk` (the pages, pure), `closed` (refusals, pure), `auth`, `pace`
//! and `backoff` (waiting, pure); `broadcast` is the other direction, events to relays.

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
mod pace;
mod roster;
mod session;
mod stored;
mod url;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use event::{Clock, Table};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Components;
use crate::coverage::{Ledger, Line};
use crate::directory::Limitation;
use crate::error::{Error, ErrorKind, Result};
use crate::intake::{Bounds, Intake};
use crate::lane::Lane;
use crate::metrics::{Counters, RelayCounters, add};
use crate::nip11::{self, Asker};
use crate::pipeline::Pipeline;
use crate::settings::NostrSettings;

pub use backoff::Backoff;
pub use broadcast::{Answer, Broadcast, BroadcastSettings, RelayAnswers};
pub(crate) use connect::{NoConnection, Socket, open, tls};
use history::{History, Wanted};
use list::Compares;
pub(crate) use message::created_at;
use pace::Pace;
pub(crate) use roster::Listed;
use roster::Roster;
use session::{End, Session};
pub(crate) use url::RelayUrl;

/// A session that lasted this long was healthy: the next failure waits as the first one does.
pub(crate) const HEALTHY: Duration = Duration::from_secs(60);
/// Kinds that a filter names one by one; a wider choice is made here instead of at the relay.
const FILTER_KINDS_MAX: usize = 2_000;
/// What a relay says of itself holds for a day.
const INFORMATION: Duration = Duration::from_secs(24 * 3_600);
/// Subscriptions that a comparison of sets wants beside the live one: the list, and requests for what it names.
const COMPARING_SUBS: u64 = 6;
/// Bytes of a request beside its kinds, at most.
const REQUEST_BYTES: u64 = 200;
/// Bytes of a kind in a filter, at most.
const KIND_BYTES: u64 = 6;

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
    /// Asks relays what they say of themselves, unless that is not wanted.
    asker: Option<Asker>,
}

/// Lands the events of many relays: verified, each id once, refused input to the rejected topic.
///
/// Runs until `shutdown`, then drains what was read. With `once` it returns as soon as everything stored has been
/// fetched from every relay and acknowledged by the log. As a member of a group it follows the relays that fall to it.
///
/// # Errors
/// `Config` when a relay's URL or the topics cannot be; `Unavailable` when the log fails or, with `once`, when a relay
/// was given up: what the others served is landed, the message names those that failed. `Fenced` when another process
/// or group took over.
pub async fn nostr(settings: NostrSettings, components: Components, shutdown: CancellationToken) -> Result<()> {
    if settings.intake.table() != Table::Events {
        let message = format!("`{}` is a topic of the market's frames; relays have none", settings.intake.topic);
        return Err(Error::new(ErrorKind::Config, message));
    }
    let roster = Roster::open(&settings.relays, settings.relay_file.as_deref()).await?;
    if settings.once && roster.listed().relays.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no relay is to be followed: all are paused, or none is named"));
    }
    let (tell, listed) = watch::channel(roster.listed().clone());
    let mut telling = JoinSet::new();
    if settings.relay_file.is_some() && !settings.once {
        telling.spawn(roster.tell(tell));
    }
    if let Some(group) = settings.group.clone() {
        return crate::group::run(settings, group, listed, components, shutdown).await;
    }
    let stop = shutdown.child_token();
    let (tls, asker) = (tls()?, asker(&settings)?);
    let mut pipeline = Pipeline::open(&settings.intake, &components, stop.clone()).await?;
    let bounds = Bounds::of(&settings, 1, listed.borrow().relays.len());
    let intake = pipeline.intake(&components.counters, bounds);
    let shared = Shared::new(settings, &components, intake, tls, asker);
    let followed = follow(listed, |_| true, shared, &pipeline.ledger, &stop).await;
    let given_up = pipeline.finish().await.and(followed)?;
    match given_up.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Unavailable, given_up.join("; "))),
    }
}

/// Follows those of the listed relays that are `mine` until `stop` or, with `once`, to their end; what is to be said of
/// those that were given up. Who is added or taken out meanwhile is followed, or not any more.
///
/// # Errors
/// `Internal` when a task panicked.
pub(crate) async fn follow(
    mut listed: watch::Receiver<Listed>,
    mine: impl Fn(&RelayUrl) -> bool,
    shared: Shared,
    ledger: &Arc<Ledger>,
    stop: &CancellationToken,
) -> Result<Vec<String>> {
    let mut governing = JoinSet::new();
    governing.spawn(govern::govern(shared.intake.overflow(), Arc::clone(&shared.counters)));
    let once = shared.settings.once;
    let mut following =
        Following { shared: Arc::new(shared), ledger, stop, tasks: JoinSet::new(), stops: HashMap::new() };
    let (mut given_up, mut result, mut may_change) = (Vec::new(), Ok(()), !once);
    following.change(&listed.borrow_and_update().relays, &mine);
    while !(following.tasks.is_empty() && (once || stop.is_cancelled())) {
        tokio::select! {
            Some(ended) = following.tasks.join_next() => match ended {
                Ok((url, outcome)) => {
                    following.stops.remove(&url);
                    given_up.extend(outcome.err());
                }
                Err(panic) => {
                    result = Err(Error::new(ErrorKind::Internal, "a relay's task panicked").with_source(panic));
                    stop.cancel();
                }
            },
            changed = listed.changed(), if may_change => may_change = changed.is_ok(),
            () = stop.cancelled(), if following.tasks.is_empty() => {}
        }
        // One that was taken out and is back begins again once its last session has ended.
        if !once && !stop.is_cancelled() {
            following.change(&listed.borrow_and_update().relays, &mine);
        }
    }
    governing.shutdown().await;
    given_up.sort();
    result.map(|()| given_up)
}

/// Relays and the tasks that follow them.
struct Following<'a> {
    shared: Arc<Shared>,
    ledger: &'a Arc<Ledger>,
    stop: &'a CancellationToken,
    tasks: JoinSet<(RelayUrl, std::result::Result<(), String>)>,
    stops: HashMap<RelayUrl, CancellationToken>,
}

impl Following<'_> {
    /// Begins to follow who is wanted, and tells who is not to end.
    fn change(&mut self, listed: &[RelayUrl], mine: impl Fn(&RelayUrl) -> bool) {
        let wanted: HashSet<&RelayUrl> = listed.iter().filter(|url| mine(url)).collect();
        for (url, stop) in self.stops.iter().filter(|(url, stop)| !wanted.contains(url) && !stop.is_cancelled()) {
            tracing::info!(relay = %url, "relay is not followed any more");
            stop.cancel();
        }
        for url in listed.iter().filter(|url| wanted.contains(url)) {
            if !self.stops.contains_key(url) {
                let (relay, stop) = (Relay::new(url.clone(), &self.shared, self.ledger), self.stop.child_token());
                self.stops.insert(url.clone(), stop.clone());
                self.tasks.spawn(async move { (relay.url.clone(), relay.follow(&stop).await) });
            }
        }
    }
}

/// Asks relays for their information, unless that is not wanted.
///
/// # Errors
/// `Internal` when there is no usable TLS.
pub(crate) fn asker(settings: &NostrSettings) -> Result<Option<Asker>> {
    // The operator has named these relays, so they may be anywhere.
    settings.nip11.then(|| Asker::new(&settings.user_agent, true)).transpose()
}

impl Shared {
    pub(crate) fn new(
        settings: NostrSettings,
        components: &Components,
        intake: Intake,
        tls: Arc<ClientConfig>,
        asker: Option<Asker>,
    ) -> Self {
        Self {
            kinds: settings.intake.kinds.list(FILTER_KINDS_MAX),
            clock: components.clock.clone(),
            intake,
            counters: Arc::clone(&components.counters),
            tls,
            asker,
            settings,
        }
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
    /// How fast it is asked.
    pub(crate) pace: Pace,
    /// When it was last asked what it says of itself.
    informed_at: Option<Instant>,
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
            pace: Pace::new(settings.requests_per_sec_max, Instant::now()),
            informed_at: None,
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
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.inform() => {}
        }
        let counters = Arc::clone(&self.counters);
        let ended = Box::pin(Session::new(self, socket).run(stop)).await;
        counters.connected.store(false, Relaxed);
        ended
    }

    /// Asks the relay what it says of itself, once a day, and keeps to its limits.
    async fn inform(&mut self) {
        let known = self.informed_at.is_some_and(|at| at.elapsed() < INFORMATION);
        let Some(asker) = self.shared.asker.as_ref().filter(|_| !known) else { return };
        self.informed_at = Some(Instant::now());
        match asker.ask(self.url.text()).await {
            Ok(document) => self.keep_to(&nip11::read(&document).limits.unwrap_or_default()),
            // Many relays say nothing, and what they allow is learned from their answers anyway.
            Err(why) => tracing::debug!(relay = %self.url, why, "the relay does not say what its limits are"),
        }
    }

    /// Limits that a relay names are kept to. What it really gives may be less still, which its answers show.
    fn keep_to(&mut self, limits: &Limitation) {
        tracing::debug!(relay = %self.url, ?limits, "limits that the relay names");
        if let Some(events) = limits.max_limit {
            self.history.limit_pages(usize::try_from(events).unwrap_or(usize::MAX));
        }
        if limits.max_subscriptions.is_some_and(|most| most < COMPARING_SUBS) {
            self.compares = Compares::No;
        }
        let kinds = self.shared.kinds.as_ref().map_or(0, Vec::len) as u64;
        if limits.max_message_length.is_some_and(|bytes| kinds * KIND_BYTES + REQUEST_BYTES > bytes) {
            self.without_kinds = true;
        }
    }

    /// The wait after so many failures in a row.
    pub(crate) fn jittered(&self, failures: u32) -> Duration {
        self.shared.settings.backoff.delay(failures, rand::random())
    }

    fn given_up(&self, why: &str) -> String {
        format!("could not fetch everything that relay `{}` has stored: {why}", self.url)
    }
}
