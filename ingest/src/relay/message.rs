//! Messages between client and relay (NIP-01): parsed without building a tree, so that the event's bytes stay as they
//! came. Says what a frame is; what it means is the session's affair.

use std::borrow::Cow;
use std::fmt;

use event::{EventId, Reason, Rejection};
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Elements of a message that mean something to us.
const ELEMENTS: usize = 4;

/// A message from a relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// An event of a subscription: the JSON text of its third element, byte for byte.
    Event { sub: Cow<'a, str>, event: &'a str },
    /// The stored events of a subscription are through; `finished` where the relay says that there are no more below
    /// (NIP-67).
    Eose { sub: Cow<'a, str>, finished: bool },
    /// The relay has ended a subscription, and says why.
    Closed { sub: Cow<'a, str>, text: Cow<'a, str> },
    /// A text for people.
    Notice(Cow<'a, str>),
    /// A step of a comparison of sets, in hex (NIP-77).
    NegMsg { sub: Cow<'a, str>, hex: Cow<'a, str> },
    /// A comparison is refused or over, and why (NIP-77).
    NegErr { sub: Cow<'a, str>, text: Cow<'a, str> },
    /// What became of an event that was sent to the relay.
    Ok { id: EventId, accepted: bool, text: Cow<'a, str> },
    /// The relay wants to know who is asking, and what is to be signed for it (NIP-42).
    Auth(Cow<'a, str>),
    /// A message of the protocol that does not concern a reader.
    Other(Cow<'a, str>),
}

/// Reads one text frame.
///
/// # Errors
/// `MalformedJson` when it is not JSON, `FrameUnknown` when it is no message of a relay.
pub(crate) fn parse(text: &str) -> Result<Message<'_>, Rejection> {
    let elements: Elements<'_> = serde_json::from_str(text).map_err(|_| no_array(text))?;
    let unknown = |detail: String| Rejection::new(Reason::FrameUnknown, detail);
    let text_at = |at: usize| elements.0[at].and_then(|raw| string(raw.get()));
    let Some(label) = text_at(0) else { return Err(unknown("the first element is no text".into())) };
    let sub = || text_at(1).ok_or_else(|| unknown(format!("{label} without a subscription id")));
    match label.as_ref() {
        "EVENT" => match elements.0[2] {
            Some(event) => Ok(Message::Event { sub: sub()?, event: event.get() }),
            None => Err(unknown("EVENT without an event".into())),
        },
        "EOSE" => {
            Ok(Message::Eose { sub: sub()?, finished: elements.0[2].is_some_and(|hint| says_finish(hint.get())) })
        }
        "CLOSED" => Ok(Message::Closed { sub: sub()?, text: text_at(2).unwrap_or_default() }),
        "NOTICE" => Ok(Message::Notice(text_at(1).unwrap_or_default())),
        "NEG-MSG" => Ok(Message::NegMsg { sub: sub()?, hex: text_at(2).unwrap_or_default() }),
        "NEG-ERR" => Ok(Message::NegErr { sub: sub()?, text: text_at(2).unwrap_or_default() }),
        "OK" => match (text_at(1).and_then(|id| EventId::from_hex(&id)), elements.0[2].map(RawValue::get)) {
            (Some(id), Some(accepted @ ("true" | "false"))) => {
                Ok(Message::Ok { id, accepted: accepted == "true", text: text_at(3).unwrap_or_default() })
            }
            _ => Ok(Message::Other(label)),
        },
        "AUTH" => Ok(text_at(1).map_or(Message::Other(label), Message::Auth)),
        "COUNT" => Ok(Message::Other(label)),
        _ => Err(unknown(format!("label {label:?}"))),
    }
}

/// A value of another sort is refused at its first byte, before anybody knows whether the rest is JSON.
fn no_array(text: &str) -> Rejection {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Rejection::new(Reason::FrameUnknown, "not an array with a label"),
        Err(error) => Rejection::new(Reason::MalformedJson, error.to_string()),
    }
}

/// The hint of NIP-67 is a text or a list of texts.
fn says_finish(hint: &str) -> bool {
    string(hint).is_some_and(|text| text == "finish")
        || serde_json::from_str::<Vec<String>>(hint).is_ok_and(|texts| texts.iter().any(|text| text == "finish"))
}

fn string(json: &str) -> Option<Cow<'_, str>> {
    match serde_json::from_str::<&str>(json) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
    }
}

/// The first elements of a JSON array; the others are passed over and held nowhere.
struct Elements<'a>([Option<&'a RawValue>; ELEMENTS]);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = [None; ELEMENTS];
                for element in &mut elements {
                    match array.next_element()? {
                        Some(raw) => *element = Some(raw),
                        None => break,
                    }
                }
                if elements[0].is_none() {
                    return Err(A::Error::custom("an empty array"));
                }
                if elements[ELEMENTS - 1].is_some() {
                    while array.next_element::<IgnoredAny>()?.is_some() {}
                }
                Ok(Elements(elements))
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

/// What a subscription asks for; one filter for each REQ, since relays do not order the answers to several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Filter<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kinds: Option<&'a [u16]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
}

/// `["REQ",sub,filter]`.
pub(crate) fn req(sub: &str, filter: &Filter<'_>) -> String {
    serde_json::to_string(&("REQ", sub, filter)).expect("text and numbers always have a JSON form")
}

/// `["REQ",sub,{"ids":[…]}]`.
pub(crate) fn req_ids(sub: &str, ids: &[EventId]) -> String {
    #[derive(Serialize)]
    struct Ids {
        ids: Vec<String>,
    }
    let filter = Ids { ids: ids.iter().map(ToString::to_string).collect() };
    serde_json::to_string(&("REQ", sub, filter)).expect("text always has a JSON form")
}

/// `["NEG-OPEN",sub,filter,hex]` (NIP-77).
pub(crate) fn neg_open(sub: &str, filter: &Filter<'_>, hex: &str) -> String {
    serde_json::to_string(&("NEG-OPEN", sub, filter, hex)).expect("text and numbers always have a JSON form")
}

/// `["NEG-MSG",sub,hex]` (NIP-77).
pub(crate) fn neg_msg(sub: &str, hex: &str) -> String {
    serde_json::to_string(&("NEG-MSG", sub, hex)).expect("text always has a JSON form")
}

/// `["NEG-CLOSE",sub]` (NIP-77).
pub(crate) fn neg_close(sub: &str) -> String {
    serde_json::to_string(&("NEG-CLOSE", sub)).expect("text always has a JSON form")
}

/// `["CLOSE",sub]`.
pub(crate) fn close(sub: &str) -> String {
    serde_json::to_string(&("CLOSE", sub)).expect("text always has a JSON form")
}

/// `["EVENT",event]`: the event's text as it stands.
pub(crate) fn event(json: &str) -> String {
    format!("[\"EVENT\",{json}]")
}

/// `["AUTH",event]`.
pub(crate) fn auth(json: &str) -> String {
    format!("[\"AUTH\",{json}]")
}

/// When an event claims to be from, seconds since 1970; none where it does not say.
pub(crate) fn created_at(event: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Stamp {
        created_at: i64,
    }
    serde_json::from_str::<Stamp>(event).ok().map(|stamp| stamp.created_at)
}

#[cfg(test)]
mod tests;
