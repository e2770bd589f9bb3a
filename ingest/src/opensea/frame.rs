//! Frames of Phoenix channels as far as the client itself has to know them: which channel, what sort, and to which join it
//! belongs. What an event says is none of its business. Pure.
//!
//! ```text
//! {"topic":…,"event":…,"payload":…,"ref":…}     version 1, objects
//! [join_ref, ref, topic, event, payload]        version 2, arrays
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The channel of the connection itself.
const PHOENIX: &str = "phoenix";
/// Longest reason of the server's that is passed on, bytes.
const REASON_BYTES_MAX: usize = 200;

/// The form of frames that is asked for. Both are read, whichever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    /// As `vsn` in the query has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }

    /// A frame that asks to join a channel; all that follows is known by `reference`.
    pub(crate) fn join(self, topic: &str, reference: u64) -> String {
        match self {
            Self::V1 => json!({"topic": topic, "event": "phx_join", "payload": {}, "ref": reference}).to_string(),
            Self::V2 => json!([reference.to_string(), reference.to_string(), topic, "phx_join", {}]).to_string(),
        }
    }

    /// A frame that says that we are there.
    pub(crate) fn heartbeat(self, reference: u64) -> String {
        match self {
            Self::V1 => json!({"topic": PHOENIX, "event": "heartbeat", "payload": {}, "ref": reference}).to_string(),
            Self::V2 => json!([null, reference.to_string(), PHOENIX, "heartbeat", {}]).to_string(),
        }
    }
}

/// What the server has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The answer to one of our frames.
    Reply {
        /// Reference of the frame that it answers.
        reference: Option<String>,
        /// Why not, where the answer is no.
        refused: Option<String>,
    },
    /// A channel has ended: it crashed, or was closed.
    Ended {
        topic: Cow<'a, str>,
        /// Reference of the join that it ends, where it says so.
        join_ref: Option<String>,
        crashed: bool,
    },
    /// Any other message of the channels' own.
    Control(Cow<'a, str>),
    /// Something on a channel.
    News { topic: Cow<'a, str> },
    /// Not a frame.
    Broken,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default, rename = "ref")]
    reference: Value,
    #[serde(default)]
    join_ref: Value,
}

#[derive(Deserialize)]
struct Array<'a>(
    Value,
    Value,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Option<&'a RawValue>,
);

/// Reads a frame of either form.
pub(crate) fn parse(text: &str) -> Frame<'_> {
    let object =
        match text.trim_ascii_start().as_bytes().first() {
            Some(b'[') => serde_json::from_str(text).ok().map(|Array(join_ref, reference, topic, event, payload)| {
                Object { topic, event, payload, reference, join_ref }
            }),
            _ => serde_json::from_str::<Object<'_>>(text).ok(),
        };
    object.map_or(Frame::Broken, Object::sorted)
}

impl<'a> Object<'a> {
    fn sorted(self) -> Frame<'a> {
        let (reference, join_ref) = (name(&self.reference), name(&self.join_ref));
        match &*self.event {
            "phx_reply" => Frame::Reply { reference, refused: self.payload.and_then(refusal) },
            // The first form has one reference only, which is then that of the join.
            "phx_error" => Frame::Ended { topic: self.topic, join_ref: join_ref.or(reference), crashed: true },
            "phx_close" => Frame::Ended { topic: self.topic, join_ref: join_ref.or(reference), crashed: false },
            event if event.starts_with("phx_") || event.starts_with("presence_") || event == "heartbeat" => {
                Frame::Control(self.event)
            }
            _ if self.topic == PHOENIX => Frame::Control(self.event),
            _ => Frame::News { topic: self.topic },
        }
    }
}

/// References are numbers or text, whatever we sent.
fn name(reference: &Value) -> Option<String> {
    match reference {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Why an answer is no; none where it is yes.
fn refusal(payload: &RawValue) -> Option<String> {
    let payload: Value = serde_json::from_str(payload.get()).ok()?;
    if payload["status"] == "ok" {
        return None;
    }
    let response = &payload["response"];
    let mut reason = response["reason"].as_str().map_or_else(|| response.to_string(), str::to_owned);
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    Some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_send_is_as_opensea_documents_it() {
        let documented = r#"{"topic":"collection:your-collection-slug","event":"phx_join","payload":{},"ref":1}"#;
        let same = |ours: String, theirs: &str| {
            let of = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            assert_eq!(of(&ours), of(theirs));
        };
        same(Version::V1.join("collection:your-collection-slug", 1), documented);
        same(Version::V1.heartbeat(0), r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":0}"#);
        same(Version::V2.join("collection:*", 3), r#"["3","3","collection:*","phx_join",{}]"#);
        same(Version::V2.heartbeat(4), r#"[null,"4","phoenix","heartbeat",{}]"#);
    }

    #[test]
    fn replies_ends_and_news_are_told_apart_in_both_forms() {
        let reply = |reference: &str, refused: Option<&str>| Frame::Reply {
            reference: Some(reference.to_owned()),
            refused: refused.map(str::to_owned),
        };
        assert_eq!(
            parse(r#"["1","1","collection:argonauts","phx_reply",{"status":"ok","response":{}}]"#),
            reply("1", None)
        );
        let unauthorized =
            r#"["2","2","collection:x","phx_reply",{"status":"error","response":{"reason":"unauthorized"}}]"#;
        assert_eq!(parse(unauthorized), reply("2", Some("unauthorized")));
        let odd = r#"{"topic":"c","event":"phx_reply","payload":{"status":"error","response":[1]},"ref":5}"#;
        assert_eq!(parse(odd), reply("5", Some("[1]")));
        let ended = |join_ref: Option<&str>, crashed| Frame::Ended {
            topic: "collection:x".into(),
            join_ref: join_ref.map(str::to_owned),
            crashed,
        };
        assert_eq!(parse(r#"["7",null,"collection:x","phx_error",{}]"#), ended(Some("7"), true));
        assert_eq!(
            parse(r#"{"topic":"collection:x","event":"phx_close","payload":{},"ref":7}"#),
            ended(Some("7"), false)
        );
        assert_eq!(parse(r#"{"topic":"collection:x","event":"phx_close","payload":{}}"#), ended(None, false));
        let news = Frame::News { topic: "collection:*".into() };
        assert_eq!(parse(r#" ["7",null,"collection:*","item_sold",{"a":[1]}] "#), news);
        assert_eq!(parse(r#"{"event":"item_sold","payload":{},"ref":null,"topic":"collection:*"}"#), news);
        assert_eq!(
            parse(r#"{"event":"presence_diff","payload":{},"topic":"collection:*"}"#),
            Frame::Control("presence_diff".into())
        );
        assert_eq!(parse(r#"[null,null,"phoenix","whatever",{}]"#), Frame::Control("whatever".into()));
    }

    #[test]
    fn what_is_no_frame_is_broken() {
        for text in
            ["", "hello", "{}", "[]", "[1,2]", r#"{"topic":1,"event":"x"}"#, r#"["1","2","t","e"]"#, "nul", "[[[["]
        {
            assert_eq!(parse(text), Frame::Broken, "{text}");
        }
    }
}
