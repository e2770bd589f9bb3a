//! Generated traffic over the socket: history, schedule, copies between relays of one seed.

use std::collections::HashSet;

use super::*;
use crate::generate::{Generate, Generator};

fn generating(generate: Generate) -> Settings {
    Settings { generate: Some(generate), default_limit: 0, max_limit: 0, ..Settings::default() }
}

#[tokio::test]
async fn live_events_come_when_they_are_due_and_only_then() {
    let generate = Generate { rate: 50.0, ..Generate::default() };
    let clock = Clock::mock(NOW_SECS * 1_000);
    let relay = start_at(generating(generate.clone()), clock.clone()).await;
    let mut client = Client::connect(relay.addr).await;
    client.send(json!(["REQ", "live", {"limit": 0}])).await;
    client.until_eose("live").await;
    let mut expected = Generator::try_new(generate).expect("settings");
    let first = expected.index_at(NOW_SECS * 1_000);
    clock.set(NOW_SECS * 1_000 + 999);
    // The event due at the very start came before we listened, or comes now.
    let mut texts = Vec::new();
    while texts.last() != Some(&format!("[\"EVENT\",\"live\",{}]", expected.event(first + 49).json)) {
        texts.push(client.text().await);
    }
    client.quiet().await;
    assert!((49..=50).contains(&texts.len()), "{}", texts.len());
    for (back, text) in texts.iter().rev().enumerate() {
        let index = first + 49 - u64::try_from(back).expect("small");
        assert_eq!(*text, format!("[\"EVENT\",\"live\",{}]", expected.event(index).json));
    }
    // What was live is now stored.
    assert_eq!(client.stored(&[json!({})]).await.len(), 50);
}

#[tokio::test]
async fn a_burst_reaches_every_subscriber_whole() {
    let generate = Generate { rate: 2_000.0, ..Generate::default() };
    let clock = Clock::mock(NOW_SECS * 1_000);
    let relay = start_at(generating(generate.clone()), clock.clone()).await;
    let mut client = Client::connect(relay.addr).await;
    client.send(json!(["REQ", "live", {"limit": 0}])).await;
    client.until_eose("live").await;
    clock.set(NOW_SECS * 1_000 + 500);
    let first = Generator::try_new(generate).expect("settings").index_at(NOW_SECS * 1_000);
    let mut expected = Generator::try_new(Generate { rate: 2_000.0, ..Generate::default() }).expect("settings");
    let mut seen = Vec::new();
    let last = expected.event(first + 1_000).event.id.to_string();
    while seen.last() != Some(&last) {
        seen.push(client.next().await[2]["id"].as_str().expect("an id").to_owned());
    }
    // What was due at the very start may have come before we listened.
    let due = (0..=1_000).map(|at| expected.event(first + at)).filter(|generated| generated.at_ms > NOW_SECS * 1_000);
    let wanted: Vec<_> = due.map(|generated| generated.event.id.to_string()).collect();
    assert!(wanted.len() > 990 && seen.ends_with(&wanted), "{} of {}", seen.len(), wanted.len());
}

#[tokio::test]
async fn history_is_stored_at_the_start_and_spread_over_its_span() {
    let generate = Generate { history: 300, rate: 0.0, late: 0.0, future: 0.0, ..Generate::default() };
    let relay = start(generating(generate)).await;
    assert!((299..=301).contains(&relay.loaded.events), "{:?}", relay.loaded);
    let mut client = Client::connect(relay.addr).await;
    client.send(json!(["REQ", "all", {}])).await;
    let events = client.until_eose("all").await;
    let dates: Vec<i64> = events
        .iter()
        .filter(|event| event["kind"] != 1_059)
        .map(|event| event["created_at"].as_i64().expect("a date"))
        .collect();
    assert!(dates.iter().all(|date| (NOW_SECS - 3_603..=NOW_SECS).contains(date)));
    assert!(dates.iter().any(|date| *date < NOW_SECS - 3_000) && dates.iter().any(|date| *date > NOW_SECS - 600));
    client.quiet().await;
}

#[tokio::test]
async fn relays_of_one_seed_started_apart_hold_copies_of_one_stream() {
    let of = |relay| Generate { relays: 2, relay, copies: 0.3, history: 400, rate: 0.0, ..Generate::default() };
    let (a, b) = (start(generating(of(0))).await, start(generating(of(1))).await);
    let mut held = Vec::new();
    for relay in [&a, &b] {
        let ids = Client::connect(relay.addr).await.stored(&[json!({})]).await;
        held.push(ids.into_iter().collect::<HashSet<_>>());
    }
    let (both, all) = (held[0].intersection(&held[1]).count(), held[0].union(&held[1]).count());
    assert!((398..=402).contains(&all), "{all}");
    assert!((80..=160).contains(&both), "{both} of {all}");
}

#[tokio::test]
async fn settings_without_sense_are_refused_before_listening() {
    let settings = generating(Generate { authors: 0, ..Generate::default() });
    let error = Server::bind(settings, Clock::mock(0)).await.err().expect("refused");
    assert_eq!(error.kind(), crate::ErrorKind::Config);
}
