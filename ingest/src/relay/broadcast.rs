//! The other direction: signed events to relays, and what each relay says about each of them.
//!
//! In come events, a batch at a time; out goes one [`Answer`] an event and relay. A relay that wants to know who writes
//! gets the answer to its challenge (NIP-42) where there is a key, and not before it refuses without: who publishes what
//! is nobody's business else. Events are sent twice only when refused for want of that answer, or over a connection that
//! was kept and answers nothing any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event::{Clock, Event, EventId, SecretKey};
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::error::Result;
use crate::relay::connect::{self, Socket};
use crate::relay::message::{self, Message};
use crate::relay::url::RelayUrl;
use crate::settings::USER_AGENT;

/// What can be chosen about a [`Broadcast`].
#[derive(Debug)]
pub struct BroadcastSettings {
    /// Relay URLs, `ws://` or `wss://`; spellings of one relay are merged.
    pub relays: Vec<String>,
    /// Answers relays that ask who is writing; none leaves what they refuse refused.
    pub key: Option<SecretKey>,
    /// Longest wait for a connection, and for the next word of a relay that owes answers. Default 10 seconds.
    pub timeout: Duration,
    /// `User-Agent` of the handshake.
    pub user_agent: String,
}

impl Default for BroadcastSettings {
    fn default() -> Self {
        Self { relays: Vec::new(), key: None, timeout: Duration::from_secs(10), user_agent: USER_AGENT.to_owned() }
    }
}

/// What became of one event at one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The relay has taken it.
    Accepted,
    /// The relay had it before.
    Duplicate,
    /// The relay refuses it, in its own words.
    Refused(String),
    /// Nobody knows: no connection, no answer in time, or the connection ended before it.
    Unknown(String),
}

impl Answer {
    /// Whether the relay holds the event now.
    #[must_use]
    pub const fn taken(&self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate)
    }

    fn of(accepted: bool, text: &str) -> Self {
        match accepted {
            true if text.starts_with("duplicate:") => Self::Duplicate,
            true => Self::Accepted,
            false => Self::Refused(text.to_owned()),
        }
    }
}

/// The answers of one relay, in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAnswers {
    /// URL in normal form.
    pub relay: String,
    /// One for each event of the batch.
    pub answers: Vec<Answer>,
}

/// Connections to relays that are written to, kept from batch to batch.
#[derive(Debug)]
pub struct Broadcast {
    outlets: Vec<Outlet>,
    shared: Shared,
}

#[derive(Debug)]
struct Shared {
    settings: BroadcastSettings,
    clock: Clock,
    tls: Arc<ClientConfig>,
}

impl Broadcast {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// `Config` when no relay is named or a URL cannot be.
    pub fn new(settings: BroadcastSettings, clock: Clock) -> Result<Self> {
        let urls = RelayUrl::parse_all(&settings.relays)?;
        let outlets = urls.into_iter().map(|url| Outlet { url, socket: None, challenge: None, told: false }).collect();
        Ok(Self { outlets, shared: Shared { settings, clock, tls: connect::tls()? } })
    }

    /// Sends `events` to all relays at once and waits until each has answered, or has kept silent for the time-out. What
    /// a batch holds waits in memory and in the sockets: some dozens of events are a good measure.
    pub async fn send(&mut self, events: &[Event]) -> Vec<RelayAnswers> {
        let frames: Vec<(EventId, String)> =
            events.iter().map(|event| (event.id, message::event(&event.to_json()))).collect();
        let shared = &self.shared;
        join_all(self.outlets.iter_mut().map(|outlet| outlet.send(&frames, shared))).await
    }
}

/// One relay that is written to.
#[derive(Debug)]
struct Outlet {
    url: RelayUrl,
    socket: Option<Socket>,
    /// What the relay wants signed.
    challenge: Option<String>,
    /// Whether this connection has had the answer to a challenge.
    told: bool,
}

/// What is still open in a batch.
struct Open<'a> {
    frames: HashMap<EventId, &'a str>,
    answers: HashMap<EventId, Answer>,
    /// Refused until the relay knows who writes, and in which words.
    held: HashMap<EventId, String>,
    /// The id of our answer to the challenge.
    auth: Option<EventId>,
    /// What the relay said last without being asked.
    notice: Option<String>,
}

impl<'a> Open<'a> {
    fn of(frames: &'a [(EventId, String)]) -> Self {
        Self {
            frames: frames.iter().map(|(id, frame)| (*id, frame.as_str())).collect(),
            answers: HashMap::new(),
            held: HashMap::new(),
            auth: None,
            notice: None,
        }
    }

    fn progress(&self) -> (usize, usize, bool) {
        (self.answers.len(), self.held.len(), self.auth.is_some())
    }
}

impl Outlet {
    async fn send(&mut self, frames: &[(EventId, String)], shared: &Shared) -> RelayAnswers {
        let mut open = Open::of(frames);
        let kept = self.socket.is_some();
        let mut ended = self.converse(frames, &mut open, shared).await;
        if ended.is_err() && kept && open.answers.is_empty() {
            // A relay lets go of whoever was silent for long; the next batch is no worse for it.
            self.socket = None;
            open = Open::of(frames);
            ended = self.converse(frames, &mut open, shared).await;
        }
        let why = match ended {
            Ok(()) => String::new(),
            Err(why) => {
                self.socket = None;
                match &open.notice {
                    Some(notice) => format!("{why}; its last notice: {notice}"),
                    None => why,
                }
            }
        };
        open.answers.extend(open.held.drain().map(|(id, text)| (id, Answer::Refused(text))));
        let answer = |id: &EventId| open.answers.get(id).cloned().unwrap_or_else(|| Answer::Unknown(why.clone()));
        RelayAnswers { relay: self.url.to_string(), answers: frames.iter().map(|(id, _)| answer(id)).collect() }
    }

    /// Sends everything and listens until everything is answered; else says why not.
    async fn converse(
        &mut self,
        frames: &[(EventId, String)],
        open: &mut Open<'_>,
        shared: &Shared,
    ) -> std::result::Result<(), String> {
        self.connect(shared).await?;
        for (_, frame) in frames {
            self.write(frame, shared).await?;
        }
        let deadline = || Instant::now() + shared.settings.timeout;
        let mut by = deadline();
        while open.answers.len() < open.frames.len() {
            let before = open.progress();
            let text = self.read(by, shared).await?;
            self.take(&text, open, shared).await?;
            // Chatter is no answer.
            if open.progress() != before {
                by = deadline();
            }
        }
        Ok(())
    }

    async fn connect(&mut self, shared: &Shared) -> std::result::Result<(), String> {
        if self.socket.is_none() {
            let BroadcastSettings { user_agent, timeout, .. } = &shared.settings;
            let opened = connect::connect(&self.url, &shared.tls, user_agent, *timeout).await;
            self.socket = Some(opened.map_err(|failed| failed.why)?);
            (self.challenge, self.told) = (None, false);
        }
        Ok(())
    }

    async fn write(&mut self, frame: &str, shared: &Shared) -> std::result::Result<(), String> {
        let Some(socket) = &mut self.socket else { return Err("the connection has ended".to_owned()) };
        let sent = tokio::time::timeout(shared.settings.timeout, socket.send(Frame::text(frame)));
        match sent.await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("took nothing for {:?}", shared.settings.timeout)),
        }
    }

    /// The next text of the relay.
    async fn read(&mut self, by: Instant, shared: &Shared) -> std::result::Result<String, String> {
        loop {
            let Some(socket) = &mut self.socket else { return Err("the connection has ended".to_owned()) };
            let frame = timeout_at(by, socket.next());
            match frame.await.map_err(|_| format!("no answer within {:?}", shared.settings.timeout))? {
                Some(Ok(Frame::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Frame::Close(_))) | None => return Err("the relay has closed the connection".to_owned()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    async fn take(&mut self, text: &str, open: &mut Open<'_>, shared: &Shared) -> std::result::Result<(), String> {
        match message::parse(text) {
            Ok(Message::Ok { id, accepted, text }) => self.answered(id, accepted, &text, open, shared).await,
            Ok(Message::Auth(challenge)) => {
                self.challenge = Some(challenge.into_owned());
                self.introduce(open, shared).await
            }
            Ok(Message::Notice(text)) => {
                open.notice = Some(text.into_owned());
                Ok(())
            }
            // What else a relay says concerns nobody who only writes.
            _ => Ok(()),
        }
    }

    async fn answered(
        &mut self,
        id: EventId,
        accepted: bool,
        text: &str,
        open: &mut Open<'_>,
        shared: &Shared,
    ) -> std::result::Result<(), String> {
        if open.auth == Some(id) {
            open.auth = None;
            return self.known(accepted, text, open, shared).await;
        }
        if !open.frames.contains_key(&id) || open.answers.contains_key(&id) {
            return Ok(());
        }
        let unknown = !accepted && text.starts_with("auth-required:") && shared.settings.key.is_some();
        if unknown && (!self.told || open.auth.is_some()) {
            open.held.insert(id, text.to_owned());
            return self.introduce(open, shared).await;
        }
        open.answers.insert(id, Answer::of(accepted, text));
        Ok(())
    }

    /// The relay has judged our answer to its challenge: sends again what was held back, or lets it be refused.
    async fn known(
        &mut self,
        accepted: bool,
        text: &str,
        open: &mut Open<'_>,
        shared: &Shared,
    ) -> std::result::Result<(), String> {
        let held: Vec<EventId> = open.held.drain().map(|(id, _)| id).collect();
        if !accepted {
            open.answers.extend(held.into_iter().map(|id| (id, Answer::Refused(text.to_owned()))));
            return Ok(());
        }
        for id in held {
            self.write(open.frames[&id], shared).await?;
        }
        Ok(())
    }

    /// Answers the challenge, once a connection, when the relay has refused to go on without.
    async fn introduce(&mut self, open: &mut Open<'_>, shared: &Shared) -> std::result::Result<(), String> {
        let (Some(key), Some(challenge)) = (&shared.settings.key, &self.challenge) else { return Ok(()) };
        if self.told || open.held.is_empty() {
            return Ok(());
        }
        let now_secs = shared.clock.now_ms().div_euclid(1_000);
        let auth = key.sign_auth(now_secs, self.url.text(), challenge);
        self.told = true;
        open.auth = Some(auth.id);
        self.write(&message::auth(&auth.to_json()), shared).await
    }
}
