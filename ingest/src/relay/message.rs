//! Messages between client and relay (NIP-01): parsed without building a tree, so that the event's bytes stay as they
//! came. Says what a frame is; what it means is the session's affair.

use std::borrow::Cow;
use std::fmt;

use event::{Reason, Rejection};
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Elements of a message that mean something to us.
const ELEMENTS: usize = 3;

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
        "OK" | "AUTH" | "COUNT" | "NEG-MSG" | "NEG-ERR" => Ok(Message::Other(label)),
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
    pub(crate) limit: usize,
}

/// `["REQ",sub,filter]`.
pub(crate) fn req(sub: &str, filter: &Filter<'_>) -> String {
    serde_json::to_string(&("REQ", sub, filter)).expect("text and numbers always have a JSON form")
}

/// `["CLOSE",sub]`.
pub(crate) fn close(sub: &str) -> String {
    serde_json::to_string(&("CLOSE", sub)).expect("text always has a JSON form")
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_event_is_kept_byte_for_byte() {
        let event = "{ \"id\":\"\\u0061\" ,\n \"created_at\" : 7, \"x\": 1e400, \"y\":\"\\ud800\" }";
        let frame = format!(" [ \"EVENT\" , \"s\\u0031\", {event} , null, [1] ]\n");
        assert_eq!(parse(&frame), Ok(Message::Event { sub: "s1".into(), event }));
        assert_eq!(created_at("{\"created_at\":1700000000,\"tags\":[[]]}"), Some(1_700_000_000));
        assert_eq!(created_at("{\"created_at\":1.5}"), None);
    }

    #[test]
    fn the_messages_of_nip_01_are_read() {
        assert_eq!(parse(r#"["EOSE","a"]"#), Ok(Message::Eose { sub: "a".into(), finished: false }));
        assert_eq!(parse(r#"["EOSE","a",["finish"]]"#), Ok(Message::Eose { sub: "a".into(), finished: true }));
        assert_eq!(parse(r#"["EOSE","a",["more"]]"#), Ok(Message::Eose { sub: "a".into(), finished: false }));
        assert_eq!(parse(r#"["CLOSED","a"]"#), Ok(Message::Closed { sub: "a".into(), text: "".into() }));
        assert_eq!(
            parse(r#"["CLOSED","a","error: x"]"#),
            Ok(Message::Closed { sub: "a".into(), text: "error: x".into() })
        );
        assert_eq!(parse(r#"["NOTICE","hé"]"#), Ok(Message::Notice("hé".into())));
        assert_eq!(parse(r#"["AUTH","challenge"]"#), Ok(Message::Other("AUTH".into())));
    }

    #[test]
    fn junk_has_a_reason() {
        let reason = |text: &str| parse(text).expect_err(text).reason;
        for text in ["", "<html>", "[", "[\"EVENT\",\"a\",{\"x\":}]", "[\"EOSE\",\"a\"] x", "{\"a\":", "[1,2,3,4,]"] {
            assert_eq!(reason(text), Reason::MalformedJson, "{text}");
        }
        for text in
            ["{}", "1", "null", "[]", "[1]", "[\"EVENT\"]", "[\"EVENT\",\"a\"]", "[\"EVENT\",{},{}]", "[\"LIMITS\",{}]"]
        {
            assert_eq!(reason(text), Reason::FrameUnknown, "{text}");
        }
    }

    #[test]
    fn depth_does_not_take_the_stack() {
        let deep = format!("[\"EVENT\",\"a\",{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(matches!(parse(&deep), Ok(Message::Event { .. })));
        assert_eq!(parse(&"[".repeat(1_000_000)).expect_err("torn").reason, Reason::MalformedJson);
    }

    #[test]
    fn a_request_has_one_filter_and_only_what_is_asked() {
        let filter = Filter { kinds: Some(&[1, 7]), limit: 0, ..Filter::default() };
        assert_eq!(req("live-1", &filter), r#"["REQ","live-1",{"kinds":[1,7],"limit":0}]"#);
        let filter = Filter { kinds: None, since: Some(5), until: Some(9), limit: 500 };
        assert_eq!(req("stored-2", &filter), r#"["REQ","stored-2",{"since":5,"until":9,"limit":500}]"#);
        assert_eq!(close("live-1"), r#"["CLOSE","live-1"]"#);
    }

    #[test]
    fn the_frames_of_real_relays_are_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nostr/relay_frames.jsonl.gz");
        let Ok(file) = std::fs::File::open(path) else {
            eprintln!("SKIPPED: {path} is not there");
            return;
        };
        let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(file)).expect("frames");
        let messages: Vec<_> = text.lines().map(parse).collect();
        let events = messages.iter().filter(|message| matches!(message, Ok(Message::Event { .. }))).count();
        let ends = messages.iter().filter(|message| matches!(message, Ok(Message::Eose { .. }))).count();
        assert_eq!((events, ends), (787, 1));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            drop(parse(&text));
        }

        #[test]
        fn no_array_of_odd_elements_panics(
            label in prop_oneof![Just("EVENT"), Just("EOSE"), Just("CLOSED"), Just("NOTICE"), Just("OK"), Just("X")],
            rest in proptest::collection::vec(
                prop_oneof![Just("1"), Just("null"), Just("\"s\""), Just("{}"), Just("[[]]"), Just("\"\\ud800\""), Just("{")],
                0..5,
            ),
        ) {
            let text = format!("[\"{label}\"{}{}]", if rest.is_empty() { "" } else { "," }, rest.join(","));
            drop(parse(&text));
            created_at(&text);
        }

        #[test]
        fn what_is_sent_is_what_was_meant(sub in "\\PC{1,20}", json in "[a-z0-9 ]{0,20}") {
            let event = serde_json::to_string(&json).expect("json");
            let frame = format!("[\"EVENT\",{},{event}]", serde_json::to_string(&sub).expect("json"));
            prop_assert_eq!(parse(&frame), Ok(Message::Event { sub: sub.as_str().into(), event: &event }));
        }
    }
}
