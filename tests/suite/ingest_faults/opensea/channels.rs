//! Channels: which are joined, what comes on them, how they end; and that their own messages stay out of the topic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event::layout::{HEADER_PHASE, HEADER_RECEIVED_AT, HEADER_RELAY, HEADER_SOURCE};
use ingest::OpenSeaSettings;
use tests::scripted_phoenix::{Act, Cue, Plot, ScriptedPhoenix};

use super::super::fault;
use super::super::lab::{SOON, until};
use super::{TOPIC, at, audit_lab, audit_whole, demand_order, gaps_of, heard, joins, lab, quick, transfer};

/// Topics of the joins so far, sorted.
fn joined(phoenix: &ScriptedPhoenix) -> Vec<String> {
    let mut topics: Vec<String> =
        phoenix.asked_for("phx_join").iter().map(|join| join.frame.topic.to_string()).collect();
    topics.sort();
    topics
}

#[test]
fn frames_of_both_forms_land_whole_and_in_order_and_control_frames_do_not() {
    for query in ["", "?vsn=2.0.0", "?vsn=1.0.0"] {
        fault(async move {
            let plot = Plot::default().script(|scene, mut honest| {
                if matches!(scene.cue, Cue::News { .. }) && scene.turn % 10 == 0 {
                    honest
                        .insert(0, Act::Text(r#"[null,null,"collection:*","presence_diff",{"joins":{}}]"#.to_owned()));
                    honest.push(Act::Text(
                        r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok"},"ref":0}"#.to_owned(),
                    ));
                }
                honest
            });
            let phoenix = ScriptedPhoenix::start(plot).await;
            let lab = lab();
            let run = lab.stream(at(&format!("{}{query}", phoenix.url()), &[]));
            joins(&phoenix, 1).await;
            (0..500).for_each(|number| phoenix.publish(transfer(number, "apes")));
            run.until_published(500).await;
            run.stop().await;
            audit_whole(&lab, &phoenix, 500).await;
            demand_order(&lab, &phoenix).await;
            let first = &phoenix.served()[0].frame;
            assert_eq!(first.starts_with('{'), query == "?vsn=1.0.0", "{first}");
            assert_eq!(lab.rejected_in(&format!("{TOPIC}.rejected")).await, [].into());
        });
    }
}

#[test]
fn a_record_says_where_and_when_it_came() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 1).await;
        let before = lab.clock.now_ms();
        phoenix.publish(transfer(1, "apes"));
        run.until_published(1).await;
        let after = lab.clock.now_ms();
        run.stop().await;
        let ranges = lab.log().ranges(TOPIC).await.expect("the topic");
        let from = ranges.iter().map(|range| (range.partition, range.start)).collect();
        let records = lab.log().reader(TOPIC, from).await.expect("a reader").read(10, SOON).await.expect("records");
        let header = |name: &str| records[0].header(name).expect(name);
        assert_eq!((header(HEADER_SOURCE), header(HEADER_PHASE)), ("opensea", "live"));
        assert_eq!(header(HEADER_RELAY), phoenix.url());
        let received: i64 = header(HEADER_RECEIVED_AT).parse().expect("milliseconds");
        assert!((before..=after).contains(&received) && records[0].timestamp_ms == received);
    });
}

#[test]
fn collections_are_followed_alone_or_beside_all() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let slugs: Vec<String> = (0..50).map(|number| format!("collection-{number}")).collect();
        let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
        let run = lab.stream(OpenSeaSettings { all_collections: false, ..quick(&phoenix, &slugs) });
        joins(&phoenix, 50).await;
        let mut wanted: Vec<String> = slugs.iter().map(|slug| format!("collection:{slug}")).collect();
        wanted.sort();
        assert_eq!(joined(&phoenix), wanted);
        phoenix.publish(transfer(1, "collection-7"));
        phoenix.publish(transfer(2, "apes"));
        phoenix.publish(transfer(3, "collection-49"));
        run.until_published(2).await;
        heard(&phoenix).await;
        run.stop().await;
        audit_whole(&lab, &phoenix, 2).await;
        let run = lab.stream(quick(&phoenix, &["apes"]));
        joins(&phoenix, 52).await;
        let newest: Vec<String> =
            phoenix.asked_for("phx_join")[50..].iter().map(|join| join.frame.topic.to_string()).collect();
        assert_eq!(newest, ["collection:*", "collection:apes"]);
        run.stop().await;
    });
}

/// On both channels, and sent again and again, before and after a restart, and beyond what memory knows.
#[test]
fn an_event_is_there_once_however_often_it_comes() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let ids_dir = Some(lab.dir.path().join("ids"));
        let with_index = |phoenix: &ScriptedPhoenix| {
            let mut settings = quick(phoenix, &["apes"]);
            (settings.intake.ids_dir, settings.intake.dedup_ids_max) = (ids_dir.clone(), 256);
            settings
        };
        let run = lab.stream(with_index(&phoenix));
        joins(&phoenix, 2).await;
        for times in [1, 3] {
            for number in 0..1_000 {
                (0..times)
                    .for_each(|_| phoenix.publish(transfer(number, if number % 2 == 0 { "apes" } else { "punks" })));
            }
            run.until_published(1_000).await;
        }
        heard(&phoenix).await;
        let counters = run.stop().await;
        assert_eq!((counters.published, counters.copies + counters.published), (1_000, counters.received));
        assert_eq!(counters.received, 6_000, "half of them on two channels, each four times");
        let run = lab.stream(with_index(&phoenix));
        joins(&phoenix, 4).await;
        (0..1_010).for_each(|number| phoenix.publish(transfer(number, "punks")));
        run.until_published(10).await;
        heard(&phoenix).await;
        let counters = run.stop().await;
        // Another collection makes no other event: it is told by its own hash, item and time.
        assert_eq!((counters.published, counters.copies), (10, 1_000));
        let topic = lab.records_of(TOPIC).await;
        assert_eq!(topic.len(), 1_010);
        audit_lab(&lab, &phoenix).await;
    });
}

#[test]
fn a_channel_that_ends_is_joined_again_while_the_others_go_on() {
    for ends in [Act::Error("collection:apes".into()), Act::Close("collection:apes".into())] {
        fault(async move {
            let phoenix = ScriptedPhoenix::honest().await;
            let lab = lab();
            let run = lab.stream(OpenSeaSettings { all_collections: false, ..quick(&phoenix, &["apes", "punks"]) });
            joins(&phoenix, 2).await;
            (0..5).for_each(|number| phoenix.publish(transfer(number, "apes")));
            phoenix.everywhere(ends.clone());
            joins(&phoenix, 3).await;
            (5..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
            (10..20).for_each(|number| phoenix.publish(transfer(number, "punks")));
            run.until_published(20).await;
            run.stop().await;
            assert_eq!((phoenix.connections(), joined(&phoenix)[2].as_str()), (1, "collection:punks"));
            audit_whole(&lab, &phoenix, 20).await;
            let gaps = gaps_of(lab.log(), TOPIC).await;
            assert!(gaps.len() == 1 && gaps[0].kinds == "collection:apes", "{ends:?}: {gaps:?}");
        });
    }
}

/// A server says that a join has ended that another has followed: the new one stands.
#[test]
fn the_end_of_a_join_before_ends_no_other() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 1).await;
        for event in ["phx_close", "phx_error"] {
            phoenix.everywhere(Act::Text(format!(r#"["99","99","collection:*","{event}",{{}}]"#)));
            phoenix.everywhere(Act::Text(format!(r#"["1","1","collection:nobody","{event}",{{}}]"#)));
        }
        (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(10).await;
        heard(&phoenix).await;
        run.stop().await;
        assert_eq!((phoenix.connections(), joined(&phoenix).len()), (1, 1));
        audit_whole(&lab, &phoenix, 10).await;
    });
}

#[test]
fn a_join_without_an_answer_is_asked_for_again() {
    fault(async {
        let unanswered = AtomicUsize::new(0);
        let plot = Plot::default().script(move |scene, honest| match scene.join() {
            // Twice on the same connection; then that is given up where nothing is joined.
            Some("collection:apes") if unanswered.fetch_add(1, Ordering::SeqCst) < 2 => Vec::new(),
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run =
            lab.stream(OpenSeaSettings { join_timeout: Duration::from_millis(300), ..quick(&phoenix, &["apes"]) });
        until("a third join", || joined(&phoenix).iter().filter(|topic| *topic == "collection:apes").count() >= 3)
            .await;
        until("an answer to it", || {
            phoenix.publish(transfer(1, "apes"));
            phoenix.served().iter().any(|served| &*served.topic == "collection:apes")
        })
        .await;
        run.until_published(1).await;
        run.stop().await;
        audit_lab(&lab, &phoenix).await;
    });
}

#[test]
fn a_server_that_answers_no_join_is_left_for_a_new_connection() {
    fault(async {
        let plot = Plot::default().script(|scene, honest| match scene.join() {
            Some(_) if scene.connection == 0 => Vec::new(),
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(OpenSeaSettings { join_timeout: Duration::from_millis(200), ..quick(&phoenix, &[]) });
        until("a second connection", || phoenix.connections() >= 2).await;
        let asked = phoenix.asked_for("phx_join").iter().filter(|join| join.connection == 0).count();
        assert_eq!(asked, 3);
        run.stop().await;
    });
}

#[test]
fn a_channel_that_is_refused_keeps_the_others_from_nothing() {
    fault(async {
        let plot = Plot::default().script(|scene, honest| match scene.cue {
            Cue::Join(frame) if &*frame.topic == "collection:secret" => {
                vec![Act::Refused(frame.clone(), "unauthorized")]
            }
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(OpenSeaSettings { all_collections: false, ..quick(&phoenix, &["secret", "apes"]) });
        joins(&phoenix, 2).await;
        (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
        (10..20).for_each(|number| phoenix.publish(transfer(number, "secret")));
        run.until_published(10).await;
        heard(&phoenix).await;
        run.stop().await;
        assert_eq!((phoenix.connections(), joined(&phoenix).len()), (1, 2), "it is not asked for again and again");
        audit_whole(&lab, &phoenix, 10).await;
    });
}
