//! Faults 19 to 24 and 51: floods, forgeries, and frames that are meant to break the reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tests::audit::owed;
use tests::scripted_relay::{Act, Cue, Opcode, Plot, ScriptedRelay, frame, frame_head};
use tests::signed;

use super::fault;
use super::lab::{Lab, owed_by, until};
use super::place::Place;

/// A relay that does this before it answers its first request for stored events.
fn first_does(acts: Vec<Act>, events: &[String]) -> Plot {
    Plot::of(events).script(move |scene, honest| match scene.stored() {
        Some(_) if scene.turn == 0 => acts.iter().cloned().chain(honest).collect(),
        _ => honest,
    })
}

fn texts(texts: &[&str]) -> Vec<Act> {
    texts.iter().map(|text| Act::Text((*text).to_owned())).collect()
}

/// 19: copies, as fast as they can be sent, while others have something to say.
#[test]
fn a_flood_of_copies_drowns_nobody() {
    fault(async {
        let events = signed::events(60, 500);
        let copies: Vec<Arc<str>> = events.iter().map(|event| event.as_str().into()).collect();
        let flooding = Plot::of(&events).script(move |scene, mut honest| {
            if let Cue::Req { sub, .. } = scene.cue {
                let copy = |number: usize| Act::Event { sub: Arc::clone(sub), raw: Arc::clone(&copies[number % 500]) };
                honest.splice(0..0, (0..20_000).map(copy));
            }
            honest
        });
        let flood = ScriptedRelay::start(flooding).await;
        let quiet = ScriptedRelay::honest(&signed::events(61, 200)).await;
        let lab = Lab::new();
        let run = lab.follow(&[flood.url(), quiet.url()]);
        run.until_published(700).await;
        quiet.publish(&signed::note(1_700_000_000, "through the flood"));
        run.until_published(701).await;
        run.stop().await;
        lab.audit(&[&flood, &quiet], 701).await;
    });
}

/// 20: new and valid events, many at once, from one of two relays.
#[test]
fn a_flood_of_new_events_is_taken_whole() {
    fault(async {
        let spam = signed::events(62, 6_000);
        let flood = ScriptedRelay::honest(&[]).await;
        let quiet = ScriptedRelay::honest(&signed::events(63, 100)).await;
        let lab = Lab::new();
        let run = lab.follow(&[flood.url(), quiet.url()]);
        until("live subscriptions", || flood.live_requests() > 0 && quiet.live_requests() > 0).await;
        spam.iter().for_each(|event| flood.publish(event));
        quiet.publish(&signed::note(1_700_000_000, "through the flood"));
        run.until_published(6_101).await;
        run.stop().await;
        lab.audit(&[&flood, &quiet], 6_101).await;
    });
}

fn forged(event: &str) -> String {
    event.replacen("\"content\":\"", "\"content\":\"not ", 1)
}

/// 21: forgeries only.
#[test]
fn a_flood_of_forgeries_is_refused_and_the_true_events_are_taken() {
    fault(async {
        let events = signed::events(64, 1_500);
        let forgeries: Vec<String> = events.iter().map(|event| forged(event)).collect();
        let liar = ScriptedRelay::honest(&forgeries).await;
        let honest = ScriptedRelay::honest(&events).await;
        let lab = Lab::new();
        lab.once(&[liar.url(), honest.url()]).await.1.expect("everything");
        lab.audit(&[&liar, &honest], 1_500).await;
        // A forgery that comes after its original is a copy by its id.
        let rejected = lab.rejected().await;
        assert!(rejected.values().sum::<usize>() <= 1_500, "{rejected:?}");
        assert!(rejected.keys().all(|reason| reason == "id_mismatch"), "{rejected:?}");
    });
}

/// 22: sent twice; after its original; before it.
#[test]
fn a_forgery_is_never_believed_and_hides_nothing() {
    fault(async {
        let events = signed::events(65, 90);
        let (twice, after, before) = (&events[..30], &events[30..60], &events[60..]);
        let wrong_signature = |event: &str| {
            let at = event.find("\"sig\":\"").expect("a signature") + 7;
            let digit = if &event[at..=at] == "0" { "1" } else { "0" };
            format!("{}{digit}{}", &event[..at], &event[at + 1..])
        };
        let mut order: Vec<String> = Vec::new();
        for event in twice {
            order.extend([forged(event), forged(event), wrong_signature(event), wrong_signature(event)]);
        }
        for event in after {
            order.extend([event.clone(), forged(event), wrong_signature(event)]);
        }
        for event in before {
            order.extend([forged(event), wrong_signature(event), event.clone()]);
        }
        let twice = twice.len();
        let order: Vec<Arc<str>> = order.iter().map(|event| event.as_str().into()).collect();
        let plot = Plot::of(&[]).script(move |scene, mut honest| {
            if let Some((sub, _)) = scene.stored().filter(|_| scene.turn == 0) {
                honest.splice(0..0, order.iter().map(|raw| Act::Event { sub: Arc::clone(sub), raw: Arc::clone(raw) }));
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(60).await;
        run.until("verdicts", |counters| counters.received >= 300).await;
        run.stop().await;
        lab.audit(&[&relay], 60).await;
        let rejected = lab.rejected().await;
        let count = |reason: &str| rejected.get(reason).copied().unwrap_or_default();
        // Where the true event is verified first, by another thread as well, a forgery is a copy by its id.
        assert!(count("id_mismatch") >= twice && count("bad_signature") >= twice, "{rejected:?}");
    });
}

/// What no reader should hold: a frame of 100 MiB, a message of endless fragments, a million empty frames and
/// fragments, a frame that claims more than there is in the world.
fn exhausting() -> [Vec<Act>; 5] {
    let mebibyte = Bytes::from(vec![b' '; 1 << 20]);
    let fragment = Bytes::from(frame(Opcode::Continuation, false, &mebibyte));
    let begin = || Act::Raw(frame(Opcode::Text, false, b"[").into());
    [
        vec![Act::Raw(frame_head(Opcode::Text, true, 100 << 20).into()), Act::Repeat(mebibyte, 100)],
        vec![begin(), Act::Repeat(fragment, u64::MAX)],
        vec![Act::Repeat(frame(Opcode::Text, true, b"").into(), 1_000_000)],
        vec![begin(), Act::Repeat(frame(Opcode::Continuation, false, b"").into(), 1_000_000), Act::Cut],
        vec![Act::Raw(frame_head(Opcode::Text, true, u64::MAX / 2).into()), Act::Silence],
    ]
}

/// 23: each costs its connection.
#[test]
fn frames_that_are_meant_to_exhaust_cost_their_connection_only() {
    fault(async {
        let mut relays = Vec::new();
        for (seed, acts) in (70..).zip(exhausting()) {
            relays.push(ScriptedRelay::start(first_does(acts, &signed::events(seed, 100))).await);
        }
        let lab = Lab::new();
        let urls: Vec<String> = relays.iter().map(ScriptedRelay::url).collect();
        let run = lab.follow(&urls);
        run.until_published(500).await;
        run.stop().await;
        for relay in &relays {
            assert_eq!(relay.connections(), 2, "the connection is left, and the next one is whole");
        }
        lab.audit(&relays.iter().collect::<Vec<_>>(), 500).await;
    });
}

/// 23: and none of it is held, as the operating system sees it.
#[test]
fn frames_that_are_meant_to_exhaust_are_not_held() {
    let honest = most_held((0..5).map(|_| Vec::new()), 1);
    let hostile = most_held(exhausting(), 2);
    // Each connection may hold one message of 8 MiB.
    assert!(hostile < honest + (64 << 10), "{hostile} kB, with honest relays {honest} kB");
}

/// The most memory that a process had when relays that do this first had served it everything, kB.
fn most_held(acts: impl IntoIterator<Item = Vec<Act>>, visits: usize) -> u64 {
    let place = Place::embedded();
    let start = |acts| ScriptedRelay::start(first_does(acts, &signed::events(76, 100)));
    let relays: Vec<ScriptedRelay> = acts.into_iter().map(|acts| place.runtime.block_on(start(acts))).collect();
    let urls: Vec<String> = relays.iter().map(ScriptedRelay::url).collect();
    let process = place.ingest(&urls, &["--no-lake"]);
    let served = |relay: &ScriptedRelay| relay.connections() >= visits && relay.served().len() == 100;
    place.runtime.block_on(until("everything served", || relays.iter().all(served)));
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    most.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// 24: invalid UTF-8 in a text frame.
#[test]
fn bytes_that_are_no_text_cost_their_connection_only() {
    fault(async {
        let acts = vec![Act::Raw(frame(Opcode::Text, true, b"[\"EVENT\",\"x\",{\"content\":\"\xff\xfe\"}]").into())];
        let relay = ScriptedRelay::start(first_does(acts, &signed::events(80, 100))).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(100).await;
        run.stop().await;
        assert_eq!(relay.connections(), 2);
        lab.audit(&[&relay], 100).await;
    });
}

/// 24: JSON at its edges, each within an EVENT of the subscription.
#[test]
fn json_at_its_edges_is_refused_with_its_reason() {
    fault(async {
        let event = signed::note(1_700_000_000, "edge");
        let with = |from: &str, to: &str| event.replacen(from, to, 1);
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let cases = [
            ("invalid_unicode", with("\"edge\"", "\"\\ud800\"")),
            ("duplicate_key", with("{", "{\"content\":\"edge\",")),
            ("too_deep", with("\"tags\":[]", &format!("\"tags\":{deep}"))),
            ("wrong_type", with("\"created_at\":1700000000", "\"created_at\":1700000000.0")),
            ("wrong_type", with("\"kind\":1", "\"kind\":1e0")),
            ("out_of_range", with("\"kind\":1", "\"kind\":65536")),
            ("missing_field", with("\"kind\":1,", "")),
            ("id_mismatch", with("\"edge\"", "\"\\u0000\"")),
            ("bad_hex", with("\"pubkey\":\"", "\"pubkey\":\"Z")),
        ];
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for (reason, _) in &cases {
            *expected.entry((*reason).to_owned()).or_default() += 1;
        }
        let plot = Plot::of(&signed::events(81, 100)).script(move |scene, mut honest| {
            if let Some((sub, _)) = scene.stored().filter(|_| scene.turn == 0) {
                let frames = cases.iter().map(|(_, event)| Act::Text(format!("[\"EVENT\",\"{sub}\",{event}]")));
                honest.splice(0..0, frames);
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 100).await;
        let mut rejected = lab.rejected().await;
        // Which of two things wrong with a number is named first is a matter of the parser.
        for reasons in [&mut rejected, &mut expected] {
            let numbers = reasons.remove("wrong_type").unwrap_or(0) + reasons.remove("out_of_range").unwrap_or(0);
            reasons.insert("a number".to_owned(), numbers);
        }
        assert_eq!(rejected, expected);
        assert_eq!(relay.connections(), 1, "what is wrong with an event is no fault of the connection");
    });
}

/// 51: what is no message, or none that we know.
#[test]
fn junk_and_unknown_messages_disturb_nobody() {
    fault(async {
        let mut acts = texts(&[
            r#"["LIMITS",{"max_limit":500}]"#,
            r#"["SOMETHING-NEW","sub",{"a":[1,2,3]}]"#,
            r#"["OK","00",true,""]"#,
            r#"["AUTH","challenge"]"#,
            r#"["COUNT","x",{"count":5}]"#,
            r#"["NEG-ERR","x","blocked: no"]"#,
            r#"["EVENT"]"#,
            r#"["EVENT","sub"]"#,
            r#"["EOSE"]"#,
            r#"["EOSE",5]"#,
            r#"["CLOSED"]"#,
            "[]",
            "{}",
            "null",
            "5",
            "\"EVENT\"",
            "",
            " ",
            "<html><body>502 Bad Gateway</body></html>",
            "[[[[[[[[[[",
            r#"["NOTICE",{"not":"a text"}]"#,
        ]);
        acts.push(Act::Binary(Bytes::from_static(b"\x00\x01\x02")));
        let relay = ScriptedRelay::start(first_does(acts, &signed::events(82, 600))).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(600).await;
        relay.publish(&signed::note(1_700_000_000, "after the junk"));
        run.until_published(601).await;
        run.stop().await;
        assert_eq!((relay.connections(), relay.live_requests()), (1, 1));
        lab.audit(&[&relay], 601).await;
        let rejected = lab.rejected().await;
        assert!(rejected.keys().all(|reason| ["frame_unknown", "malformed_json"].contains(&reason.as_str())));
        assert!(rejected.values().sum::<usize>() >= 10, "{rejected:?}");
    });
}

/// An event that nobody asked for is signed data all the same, and moves nothing.
#[test]
fn events_of_subscriptions_that_never_were_are_taken() {
    fault(async {
        let stray = signed::notes_of_one_second(1_600_000_000, 20);
        let strays: Vec<Arc<str>> = stray.iter().map(|event| event.as_str().into()).collect();
        let plot = Plot::of(&signed::events(83, 1_100)).script(move |scene, mut honest| {
            if scene.stored().is_some() && scene.turn == 0 {
                let sub: Arc<str> = "never-asked".into();
                honest.splice(
                    100..100,
                    strays.iter().map(|raw| Act::Event { sub: Arc::clone(&sub), raw: Arc::clone(raw) }),
                );
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        assert_eq!(owed_by(&[&relay]).len(), 1_120);
        lab.audit(&[&relay], 1_120).await;
        assert!(owed(&stray).keys().all(|id| owed_by(&[&relay]).contains_key(id)));
    });
}

/// What is sent with waits between the parts of one answer is one answer.
#[test]
fn an_answer_that_dawdles_is_waited_for() {
    fault(async {
        let plot = Plot::of(&signed::events(84, 40)).script(|scene, honest| match scene.stored() {
            Some(_) => honest.into_iter().flat_map(|act| [Act::Wait(Duration::from_millis(20)), act]).collect(),
            None => honest,
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 40).await;
    });
}
