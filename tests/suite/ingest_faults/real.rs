//! Relays of other people's making: what they were given is in the topic and in the lake, from the past and live.
//!
//! They write events anew, with their own order of fields and blanks: here an event is the same when its JSON is.

use std::collections::BTreeMap;
use std::time::Duration;

use event::Clock;
use ingest::{Kinds, NostrSettings, Reconcile};
use serde_json::Value;
use tests::audit::{Owed, owed};
use tests::real_relay::RealRelay;
use tests::signed;
use tokio::runtime::Runtime;

use super::lab::{Lab, quick};

const DAY: u64 = 24 * 3_600;

fn now() -> u64 {
    u64::try_from(Clock::system().now_ms() / 1_000).expect("after 1970")
}

/// Regular events only: of others a relay keeps the newest, or none.
fn spread(count: u64) -> Vec<String> {
    let kinds = [1, 7, 1_111, 9_735, 4, 1_063];
    let event = |number: u64| {
        let kind = kinds[usize::try_from(number % 6).expect("small")];
        signed::event(kind, now() - 40 * DAY + number / 3, &[&["t", "spread"]], &format!("event {number}"))
    };
    (0..count).map(event).collect()
}

/// 1,300 events of a second, 300 before and 300 after it.
fn dense() -> Vec<String> {
    let second = now() - 50 * DAY;
    let mut events = signed::notes_of_one_second(second, 1_300);
    for away in 1..=300 {
        events.extend([signed::note(second - away, "before"), signed::note(second + away, "after")]);
    }
    events
}

/// Settings for relays that have other things to do.
fn patient(relay: &RealRelay) -> NostrSettings {
    let wait = Duration::from_secs(5);
    NostrSettings {
        relays: vec![relay.url().to_owned()],
        connect_timeout: wait,
        idle_timeout: wait,
        ping_interval: wait,
        pong_timeout: wait,
        ..quick()
    }
}

/// What is owed for events that were published: each in the spelling that the topic has, if it says the same.
async fn owed_in_any_spelling(lab: &Lab, events: &[String]) -> Owed {
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("JSON");
    let landed: BTreeMap<String, Vec<u8>> =
        lab.topic().await.into_iter().map(|record| (record.key, record.value)).collect();
    let mut owed = owed(events);
    for (id, forms) in &mut owed {
        if let Some(value) = landed.get(id).filter(|value| forms.iter().any(|form| parse(form) == parse(value))) {
            forms.insert(value.clone());
        }
    }
    owed
}

/// The past, then news, among them what is dated back or ahead and what no relay stores.
async fn past_and_present(relay: &RealRelay, kinds: Kinds) {
    let lab = Lab::at(Clock::system());
    let mut events = spread(1_200);
    relay.publish(&events).await;
    let mut settings = patient(relay);
    settings.intake.kinds = kinds;
    let run = lab.run(settings);
    run.until_published(1_200).await;
    run.until_stored_done().await;
    let mut news: Vec<String> = (0..200).map(|number| signed::note(now(), &format!("news {number}"))).collect();
    news.extend([3_600, 2 * DAY, 4 * DAY].map(|back| signed::note(now() - back, "late")));
    news.push(signed::note(now() + 600, "ahead"));
    news.push(signed::event(20_001, now(), &[], "gone in a moment"));
    relay.publish(&news).await;
    run.until_published(1_405).await;
    run.stop().await;
    events.extend(news);
    lab.audit_owed(&owed_in_any_spelling(&lab, &events).await, 1_405).await;
}

#[test]
fn everything_of_rust_nostrs_relay_is_landed() {
    let Some(relay) = RealRelay::rust() else { return };
    Runtime::new().expect("a runtime").block_on(past_and_present(&relay, Kinds::all()));
}

/// 17: it answers a filter without any condition with nothing and an EOSE, and is deaf to it: what it stores is had by a
/// condition that says nothing, and what it does not push is found by looking back.
#[test]
fn everything_of_the_python_relay_is_landed() {
    let runtime = Runtime::new().expect("a runtime");
    let Some(relay) = runtime.block_on(RealRelay::python()) else { return };
    runtime.block_on(async {
        let lab = Lab::at(Clock::system());
        let mut events = spread(1_200);
        relay.publish(&events).await;
        let look = Reconcile { every: Duration::from_secs(1), back: None };
        let run = lab.run(NostrSettings { reconcile: vec![look], ..patient(&relay) });
        run.until_published(1_200).await;
        run.until_stored_done().await;
        let news: Vec<String> = (0..200).map(|number| signed::note(now() - 60, &format!("news {number}"))).collect();
        relay.publish(&news).await;
        run.until_published(1_400).await;
        run.until("a deaf subscription is seen", |counters| counters.missed_live > 0).await;
        run.stop().await;
        events.extend(news);
        lab.audit_owed(&owed_in_any_spelling(&lab, &events).await, 1_400).await;
    });
}

#[test]
fn everything_of_the_python_relay_is_landed_by_kinds() {
    let runtime = Runtime::new().expect("a runtime");
    let Some(relay) = runtime.block_on(RealRelay::python()) else { return };
    let kinds = Kinds::parse("1,4,7,1063,1111,9735,20001").expect("kinds");
    runtime.block_on(past_and_present(&relay, kinds));
}

/// 12: more events of a second than the relay gives out at once, which NIP-77 lists.
#[test]
fn a_dense_second_of_rust_nostrs_relay_is_landed_whole() {
    let Some(relay) = RealRelay::rust() else { return };
    Runtime::new().expect("a runtime").block_on(async {
        let events = dense();
        relay.publish(&events).await;
        let lab = Lab::at(Clock::system());
        let (counters, result) = lab.run(NostrSettings { once: true, ..patient(&relay) }).ends().await;
        result.expect("everything");
        assert_eq!(counters.gaps, 0, "{counters:?}");
        lab.audit_owed(&owed_in_any_spelling(&lab, &events).await, 1_900).await;
    });
}

/// 12, 13: the same without NIP-77 and with an exclusive `until`: what cannot be listed is reported.
#[test]
fn a_dense_second_of_the_python_relay_is_landed_or_reported() {
    let runtime = Runtime::new().expect("a runtime");
    let Some(relay) = runtime.block_on(RealRelay::python()) else { return };
    runtime.block_on(async {
        let events = dense();
        relay.publish(&events).await;
        let lab = Lab::at(Clock::system());
        let mut settings = NostrSettings { once: true, ..patient(&relay) };
        settings.intake.kinds = Kinds::parse("1").expect("a kind");
        let (counters, _) = lab.run(settings).ends().await;
        if counters.gaps == 0 {
            return lab.audit_owed(&owed_in_any_spelling(&lab, &events).await, 1_900).await;
        }
        let landed = lab.topic().await;
        let around = owed(&events[1_300..]);
        let lost = around.keys().filter(|id| landed.iter().all(|record| record.key != **id)).count();
        assert_eq!(lost, 0, "events around the dense second");
        assert!(landed.len() >= 600 + 500, "{} events", landed.len());
    });
}
