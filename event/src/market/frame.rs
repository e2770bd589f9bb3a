//! The forms in which the stream's events come: a Phoenix frame of version 1 or 2, or the event alone.
//!
//! ```text
//! {"topic":"collection:…","event":TYPE,"payload":EVENT,"ref":…}      version 1
//! [join_ref, ref, topic, TYPE, EVENT]                                 version 2
//! {"event_type":TYPE,"sent_at":…,"payload":PAYLOAD}                   EVENT
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Raw, text};
use crate::rejection::{Reason, Rejection};

/// A frame, opened.
pub(super) enum Envelope<'a> {
    Control(Cow<'a, str>),
    Event { event_type: Cow<'a, str>, sent_at: Option<Cow<'a, str>>, payload: &'a RawValue },
}

/// A frame of version 1, or an event: their keys differ.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Outer<'a> {
    topic: Raw<'a>,
    event: Raw<'a>,
    event_type: Raw<'a>,
    sent_at: Raw<'a>,
    payload: Raw<'a>,
}

/// Finds the event in a frame.
pub(super) fn open(raw: &[u8]) -> Result<Envelope<'_>, Rejection> {
    let json = str::from_utf8(raw)
        .map_err(|error| Rejection::new(Reason::InvalidUtf8, format!("no UTF-8 at byte {}", error.valid_up_to())))?;
    let whole: &RawValue = serde_json::from_str(json).map_err(|error| malformed(&error))?;
    match whole.get().as_bytes().first() {
        Some(b'[') => version_2(whole),
        Some(b'{') => {
            let outer: Outer<'_> = object(Some(whole))?;
            match (text(outer.event_type), text(outer.event)) {
                (Some(event_type), _) => event(event_type, &outer),
                (None, Some(name)) => framed(name, text(outer.topic), outer.payload),
                (None, None) => Err(Rejection::new(
                    Reason::MissingField,
                    "no event_type: a payload alone does not say what happened; put it as payload beside an event_type",
                )),
            }
        }
        _ => Err(Rejection::new(Reason::NotObject, "neither an object nor an array")),
    }
}

fn version_2(frame: &RawValue) -> Result<Envelope<'_>, Rejection> {
    let parts: Vec<Raw<'_>> = serde_json::from_str(frame.get()).map_err(|error| malformed(&error))?;
    let [_, _, topic, name, payload] = parts.as_slice() else {
        return Err(Rejection::new(Reason::WrongType, format!("an array of {}, not the five of a frame", parts.len())));
    };
    let name = text(*name).ok_or_else(|| Rejection::new(Reason::WrongType, "a frame whose event is no text"))?;
    framed(name, text(*topic), *payload)
}

/// What a frame carries; its own name is the type where the event does not say one.
fn framed<'a>(name: Cow<'a, str>, topic: Option<Cow<'a, str>>, payload: Raw<'a>) -> Result<Envelope<'a>, Rejection> {
    let of_channel = name.starts_with("phx_") || name.starts_with("presence_") || name == "heartbeat";
    if of_channel || topic.is_some_and(|topic| topic == "phoenix") {
        return Ok(Envelope::Control(name));
    }
    let inner: Outer<'a> = object(payload)?;
    event(text(inner.event_type).unwrap_or(name), &inner)
}

fn event<'a>(event_type: Cow<'a, str>, outer: &Outer<'a>) -> Result<Envelope<'a>, Rejection> {
    let missing = || Rejection::new(Reason::MissingField, format!("`{event_type}` has no payload"));
    let payload = outer.payload.ok_or_else(missing)?;
    if !payload.get().starts_with('{') {
        return Err(Rejection::new(Reason::WrongType, format!("the payload of `{event_type}` is no object")));
    }
    Ok(Envelope::Event { event_type, sent_at: text(outer.sent_at), payload })
}

/// What an object holds of the keys that are asked for; what is no object holds none.
pub(super) fn object<'a, T: Deserialize<'a> + Default>(raw: Raw<'a>) -> Result<T, Rejection> {
    match raw.map(RawValue::get).filter(|json| json.starts_with('{')) {
        Some(json) => serde_json::from_str(json).map_err(|error| malformed(&error)),
        None => Ok(T::default()),
    }
}

fn malformed(error: &serde_json::Error) -> Rejection {
    let detail = error.to_string();
    // All types are taken, so that a fault in the data is a key that stands twice.
    let reason = if error.is_data() { Reason::DuplicateKey } else { Reason::MalformedJson };
    Rejection::new(reason, detail)
}
