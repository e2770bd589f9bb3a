//! `serde_json` as the judge of what is read out of a frame; the fuzzer asks it, too.

use event::Reason;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::frame::event_in;
use crate::relay::message::{Message, parse};

/// What is read out of a frame is what `serde_json` finds at its place; what it cannot read is refused.
///
/// # Panics
/// Where the two do not agree.
pub(crate) fn agrees(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let wanted = elements(&text);
    let text_at = |at: usize| wanted.as_ref()?.get(at)?.as_str();
    match parse(&text) {
        Ok(message) => {
            assert!(wanted.is_some(), "{}", text);
            match message {
                Message::Event { sub, event } => {
                    assert_eq!((text_at(0), text_at(1)), (Some("EVENT"), Some(sub.as_ref())));
                    assert!(text.contains(event) && serde_json::from_str::<IgnoredAny>(event).is_ok());
                }
                Message::Eose { sub, .. } => {
                    assert_eq!((text_at(0), text_at(1)), (Some("EOSE"), Some(sub.as_ref())));
                }
                Message::Closed { sub, text } => {
                    assert_eq!((text_at(0), text_at(1)), (Some("CLOSED"), Some(sub.as_ref())));
                    assert_eq!(text_at(2).unwrap_or_default(), text.as_ref());
                }
                Message::NegMsg { sub, hex } => {
                    assert_eq!((text_at(0), text_at(1)), (Some("NEG-MSG"), Some(sub.as_ref())));
                    assert_eq!(text_at(2).unwrap_or_default(), hex.as_ref());
                }
                Message::NegErr { sub, text } => {
                    assert_eq!((text_at(0), text_at(1)), (Some("NEG-ERR"), Some(sub.as_ref())));
                    assert_eq!(text_at(2).unwrap_or_default(), text.as_ref());
                }
                Message::Notice(text) => assert_eq!(text_at(1).unwrap_or_default(), text.as_ref()),
                Message::Auth(challenge) => assert_eq!(text_at(1), Some(challenge.as_ref())),
                Message::Ok { id, accepted, text } => {
                    assert_eq!(text_at(1).map(str::to_owned), Some(id.to_string()));
                    assert_eq!(&wanted.as_ref().expect("an array")[2], &accepted);
                    assert_eq!(text_at(3).unwrap_or_default(), text.as_ref());
                }
                Message::Other(label) => assert_eq!(text_at(0), Some(label.as_ref())),
            }
        }
        Err(why) => {
            let json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            assert_eq!(why.reason == Reason::FrameUnknown, json, "{}: {}", why, text);
        }
    }
    let event = event_in(bytes);
    let inside = event.first() == Some(&b'{') && wanted.is_some_and(|wanted| wanted.len() <= 3);
    assert!(event == bytes || inside, "{}", text);
}

/// The elements as serde_json has them, where the whole is an array.
fn elements(text: &str) -> Option<Vec<serde_json::Value>> {
    serde_json::from_str::<Vec<&RawValue>>(text).ok().map(|elements| {
        // A lone surrogate is JSON and no text: such an element is of no use to anybody.
        elements.iter().map(|raw| serde_json::from_str(raw.get()).unwrap_or_default()).collect()
    })
}
