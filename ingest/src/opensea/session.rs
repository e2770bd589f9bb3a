//! One connection: channels are joined, heartbeats answered, frames handed in, until either side ends it. Owns the socket
//! and its timers. While what was read waits for room, heartbeats go on, so that the server does not take us for gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event::{Reason, Rejection};
use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use crate::coverage::Page;
use crate::intake::NotTaken;
use crate::metrics::add;
use crate::opensea::Follower;
use crate::opensea::channel::{Channel, State};
use crate::opensea::frame::{self, Frame};
use crate::relay::Socket;

/// A server that does not take a short message within this time is not reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// What saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames that are none, after which a connection is ended: what is there is no such server.
const JUNK_MAX: u32 = 100;
/// Joins that wait for their answer at the same time.
const JOINS_AT_ONCE: usize = 20;
/// Joins in a row without an answer after which a connection on which nothing is joined is given up.
const JOINS_UNANSWERED_MAX: u32 = 3;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// We were told to stop, or nobody takes what is read any more.
    Stopped,
    /// It is lost or useless; come back after the backoff and not before `wait`.
    Lost { why: String, wait: Duration },
    /// The server does not let us in: the key, or each of the channels, is refused.
    Refused(String),
}

impl End {
    pub(super) fn lost(why: impl Into<String>) -> Self {
        Self::Lost { why: why.into(), wait: Duration::ZERO }
    }
}

impl From<NotTaken> for End {
    fn from(_: NotTaken) -> Self {
        Self::Stopped
    }
}

type Step = Result<(), End>;

/// A heartbeat that is not answered yet.
#[derive(Clone, Debug)]
struct Beat {
    reference: String,
    /// Seconds since 1970.
    sent_at: i64,
    answered_by: Instant,
}

pub(super) struct Session<'a> {
    follower: &'a mut Follower,
    socket: Socket,
    references: u64,
    beat: Option<Beat>,
    next_beat: Instant,
    /// When something is to be done about a channel.
    channels_wake: Option<Instant>,
    junk: u32,
}

impl<'a> Session<'a> {
    pub(super) fn new(follower: &'a mut Follower, socket: Socket) -> Self {
        let now = Instant::now();
        follower.channels.iter_mut().for_each(Channel::anew);
        let next_beat = now + follower.settings.heartbeat_interval;
        Self { follower, socket, references: 0, beat: None, next_beat, channels_wake: Some(now), junk: 0 }
    }

    /// Reads until the connection ends; says how.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> End {
        let end = loop {
            let wake = self.wake();
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Stopped),
                message = self.socket.next() => self.take(message).await,
                () = sleep_until(wake) => self.tick().await,
            };
            if let Err(end) = step {
                break end;
            }
        };
        self.follower.channels.iter_mut().for_each(Channel::anew);
        if !matches!(end, End::Lost { .. }) {
            // It may be gone already; then there is nobody to say goodbye to.
            drop(timeout(CLOSE_TIMEOUT, self.socket.close(None)).await);
        }
        end
    }

    fn wake(&self) -> Instant {
        let beat = self.beat.as_ref().map_or(self.next_beat, |beat| beat.answered_by);
        self.channels_wake.map_or(beat, |channels| channels.min(beat))
    }

    async fn tick(&mut self) -> Step {
        let now = Instant::now();
        if self.beat.as_ref().is_some_and(|beat| now >= beat.answered_by) {
            let limit = self.follower.settings.reply_timeout;
            return Err(End::lost(format!("no answer to a heartbeat within {limit:?}")));
        }
        if self.beat.is_none() && now >= self.next_beat {
            self.send_beat().await?;
        }
        match self.channels_wake.is_some_and(|at| now >= at) {
            true => self.tend(now).await,
            false => Ok(()),
        }
    }

    async fn send_beat(&mut self) -> Step {
        self.references += 1;
        let (reference, sent_at) = (self.references, self.follower.now_secs());
        self.next_beat = Instant::now() + self.follower.settings.heartbeat_interval;
        self.send(self.follower.settings.endpoint.version.heartbeat(reference)).await?;
        // One that is sent while another waits for its answer only says that we are there.
        if self.beat.is_none() {
            let answered_by = Instant::now() + self.follower.settings.reply_timeout;
            self.beat = Some(Beat { reference: reference.to_string(), sent_at, answered_by });
        }
        Ok(())
    }

    /// Joins what is to be joined, a few at a time, and gives up waiting for answers that do not come.
    async fn tend(&mut self, now: Instant) -> Step {
        for at in 0..self.follower.channels.len() {
            if let State::Joining(_, by) = self.follower.channels[at].state
                && now >= by
            {
                self.join_unanswered(at)?;
            }
        }
        let mut under_way = self.follower.channels.iter().filter(|channel| channel.is_joining()).count();
        for at in 0..self.follower.channels.len() {
            let channel = &self.follower.channels[at];
            let due = matches!(channel.state, State::Waiting(due) | State::Refused(due) if now >= due);
            if due && under_way < JOINS_AT_ONCE {
                under_way += 1;
                self.join(at).await?;
            }
        }
        self.look_after_channels(under_way);
        Ok(())
    }

    /// Where as many joins are under way as there may be, the answer to one of them leads on.
    fn look_after_channels(&mut self, under_way: usize) {
        let channels = self.follower.channels.iter();
        let due = channels.filter(|channel| under_way < JOINS_AT_ONCE || channel.is_joining());
        self.channels_wake = due.filter_map(|channel| channel.wake()).min();
    }

    async fn join(&mut self, at: usize) -> Step {
        self.references += 1;
        let (reference, settings) = (self.references, &self.follower.settings);
        let text = settings.endpoint.version.join(&self.follower.channels[at].topic, reference);
        let by = Instant::now() + settings.join_timeout;
        self.follower.channels[at].state = State::Joining(reference, by);
        self.send(text).await
    }

    fn join_unanswered(&mut self, at: usize) -> Step {
        let limit = self.follower.settings.join_timeout;
        let failures = self.follower.channels[at].failed();
        let wait = self.follower.jittered(failures);
        let channel = &mut self.follower.channels[at];
        channel.again(wait);
        tracing::warn!(relay = %self.follower.settings.endpoint, channel = channel.topic, "no answer to a join within {limit:?}, will be tried again");
        match failures >= JOINS_UNANSWERED_MAX && !self.follower.channels.iter().any(|channel| channel.is_joined()) {
            true => Err(End::lost(format!("no answer to {JOINS_UNANSWERED_MAX} joins"))),
            false => Ok(()),
        }
    }

    async fn take(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Step {
        let received_at_ms = self.follower.clock.now_ms();
        match message {
            None => Err(End::lost("the connection has ended")),
            Some(Err(error)) => Err(End::lost(self.follower.redacted(&error.to_string()))),
            Some(Ok(Message::Text(text))) => self.text(text.into(), received_at_ms).await,
            Some(Ok(Message::Binary(bytes))) => {
                let why = Rejection::new(Reason::FrameUnknown, "a binary frame");
                self.junk(bytes, received_at_ms, Some(why)).await
            }
            Some(Ok(Message::Close(close))) => {
                let why = close.map_or_else(String::new, |close| format!(" ({} {})", close.code, close.reason));
                Err(End::lost(self.follower.redacted(&format!("the server has closed the connection{why}"))))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
        }
    }

    async fn text(&mut self, raw: Bytes, received_at_ms: i64) -> Step {
        let text = std::str::from_utf8(&raw).map_err(|error| End::lost(error.to_string()))?;
        match frame::parse(text) {
            Frame::News { topic } => {
                let channel = self.follower.channels.iter().find(|channel| channel.topic == topic);
                let page = channel.and_then(|channel| channel.page()).cloned();
                self.hand_in((raw.clone(), received_at_ms), page, None).await
            }
            Frame::Reply { reference, refused } => self.replied(reference.as_deref(), refused),
            Frame::Ended { topic, join_ref, crashed } => self.channel_ended(&topic, join_ref.as_deref(), crashed),
            Frame::Control(name) => {
                tracing::debug!(relay = %self.follower.settings.endpoint, name = name.as_ref(), "message passed over");
                Ok(())
            }
            Frame::Broken => self.junk(raw.clone(), received_at_ms, None).await,
        }
    }

    fn replied(&mut self, reference: Option<&str>, refused: Option<String>) -> Step {
        let Some(reference) = reference else { return Ok(()) };
        if let Some(beat) = self.beat.take_if(|beat| beat.reference == reference) {
            self.follower.channels.iter_mut().for_each(|channel| channel.beat(beat.sent_at));
            return Ok(());
        }
        let under = |channel: &Channel| channel.is_joining() && channel.is_under(reference);
        let Some(at) = self.follower.channels.iter().position(under) else { return Ok(()) };
        self.channels_wake = Some(Instant::now());
        match refused {
            None => self.joined(at),
            Some(reason) => return self.join_refused(at, &reason),
        }
        Ok(())
    }

    fn joined(&mut self, at: usize) {
        let now = self.follower.now_secs();
        let missed = self.follower.channels[at].joined(now);
        add(&self.follower.intake_counters().gaps, u64::from(missed));
        self.follower.was_let_in();
        let (relay, channel) = (&self.follower.settings.endpoint, &self.follower.channels[at].topic);
        tracing::info!(%relay, channel, missed, "channel joined");
    }

    fn join_refused(&mut self, at: usize, reason: &str) -> Step {
        let reason = self.follower.redacted(reason);
        let channel = &mut self.follower.channels[at];
        channel.refused();
        tracing::warn!(relay = %self.follower.settings.endpoint, channel = channel.topic, reason, "the server refuses a channel");
        let refused = self.follower.channels.iter().all(|channel| matches!(channel.state, State::Refused(_)));
        match refused {
            true => Err(End::Refused(format!("every channel that was asked for is refused: {reason}"))),
            false => Ok(()),
        }
    }

    fn channel_ended(&mut self, topic: &str, join_ref: Option<&str>, crashed: bool) -> Step {
        let Some(at) = self.follower.channels.iter().position(|channel| channel.topic == topic) else { return Ok(()) };
        // Who joins anew hears the end of the join before.
        if join_ref.is_some_and(|join_ref| !self.follower.channels[at].is_under(join_ref)) {
            return Ok(());
        }
        let failures = self.follower.channels[at].failed();
        let wait = self.follower.jittered(failures);
        self.follower.channels[at].again(wait);
        self.channels_wake = Some(Instant::now());
        let how = if crashed { "crashed" } else { "was closed" };
        tracing::warn!(relay = %self.follower.settings.endpoint, channel = topic, wait_ms = wait.as_millis(), "a channel {how}, will be joined again");
        Ok(())
    }

    /// What is no frame is judged like all the rest, and refused with the reason.
    async fn junk(&mut self, raw: Bytes, received_at_ms: i64, why: Option<Rejection>) -> Step {
        self.junk += 1;
        let page = self.follower.channels.iter().find_map(|channel| channel.page()).cloned();
        self.hand_in((raw, received_at_ms), page, why).await?;
        match self.junk >= JUNK_MAX {
            true => Err(End::lost(format!("{JUNK_MAX} frames are none of the stream's"))),
            false => Ok(()),
        }
    }

    async fn hand_in(&mut self, frame: (Bytes, i64), page: Option<Page>, refused: Option<Rejection>) -> Step {
        let (intake, lane) = (self.follower.intake.clone(), Arc::clone(&self.follower.lane));
        add(&lane.counters.events, 1);
        let mut handing = std::pin::pin!(intake.frame(&lane, frame, page, refused));
        let (begun, mut broken) = (Instant::now(), None);
        loop {
            tokio::select! {
                biased;
                taken = &mut handing => {
                    // The answers that were not read meanwhile are not late.
                    if let Some(beat) = &mut self.beat {
                        beat.answered_by += begun.elapsed();
                    }
                    taken?;
                    return broken.map_or(Ok(()), Err);
                }
                // What was read is waited for, even if nothing more will be.
                () = sleep_until(self.next_beat), if broken.is_none() => broken = self.send_beat().await.err(),
            }
        }
    }

    async fn send(&mut self, text: String) -> Step {
        match timeout(SEND_TIMEOUT, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::lost(self.follower.redacted(&error.to_string()))),
            Err(_) => Err(End::lost(format!("the server has not read for {SEND_TIMEOUT:?}"))),
        }
    }
}
