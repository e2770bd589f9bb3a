//! What becomes of a connection: refused, lost, torn, half-open, silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event::Clock;
use ingest::OpenSeaSettings;
use tests::scripted_phoenix::{Act, Cue, Plot, ScriptedPhoenix};
use tests::scripted_relay::{Door, Opcode, frame, frame_head};
use tests::wire::{Blow, Wire};

use super::super::fault;
use super::super::lab::until;
use super::{TOPIC, at, audit_lab, audit_whole, gaps_of, heard, joins, lab, proven, quick, transfer};

#[test]
fn a_server_that_is_not_there_yet_or_asks_for_patience_is_found() {
    fault(async {
        let plot = Plot::default().door(|number| match number {
            0 => Door::Shut,
            1 => Door::status("503 Service Unavailable", &[], "busy"),
            2 => Door::status("429 Too Many Requests", &["Retry-After: 1"], ""),
            _ => Door::Open,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let (lab, begun) = (lab(), Instant::now());
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 1).await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "it comes back no sooner than it was asked to");
        (0..20).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(20).await;
        run.stop().await;
        assert_eq!(phoenix.connections(), 4);
        audit_whole(&lab, &phoenix, 20).await;
        assert_eq!(gaps_of(lab.log(), TOPIC).await, [], "nothing was listened to before");
    });
}

/// Breaks the connection in some way after ten events; what comes after it is there, and the time between is a gap.
async fn broken_by(breaks: impl Fn(&ScriptedPhoenix)) -> (super::Lab, ScriptedPhoenix) {
    let phoenix = ScriptedPhoenix::honest().await;
    let lab = lab();
    let run = lab.stream(quick(&phoenix, &["apes"]));
    joins(&phoenix, 2).await;
    (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
    run.until_published(10).await;
    breaks(&phoenix);
    joins(&phoenix, 4).await;
    (10..30).for_each(|number| phoenix.publish(transfer(number, "apes")));
    run.until_published(30).await;
    heard(&phoenix).await;
    let counters = run.stop().await;
    assert_eq!((counters.gaps, counters.relays[0].connects), (2, 2));
    (lab, phoenix)
}

#[test]
fn a_connection_that_is_lost_is_made_anew_and_the_time_between_is_a_gap() {
    fault(async {
        let torn = || {
            let frame = r#"["1",null,"collection:*","item_transferred",{"event_type":"item_transferred"#;
            let mut bytes = frame_head(Opcode::Text, true, 4_000);
            bytes.extend_from_slice(frame.as_bytes());
            bytes
        };
        for acts in [
            vec![Act::Cut],
            vec![Act::Goodbye(1012, "the service is restarted")],
            vec![Act::Raw(torn().into()), Act::Cut],
            vec![Act::Raw(vec![0xff; 20].into())],
            vec![Act::Raw(frame(Opcode::Text, true, &vec![b'x'; (8 << 20) + 1]).into())],
        ] {
            let (lab, phoenix) = broken_by(|phoenix| acts.iter().for_each(|act| phoenix.everywhere(act.clone()))).await;
            audit_whole(&lab, &phoenix, 30).await;
            assert_eq!(lab.rejected_in(&format!("{TOPIC}.rejected")).await, [].into(), "{acts:?}");
            let gaps = gaps_of(lab.log(), TOPIC).await;
            let mut channels: Vec<&str> = gaps.iter().map(|gap| gap.kinds.as_str()).collect();
            channels.sort_unstable();
            assert_eq!(channels, ["collection:*", "collection:apes"], "{acts:?}");
        }
    });
}

/// A wire that swallows everything: only the answer to a heartbeat that does not come tells.
#[test]
fn a_half_open_connection_is_found_by_its_heartbeat() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let wire = Wire::to(phoenix.address()).await;
        let endpoint = format!("ws://{}/socket/websocket", wire.address());
        let reply_timeout = Duration::from_millis(500);
        let lab = lab();
        let run = lab.stream(OpenSeaSettings { reply_timeout, ..at(&endpoint, &[]) });
        joins(&phoenix, 1).await;
        (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(10).await;
        wire.strike(Blow::BlackHole);
        // These go into the hole: served, as far as the server knows.
        (10..20).for_each(|number| phoenix.publish(transfer(number, "apes")));
        joins(&phoenix, 2).await;
        (20..30).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(20).await;
        run.stop().await;
        let audited = audit_lab(&lab, &phoenix).await;
        assert_eq!((audited.held, audited.missed), (20, 10), "{audited:?}");
    });
}

#[test]
fn a_server_that_does_not_answer_heartbeats_is_left_and_nothing_is_proven_by_it() {
    fault(async {
        let plot = Plot::default().script(|scene, honest| match scene.cue {
            Cue::Heartbeat(_) if scene.connection == 0 => Vec::new(),
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(OpenSeaSettings { reply_timeout: Duration::from_millis(300), ..quick(&phoenix, &[]) });
        joins(&phoenix, 1).await;
        // Whatever comes meanwhile is no answer.
        let mut number = 0;
        until("another connection", || {
            phoenix.publish(transfer(number, "apes"));
            number += 1;
            phoenix.connections() >= 2
        })
        .await;
        joins(&phoenix, 2).await;
        heard(&phoenix).await;
        run.stop().await;
        audit_lab(&lab, &phoenix).await;
        let gaps = gaps_of(lab.log(), TOPIC).await;
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        let first = phoenix.served()[0].at_ms.div_euclid(1_000);
        assert!(gaps[0].from <= first, "the whole first connection is in the gap: {gaps:?}");
    });
}

#[test]
fn heartbeats_come_as_often_as_told_and_prove_the_time_up_to_them() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let begun = lab.clock.now_ms() / 1_000;
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 1).await;
        until("a second and some heartbeats", || {
            lab.clock.now_ms() / 1_000 > begun + 1 && phoenix.asked_for("heartbeat").len() > 5
        })
        .await;
        let seen = lab.clock.now_ms() / 1_000;
        heard(&phoenix).await;
        run.stop().await;
        let beats = phoenix.asked_for("heartbeat");
        let mut references: Vec<String> = beats.iter().map(|beat| beat.frame.reference.to_string()).collect();
        references.dedup();
        assert_eq!(references.len(), beats.len(), "each has a reference of its own");
        assert!(
            beats.iter().all(|beat| &*beat.frame.topic == "phoenix" && beat.frame.payload == serde_json::json!({}))
        );
        // No sooner than told, whatever the machine does.
        let interval = Duration::from_millis(40);
        assert!(beats.windows(8).all(|some| some[7].at - some[0].at >= 6 * interval), "{beats:?}");
        let bands = proven(&lab, "collection:*").await;
        assert_eq!(bands.len(), 1, "one stretch: {bands:?}");
        assert!(bands[0].0 <= begun + 60 && bands[0].1 >= seen - 1, "{bands:?}, begun {begun}, seen {seen}");
    });
}

/// A server that is nothing but noise is left, and what it said is in the rejected topic.
#[test]
fn garbage_is_rejected_and_too_much_of_it_ends_the_connection() {
    fault(async {
        let plot = Plot::default().script(|scene, mut honest| {
            if scene.connection == 0 && scene.join().is_some() {
                honest.push(Act::Text("hello".to_owned()));
                honest.push(Act::Text(
                    r#"["1",null,"collection:*","item_sold",{"event_type":"item_sold","payload":{}}]"#.to_owned(),
                ));
                honest.push(Act::Text(transfer(1, &"x".repeat(1 << 20)).text.to_string()));
                honest.push(Act::Binary(vec![1, 2, 3].into()));
                honest.extend((0..97).map(|number| Act::Text(format!("noise {number}"))));
            }
            honest
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 2).await;
        (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(10).await;
        run.stop().await;
        audit_whole(&lab, &phoenix, 10).await;
        let rejected = lab.rejected_in(&format!("{TOPIC}.rejected")).await;
        assert_eq!((rejected["frame_unknown"], rejected["too_large"]), (1, 1), "{rejected:?}");
        assert_eq!(rejected["malformed_json"], 98, "{rejected:?}");
        assert_eq!(rejected.values().sum::<usize>(), 101, "{rejected:?}");
    });
}

/// What is proven ends where the heartbeat was sent, not where its answer came: what was sent in between may be lost.
#[test]
fn an_answer_that_comes_late_proves_no_more_than_its_heartbeat() {
    fault(async {
        let asked_at = Arc::new(AtomicI64::new(0));
        let noted = Arc::clone(&asked_at);
        let plot = Plot::default().script(move |scene, mut honest| match scene.cue {
            Cue::Heartbeat(_) if scene.turn == 0 => {
                noted.store(Clock::system().now_ms() / 1_000, Ordering::SeqCst);
                honest.insert(0, Act::Wait(Duration::from_millis(2_500)));
                honest.push(Act::Cut);
                honest
            }
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 2).await;
        heard(&phoenix).await;
        run.stop().await;
        let gaps = gaps_of(lab.log(), TOPIC).await;
        assert!(gaps.len() == 1 && gaps[0].from <= asked_at.load(Ordering::SeqCst), "{gaps:?}, {asked_at:?}");
        assert!(gaps[0].to > gaps[0].from + 1, "{gaps:?}");
    });
}
