//! The coverage ledger: what it proves is there, what is proven is not fetched again, and what is missing has a name.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::{EventTime, SecretKey};
use ingest::coverage::{Coverage, Gap, GapReason, Proof, coverage, gaps};
use ingest::{ErrorKind, FileSettings, IntakeSettings, NostrSettings, Reconcile};
use relay::{Faults, Settings};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::harness::{Lab, TOPIC, assert_same, quick, sorted};
use crate::puppet::{answer, matching, puppet};

const NOON: i64 = 1_750_000_000;

/// Signed notes, one a second given.
fn notes(seconds: impl IntoIterator<Item = i64>) -> Vec<String> {
    let key = SecretKey::from_bytes([7; 32]).expect("a key");
    let note = |(at, second): (usize, i64)| key.sign(second, 1, Vec::new(), format!("note {at}")).to_json();
    seconds.into_iter().enumerate().map(note).collect()
}

fn second(note: &str) -> i64 {
    serde_json::from_str::<Value>(note).expect("json")["created_at"].as_i64().expect("a second")
}

async fn ledger(lab: &Lab) -> (Vec<Coverage>, Vec<Gap>) {
    let log = lab.components().log;
    (coverage(log.as_ref(), TOPIC).await.expect("a ledger"), gaps(log.as_ref(), TOPIC).await.expect("gaps"))
}

fn covers(lines: &[Coverage], second: i64) -> Option<Proof> {
    let bands = lines.iter().flat_map(|line| &line.bands);
    bands.into_iter().find(|band| band.from <= second && second <= band.to).map(|band| band.proof)
}

/// 1,300 events in one second, 300 older and 300 newer, and pages of 500 at most.
fn dense() -> Vec<String> {
    notes((0..300).map(|at| NOON - 400 + at).chain((0..1_300).map(|_| NOON)).chain((0..300).map(|at| NOON + 100 + at)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_denser_than_a_page_is_had_whole_where_sets_are_compared() {
    let mut lab = Lab::new();
    let events = dense();
    let relay = lab.relay_of(&events, Faults::default()).await;
    let (counters, result) = lab.once(&[relay]).await;
    result.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
    let (lines, gaps) = ledger(&lab).await;
    assert_eq!((counters.gaps, gaps), (0, Vec::new()));
    assert_eq!(covers(&lines, NOON), Some(Proof::Reconciled));
    assert!(events.iter().all(|note| covers(&lines, second(note)).is_some()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_denser_than_a_page_is_a_gap_where_they_are_not() {
    let mut lab = Lab::new();
    let events = dense();
    let path = lab.file(&events);
    let relay = lab.relay(Settings { events: vec![path], compares: false, ..Settings::default() }).await;
    let (counters, result) = lab.once(std::slice::from_ref(&relay)).await;
    result.expect("a run");
    let (lines, gaps) = ledger(&lab).await;
    assert_eq!(counters.gaps, 1);
    let gap = gaps.first().expect("a gap");
    assert_eq!((gap.relay.as_str(), gap.from, gap.to, gap.reason), (relay.as_str(), NOON, NOON, GapReason::Dense));
    assert_eq!(covers(&lines, NOON), None, "what is not proven is not claimed");
    let here: BTreeSet<String> = lab.values().await.into_iter().collect();
    for note in events.iter().filter(|note| second(note) != NOON) {
        assert!(here.contains(note) && covers(&lines, second(note)) == Some(Proof::Paged), "{note}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proven_is_not_fetched_again_but_for_what_may_have_come_since() {
    let mut lab = Lab::new();
    let old = notes((0..800).map(|at| NOON - 30 * 86_400 + at));
    let relay = lab.relay_of(&old, Faults::default()).await;
    lab.once(std::slice::from_ref(&relay)).await.1.expect("a run");
    let (again, result) = lab.once(std::slice::from_ref(&relay)).await;
    result.expect("a second run");
    assert_eq!((again.received, again.published), (0, 0), "a month ago is proven");
    let settings = NostrSettings { relays: vec![relay], once: true, refetch: true, ..quick() };
    let (refetched, result) = lab.nostr(settings).await;
    result.expect("a third run");
    assert!(refetched.received >= 800 && refetched.published == 0, "{refetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_fetched_and_nothing_else_and_the_rest_later() {
    let mut lab = Lab::new();
    let events = notes((0..900).map(|at| NOON - 1_000_000 + at * 1_000));
    let relay = lab.relay_of(&events, Faults::default()).await;
    let (from, until) = (NOON - 700_000, NOON - 300_000);
    let time = |secs: i64| EventTime::from_secs(secs);
    let range =
        NostrSettings { relays: vec![relay.clone()], once: true, since: time(from), until: time(until), ..quick() };
    lab.nostr(range).await.1.expect("a run");
    let (lines, _) = ledger(&lab).await;
    assert!((from..until).step_by(1_000).all(|at| covers(&lines, at).is_some()));
    assert_eq!((covers(&lines, from - 1), covers(&lines, until)), (None, None));
    let inside: BTreeSet<String> = lab.values().await.into_iter().collect();
    assert!(events.iter().filter(|note| (from..until).contains(&second(note))).all(|note| inside.contains(note)));
    // The edge of the range is asked for with the second after it.
    assert!(inside.len() <= 401, "{}", inside.len());
    let (rest, result) = lab.once(&[relay]).await;
    result.expect("the rest");
    assert_same(&lab.values().await, &sorted(&events));
    assert!(rest.received < 600, "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_torn_fetch_is_proven_as_far_as_it_came() {
    let mut lab = Lab::new();
    let events = notes((0..1_000).map(|at| NOON + at));
    let path = lab.file(&events);
    let faults = Faults { drop_after: Some(700), drops_max: Some(1_000), ..Faults::default() };
    let relay = lab.relay(Settings { events: vec![path], compares: false, faults, ..Settings::default() }).await;
    let settings = NostrSettings { relays: vec![relay], once: true, attempts_max: 1, ..quick() };
    // Each run gets a page and a part of the next before it is cut off; the next goes on where it ended.
    for _ in 0..5 {
        let (_, result) = lab.nostr(settings.clone()).await;
        let (lines, _) = ledger(&lab).await;
        let here: BTreeSet<String> = lab.values().await.into_iter().collect();
        for note in events.iter().filter(|note| covers(&lines, second(note)).is_some()) {
            assert!(here.contains(note), "proven and not here: {note}");
        }
        if result.is_ok() {
            break;
        }
    }
    assert_same(&lab.values().await, &sorted(&events));
}

/// A relay of what stands on the shelf, whose live subscription never says a word; counts how often it was opened.
async fn deaf(lab: &mut Lab, shelf: &Arc<Mutex<Vec<String>>>) -> (String, Arc<AtomicUsize>) {
    let (served, lives) = (Arc::clone(shelf), Arc::new(AtomicUsize::new(0)));
    let opened = Arc::clone(&lives);
    let url = puppet(&mut lab.tasks, move |_, message| match message[0].as_str() {
        Some("REQ") if message[2]["limit"] == 0 => {
            opened.fetch_add(1, Ordering::SeqCst);
            vec![format!("[\"EOSE\",{}]", message[1])]
        }
        Some("REQ") => answer(message, &matching(message, &served.lock().expect("events"), false)),
        Some("NEG-OPEN") => vec![format!("[\"NEG-ERR\",{},\"unsupported: no\"]", message[1])],
        _ => Vec::new(),
    });
    (url.await, lives)
}

/// Looks back at everything, often.
fn watchful(relay: String) -> NostrSettings {
    let look = Reconcile { every: Duration::from_millis(300), back: None };
    NostrSettings { relays: vec![relay], reconcile: vec![look], ..quick() }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} was not seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_live_subscription_is_found_and_opened_anew() {
    let mut lab = Lab::new();
    let now = lab.clock.now_ms() / 1_000;
    let all = notes((0..25).map(|at| now - 1_000 + at));
    let shelf = Arc::new(Mutex::new(all[..20].to_vec()));
    let (relay, lives) = deaf(&mut lab, &shelf).await;
    let (components, stop) = (lab.components(), CancellationToken::new());
    let counters = Arc::clone(&components.counters);
    lab.tasks.spawn({
        let (settings, stop) = (watchful(relay), stop.clone());
        async move { ingest::nostr(settings, components, stop).await.expect("a run") }
    });
    until("the past", || counters.snapshot().published == 20).await;
    shelf.lock().expect("events").extend_from_slice(&all[20..]);
    until("what live did not bring", || counters.snapshot().missed_live == 5).await;
    until("a live subscription opened anew", || lives.load(Ordering::SeqCst) >= 2).await;
    stop.cancel();
    until("all of it", || counters.snapshot().published == 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_takes_over_and_the_first_says_who() {
    let mut lab = Lab::new();
    let all = notes((0..30).map(|at| NOON + at));
    let shelf = Arc::new(Mutex::new(all[..10].to_vec()));
    let (relay, _) = deaf(&mut lab, &shelf).await;
    let components = lab.components();
    let counters = Arc::clone(&components.counters);
    let ended = Arc::new(Mutex::new(None));
    lab.tasks.spawn({
        let (settings, ended) = (watchful(relay), Arc::clone(&ended));
        async move {
            let result = ingest::nostr(settings, components, CancellationToken::new()).await;
            *ended.lock().expect("an end") = result.err();
        }
    });
    until("the first", || counters.snapshot().published == 10).await;
    let other = lab.relay_of(&all[10..20], Faults::default()).await;
    lab.once(&[other]).await.1.expect("the second");
    // The first finds out with the next thing that it has to write.
    shelf.lock().expect("events").extend_from_slice(&all[20..]);
    until("the end of the first", || ended.lock().expect("an end").is_some()).await;
    let error = ended.lock().expect("an end").take().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("was taken over by process"), "{error}");
    assert_same(&lab.values().await, &sorted(&all[..20]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_not_taken_over_from_a_process_where_that_is_not_wanted() {
    let mut lab = Lab::new();
    let all = notes((0..30).map(|at| NOON + at));
    let (relay, _) = deaf(&mut lab, &Arc::new(Mutex::new(all[..10].to_vec()))).await;
    let (components, stop) = (lab.components(), CancellationToken::new());
    let counters = Arc::clone(&components.counters);
    lab.tasks.spawn({
        let (settings, stop) = (watchful(relay), stop.clone());
        async move { ingest::nostr(settings, components, stop).await.expect("a run") }
    });
    until("the first", || counters.snapshot().published == 10).await;
    let path = lab.file(&all[10..]);
    let intake = IntakeSettings { if_free: true, max_future: None, ..IntakeSettings::default() };
    let settings = FileSettings { path, intake, ..FileSettings::default() };
    let error = ingest::file(settings.clone(), lab.components(), CancellationToken::new()).await.expect_err("not free");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("--take-over"), "{error}");
    stop.cancel();
    while lab.tasks.len() > 1 {
        lab.tasks.join_next().await.expect("a task").expect("no panic");
    }
    ingest::file(settings, lab.components(), CancellationToken::new()).await.expect("free now");
    assert_same(&lab.values().await, &sorted(&all));
}
