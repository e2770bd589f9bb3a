//! Faults 14 to 18: dates that nobody can believe, pages that lead nowhere, and events that come late.

use std::time::Duration;

use event::Clock;
use serde_json::Value;
use tests::audit::owed;
use tests::scripted_relay::{Act, Plot, ScriptedRelay};
use tests::signed;

use super::fault;
use super::lab::{Lab, until};

/// 2026-11-21.
const NOW_SECS: u64 = 1_795_219_200;
const DAY: u64 = 24 * 3_600;

fn at_now() -> Lab {
    Lab::at(Clock::mock(i64::try_from(NOW_SECS * 1_000).expect("a time")))
}

/// 14: 1970, 2048, beyond 32 bits, beyond what a double counts exactly.
#[test]
fn dates_that_nobody_can_believe_move_no_cursor() {
    fault(async {
        let believable = [0, 1, 86_399, 1_577_836_800, NOW_SECS - 1, NOW_SECS + 899];
        let ahead = [NOW_SECS + 901, 2_461_449_600, (1 << 32) + 1, 1 << 53];
        let notes = |dates: &[u64]| dates.iter().map(|at| signed::note(*at, "when?")).collect::<Vec<_>>();
        let mut events = signed::events(40, 1_200);
        events.extend(notes(&believable));
        let owed = owed(&events);
        events.extend(notes(&ahead));
        let relay = ScriptedRelay::honest(&events).await;
        let lab = at_now();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit_owed(&owed, 1_206).await;
        let rejected = lab.rejected().await;
        assert_eq!(rejected.values().sum::<usize>(), ahead.len(), "{rejected:?}");
        assert!(rejected.keys().all(|reason| ["future", "out_of_range"].contains(&reason.as_str())), "{rejected:?}");
        let asked = relay.messages("REQ");
        assert!(asked.len() < 20, "{} pages for 1,210 events", asked.len());
        let negative = |request: &Value| {
            ["since", "until"].iter().any(|name| request[2][name].as_i64() < Some(0) && request[2][name].is_number())
        };
        assert!(!asked.iter().any(negative), "a relay is never asked for a time before 1970");
    });
}

/// 15: the same page, whatever is asked for.
#[test]
fn the_same_page_for_ever_ends() {
    fault(async {
        let plot = Plot::of(&signed::events(41, 900)).script(|scene, honest| match scene.stored() {
            Some((sub, _)) => scene.answer(sub, &serde_json::json!({}), 300),
            None => honest,
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = at_now();
        let (counters, result) = lab.once(&[relay.url()]).await;
        assert!(result.is_err() || counters.gaps > 0, "what cannot be reached is not called complete");
        assert!(relay.messages("REQ").len() < 200, "{} pages", relay.messages("REQ").len());
        lab.audit(&[&relay], 300).await;
    });
}

/// 15: a page that lies above what was asked for.
#[test]
fn pages_above_the_cursor_end() {
    fault(async {
        let plot = Plot::of(&signed::events(42, 900)).script(|scene, honest| match scene.stored() {
            Some((sub, filter)) if filter["until"].is_number() => {
                let above = serde_json::json!({"since": filter["until"].as_i64().expect("a number") + 1});
                scene.answer(sub, &above, 200)
            }
            _ => honest,
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = at_now();
        let (counters, result) = lab.once(&[relay.url()]).await;
        assert!(result.is_err() || counters.gaps > 0, "what cannot be reached is not called complete");
        lab.audit(&[&relay], 500).await;
    });
}

/// 15: oldest first within a page, as nostr-rs-relay answers.
#[test]
fn a_page_in_any_order_is_a_page() {
    fault(async {
        let plot = Plot::of(&signed::events(43, 1_700)).script(|scene, mut honest| {
            if scene.stored().is_some() {
                let events = honest.len() - 1;
                match scene.turn % 2 {
                    0 => honest[..events].reverse(),
                    _ => honest[..events].rotate_left(events / 3),
                }
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = at_now();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 1_700).await;
    });
}

/// 18: old events that come live.
#[test]
fn an_event_that_comes_late_is_taken_once() {
    fault(async {
        let relay = ScriptedRelay::honest(&signed::events(45, 100)).await;
        let lab = at_now();
        let run = lab.follow(&[relay.url()]);
        run.until_published(100).await;
        let live =
            relay.messages("REQ").into_iter().find(|request| request[2]["limit"] == 0).expect("a live subscription");
        for name in ["since", "until"] {
            assert!(live[2][name].is_null(), "`{name}` would hold back what comes late: {live}");
        }
        for back in [3_600, 2 * DAY, 3 * 365 * DAY] {
            relay.publish(&signed::event(1_059, NOW_SECS - back, &[&["p", &"ab".repeat(32)]], "late"));
        }
        run.until_published(103).await;
        run.stop().await;
        lab.audit(&[&relay], 103).await;
    });
}

/// Events that arrive while the past is fetched, in both halves at once.
#[test]
fn between_past_and_present_there_is_no_seam() {
    fault(async {
        let events = signed::events(46, 2_000);
        let plot = Plot::of(&events[..1_200]).script(|scene, mut honest| {
            if scene.stored().is_some() {
                honest.insert(honest.len() / 2, Act::Wait(Duration::from_millis(30)));
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = at_now();
        let run = lab.follow(&[relay.url()]);
        until("a connection", || relay.connections() > 0).await;
        for event in &events[1_200..] {
            relay.publish(event);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        run.until_published(2_000).await;
        run.stop().await;
        lab.audit(&[&relay], 2_000).await;
    });
}
