//! One connection to one relay: a live subscription, then page after page of what is stored, until either side ends
//! it. Owns the socket and its timers; reads without pause, and waits only for the verifiers' queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event::{EventId, Reason, Rejection};
use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;

use crate::intake::NotTaken;
use crate::metrics::add;
use crate::parcel::{Arrival, Held, Phase, Source};
use crate::relay::Relay;
use crate::relay::auth::Auth;
use crate::relay::closed;
use crate::relay::connect::Socket;
use crate::relay::list::List;
use crate::relay::live::Live;
use crate::relay::message::{self, Message};
use crate::relay::stored::Stored;

/// A relay that does not take a short message within this time is not reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// What saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames that are no messages, after which a session is ended: what is there is no relay.
const JUNK_MAX: u32 = 100;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything stored has been fetched, and nothing else was wanted.
    Done,
    /// We were told to stop, or nobody takes what is read any more.
    Stopped,
    /// The relay was closed to make room for others; come back when there is room.
    Closed,
    /// The connection is lost or useless; come back after the backoff and not before `wait`.
    Lost { why: String, wait: Duration },
    /// The relay does not let us read; come back after `wait`.
    Refused { why: String, wait: Duration },
}

impl From<NotTaken> for End {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Ended => Self::Stopped,
            NotTaken::Closed => Self::Closed,
        }
    }
}

impl End {
    pub(crate) fn lost(why: impl Into<String>) -> Self {
        Self::Lost { why: why.into(), wait: Duration::ZERO }
    }
}

/// Goes on, or ends the session.
pub(crate) type Step = Result<(), End>;

/// What is known while one connection stands.
pub(crate) struct Session<'a> {
    pub(crate) relay: &'a mut Relay,
    socket: Socket,
    pub(crate) live: Live,
    pub(crate) stored: Stored,
    /// A comparison of sets under way.
    pub(crate) list: Option<List>,
    pub(crate) auth: Auth,
    /// Whether a page was finished: the session was worth its while.
    pub(crate) progress: bool,
    subs: u32,
    junk: u32,
    next_ping: Instant,
    /// When the silence after a ping becomes a half-open connection.
    pong_by: Option<Instant>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(relay: &'a mut Relay, socket: Socket) -> Self {
        let next_ping = Instant::now() + relay.shared.settings.ping_interval;
        Self {
            relay,
            socket,
            live: Live::default(),
            stored: Stored::default(),
            list: None,
            auth: Auth::default(),
            progress: false,
            subs: 0,
            junk: 0,
            next_ping,
            pong_by: None,
        }
    }

    /// Reads until the session ends; says how, and whether it got on.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> (End, bool) {
        let end = match self.begin().await {
            Ok(()) => self.follow(stop).await,
            Err(end) => end,
        };
        self.live_is_over();
        if let Some(list) = self.list.take() {
            self.relay.history.list_again(list.band());
        }
        self.leave(&end).await;
        (end, self.progress)
    }

    async fn begin(&mut self) -> Step {
        self.begin_stored();
        match self.relay.shared.settings.once {
            true => Ok(()),
            false => self.open_live().await,
        }
    }

    async fn follow(&mut self, stop: &CancellationToken) -> End {
        loop {
            let wake = self.wake();
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Stopped),
                () = self.relay.lane.until(true) => Err(End::Closed),
                frame = self.socket.next() => self.take(frame).await,
                () = sleep_until(wake) => self.tick().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn wake(&self) -> Instant {
        let ping = self.pong_by.unwrap_or(self.next_ping);
        let listing = self.list.as_ref().map(|list| list.wake());
        [self.live.wake(), self.stored.wake(), self.look_due(), listing].into_iter().flatten().fold(ping, Instant::min)
    }

    async fn tick(&mut self) -> Step {
        let now = Instant::now();
        if self.pong_by.is_some_and(|by| now >= by) {
            return Err(End::lost(format!("no sign of life within {:?} of a ping", self.settings().pong_timeout)));
        }
        if self.pong_by.is_none() && now >= self.next_ping {
            self.pong_by = Some(now + self.settings().pong_timeout);
            self.send(Frame::Ping(Bytes::from_static(b"tidegate"))).await?;
        }
        self.tick_live(now).await?;
        self.tick_stored(now).await
    }

    async fn take(&mut self, frame: Option<Result<Frame, tungstenite::Error>>) -> Step {
        let received_at_ms = self.relay.shared.clock.now_ms();
        let step = match frame {
            None => Err(End::lost("the connection has ended")),
            Some(Err(error)) => {
                self.too_big(&error).await;
                Err(End::lost(error.to_string()))
            }
            Some(Ok(Frame::Text(text))) => self.text(text.into(), received_at_ms).await,
            Some(Ok(Frame::Binary(bytes))) => {
                let why = Rejection::new(Reason::FrameUnknown, "a binary frame");
                self.junk(bytes, received_at_ms, why).await
            }
            Some(Ok(Frame::Close(close))) => {
                let why = close.map_or_else(String::new, |close| format!(" ({} {})", close.code, close.reason));
                Err(End::lost(format!("the relay has closed the connection{why}")))
            }
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => Ok(()),
        };
        // Only now: if the verifiers' queue was full, the silence was ours.
        self.pong_by = None;
        self.next_ping = Instant::now() + self.settings().ping_interval;
        step
    }

    async fn text(&mut self, frame: Bytes, received_at_ms: i64) -> Step {
        let text = std::str::from_utf8(&frame).map_err(|error| End::lost(error.to_string()))?;
        match message::parse(text) {
            Ok(Message::Event { sub, event }) => {
                self.event(&sub, frame.slice_ref(event.as_bytes()), received_at_ms).await
            }
            Ok(Message::Eose { sub, finished }) => self.eose(&sub, finished).await,
            Ok(Message::Closed { sub, text }) => self.closed(&sub, &text).await,
            Ok(Message::Notice(text)) => {
                tracing::debug!(relay = %self.relay.url, text = text.as_ref(), "notice");
                self.mind_the_pace(&text);
                self.notice_while_listing();
                Ok(())
            }
            Ok(Message::NegMsg { sub, hex }) => self.neg_msg(&sub, &hex).await,
            Ok(Message::NegErr { sub, text }) if self.list.as_ref().is_some_and(|list| list.is(&sub)) => {
                self.neg_refused(&text).await
            }
            Ok(Message::NegErr { .. }) => Ok(()),
            Ok(Message::Ok { id, accepted, text }) => self.answered(&id, accepted, &text).await,
            Ok(Message::Auth(challenge)) => self.challenged(&challenge).await,
            Ok(Message::Other(label)) => {
                tracing::debug!(relay = %self.relay.url, label = label.as_ref(), "message passed over");
                Ok(())
            }
            Err(why) => self.junk(frame.clone(), received_at_ms, why).await,
        }
    }

    async fn event(&mut self, sub: &str, raw: Bytes, received_at_ms: i64) -> Step {
        let id = EventId::scan(&raw);
        let stored = self.stored.is(sub);
        let listed = self.list.as_ref().is_some_and(|list| list.is_request(sub));
        let created_at = match (stored, listed) {
            (true, _) => self.saw_stored(id, &raw),
            (false, true) => std::str::from_utf8(&raw).ok().and_then(message::created_at),
            (false, false) => None,
        };
        // A straggler of a page that was given up is history too.
        let phase = if self.live.is_on(sub) { Phase::Live } else { Phase::Backfill };
        let mut arrival = self.arrival(raw, received_at_ms, phase);
        if stored {
            arrival.held.page = self.relay.history.page().cloned();
        } else if listed {
            arrival.held.page = self.saw_listed(id);
        }
        add(&self.relay.counters.events, 1);
        match self.relay.shared.intake.event(&self.relay.lane, arrival, id).await {
            Ok(true) if stored || listed => {
                self.stored_is_new();
                self.stored_was_unknown(received_at_ms, created_at);
            }
            Ok(true) => {}
            Ok(false) => add(&self.relay.counters.copies, 1),
            Err(why) => return Err(why.into()),
        }
        Ok(())
    }

    async fn eose(&mut self, sub: &str, finished: bool) -> Step {
        if self.stored.is(sub) {
            return self.page_through(finished).await;
        }
        if self.list.as_ref().is_some_and(|list| list.is_request(sub)) {
            return self.list_request_ended(sub).await;
        }
        if self.live.eose(sub) {
            self.live_is_on();
            self.stored.hurry();
        }
        Ok(())
    }

    /// A relay that says that it is asked too much is asked less.
    fn mind_the_pace(&mut self, text: &str) {
        if closed::is_rate_limited(text) {
            self.relay.pace.slow_down(Instant::now());
            let a_second = self.relay.pace.rate();
            tracing::info!(relay = %self.relay.url, text, a_second, "the relay is asked less often");
        }
    }

    async fn closed(&mut self, sub: &str, text: &str) -> Step {
        self.mind_the_pace(text);
        if self.stored.is(sub) {
            return self.page_refused(text).await;
        }
        if self.live.is(sub) {
            return self.live_refused(text).await;
        }
        if self.list.as_ref().is_some_and(|list| list.is_request(sub)) {
            return self.list_request_ended(sub).await;
        }
        if self.list.as_ref().is_some_and(|list| list.is(sub)) {
            return self.neg_refused(text).await;
        }
        // A subscription that we have closed: relays say so late, or twice.
        Ok(())
    }

    async fn junk(&mut self, bytes: Bytes, received_at_ms: i64, why: Rejection) -> Step {
        // An unknown label may be a proposal that this relay tries out; what is no array at all is no relay's.
        let no_message = why.reason == Reason::MalformedJson || !bytes.trim_ascii_start().starts_with(b"[");
        self.junk += u32::from(no_message);
        let arrival = self.arrival(bytes, received_at_ms, Phase::Live);
        self.relay.shared.intake.junk(&self.relay.lane, arrival, why).await?;
        match self.junk >= JUNK_MAX {
            true => Err(End::lost(format!("{JUNK_MAX} frames are no messages of a relay"))),
            false => Ok(()),
        }
    }

    fn arrival(&self, raw: Bytes, received_at_ms: i64, phase: Phase) -> Arrival {
        let relay = Arc::clone(self.relay.url.text());
        Arrival { raw, relay, received_at_ms, source: Source::Nostr, phase, held: Held::default() }
    }

    /// A subscription id that this connection has not seen: relays answer late to old ones.
    pub(crate) fn fresh_sub(&mut self, sort: &str) -> String {
        self.subs += 1;
        format!("{sort}-{}", self.subs)
    }

    pub(crate) fn settings(&self) -> &crate::settings::NostrSettings {
        &self.relay.shared.settings
    }

    /// Kinds to name in a filter.
    pub(crate) fn kinds(&self) -> Option<&[u16]> {
        self.relay.shared.kinds.as_deref().filter(|_| !self.relay.without_kinds)
    }

    pub(crate) async fn send_text(&mut self, text: String) -> Step {
        self.send(Frame::text(text)).await
    }

    async fn send(&mut self, frame: Frame) -> Step {
        match timeout(SEND_TIMEOUT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::lost(error.to_string())),
            Err(_) => Err(End::lost(format!("the relay has not read for {SEND_TIMEOUT:?}"))),
        }
    }

    /// Says goodbye where the other side may still listen.
    async fn leave(&mut self, end: &End) {
        if matches!(end, End::Lost { .. }) {
            self.stored_is_torn();
            return;
        }
        let goodbye = async {
            for sub in [self.live.sub(), self.stored.sub()].into_iter().flatten().map(message::close) {
                self.socket.send(Frame::text(sub)).await?;
            }
            self.socket.close(None).await
        };
        // The relay may be gone already; then there is nobody to say goodbye to.
        drop(timeout(CLOSE_TIMEOUT, goodbye).await);
    }

    async fn too_big(&mut self, error: &tungstenite::Error) {
        if matches!(error, tungstenite::Error::Capacity(_)) {
            let close = CloseFrame { code: CloseCode::Size, reason: "larger than we read".into() };
            drop(timeout(CLOSE_TIMEOUT, self.socket.close(Some(close))).await);
        }
    }
}
