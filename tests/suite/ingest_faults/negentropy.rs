//! Fault 50: relays that say they speak NIP-77 and do not, or speak it without end. What can be fetched in another way
//! is; what cannot is reported; and nobody is asked for ever. A client that does not speak it passes too.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tests::scripted_relay::{Act, Cue, Plot, Scene, ScriptedRelay, notice};
use tests::signed;

use super::fault;
use super::lab::Lab;

/// Rounds after which a conversation has to be given up (ingest.md, fault 50), and requests around them.
const MESSAGES_MAX: usize = 600;

/// 1,300 events of a second, which pages cannot list, and 1,200 that they can.
fn events() -> Vec<String> {
    let mut events = signed::notes_of_one_second(1_767_225_000, 1_300);
    events.extend(signed::events(120, 1_200));
    events
}

/// Serves a relay that claims NIP-77 and answers its messages like this, given the id of the conversation.
async fn claims(name: &'static str, answer: impl Fn(&str, usize) -> Vec<Act> + Send + Sync + 'static) {
    let plot = Plot::of(&events()).nip11(&json!({"name": name, "supported_nips": [1, 11, 77]}).to_string()).script(
        move |scene: &Scene<'_>, honest| match scene.cue {
            Cue::Other(message) if message[0] == "NEG-OPEN" || message[0] == "NEG-MSG" => {
                answer(message[1].as_str().unwrap_or_default(), scene.turn)
            }
            Cue::Other(_) => Vec::new(),
            _ => honest,
        },
    );
    let relay = ScriptedRelay::start(plot).await;
    let lab = Lab::new();
    let (counters, result) = lab.once(&[relay.url()]).await;
    assert!(counters.gaps > 0 || result.is_err(), "{name}: 800 events were not listed: {counters:?}");
    assert!(relay.messages("NEG-MSG").len() + relay.messages("NEG-OPEN").len() < MESSAGES_MAX, "{name}");
    lab.audit(&[&relay], 1_200 + 500).await;
}

fn text(message: &serde_json::Value) -> Act {
    Act::Text(message.to_string())
}

#[test]
fn a_conversation_that_is_refused_is_not_split_and_not_repeated() {
    fault(async {
        claims("refuses", |sub, _| vec![text(&json!(["NEG-ERR", sub, "blocked: not today"]))]).await;
        claims("refuses in words", |_, _| vec![notice("ERROR: bad msg: negentropy disabled")]).await;
        claims("says that it is too much", |sub, _| {
            vec![text(&json!(["NEG-ERR", sub, "blocked: too many query results", 100]))]
        })
        .await;
    });
}

#[test]
fn a_conversation_that_falls_silent_is_given_up() {
    fault(async { claims("silent", |_, _| Vec::new()).await });
}

#[test]
fn a_conversation_in_junk_is_given_up() {
    fault(async {
        for junk in ["", "60", "62", "zz", "61ff", "6100000220"] {
            claims("junk", move |sub, _| vec![text(&json!(["NEG-MSG", sub, junk]))]).await;
        }
    });
}

/// A fingerprint of everything that fits nothing: whatever is answered, it differs.
#[test]
fn a_conversation_without_end_is_ended() {
    fault(async {
        claims("endless", |sub, turn| {
            let everything = format!("61000001{:032x}", turn + 1);
            vec![Act::Wait(Duration::from_millis(1)), text(&json!(["NEG-MSG", sub, everything]))]
        })
        .await;
    });
}

/// Ids that the relay has not got.
#[test]
fn ids_that_nobody_serves_are_not_asked_for_for_ever() {
    fault(async {
        let ids: Arc<str> = (1..=100).map(|number| format!("{number:064x}")).collect::<String>().into();
        claims("lies", move |sub, _| vec![text(&json!(["NEG-MSG", sub, format!("6100000264{ids}")]))]).await;
    });
}
