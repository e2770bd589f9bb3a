//! Events that come back after memory has forgotten them: the index on disk knows them, whatever has become of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use event::Clock;
use ingest::{Components, Counters, CountersSnapshot, FileSettings, IntakeSettings, NostrSettings, file};
use relay::Faults;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log};

use crate::harness::{Lab, assert_same, quick, signed, sorted};

/// Memory for one id in each of its parts, and an index that knows all.
fn forgetful(lab: &Lab) -> IntakeSettings {
    let ids_dir = Some(lab.dir.path().join("ids"));
    IntakeSettings { ids_dir, max_future: None, dedup_ids_max: 128, dedup_replay_max: 128, ..IntakeSettings::default() }
}

async fn land_into(log: &Arc<dyn Log>, path: &Path, intake: IntakeSettings) -> ingest::Result<CountersSnapshot> {
    let components =
        Components { log: Arc::clone(log), clock: Clock::system(), counters: Arc::new(Counters::default()) };
    let counters = Arc::clone(&components.counters);
    let settings = FileSettings { path: path.to_owned(), intake, ..FileSettings::default() };
    file(settings, components, CancellationToken::new()).await.map(|()| counters.snapshot())
}

/// Lands the lines; how many were published.
async fn land(lab: &Lab, lines: &[String]) -> u64 {
    land_into(&lab.log, &lab.file(lines), forgetful(lab)).await.expect("a run").published
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let name = to.join(entry.file_name().expect("a name"));
        match entry.is_dir() {
            true => copy(&entry, &name),
            false => assert!(std::fs::copy(&entry, &name).is_ok(), "a copy"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_memory_forgot_is_published_once() {
    let lab = Lab::new();
    let events = signed(1, 1_500);
    // In one run, too: what comes a second time was forgotten long since.
    let twice: Vec<String> = events.iter().chain(&events).cloned().collect();
    assert_eq!(land(&lab, &twice).await, 1_500);
    assert_eq!(land(&lab, &events).await, 0);
    assert_same(&lab.values().await, &sorted(&events));
    let without = IntakeSettings { ids_dir: None, ..forgetful(&lab) };
    let again = land_into(&lab.log, &lab.file(&events), without).await.expect("a run");
    assert!(again.published > 1_000, "without the index this test would see it: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_shows_all_its_past_again_brings_nothing_new() {
    let mut lab = Lab::new();
    let events = signed(2, 1_200);
    let relay = lab.relay_of(&events, Faults::default()).await;
    let settings = NostrSettings { relays: vec![relay], once: true, refetch: true, intake: forgetful(&lab), ..quick() };
    let (first, result) = lab.nostr(settings.clone()).await;
    result.expect("a run");
    let (second, result) = lab.nostr(settings).await;
    result.expect("a run");
    assert_eq!((first.published, second.published), (1_200, 0));
    assert!(second.received >= 1_200 && second.copies == second.received, "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_behind_or_gone_is_brought_up_to_the_topic() {
    let lab = Lab::new();
    let events = signed(3, 1_200);
    let (ids, behind) = (lab.dir.path().join("ids"), lab.dir.path().join("behind"));
    assert_eq!(land(&lab, &events[..400]).await, 400);
    copy(&ids, &behind);
    assert_eq!(land(&lab, &events[400..]).await, 800);
    // As after a power cut: the log was synced, and the index was not.
    std::fs::remove_dir_all(&ids).expect("removed");
    copy(&behind, &ids);
    assert_eq!(land(&lab, &events).await, 0);
    std::fs::remove_dir_all(&ids).expect("removed");
    assert_eq!(land(&lab, &events).await, 0);
    assert_same(&lab.values().await, &sorted(&events));
}

/// Another topic of the same name, with less, as much, or more in it than the index has seen of the first.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_a_topic_that_was_made_anew_is_not_believed() {
    let lab = Lab::new();
    let (events, others) = (signed(4, 600), signed(5, 900));
    assert_eq!(land(&lab, &events).await, 600);
    for (name, before) in [("empty", 0), ("less", 100), ("more", 900)] {
        let clock = Clock::system();
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&lab.dir.path().join(name), clock).expect("a log"));
        let alone = IntakeSettings { ids_dir: None, ..forgetful(&lab) };
        land_into(&log, &lab.file(&others[..before]), alone).await.expect("a run");
        let ids = lab.dir.path().join(format!("ids of {name}"));
        copy(&lab.dir.path().join("ids"), &ids);
        let intake = IntakeSettings { ids_dir: Some(ids), ..forgetful(&lab) };
        let both: Vec<String> = events.iter().chain(&others[..before]).cloned().collect();
        let landed = land_into(&log, &lab.file(&both), intake).await.expect("a run");
        assert_eq!(landed.published, 600, "{name}: what the first topic had is new to the second, the rest is known");
    }
}

/// The first run is killed, as it were: its index lies under a lock that nobody gives back.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_another_process_holds_is_made_anew_beside_it() {
    let lab = Lab::new();
    let events = signed(6, 500);
    assert_eq!(land(&lab, &events).await, 500);
    let home = lab.dir.path().join("ids/nostr-event");
    let lock = std::fs::File::open(home.join("1/lock")).expect("the lock");
    lock.try_lock().expect("nobody has it");
    assert_eq!(land(&lab, &events).await, 0);
    let names: BTreeSet<_> =
        std::fs::read_dir(&home).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["1".into(), "2".into()].into());
}
