//! Faults 20, 26 to 29: more comes than the log takes, until memory and disk are used up, or a single relay would use
//! them up. The log stands still behind a gate; the memory is that of 64 events.

use std::path::PathBuf;
use std::time::Duration;

use ingest::{CountersSnapshot, ErrorKind, NostrSettings, RelaySnapshot};
use tests::scripted_relay::ScriptedRelay;
use tests::signed;

use super::fault;
use super::lab::{Lab, Run, quick, until};

const ROOM: u64 = 64 << 10;
const SPILL: u64 = 256 << 10;
/// With its frame and its place somewhat less than a KiB.
const CONTENT: usize = 500;

fn notes(sort: &str, count: usize) -> Vec<String> {
    let note = |number: usize| signed::note(1_767_229_000, &format!("{sort} {number} {}", "x".repeat(CONTENT)));
    (0..count).map(note).collect()
}

/// What it sent that was not known at the door, the one that waits there among them.
fn taken(relay: &RelaySnapshot) -> u64 {
    relay.events - relay.copies
}

pub(super) async fn relays(count: usize) -> Vec<ScriptedRelay> {
    let mut relays = Vec::new();
    for number in 0..count {
        relays.push(ScriptedRelay::honest(&notes(&format!("stored {number}"), 20)).await);
    }
    relays
}

fn urls(relays: &[ScriptedRelay]) -> Vec<String> {
    relays.iter().map(ScriptedRelay::url).collect()
}

/// Follows the relays, has what they have stored, and shuts the gate.
pub(super) async fn shut(lab: &Lab, relays: &[ScriptedRelay], spill_dir: PathBuf) -> Run {
    let settings = NostrSettings {
        relays: urls(relays),
        room_bytes: ROOM,
        spill_dir: Some(spill_dir),
        spill_bytes_max: SPILL,
        ..quick()
    };
    let run = lab.run(settings);
    run.until_published(20 * relays.len()).await;
    run.until_stored_done().await;
    until("live subscriptions", || relays.iter().all(|relay| relay.live_requests() > 0)).await;
    lab.gate.shut();
    run
}

/// Publishes on every relay until two of them have been closed; what was seen at the first sight of each stage.
pub(super) async fn flooded(run: &Run, relays: &[ScriptedRelay]) -> [CountersSnapshot; 2] {
    for (number, relay) in relays.iter().enumerate() {
        notes(&format!("while the log is away {number}"), 150).iter().for_each(|note| relay.publish(note));
    }
    let paused = run.until_long("a pause", |counters| counters.backfill_pauses > 0).await;
    let closed = run.until_long("two relays closed", |counters| counters.relays_closed > 1).await;
    [paused, closed]
}

pub(super) async fn opened(lab: &Lab, run: Run, relays: &[ScriptedRelay]) {
    lab.gate.open();
    let all: usize = relays.iter().map(|relay| relay.holds().len()).sum();
    run.until_long("everything published", |counters| counters.published >= all as u64).await;
    run.until_long("all relays back", |counters| counters.relays.iter().all(|relay| relay.connected)).await;
    run.stop().await;
    lab.audit(&relays.iter().collect::<Vec<_>>(), all).await;
}

/// 26, 29: the disk is used, then relays are not asked any more, then they are closed; nothing is lost.
#[test]
fn a_log_that_stands_still_fills_the_disk_then_pauses_then_closes() {
    fault(async {
        let lab = Lab::new();
        let relays = relays(5).await;
        let run = shut(&lab, &relays, lab.dir.path().join("spill")).await;
        assert_eq!(run.counters().spilled, 0);
        let [paused, closed] = flooded(&run, &relays).await;
        // Half of the disk is some 150 arrivals, all of it some 310; each relay has another one in its hand.
        assert!(paused.spilled >= 100 && paused.relays_closed == 0, "{paused:?}");
        assert!((200..400).contains(&closed.spilled) && closed.backfill_pauses == 1, "{closed:?}");
        let taken: u64 = closed.relays.iter().map(taken).sum();
        assert!(taken < 100 + 64 + 400 + 10, "{closed:?}");
        let one_stays = run.until_long("one relay left", |counters| counters.relays_closed >= 4).await;
        assert_eq!(one_stays.relays.iter().filter(|relay| relay.connected).count(), 1, "{one_stays:?}");
        opened(&lab, run, &relays).await;
    });
}

/// Told to stop while everything is full and the log stays away: it ends, and what it had is asked for by the next run.
#[test]
fn told_to_stop_with_everything_full_it_ends() {
    fault(async {
        let lab = Lab::new();
        let relays = relays(2).await;
        let run = shut(&lab, &relays, lab.dir.path().join("spill")).await;
        lab.gate.refuse();
        for (number, relay) in relays.iter().enumerate() {
            notes(&format!("never taken {number}"), 400).iter().for_each(|note| relay.publish(note));
        }
        run.until_long("a relay closed", |counters| counters.relays_closed > 0).await;
        let error = run.stop_within(Duration::from_secs(120)).await.expect_err("the log stays away");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        lab.gate.open();
        lab.once(&urls(&relays)).await.1.expect("everything");
        lab.audit(&relays.iter().collect::<Vec<_>>(), 840).await;
    });
}

/// 27: a disk that takes nothing is a full one.
#[test]
fn a_disk_that_takes_nothing_is_a_full_one() {
    fault(async {
        let lab = Lab::new();
        let relays = relays(4).await;
        let file = lab.dir.path().join("file");
        std::fs::write(&file, "in the way").expect("a file");
        let run = shut(&lab, &relays, file.join("spill")).await;
        let [_, closed] = flooded(&run, &relays).await;
        assert_eq!(closed.spilled, 0);
        opened(&lab, run, &relays).await;
    });
}

/// 20: one relay of ten has a quarter of memory and disk; what the others say still finds a place, and nobody is closed.
#[test]
fn a_relay_that_floods_takes_a_quarter_and_no_more() {
    fault(async {
        let lab = Lab::new();
        let relays = relays(10).await;
        let run = shut(&lab, &relays, lab.dir.path().join("spill")).await;
        let flood = notes("flood", 1_000);
        flood.iter().for_each(|note| relays[0].publish(note));
        let before = run.until_long("a flood", |counters| counters.spilled > 60).await;
        for (number, relay) in relays[1..].iter().enumerate() {
            notes(&format!("through the flood {number}"), 5).iter().for_each(|note| relay.publish(note));
        }
        let heard = |counters: &CountersSnapshot| counters.relays[1..].iter().all(|relay| taken(relay) >= 25);
        let through = run.until_long("the others heard", heard).await;
        let flooded = taken(&through.relays[0]) - 20;
        assert!(flooded < 16 + 80 + 10, "a quarter of memory and of disk, not {flooded}: {before:?}");
        assert_eq!((through.backfill_pauses, through.relays_closed), (0, 0), "{through:?}");
        lab.gate.open();
        run.until_long("everything published", |counters| counters.published >= 200 + 1_000 + 45).await;
        run.stop().await;
        lab.audit(&relays.iter().collect::<Vec<_>>(), 1_245).await;
    });
}
