//! Relays that let nobody read whom they do not know (NIP-42).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use event::{Event, Limits, SecretKey, tags, verify};
use ingest::{ErrorKind, NostrSettings};
use serde_json::Value;

use crate::harness::{Lab, assert_same, quick, signed, sorted};
use crate::puppet::{answer, matching, puppet};

/// A relay for members only; what it got as answers to its challenge.
async fn members_only(lab: &mut Lab, events: Vec<String>, accepts: bool) -> (String, Arc<Mutex<Vec<Value>>>) {
    let (answers, known) = (Arc::new(Mutex::new(Vec::new())), AtomicBool::new(false));
    let got = Arc::clone(&answers);
    let url = puppet(&mut lab.tasks, move |_, message| match message[0].as_str() {
        Some("AUTH") => {
            got.lock().expect("answers").push(message[1].clone());
            known.store(accepts, Ordering::SeqCst);
            let why = if accepts { "" } else { "restricted: not you" };
            vec![format!("[\"OK\",{},{accepts},\"{why}\"]", message[1]["id"])]
        }
        Some("REQ") if known.load(Ordering::SeqCst) => answer(message, &matching(message, &events, false)),
        Some("REQ") => vec![
            "[\"AUTH\",\"say friend\"]".to_owned(),
            format!("[\"CLOSED\",{},\"auth-required: members only\"]", message[1]),
        ],
        _ => Vec::new(),
    });
    (url.await, answers)
}

fn as_member(relay: &str, key: Option<[u8; 32]>) -> NostrSettings {
    let auth_key = key.and_then(SecretKey::from_bytes).map(Arc::new);
    NostrSettings { relays: vec![relay.to_owned()], once: true, auth_key, ..quick() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_for_members_is_read_with_a_key() {
    let mut lab = Lab::new();
    let events = signed(31, 40);
    let (relay, answers) = members_only(&mut lab, events.clone(), true).await;
    lab.nostr(as_member(&relay, Some([9; 32]))).await.1.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    let answers = answers.lock().expect("answers");
    assert_eq!(answers.len(), 1, "said once");
    let event = Event::parse(answers[0].to_string().as_bytes(), &Limits::default()).expect("an event");
    let event = verify::verify(event).expect("signed");
    assert_eq!(event.kind, 22_242);
    assert_eq!(tags::first(&event.tags, "challenge"), Some("say friend"));
    assert_eq!(tags::first(&event.tags, "relay"), Some(relay.as_str()));
    assert_eq!(event.pubkey, SecretKey::from_bytes([9; 32]).expect("a key").public_key());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_for_members_is_left_without_a_key_and_with_the_wrong_one() {
    for (key, words) in [(None, "--auth-key-file"), (Some([9; 32]), "not you")] {
        let mut lab = Lab::new();
        let (relay, answers) = members_only(&mut lab, signed(32, 5), false).await;
        let error = lab.nostr(as_member(&relay, key)).await.1.expect_err("members only");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(answers.lock().expect("answers").len(), usize::from(key.is_some()));
        assert!(lab.values().await.is_empty());
    }
}
