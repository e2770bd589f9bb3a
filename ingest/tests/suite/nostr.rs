//! `ingest nostr`: what relays serve is in the topic once, whatever they do on the way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ingest::{CountersSnapshot, ErrorKind, IntakeSettings, Kinds, NostrSettings};
use relay::{Faults, Generate};
use tokio_util::sync::CancellationToken;

use crate::harness::{Lab, REJECTED, TOPIC, assert_balanced, assert_same, quick, reasons, signed, sorted, value};
use crate::puppet::{answer, matching, puppet};

fn drops(after: u64, max: u64) -> Faults {
    Faults { drop_after: Some(after), drops_max: Some(max), ..Faults::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_two_relays_is_in_the_topic_once() {
    let mut lab = Lab::new();
    let events = signed(1, 1_500);
    let relays = [
        lab.relay_of(&events[..1_200], Faults::default()).await,
        lab.relay_of(&events[300..], Faults::default()).await,
    ];
    let before = lab.clock.now_ms();
    let (counters, result) = lab.once(&relays).await;
    result.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    assert_eq!((counters.published, counters.gaps), (1_500, 0));
    assert!(counters.copies >= 900 && counters.rejected.is_empty());
    assert_eq!(counters.relays.iter().map(|relay| relay.copies).sum::<u64>(), counters.copies);
    assert_balanced(&counters);
    assert!(counters.relays.iter().all(|relay| relay.stored_done && !relay.connected));
    for record in lab.records(TOPIC).await {
        let event: serde_json::Value = serde_json::from_str(&value(&record)).expect("json");
        assert_eq!(record.key.as_deref(), event["id"].as_str().map(str::as_bytes));
        assert_eq!((record.header("source"), record.header("phase")), (Some("nostr"), Some("backfill")));
        assert!(relays.iter().any(|relay| record.header("relay") == Some(relay)));
        assert_eq!(record.header("received_at"), Some(record.timestamp_ms.to_string().as_str()));
        assert!((before..=lab.clock.now_ms()).contains(&record.timestamp_ms));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_over_the_same_topic_publishes_nothing() {
    let mut lab = Lab::new();
    let events = signed(2, 700);
    let relay = [lab.relay_of(&events, Faults::default()).await];
    lab.once(&relay).await.1.expect("a run");
    let (counters, result) = lab.once(&relay).await;
    result.expect("a second run");
    assert_eq!((counters.published, counters.copies), (0, counters.received));
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_copy_never_shadows_the_true_event() {
    let mut lab = Lab::new();
    let events = signed(3, 300);
    // Before every event this relay sends another content under its id and signature.
    let forger = lab.relay_of(&events, Faults { forge_every: Some(1), ..Faults::default() }).await;
    let (counters, result) = lab.once(&[forger]).await;
    result.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    // A forgery that is looked at after its true event is dropped as a copy.
    assert!((200..=300).contains(&counters.rejected_total()) && reasons(&counters).contains_key("id_mismatch"));
    assert_eq!(lab.rejected().await, reasons(&counters));
    assert_balanced(&counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_event_first_and_the_true_one_from_another_relay_later() {
    let mut lab = Lab::new();
    let events = signed(4, 50);
    let forged: Vec<String> =
        events.iter().map(|event| event.replace("\"content\":\"", "\"content\":\"not ")).collect();
    let (liar, honest) = (lab.file(&forged), lab.relay_of(&events, Faults::default()).await);
    let liar = lab.relay(relay::Settings { events: vec![liar], ..relay::Settings::default() }).await;
    lab.once(&[liar]).await.1.expect("a run");
    assert_eq!(lab.values().await.len(), 0);
    lab.once(&[honest]).await.1.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_drop_lose_nothing() {
    let mut lab = Lab::new();
    let events = signed(5, 2_000);
    let relay = lab.relay_of(&events, drops(700, 3)).await;
    let torn_in_every_page = lab.relay_of(&events, drops(150, 8)).await;
    for relay in [relay, torn_in_every_page] {
        let (counters, result) = lab.once(&[relay]).await;
        result.expect("a run");
        assert!(counters.relays[0].connects > 1, "{counters:?}");
        assert_same(&lab.values().await, &sorted(&events));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_there_is_named_and_the_others_are_landed() {
    let mut lab = Lab::new();
    let events = signed(6, 100);
    let good = lab.relay_of(&events, Faults::default()).await;
    let gone = "ws://127.0.0.1:9".to_owned();
    let (counters, result) = lab.once(&[gone.clone(), good]).await;
    let error = result.expect_err("a relay is missing");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&gone), "{error}");
    assert_eq!(counters.published, 100);
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_never_ends_its_answer_is_given_up_and_what_it_sent_is_landed() {
    let mut lab = Lab::new();
    let events = signed(7, 40);
    let relay = lab.relay_of(&events, Faults { no_eose: true, ..Faults::default() }).await;
    let settings = NostrSettings {
        relays: vec![relay],
        once: true,
        attempts_max: 2,
        idle_timeout: Duration::from_millis(100),
        ..quick()
    };
    let (_, result) = lab.nostr(settings).await;
    assert!(result.expect_err("no EOSE").to_string().contains("EOSE"));
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_frames_are_rejected_once_each_and_do_not_disturb() {
    let mut lab = Lab::new();
    let events = signed(8, 400);
    let faults = || Faults { garbage_every: Some(9), ..Faults::default() };
    let relays = [lab.relay_of(&events, faults()).await, lab.relay_of(&events, faults()).await];
    let (counters, result) = lab.once(&relays).await;
    result.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    assert_eq!(lab.rejected().await, reasons(&counters));
    assert!(["malformed_json", "frame_unknown"].iter().all(|reason| reasons(&counters).contains_key(*reason)));
    let keys: Vec<_> = lab.records(REJECTED).await.into_iter().map(|record| record.key).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "the same bytes are written once");
    assert!(counters.rejected_again > 0);
    assert_balanced(&counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_beyond_the_limit_costs_its_connection_only() {
    let mut lab = Lab::new();
    let events = signed(9, 60);
    let faults = Faults { huge_frame_bytes: Some(9 << 20), ..Faults::default() };
    let relay = lab.relay_of(&events, faults).await;
    let (counters, result) = lab.once(&[relay]).await;
    result.expect("a run");
    assert_eq!(counters.relays[0].connects, 2);
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_asked_for_and_what_a_relay_sends_beyond_them_is_filtered() {
    let mut lab = Lab::new();
    let events = signed(10, 300);
    let kind = |event: &String| serde_json::from_str::<serde_json::Value>(event).expect("json")["kind"].clone();
    let notes: Vec<String> = events.iter().filter(|event| kind(event) == 1).cloned().collect();
    assert!(!notes.is_empty() && notes.len() < events.len());
    let deaf = {
        let events = events.clone();
        puppet(&mut lab.tasks, move |_, request| {
            if request[0] != "REQ" {
                return Vec::new();
            }
            assert_eq!(request[2]["kinds"], serde_json::json!([1]));
            answer(request, &matching(request, &events, false))
        })
        .await
    };
    let intake =
        IntakeSettings { kinds: Kinds::parse("1").expect("kinds"), max_future: None, ..IntakeSettings::default() };
    let settings = NostrSettings { relays: vec![deaf], once: true, intake, ..quick() };
    let (counters, result) = lab.nostr(settings).await;
    result.expect("a run");
    assert_same(&lab.values().await, &sorted(&notes));
    assert!(counters.filtered as usize >= events.len() - notes.len() && counters.rejected.is_empty());
    assert_balanced(&counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_an_exclusive_until_is_fetched_whole() {
    let mut lab = Lab::new();
    let events = signed(11, 500);
    let relay = {
        let events = events.clone();
        puppet(&mut lab.tasks, move |_, request| match request[0] == "REQ" {
            true => answer(request, &matching(request, &events, true)),
            false => Vec::new(),
        })
        .await
    };
    let settings = NostrSettings { relays: vec![relay], once: true, page_events_max: 50, ..quick() };
    let (counters, result) = lab.nostr(settings).await;
    result.expect("a run");
    assert_eq!(counters.gaps, 0);
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_answered_by_prefix() {
    let mut lab = Lab::new();
    let events = signed(12, 200);
    let picky = {
        let events = events.clone();
        puppet(&mut lab.tasks, move |turn, request| {
            let sub = &request[1];
            match (request[0] == "REQ", turn) {
                (false, _) => Vec::new(),
                (true, 0) => vec![format!("[\"CLOSED\",{sub},\"error: busy\"]")],
                (true, _) if request[2]["limit"].as_u64() > Some(100) => {
                    vec![format!("[\"CLOSED\",{sub},\"invalid: limit too large\"]")]
                }
                (true, _) => answer(request, &matching(request, &events, false)),
            }
        })
        .await
    };
    lab.once(&[picky]).await.1.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    let members = puppet(&mut lab.tasks, |_, request| match request[0] == "REQ" {
        true => vec![format!("[\"CLOSED\",{},\"auth-required: members only\"]", request[1])],
        false => Vec::new(),
    })
    .await;
    let error = lab.once(&[members]).await.1.expect_err("refused");
    assert!(error.to_string().contains("auth-required: members only"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_follow_what_is_stored_over_lost_connections_and_shutdown_drains() {
    let mut lab = Lab::new();
    let base_ms = lab.clock.now_ms();
    let made = Generate {
        seed: 13,
        late: 0.0,
        rate: 200.0,
        relays: 2,
        base_ms,
        history: 300,
        forged: 0.0,
        future: 0.0,
        ..Generate::default()
    };
    let faults = Faults { drop_every: Some(Duration::from_millis(700)), drops_max: Some(4), ..Faults::default() };
    let mut relays = Vec::new();
    for relay in 0..2 {
        let generate = Some(Generate { relay, ..made.clone() });
        relays
            .push(lab.relay(relay::Settings { generate, faults: faults.clone(), ..relay::Settings::default() }).await);
    }
    let begun_at = lab.clock.now_ms();
    let components = lab.components();
    let (counters, shutdown) = (Arc::clone(&components.counters), CancellationToken::new());
    let settings = NostrSettings { relays, ..quick() };
    let run = tokio::task::JoinSet::from_iter([ingest::nostr(settings, components, shutdown.clone())]);
    let begun = Instant::now();
    // All drops are over, and the sessions after them have had the time to look back.
    let dropping = |snapshot: CountersSnapshot| snapshot.relays.iter().filter(|relay| relay.connects == 5).count() < 2;
    while dropping(counters.snapshot()) && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stopped_at = lab.clock.now_ms();
    shutdown.cancel();
    let stopped = Instant::now();
    run.join_all().await.into_iter().for_each(|ended| ended.expect("shutdown is no error"));
    assert!(stopped.elapsed() < Duration::from_secs(60));
    let snapshot = counters.snapshot();
    assert_balanced(&snapshot);
    assert!(snapshot.relays.iter().all(|relay| relay.connects == 5), "{snapshot:?}");
    let records = lab.records(TOPIC).await;
    assert_eq!(u64::try_from(records.len()).expect("few"), snapshot.published);
    let keys: HashSet<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!(keys.len(), records.len(), "each id once");
    for phase in ["live", "backfill"] {
        assert!(records.iter().any(|record| record.header("phase") == Some(phase)), "{phase}");
    }
    // Everything that became due between then and now is there, whether the connections were up or down.
    let made = relay::generate::generate(made).expect("events");
    let due: Vec<_> =
        made.take_while(|made| made.at_ms < stopped_at - 1_000).filter(|made| made.at_ms > begun_at).collect();
    let missed = due.iter().filter(|made| !keys.contains(&Some(made.event.id.to_string().into()))).count();
    assert!(due.len() > 500 && missed == 0, "{missed} of {} events were missed", due.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscription_that_a_relay_ends_is_opened_again() {
    let mut lab = Lab::new();
    let events = signed(14, 2);
    let done = Arc::new(AtomicBool::new(false));
    let relay = {
        let (events, done) = (events.clone(), Arc::clone(&done));
        puppet(&mut lab.tasks, move |turn, request| {
            let sub = &request[1];
            match (request[0].as_str(), request[2]["limit"].as_u64()) {
                (Some("REQ"), Some(0)) if turn == 0 => {
                    vec![format!("[\"EOSE\",{sub}]"), format!("[\"CLOSED\",{sub},\"error: restarting\"]")]
                }
                (Some("REQ"), Some(0)) => {
                    assert!(request[2]["since"].is_null() && request[2]["until"].is_null());
                    done.store(true, Ordering::SeqCst);
                    let event = |event: &String| format!("[\"EVENT\",{sub},{event}]");
                    vec![event(&events[0]), format!("[\"EOSE\",{sub}]"), event(&events[1])]
                }
                (Some("REQ"), _) => vec![format!("[\"EOSE\",{sub}]")],
                _ => Vec::new(),
            }
        })
        .await
    };
    let components = lab.components();
    let (counters, shutdown) = (Arc::clone(&components.counters), CancellationToken::new());
    let settings = NostrSettings { relays: vec![relay], ..quick() };
    let run = tokio::task::JoinSet::from_iter([ingest::nostr(settings, components, shutdown.clone())]);
    let begun = Instant::now();
    while counters.snapshot().published < 2 && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    run.join_all().await.into_iter().for_each(|ended| ended.expect("shutdown is no error"));
    assert!(done.load(Ordering::SeqCst));
    let phases: BTreeMap<String, String> = lab
        .records(TOPIC)
        .await
        .iter()
        .map(|record| (value(record), record.header("phase").expect("a phase").to_owned()))
        .collect();
    assert_eq!(phases.get(&events[0]).map(String::as_str), Some("backfill"), "sent before EOSE in spite of limit:0");
    assert_eq!(phases.get(&events[1]).map(String::as_str), Some("live"));
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let lab = Lab::new();
    for relays in [vec![], vec!["https://relay.example.org".to_owned()]] {
        let error = lab.once(&relays).await.1.expect_err("no relay");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert!(lab.log.topics().await.expect("topics").is_empty(), "nothing is created before the settings are checked");
}
