//! What a scripted relay is told: events, cap, door and script; and the acts of which answers are made. Plain data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::frame::{Opcode, frame_head};
use super::store::Store;

/// Stored events that an answer holds at most, as strfry has it.
const CAP: usize = 500;

/// What becomes of a connection before its handshake is done.
#[derive(Clone, Debug)]
pub enum Door {
    /// The handshake is answered.
    Open,
    /// This is answered instead, byte for byte, and the connection ended.
    Answer(String),
    /// Nothing is answered, and the connection stays.
    Silent,
    /// The connection is ended without an answer.
    Shut,
}

impl Door {
    /// An HTTP answer with a body.
    pub fn status(status: &str, headers: &[&str], body: &str) -> Self {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        Self::Answer(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
    }
}

/// What a script is asked about.
#[derive(Clone, Debug)]
pub enum Cue {
    /// The handshake is done.
    Connected,
    /// A subscription is asked for.
    Req {
        /// Its id.
        sub: Arc<str>,
        /// Its first filter.
        filter: Value,
    },
    /// A subscription is closed by the client.
    Close {
        /// Its id.
        sub: Arc<str>,
    },
    /// Any other message.
    Other(Value),
    /// An event was published that matches a subscription.
    Live {
        /// Id of the subscription.
        sub: Arc<str>,
        /// The event.
        event: Arc<str>,
    },
}

impl Cue {
    /// Cues of one sort are counted together.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Req { filter, .. } if filter["limit"] == 0 => "live subscription",
            Self::Req { .. } => "stored events",
            Self::Close { .. } => "close",
            Self::Other(_) => "other",
            Self::Live { .. } => "live event",
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
    /// Cues of this sort before this one, on all connections. Live subscriptions and those for stored events are two
    /// sorts.
    pub turn: usize,
    /// What the relay holds.
    pub store: &'a Store,
}

impl Scene<'_> {
    /// Id of the subscription, when one is asked for that is to be live only (`limit:0`).
    pub fn live(&self) -> Option<&Arc<str>> {
        match self.cue {
            Cue::Req { sub, filter } if filter["limit"] == 0 => Some(sub),
            _ => None,
        }
    }

    /// Id and filter of the subscription, when stored events are asked for.
    pub fn stored(&self) -> Option<(&Arc<str>, &Value)> {
        match self.cue {
            Cue::Req { sub, filter } if filter["limit"] != 0 => Some((sub, filter)),
            _ => None,
        }
    }

    /// An honest answer to any filter, with another cap.
    pub fn answer(&self, sub: &Arc<str>, filter: &Value, cap: usize) -> Vec<Act> {
        let event = |raw: Arc<str>| Act::Event { sub: Arc::clone(sub), raw };
        self.store.matching(filter, cap).into_iter().map(event).chain([eose(sub)]).collect()
    }
}

/// Something that a relay does to a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends an event of a subscription, and records it as served once its frame is out.
    Event {
        /// The subscription.
        sub: Arc<str>,
        /// The event.
        raw: Arc<str>,
    },
    /// Sends a text frame.
    Text(String),
    /// Sends a binary frame.
    Binary(Bytes),
    /// Sends bytes that need not be a frame.
    Raw(Bytes),
    /// Sends the same bytes again and again, until the client ends the connection or so many times.
    Repeat(Bytes, u64),
    /// Does nothing more for this long, but goes on reading.
    Wait(Duration),
    /// Neither sends nor reads any more; the connection stays.
    Silence,
    /// Says goodbye with this code, and ends the connection.
    Goodbye(u16, &'static str),
    /// Ends the connection without a word.
    Cut,
    /// Resets the connection: what is under way is lost.
    Reset,
}

/// EOSE.
pub fn eose(sub: &str) -> Act {
    Act::Text(json!(["EOSE", sub]).to_string())
}

/// CLOSED with its text.
pub fn closed(sub: &str, text: &str) -> Act {
    Act::Text(json!(["CLOSED", sub, text]).to_string())
}

/// NOTICE with its text.
pub fn notice(text: &str) -> Act {
    Act::Text(json!(["NOTICE", text]).to_string())
}

/// The first half of an event's frame; not served.
pub fn torn_event(sub: &str, raw: &str) -> Act {
    let text = event_text(sub, raw);
    let mut bytes = frame_head(Opcode::Text, true, text.len() as u64);
    bytes.extend_from_slice(&text.as_bytes()[..text.len() / 2]);
    Act::Raw(bytes.into())
}

/// The message that carries an event, its bytes untouched.
pub(super) fn event_text(sub: &str, raw: &str) -> String {
    format!("[\"EVENT\",{},{raw}]", Value::from(sub))
}

type DoorKeeper = dyn Fn(usize) -> Door + Send + Sync;
type Script = dyn Fn(&Scene<'_>, Vec<Act>) -> Vec<Act> + Send + Sync;

/// What a relay is told before it starts.
pub struct Plot {
    pub(super) events: Vec<String>,
    pub(super) cap: usize,
    pub(super) door: Box<DoorKeeper>,
    pub(super) script: Box<Script>,
    pub(super) nip11: Option<String>,
}

impl Plot {
    /// An honest relay that holds these events and gives out 500 at once.
    pub fn of(events: &[String]) -> Self {
        let (door, script) = (Box::new(|_| Door::Open), Box::new(|_: &Scene<'_>, honest| honest));
        Self { events: events.to_vec(), cap: CAP, door, script, nip11: None }
    }

    /// Gives out so many stored events at once.
    pub fn cap(mut self, cap: usize) -> Self {
        self.cap = cap;
        self
    }

    /// Has this information document (NIP-11), JSON; without, whoever asks for one gets 404.
    pub fn nip11(mut self, document: &str) -> Self {
        self.nip11 = Some(document.to_owned());
        self
    }

    /// Decides by the number of the connection, from 0.
    pub fn door(mut self, keeper: impl Fn(usize) -> Door + Send + Sync + 'static) -> Self {
        self.door = Box::new(keeper);
        self
    }

    /// Is asked at every cue: from what an honest relay would do it makes what is done.
    pub fn script(mut self, script: impl Fn(&Scene<'_>, Vec<Act>) -> Vec<Act> + Send + Sync + 'static) -> Self {
        self.script = Box::new(script);
        self
    }
}
