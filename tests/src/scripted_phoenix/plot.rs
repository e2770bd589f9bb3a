//! What a scripted server of Phoenix channels is told: door and script; and the acts of which its answers are made. Plain
//! data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::frame::Frame;
use crate::scripted_relay::Door;

/// An event of the market, as it is published.
#[derive(Clone, Debug)]
pub struct News {
    /// Slug of its collection.
    pub slug: Arc<str>,
    /// Its type.
    pub event: Arc<str>,
    /// The object that carries it: `{"event_type":…,"sent_at":…,"payload":{…}}`, byte for byte.
    pub text: Arc<str>,
}

/// What a script is asked about.
#[derive(Clone, Debug)]
pub enum Cue {
    /// The handshake is done.
    Connected,
    /// A channel is to be joined.
    Join(Frame),
    /// A heartbeat.
    Heartbeat(Frame),
    /// A message that is anything else, or no frame at all.
    Other(String),
    /// An event was published to a channel that this connection has joined.
    News {
        /// Topic of the channel.
        topic: Arc<str>,
        /// The event.
        news: News,
    },
}

impl Cue {
    /// Cues of one sort are counted together.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Join(_) => "join",
            Self::Heartbeat(_) => "heartbeat",
            Self::Other(_) => "other",
            Self::News { .. } => "news",
        }
    }
}

/// A cue and what surrounds it.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What happened.
    pub cue: &'a Cue,
    /// On which connection, counted from 0.
    pub connection: usize,
    /// Cues of this sort before this one, on all connections.
    pub turn: usize,
}

impl Scene<'_> {
    /// Topic of the channel that is to be joined, if that is what is asked.
    pub fn join(&self) -> Option<&str> {
        match self.cue {
            Cue::Join(frame) => Some(&frame.topic),
            _ => None,
        }
    }
}

/// Something that the server does to a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says that a channel is joined, and sends its events from now on.
    Joined(Frame),
    /// Answers a frame with an error and this reason.
    Refused(Frame, &'static str),
    /// Answers a heartbeat.
    Beat(Frame),
    /// Sends an event on a channel, and records it as served.
    Push {
        /// Topic of the channel.
        topic: Arc<str>,
        /// The event.
        news: News,
    },
    /// Says that a channel has crashed (`phx_error`), and sends nothing more on it.
    Error(Arc<str>),
    /// Says that a channel is closed (`phx_close`), and sends nothing more on it.
    Close(Arc<str>),
    /// Sends a text frame.
    Text(String),
    /// Sends a binary frame.
    Binary(Bytes),
    /// Sends bytes that need not be a frame.
    Raw(Bytes),
    /// Does nothing more for this long, but goes on reading.
    Wait(Duration),
    /// Neither sends nor reads any more; the connection stays.
    Silence,
    /// Says goodbye with this code, and ends the connection.
    Goodbye(u16, &'static str),
    /// Ends the connection without a word.
    Cut,
}

type DoorKeeper = dyn Fn(usize) -> Door + Send + Sync;
type Script = dyn Fn(&Scene<'_>, Vec<Act>) -> Vec<Act> + Send + Sync;

/// What a server is told before it starts.
pub struct Plot {
    pub(super) door: Box<DoorKeeper>,
    pub(super) script: Box<Script>,
}

impl Default for Plot {
    /// An honest server.
    fn default() -> Self {
        Self { door: Box::new(|_| Door::Open), script: Box::new(|_, honest| honest) }
    }
}

impl Plot {
    /// Decides by the number of the connection, from 0.
    pub fn door(mut self, keeper: impl Fn(usize) -> Door + Send + Sync + 'static) -> Self {
        self.door = Box::new(keeper);
        self
    }

    /// Is asked at every cue: from what an honest server would do it makes what is done.
    pub fn script(mut self, script: impl Fn(&Scene<'_>, Vec<Act>) -> Vec<Act> + Send + Sync + 'static) -> Self {
        self.script = Box::new(script);
        self
    }
}
