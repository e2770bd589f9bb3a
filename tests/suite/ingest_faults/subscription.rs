//! Faults 7 to 13: what a relay answers to a subscription, and what it leaves out.

use std::time::Duration;

use ingest::NostrSettings;
use serde_json::Value;
use tests::scripted_relay::{Act, Cue, Plot, Scene, ScriptedRelay, closed, eose, notice};
use tests::signed;

use super::fault;
use super::lab::{Lab, quick, until};

/// A relay that closes its first live subscription with this text, once it is on.
fn ends_live_with(text: &'static str, events: &[String]) -> Plot {
    Plot::of(events).script(move |scene, mut honest| {
        if let Some(sub) = scene.live().filter(|_| scene.turn == 0) {
            honest.push(closed(sub, text));
        }
        honest
    })
}

/// 7: an end that means nothing in particular.
#[test]
fn a_live_subscription_that_is_closed_is_opened_again_and_its_gap_is_filled() {
    fault(async {
        for (seed, text) in [(20, "error: could not go on"), (21, ""), (22, "shutting down"), (23, "mystery: 42")] {
            let events = signed::events(seed, 150);
            let relay = ScriptedRelay::start(ends_live_with(text, &events[..100])).await;
            let lab = Lab::new();
            let run = lab.follow(&[relay.url()]);
            until("the live subscription", || relay.live_requests() >= 1).await;
            // Some of these fall between the two subscriptions.
            for event in &events[100..] {
                relay.publish(event);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            until("a second live subscription", || relay.live_requests() >= 2).await;
            run.until_published(150).await;
            run.stop().await;
            lab.audit(&[&relay], 150).await;
        }
    });
}

/// 7: our filter is the problem.
#[test]
fn a_filter_that_is_refused_is_made_simpler() {
    fault(async {
        for (seed, text) in [(24, "invalid: limit 0"), (25, "unsupported: filter"), (26, "ERROR: bad req: no")] {
            let events = signed::events(seed, 60);
            let plot = Plot::of(&events[..50]).script(move |scene, honest| match scene.live() {
                Some(sub) => vec![closed(sub, text)],
                None => honest,
            });
            let relay = ScriptedRelay::start(plot).await;
            let lab = Lab::new();
            let run = lab.follow(&[relay.url()]);
            until("a live subscription in another form", || {
                relay.messages("REQ").iter().any(|request| request[1] != "x" && request[2]["limit"] == 1)
            })
            .await;
            run.until_published(50).await;
            events[50..].iter().for_each(|event| relay.publish(event));
            run.until_published(60).await;
            run.stop().await;
            assert_eq!(relay.live_requests(), 1, "what was refused once is not asked for again");
            lab.audit(&[&relay], 60).await;
        }
    });
}

/// 7: too fast.
#[test]
fn a_relay_that_limits_our_rate_is_not_asked_again_at_once() {
    fault(async {
        let events = signed::events(27, 90);
        let relay = ScriptedRelay::start(ends_live_with("rate-limited: slow down", &events)).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        // The past may go on, or wait as well; what must not be is a second live subscription right away.
        run.until("an event", |counters| counters.received > 0).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!((relay.live_requests(), relay.connections()), (1, 1));
        run.stop().await;
    });
}

/// 7: not for us.
#[test]
fn a_relay_that_does_not_want_us_is_left_alone_and_named() {
    fault(async {
        let texts = ["auth-required: members only", "restricted: pay first", "blocked: you are banned", "mute: no"];
        for text in texts {
            let plot = Plot::of(&signed::events(28, 30)).script(move |scene, honest| match scene.cue {
                Cue::Req { sub, .. } => vec![closed(sub, text)],
                _ => honest,
            });
            let relay = ScriptedRelay::start(plot).await;
            let lab = Lab::new();
            let run = lab.follow(&[relay.url()]);
            until("a subscription", || !relay.messages("REQ").is_empty()).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(relay.connections(), 1, "{text}");
            assert!(relay.messages("REQ").len() <= 2, "{text}: {:?}", relay.asked());
            run.stop().await;
            let (_, result) = lab.once(&[relay.url()]).await;
            let error = result.expect_err("it was refused").to_string();
            assert!(error.contains(text) && error.contains(&relay.url()), "{error}");
        }
    });
}

/// 8: the end of a subscription that was over already, and of one that never was.
#[test]
fn a_stale_closed_changes_nothing() {
    fault(async {
        let plot = Plot::of(&signed::events(29, 1_300)).script(|scene, mut honest| {
            if let Cue::Req { sub, filter } = scene.cue {
                if filter["limit"] != 0 {
                    honest.push(closed(sub, ""));
                }
                honest.push(closed("never-asked", "error: stale"));
            }
            if let Cue::Close { sub } = scene.cue {
                honest.extend([closed(sub, ""), closed(sub, "error: closed by the client")]);
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(1_300).await;
        run.until_stored_done().await;
        relay.publish(&signed::note(1_700_000_000, "still live"));
        run.until_published(1_301).await;
        run.stop().await;
        assert_eq!((relay.live_requests(), relay.connections()), (1, 1));
        lab.audit(&[&relay], 1_301).await;
    });
}

/// 9: a relay that refuses in words only, and does not say what.
#[test]
fn a_refusal_by_notice_is_noticed() {
    fault(async {
        let plot = Plot::of(&signed::events(30, 700)).script(|scene, honest| match scene.stored() {
            Some(_) if scene.turn < 2 => vec![notice("ERROR: bad req: failed to parse envelope")],
            _ => honest,
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("the third try is answered");
        lab.audit(&[&relay], 700).await;

        let never = Plot::of(&signed::events(31, 20)).script(|scene, honest| match scene.stored() {
            Some(_) => vec![notice("could not do that")],
            None => honest,
        });
        let relay = ScriptedRelay::start(never).await;
        let lab = Lab::new();
        let settings = NostrSettings { relays: vec![relay.url()], once: true, attempts_max: 2, ..quick() };
        let error = lab.run(settings).ends().await.1.expect_err("nothing was answered").to_string();
        assert!(error.contains(&relay.url()), "{error}");
    });
}

/// 10: no end of stored events.
#[test]
fn an_end_that_never_comes_is_not_waited_for_and_what_came_is_kept() {
    fault(async {
        let plot = Plot::of(&signed::events(32, 80)).script(|scene, mut honest| {
            if matches!(scene.cue, Cue::Req { .. }) {
                honest.pop();
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(80).await;
        relay.publish(&signed::note(1_700_000_001, "live without an end of what is stored"));
        run.until_published(81).await;
        run.stop().await;
        lab.audit(&[&relay], 81).await;
    });
}

/// 10: the end twice.
#[test]
fn an_end_that_comes_twice_is_one_end() {
    fault(async {
        let plot = Plot::of(&signed::events(33, 1_100)).script(|scene, mut honest| {
            if let Cue::Req { sub, .. } = scene.cue {
                honest.extend([eose(sub), eose("of-something-else")]);
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 1_100).await;
    });
}

/// 10: a relay that says EOSE before it has looked.
#[test]
fn events_after_the_end_of_what_is_stored_are_taken() {
    fault(async {
        let plot = Plot::of(&signed::events(34, 120)).script(|scene, mut honest| {
            if scene.stored().is_some() {
                honest.rotate_right(1);
                honest.insert(1, Act::Wait(Duration::from_millis(50)));
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(120).await;
        run.stop().await;
        lab.audit(&[&relay], 120).await;
    });
}

/// 11: fewer events than asked for are no proof of anything.
#[test]
fn a_cap_that_nobody_told_of_hides_nothing() {
    fault(async {
        for cap in [30, 100] {
            let relay = ScriptedRelay::start(Plot::of(&signed::events(35, 1_000)).cap(cap)).await;
            let lab = Lab::new();
            lab.once(&[relay.url()]).await.1.expect("everything");
            lab.audit(&[&relay], 1_000).await;
        }
    });
}

/// 11 and 12: twenty events of a second, of which seven are given out at once.
#[test]
fn a_cap_below_what_a_second_holds_is_reported() {
    fault(async {
        let relay = ScriptedRelay::start(Plot::of(&signed::events(38, 400)).cap(7)).await;
        let lab = Lab::new();
        let (counters, _) = lab.once(&[relay.url()]).await;
        assert!(counters.gaps >= 20, "every second hides something: {counters:?}");
        lab.audit(&[&relay], 7 * 20).await;
    });
}

fn dense(seed: u64) -> Vec<String> {
    let second = 1_767_225_000;
    let mut events = signed::notes_of_one_second(second, 1_300);
    events.extend((1..=300).map(|back| signed::note(second - back, "older")));
    events.extend(signed::events(seed, 300));
    events
}

/// 12: a second with more events than are given out at once, and no other way to list them.
#[test]
fn a_dense_second_is_reported_and_everything_around_it_is_fetched() {
    fault(async {
        let relay = ScriptedRelay::honest(&dense(36)).await;
        let lab = Lab::new();
        let (counters, _) = lab.once(&[relay.url()]).await;
        assert!(counters.gaps >= 1, "500 of 1,300 events of a second are not all: {counters:?}");
        lab.audit(&[&relay], 300 + 500 + 300).await;
    });
}

/// 13: `until` taken as exclusive, as the Python relay has it.
fn exclusive(scene: &Scene<'_>, honest: Vec<Act>, cap: usize) -> Vec<Act> {
    match scene.stored() {
        Some((sub, filter)) => {
            let mut filter = filter.clone();
            if let Some(until) = filter["until"].as_i64() {
                filter["until"] = Value::from(until - 1);
            }
            scene.answer(sub, &filter, cap)
        }
        None => honest,
    }
}

#[test]
fn an_exclusive_until_is_learned() {
    fault(async {
        let events: Vec<String> =
            (0..400).flat_map(|second| signed::notes_of_one_second(1_767_000_000 + second, 3)).collect();
        let plot = Plot::of(&events).script(|scene, honest| exclusive(scene, honest, 100));
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 1_200).await;
    });
}

/// 12 and 13 together.
#[test]
fn a_dense_second_behind_an_exclusive_until_is_reported() {
    fault(async {
        let plot = Plot::of(&dense(37)).script(|scene, honest| exclusive(scene, honest, 500));
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let (counters, _) = lab.once(&[relay.url()]).await;
        assert!(counters.gaps >= 1, "{counters:?}");
        lab.audit(&[&relay], 300 + 500 + 300).await;
    });
}
