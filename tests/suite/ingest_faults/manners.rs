//! What relays ask of their guests: the limits that they name (NIP-11), and to be asked less often.

use std::time::Duration;

use ingest::{IntakeSettings, Kinds, NostrSettings};
use serde_json::{Value, json};
use tests::scripted_relay::{Plot, ScriptedRelay, notice};
use tests::signed;

use super::fault;
use super::lab::{Lab, quick};

/// Notes of one second each: no page is too small for them.
fn notes(count: u64) -> Vec<String> {
    (0..count).map(|at| signed::note(1_767_225_600 + at, "hello")).collect()
}

/// Fetches everything twice from a relay with these limits, so that the second time sets are compared; its requests.
async fn asked(limits: Option<Value>, kinds: &str) -> (ScriptedRelay, Vec<Value>) {
    let events = notes(300);
    let plot = match limits {
        Some(limits) => Plot::of(&events).nip11(&json!({ "name": "strict", "limitation": limits }).to_string()),
        None => Plot::of(&events),
    };
    let relay = ScriptedRelay::start(plot).await;
    let lab = Lab::new();
    for _ in 0..2 {
        let intake = IntakeSettings { kinds: Kinds::parse(kinds).expect("kinds"), ..quick().intake };
        let settings = NostrSettings { relays: vec![relay.url()], once: true, intake, ..quick() };
        lab.run(settings).ends().await.1.expect("everything is fetched");
    }
    lab.audit(&[&relay], 300).await;
    let requests = relay.messages("REQ");
    (relay, requests)
}

#[test]
fn limits_that_a_relay_names_are_kept_to() {
    fault(async {
        let all = "0-65535";
        let (relay, requests) = asked(None, all).await;
        assert!(!relay.messages("NEG-OPEN").is_empty(), "left alone, sets are compared");
        assert!(requests.iter().any(|request| request[2]["limit"] == 500));

        let (relay, requests) = asked(Some(json!({ "max_limit": 40, "max_subscriptions": 4 })), all).await;
        assert!(relay.messages("NEG-OPEN").is_empty(), "four subscriptions are too few for it");
        let limits: Vec<_> = requests.iter().filter_map(|request| request[2]["limit"].as_u64()).collect();
        assert!(limits.len() > 300 / 40 && limits.iter().all(|limit| *limit <= 40), "{limits:?}");

        // A limit that would have us ask without end, or of the wrong type, is none.
        let (_, requests) = asked(Some(json!({ "max_limit": 0, "max_subscriptions": "many" })), all).await;
        assert!(requests.iter().all(|request| request[2]["limit"].as_u64().is_none_or(|limit| limit >= 10)));
    });
}

#[test]
fn a_list_of_kinds_that_a_relay_would_not_read_is_not_sent() {
    fault(async {
        let kinds = "0-999";
        let (_, requests) = asked(None, kinds).await;
        assert!(
            requests.iter().all(|request| request[2]["kinds"].as_array().is_some_and(|kinds| kinds.len() == 1_000))
        );
        let (_, requests) = asked(Some(json!({ "max_message_length": 4_096 })), kinds).await;
        assert!(!requests.is_empty() && requests.iter().all(|request| request[2]["kinds"].is_null()));
    });
}

/// Strfry says it in a NOTICE, others in a CLOSED.
#[test]
fn a_relay_that_complains_is_asked_less_often() {
    fault(async {
        let events = notes(80);
        let plot = Plot::of(&events).cap(10).script(|scene, mut honest| {
            if scene.stored().is_some() && scene.turn == 0 {
                honest.insert(0, notice("rate-limited: too many requests"));
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let (_, result) = lab.once(&[relay.url()]).await;
        result.expect("everything is fetched");
        lab.audit(&[&relay], 80).await;
        let asked: Vec<_> = relay.asked().iter().filter(|asked| asked.message("REQ").is_some()).map(|a| a.at).collect();
        let took = asked[asked.len() - 1] - asked[0];
        // Ten a second at first, five after the complaint; a fifth of a second for what the wire adds and takes.
        let waits = u32::try_from(asked.len()).expect("few") - 2;
        assert!(waits >= 7 && took >= Duration::from_millis(200) * waits, "{took:?} for {} requests", asked.len());
    });
}
