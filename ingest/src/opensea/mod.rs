//! OpenSea's stream: channels of a market's events over a websocket (Phoenix), followed for as long as it takes. Frames go
//! to the same door as a relay's, whole; the channels' own messages stay here.
//!
//! The stream promises little: what is sent while nobody listens is not sent again, and there is nothing to ask
//! afterwards. So this side says at which times it listened, and at which it did not ([`channel`]).
//!
//! Read in this order: `endpoint` (where, and the key), `frame` (Phoenix), `channel`, `session` (one connection).

mod channel;
mod endpoint;
mod frame;
mod session;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use event::Clock;
use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Components;
use crate::coverage::Ledger;
use crate::error::{Error, ErrorKind, Result};
use crate::intake::{Bounds, Intake};
use crate::lane::Lane;
use crate::metrics::{Counters, add};
use crate::pipeline::Pipeline;
use crate::relay::{HEALTHY, NoConnection, open, tls};
use crate::settings::OpenSeaSettings;

use channel::Channel;
pub use endpoint::{ApiKey, Endpoint};
use session::{End, Session};

/// Longest frame that is read, as of relays; what is longer ends the connection. What the topic does not take is less,
/// and refused by itself.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// How often in a row a server that let us in before may refuse us before the run ends: it may be in trouble itself.
const REFUSALS_MAX: u32 = 5;
/// The channel of all collections.
const ALL: &str = "*";

/// Follows OpenSea's stream: frames with an event go to the raw topic whole, each event once, broken ones to the rejected
/// topic, and what may have been missed to the gap topic.
///
/// Runs until `shutdown`, then drains what was read.
///
/// # Errors
/// `Config` when the topics cannot be, a slug is none, or the server refuses the key or every channel; `Unavailable` when
/// the log fails; `Fenced` when another process took over.
pub async fn opensea(settings: OpenSeaSettings, components: Components, shutdown: CancellationToken) -> Result<()> {
    let topics = topics(&settings)?;
    if settings.key.is_none() && settings.endpoint.wants_key() {
        return Err(Error::new(ErrorKind::Config, format!("`{}` wants an API key", settings.endpoint)));
    }
    let (stop, tls) = (shutdown.child_token(), tls()?);
    let mut pipeline = Pipeline::open(&settings.intake, &components, stop.clone()).await?;
    let bounds = Bounds {
        room_kib: u32::try_from(settings.room_bytes / 1_024).unwrap_or(u32::MAX).max(1),
        spill_dir: settings.spill_dir.clone(),
        spill_bytes: settings.spill_bytes_max,
        lanes: 1,
        asks_for_stored: false,
    };
    let intake = pipeline.intake(&components.counters, bounds);
    let follower = Follower::new(settings, &components, intake, tls, &pipeline.ledger, topics);
    let followed = follower.follow(&stop).await;
    pipeline.finish().await.and(followed)
}

/// Channels that are wanted, each once: those of the collections, and that of all where it is wanted.
fn topics(settings: &OpenSeaSettings) -> Result<Vec<String>> {
    let all = settings.all_collections || settings.collections.is_empty();
    let named = settings.collections.iter().map(|slug| slug.trim());
    let mut topics: Vec<String> = Vec::new();
    for slug in all.then_some(ALL).into_iter().chain(named) {
        let fits = slug == ALL || !slug.is_empty() && slug.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        if !fits {
            let message = format!("`{slug}` is no collection's slug, which is the last part of its address on OpenSea");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let topic = format!("collection:{slug}");
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    Ok(topics)
}

/// The stream over all its connections.
struct Follower {
    settings: OpenSeaSettings,
    clock: Clock,
    intake: Intake,
    lane: Arc<Lane>,
    counters: Arc<Counters>,
    tls: Arc<ClientConfig>,
    channels: Vec<Channel>,
    /// The server has ever let us into a channel.
    let_in: bool,
    /// How often it has refused us since.
    refusals: u32,
}

impl Follower {
    fn new(
        settings: OpenSeaSettings,
        components: &Components,
        intake: Intake,
        tls: Arc<ClientConfig>,
        ledger: &Arc<Ledger>,
        topics: Vec<String>,
    ) -> Self {
        let (relay, clock) = (settings.endpoint.shown(), components.clock.clone());
        let now = clock.now_ms().div_euclid(1_000);
        let channels = topics.into_iter().map(|topic| Channel::new(topic, relay, ledger, now)).collect();
        let lane = intake.lane(&components.counters.relay(relay));
        let counters = Arc::clone(&components.counters);
        Self { settings, clock, intake, lane, counters, tls, channels, let_in: false, refusals: 0 }
    }

    /// Connection after connection until `stop`, or until the server has refused us for good.
    async fn follow(mut self, stop: &CancellationToken) -> Result<()> {
        if self.settings.endpoint.is_plain() {
            tracing::warn!(relay = %self.settings.endpoint, "the key travels in plain text: wss:// keeps it from others");
        }
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let end = self.session(stop).await;
            failures = if begun.elapsed() >= HEALTHY { 1 } else { failures + 1 };
            let (why, wait) = match end {
                End::Stopped => return Ok(()),
                End::Lost { why, wait } => (why, wait.max(self.jittered(failures))),
                End::Refused(why) => (self.may_try_again(why)?, self.settings.backoff.max),
            };
            tracing::warn!(relay = %self.settings.endpoint, why, wait_ms = wait.as_millis(), "stream lost, will be tried again");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// A server that never let us in is not asked again, and one that did a few times.
    fn may_try_again(&mut self, why: String) -> Result<String> {
        self.refusals += 1;
        if self.let_in && self.refusals < REFUSALS_MAX {
            return Ok(why);
        }
        let key = self.settings.key.as_ref().map_or("no key was given", |key| key.origin());
        let message = format!("`{}` does not let us in: {why}; the key is that of {key}", self.settings.endpoint);
        Err(Error::new(ErrorKind::Config, message))
    }

    async fn session(&mut self, stop: &CancellationToken) -> End {
        let url = match self.settings.endpoint.with_key(self.settings.key.as_ref()) {
            Ok(url) => url,
            Err(error) => return End::lost(error.to_string()),
        };
        let connecting =
            open(&url, &self.tls, &self.settings.user_agent, self.settings.connect_timeout, FRAME_BYTES_MAX);
        let socket = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            socket = connecting => socket,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(no) => return self.not_connected(no),
        };
        tracing::info!(relay = %self.settings.endpoint, "connected");
        let counters = Arc::clone(&self.lane.counters);
        add(&counters.connects, 1);
        counters.connected.store(true, Relaxed);
        let end = Box::pin(Session::new(self, socket).run(stop)).await;
        counters.connected.store(false, Relaxed);
        end
    }

    fn not_connected(&self, no: NoConnection) -> End {
        match no.status {
            Some(status @ (401 | 403)) => End::Refused(format!("the handshake is answered with http status {status}")),
            Some(status) => End::Lost {
                why: format!("the handshake is answered with http status {status}"),
                wait: no.retry_after.unwrap_or_default(),
            },
            None => End::lost(self.redacted(&no.why)),
        }
    }

    /// The server has let us into a channel.
    const fn was_let_in(&mut self) {
        (self.let_in, self.refusals) = (true, 0);
    }

    /// The wait after so many failures in a row.
    fn jittered(&self, failures: u32) -> Duration {
        self.settings.backoff.delay(failures, rand::random())
    }

    fn now_secs(&self) -> i64 {
        self.clock.now_ms().div_euclid(1_000)
    }

    fn intake_counters(&self) -> &Counters {
        &self.counters
    }

    /// What others said, without the key and in one line.
    fn redacted(&self, text: &str) -> String {
        self.settings.key.as_ref().map_or_else(|| text.to_owned(), |key| key.redact(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(collections: &[&str], all_collections: bool) -> Result<Vec<String>> {
        let collections = collections.iter().map(|&slug| slug.to_owned()).collect();
        topics(&OpenSeaSettings { collections, all_collections, ..OpenSeaSettings::default() })
    }

    #[test]
    fn collections_alone_or_beside_all() {
        assert_eq!(wanted(&[], false).expect("all"), ["collection:*"]);
        assert_eq!(wanted(&["apes", " punks", "apes"], false).expect("two"), ["collection:apes", "collection:punks"]);
        assert_eq!(wanted(&["apes"], true).expect("both"), ["collection:*", "collection:apes"]);
        assert_eq!(wanted(&["*", "apes"], false).expect("both"), ["collection:*", "collection:apes"]);
        for slug in ["", "a b", "https://opensea.io/collection/apes", "a\"b"] {
            assert!(wanted(&[slug], false).is_err(), "{slug}");
        }
    }
}
