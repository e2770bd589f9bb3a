//! The process is killed at any moment, again and again, while events come: none is there twice, and each that was served
//! is there or in a gap. `TIDEGATE_SOAK=N` asks for N kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ingest::coverage::Gap;
use tests::scripted_phoenix::ScriptedPhoenix;
use tests::unique;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::place::{Place, SOON};
use super::{Audited, KEY, audit, gaps_of, transfer};
use crate::crash::chance::Chance;
use crate::crash::{alone, say, soak};

/// A place whose topic is one of the market.
pub(super) fn market(mut place: Place) -> Place {
    place.topic = format!("{}.market", unique("faults"));
    place
}

impl Place {
    fn gaps(&self) -> Vec<Gap> {
        self.runtime.block_on(async { gaps_of(self.log().as_ref(), &self.topic).await })
    }

    fn audit_stream(&self, phoenix: &ScriptedPhoenix) -> Audited {
        audit(&phoenix.served(), &self.topic_records(), &self.lake_rows(), &self.gaps())
    }
}

/// Two hundred new events a second, and each tenth of them once more.
async fn publish(phoenix: Arc<ScriptedPhoenix>, stop: Arc<AtomicBool>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        phoenix.publish(transfer(number, "apes"));
        if number % 10 == 9 {
            phoenix.publish(transfer(number - 5, "apes"));
        }
        number += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

fn killed_again_and_again(name: &str, place: &Place, kills: usize) {
    let _turn = alone();
    let mut chance = Chance::of(name);
    let phoenix = Arc::new(place.runtime.block_on(ScriptedPhoenix::honest()));
    let (stop, mut publishing) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    publishing.spawn_on(publish(Arc::clone(&phoenix), Arc::clone(&stop)), place.runtime.handle());
    let more = ["--collection", "apes", "--all-collections", "--heartbeat", "100ms"];
    let start = || {
        let process = place.opensea(&phoenix.url(), KEY, &more);
        process.must_hear("both channels", SOON, |heard| heard.count("channel joined") >= 2);
        process
    };
    // Of a very first run that is killed before its first commit, the log does not know that it listened.
    let first = start();
    first.terminate();
    first.ends_with(0, SOON);
    for _ in 0..soak().unwrap_or(kills) {
        let process = start();
        std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(3_500)));
        process.kill();
    }
    // The next one says what was missed before it; then nothing more comes, and the last one takes in what is under way.
    let process = start();
    stop.store(true, Ordering::Relaxed);
    place.runtime.block_on(async { while publishing.join_next().await.is_some() {} });
    let (beats, begun) = (phoenix.asked_for("heartbeat").len(), std::time::Instant::now());
    while phoenix.asked_for("heartbeat").len() < beats + 2 {
        assert!(begun.elapsed() < SOON, "heartbeats go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    process.terminate();
    process.ends_with(0, SOON);
    let audited = place.audit_stream(&phoenix);
    say(&format!("{name}: {audited:?} of {} served", phoenix.served().len()));
    assert!(audited.outside > 0, "no second was proven: {audited:?}");
}

#[test]
fn killed_on_the_embedded_log_the_stream_repeats_nothing_and_says_what_it_missed() {
    killed_again_and_again("opensea killed, embedded", &market(Place::embedded()), 10);
}

mod kafka {
    mod minio {
        use super::super::*;
        use crate::crash::broker::Broker;

        #[test]
        fn killed_on_kafka_and_minio_the_stream_repeats_nothing_and_says_what_it_missed() {
            let Some(place) = Place::services().map(market) else { return };
            killed_again_and_again("opensea killed, kafka", &place, 10);
        }

        /// The broker answers nobody for a while, with room for hundreds of events only.
        #[test]
        fn a_broker_that_is_frozen_costs_no_event() {
            let _turn = alone();
            let Some(broker) = Broker::start(&[]) else { return };
            let Some(place) = Place::on(&broker.address).map(market) else { return };
            let phoenix = place.runtime.block_on(ScriptedPhoenix::honest());
            let more = ["--heartbeat", "100ms", "--room", "64KiB", "--spill", "256KiB"];
            let process = place.opensea(&phoenix.url(), KEY, &more);
            process.must_hear("a channel", SOON, |heard| heard.said("channel joined"));
            broker.signal("STOP");
            (0..2_000).for_each(|number| phoenix.publish(transfer(number, "apes")));
            process.must_hear("arrivals on disk", SOON, |heard| heard.said("arrivals wait on disk"));
            std::thread::sleep(Duration::from_secs(3));
            broker.signal("CONT");
            let begun = std::time::Instant::now();
            while place.topic_records().len() < 2_000 {
                assert!(begun.elapsed() < 3 * SOON, "{}", process.heard().lines.join("\n"));
                std::thread::sleep(Duration::from_millis(100));
            }
            process.terminate();
            process.ends_with(0, SOON);
            let audited = place.audit_stream(&phoenix);
            assert_eq!((audited.held, audited.missed), (2_000, 0), "{audited:?}");
        }
    }
}
