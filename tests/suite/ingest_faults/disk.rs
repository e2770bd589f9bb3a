//! Fault 27: the disk fills up in the middle of it, below the log, below the lake, below what waits on disk. Either
//! process goes on by itself once there is room, or it has ended with word of it and goes on when it is started again.

use tests::audit::owed;
use tests::scripted_relay::ScriptedRelay;
use tests::signed;
use tests::small_disk::SmallDisk;

use super::fault;
use super::lab::Lab;
use super::limits::{flooded, opened, relays, shut};
use super::place::{Place, SOON};
use crate::crash::process::Process;

/// More than anything here writes, so that only ballast fills it.
const PLENTY_KIB: usize = 64 << 10;

/// A relay with some past, and a process that follows it and has everything so far.
fn following(place: &Place, seed: u64) -> (ScriptedRelay, Process) {
    let relay = place.runtime.block_on(ScriptedRelay::honest(&signed::events(seed, 300)));
    let process = place.ingest(&[relay.url()], &[]);
    process.must_hear("the past", SOON, |heard| heard.said("everything stored has been fetched"));
    (relay, process)
}

fn news(relay: &ScriptedRelay, sort: &str, count: usize) {
    let now = u64::try_from(event::Clock::system().now_ms() / 1_000).expect("after 1970");
    (0..count).for_each(|number| relay.publish(&signed::note(now, &format!("{sort} {number}"))));
}

/// What the process has left is asked for by the next one; then all of it is there once.
fn finish(place: &Place, relay: &ScriptedRelay) {
    place.ingest(&[relay.url()], &["--once"]).ends_with(0, SOON);
    place.audit(&owed(relay.holds()));
}

#[test]
fn a_log_whose_disk_is_full_says_so_and_ends_and_loses_nothing() {
    let place = Place::embedded();
    let Some(disk) = SmallDisk::mount(&place.path("log"), PLENTY_KIB) else { return };
    let (relay, process) = following(&place, 140);
    disk.fill();
    news(&relay, "while the disk is full", 200);
    let heard = process.ends_with(3, SOON);
    assert!(heard.said("is the disk full?") && heard.said("No space left on device"), "{}", heard.lines.join("\n"));
    // It does not begin on such a disk either, and leaves what is there as it is.
    place.ingest(&[relay.url()], &["--once"]).ends_with(3, SOON);
    disk.make_room();
    finish(&place, &relay);
}

#[test]
fn a_lake_whose_disk_is_full_is_waited_for() {
    let place = Place::embedded();
    let Some(disk) = SmallDisk::mount(&place.path("lake"), PLENTY_KIB) else { return };
    let (relay, process) = following(&place, 141);
    disk.fill();
    news(&relay, "while the disk is full", 200);
    process.must_hear("word of the lake", SOON, |heard| heard.said("could not write a lake object"));
    disk.make_room();
    news(&relay, "when there is room", 200);
    process.terminate();
    process.ends_with(0, SOON);
    finish(&place, &relay);
}

/// The disk ends long before `--spill` does.
#[test]
fn arrivals_that_find_the_disk_full_wait_in_their_sockets() {
    fault(async {
        let lab = Lab::new();
        let spill = lab.dir.path().join("spill");
        let Some(_disk) = SmallDisk::mount(&spill, 64) else { return };
        let relays = relays(5).await;
        let run = shut(&lab, &relays, spill).await;
        let [_, closed] = flooded(&run, &relays).await;
        // 64 KiB are some 75 arrivals, and 256 KiB, which it was allowed, would be 310.
        assert!((20..100).contains(&closed.spilled), "{closed:?}");
        opened(&lab, run, &relays).await;
    });
}
