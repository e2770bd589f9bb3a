//! More than can be taken at once: a flood, a slow wire, a log that is away.

use ingest::OpenSeaSettings;
use tests::scripted_phoenix::ScriptedPhoenix;
use tests::wire::{Course, Wire};

use super::super::fault;
use super::super::lab::until;
use super::{at, audit_whole, demand_order, heard, joins, lab, quick, transfer};

#[test]
fn a_flood_comes_through_little_room_once_and_in_order() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let spill_dir = Some(lab.dir.path().join("spill"));
        let run = lab.stream(OpenSeaSettings { room_bytes: 64 << 10, spill_dir, ..quick(&phoenix, &["apes"]) });
        joins(&phoenix, 2).await;
        (0..20_000).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_long("everything", |counters| counters.published == 20_000).await;
        heard(&phoenix).await;
        let counters = run.stop().await;
        assert_eq!((counters.copies, counters.relays[0].connects), (20_000, 1));
        audit_whole(&lab, &phoenix, 20_000).await;
        demand_order(&lab, &phoenix).await;
    });
}

#[test]
fn a_slow_wire_loses_nothing() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let wire = Wire::to(phoenix.address()).await;
        let lab = lab();
        let run = lab.stream(at(&format!("ws://{}/socket/websocket", wire.address()), &[]));
        joins(&phoenix, 1).await;
        wire.set(Course::Throttled(200_000));
        (0..500).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(500).await;
        run.stop().await;
        audit_whole(&lab, &phoenix, 500).await;
    });
}

/// A log that takes nothing: what comes waits in memory, then on disk, then in the socket; heartbeats go on.
#[test]
fn a_log_that_is_away_is_waited_for_and_the_connection_is_kept() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let run = lab.stream(OpenSeaSettings {
            room_bytes: 64 << 10,
            spill_dir: Some(lab.dir.path().join("spill")),
            spill_bytes_max: 256 << 10,
            ..quick(&phoenix, &[])
        });
        joins(&phoenix, 1).await;
        (0..10).for_each(|number| phoenix.publish(transfer(number, "apes")));
        run.until_published(10).await;
        lab.gate.shut();
        (10..3_000).for_each(|number| phoenix.publish(transfer(number, "apes")));
        let stuck = run.until("arrivals on disk", |counters| counters.spilled > 200).await;
        let beats = phoenix.asked_for("heartbeat").len();
        until("heartbeats while nothing is taken", || phoenix.asked_for("heartbeat").len() >= beats + 5).await;
        assert!(run.counters().received < 3_000, "it does not hold more than it may: {stuck:?}");
        lab.gate.open();
        run.until_long("everything", |counters| counters.published == 3_000).await;
        heard(&phoenix).await;
        let counters = run.stop().await;
        assert_eq!((counters.relays[0].connects, counters.backfill_pauses, counters.gaps), (1, 0, 0));
        audit_whole(&lab, &phoenix, 3_000).await;
        demand_order(&lab, &phoenix).await;
    });
}
