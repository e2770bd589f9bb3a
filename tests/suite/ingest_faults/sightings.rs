//! Sightings of a process that is killed: a delivery is noted once at most, and what a relay is owed comes again.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::oracle::PlainSighting;
use tests::scripted_relay::ScriptedRelay;

use super::place::{Place, SOON};
use crate::crash::alone;
use crate::crash::chance::Chance;
use crate::sightings::{Town, counted, id, normal};

/// Killed again and again at random moments, ingest notes no delivery that was none, marks the first of each event
/// once, and in the end has noted each event of each relay.
fn killed_again_and_again(place: &Place, kills: usize) {
    let _turn = alone();
    let mut chance = Chance::of("sightings killed");
    let town = Town::new();
    let urls: Vec<String> = town.relays.iter().map(ScriptedRelay::url).collect();
    for _ in 0..kills {
        let process = place.ingest(&urls, &["--sightings", "--no-lake"]);
        process.must_hear("a connection", SOON, |heard| heard.said("connected"));
        std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(250)));
        process.kill();
    }
    place.ingest(&urls, &["--sightings", "--once"]).ends_with(0, SOON);
    let served = town.served();
    let records = place.records_of(&format!("{}.sightings", place.topic));
    let sighting = |value: &[u8]| PlainSighting::parse(&serde_json::from_slice(value).expect("a sighting"));
    let noted: Vec<PlainSighting> = records.iter().map(|record| sighting(&record.value)).collect();
    let counted = counted(&noted);
    for (delivery, times) in &counted {
        assert!(served.get(delivery).is_some_and(|served| times <= served), "{delivery:?} is noted {times} times");
    }
    let first: Vec<&str> = noted.iter().filter(|one| one.first).map(|one| one.id.as_str()).collect();
    let events: BTreeSet<String> = place.records_of(&place.topic).into_iter().map(|record| record.key).collect();
    assert_eq!((first.len(), events.len()), (300, 300));
    assert!(first.iter().all(|id| events.contains(*id)) && first.iter().collect::<BTreeSet<_>>().len() == 300);
    for relay in &town.relays {
        for event in relay.holds() {
            let event = serde_json::from_str(&event).expect("an event");
            let delivery = (normal(&relay.url()), id(&event));
            assert!(counted.contains_key(&delivery), "{delivery:?} is not noted");
        }
    }
}

#[test]
fn killed_on_the_embedded_log_ingest_notes_no_delivery_twice() {
    killed_again_and_again(&Place::embedded(), 12);
}

mod kafka {
    use super::*;

    mod minio {
        use super::*;

        #[test]
        fn killed_on_kafka_ingest_notes_no_delivery_twice() {
            let Some(place) = Place::services() else { return };
            killed_again_and_again(&place, 12);
        }
    }
}
