//! Messages of NIP-01: those of clients read, those of relays written. Text in, text out.

use event::EventId;
use serde_json::value::RawValue;

use crate::filter::Filter;

/// Filters of one REQ at most; strfry's limit.
const FILTERS_MAX: usize = 200;

/// What a client asks.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    /// `REQ`: open or replace a subscription; the error says why its filters are refused.
    Open { subscription: String, filters: Result<Vec<Filter>, String> },
    /// `CLOSE`.
    Close { subscription: String },
    /// `NEG-OPEN`: begin to compare sets (NIP-77); the first step in hex.
    Compare { subscription: String, filter: Result<Box<Filter>, String>, step: String },
    /// `NEG-MSG`: the next step in hex.
    Step { subscription: String, step: String },
    /// `NEG-CLOSE`.
    EndCompare { subscription: String },
    /// `EVENT`: the event's text as it came.
    Publish { raw: &'a str },
    /// `AUTH`: the answer to a challenge (NIP-42), as it came.
    Auth { raw: &'a str },
}

/// Reads a message; the error is for a NOTICE.
pub(crate) fn parse(text: &str) -> Result<Request<'_>, String> {
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| "the message is not a JSON array".to_owned())?;
    let mut parts = parts.into_iter().map(RawValue::get);
    let label = parts.next().and_then(|label| serde_json::from_str::<String>(label).ok());
    match label.as_deref() {
        Some("EVENT") => {
            let raw = parts.next().ok_or("EVENT comes without an event")?;
            Ok(Request::Publish { raw })
        }
        Some("AUTH") => Ok(Request::Auth { raw: parts.next().ok_or("AUTH comes without an event")? }),
        Some("REQ") => {
            let subscription = subscription(parts.next())?;
            Ok(Request::Open { subscription, filters: filters(parts) })
        }
        Some("CLOSE") => Ok(Request::Close { subscription: subscription(parts.next())? }),
        Some("NEG-OPEN") => Ok(Request::Compare {
            subscription: subscription(parts.next())?,
            filter: Filter::parse(parts.next().unwrap_or_default()).map(Box::new),
            step: step(parts.next())?,
        }),
        Some("NEG-MSG") => Ok(Request::Step { subscription: subscription(parts.next())?, step: step(parts.next())? }),
        Some("NEG-CLOSE") => Ok(Request::EndCompare { subscription: subscription(parts.next())? }),
        Some(label) => Err(format!("message type `{}` is not known", label.chars().take(40).collect::<String>())),
        None => Err("the message does not start with its type".to_owned()),
    }
}

fn step(part: Option<&str>) -> Result<String, String> {
    part.and_then(|part| serde_json::from_str(part).ok()).ok_or("the step of a comparison is not a text".to_owned())
}

fn subscription(part: Option<&str>) -> Result<String, String> {
    let id: String =
        part.and_then(|part| serde_json::from_str(part).ok()).ok_or("the subscription id is not a text".to_owned())?;
    match id.chars().count() {
        1..=64 => Ok(id),
        chars => Err(format!("a subscription id has 1 to 64 characters, not {chars}")),
    }
}

fn filters<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Vec<Filter>, String> {
    let filters: Vec<Filter> = parts.take(FILTERS_MAX + 1).map(Filter::parse).collect::<Result<_, _>>()?;
    match filters.len() {
        0 => Err("a REQ needs at least one filter".to_owned()),
        count if count > FILTERS_MAX => Err(format!("more than {FILTERS_MAX} filters")),
        _ => Ok(filters),
    }
}

/// The part of an EVENT message before the event; written once for a subscription.
pub(crate) fn event_head(subscription: &str) -> String {
    format!("[\"EVENT\",{},", quoted(subscription))
}

/// `["EVENT", …]`: the event byte for byte.
pub(crate) fn event(head: &str, raw: &str) -> String {
    let mut text = String::with_capacity(head.len() + raw.len() + 1);
    text.push_str(head);
    text.push_str(raw);
    text.push(']');
    text
}

/// `["EOSE", …]`.
pub(crate) fn eose(subscription: &str) -> String {
    format!("[\"EOSE\",{}]", quoted(subscription))
}

/// `["CLOSED", …]`.
pub(crate) fn closed(subscription: &str, why: &str) -> String {
    format!("[\"CLOSED\",{},{}]", quoted(subscription), quoted(why))
}

/// `["NEG-MSG", …]`.
pub(crate) fn neg_msg(subscription: &str, step: &str) -> String {
    format!("[\"NEG-MSG\",{},\"{step}\"]", quoted(subscription))
}

/// `["NEG-ERR", …]`.
pub(crate) fn neg_err(subscription: &str, why: &str) -> String {
    format!("[\"NEG-ERR\",{},{}]", quoted(subscription), quoted(why))
}

/// `["NOTICE", …]`.
pub(crate) fn notice(text: &str) -> String {
    format!("[\"NOTICE\",{}]", quoted(text))
}

/// `["AUTH", …]`.
pub(crate) fn auth(challenge: &str) -> String {
    format!("[\"AUTH\",{}]", quoted(challenge))
}

/// `["OK", …]`.
pub(crate) fn ok(id: &EventId, accepted: bool, why: &str) -> String {
    format!("[\"OK\",\"{id}\",{accepted},{}]", quoted(why))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
