//! Faults 31 to 34, 43 and 47: the process is killed, asked to stop, or paused, at any moment and again and again.
//! `TIDEGATE_SOAK=N` asks for N kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event::Clock;
use tests::audit::owed;
use tests::scripted_relay::{Act, Plot, ScriptedRelay};
use tests::{signal, signed};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fault;
use super::lab::{Lab, until};
use super::place::{Place, SOON, all_there};
use crate::crash::chance::Chance;
use crate::crash::process::Process;
use crate::crash::{alone, say, soak};

/// Relays that share 2,400 stored events, and one to which somebody publishes without end.
struct Town {
    relays: Vec<Arc<ScriptedRelay>>,
    stop: Arc<AtomicBool>,
    publishing: JoinSet<()>,
}

impl Town {
    async fn new(seed: u64) -> Self {
        let events = signed::events(seed, 2_400);
        let mut relays = Vec::new();
        for held in [&events[..1_600], &events[800..]] {
            // A page takes a while, so that a kill may fall into it.
            let plot = Plot::of(held).script(|scene, mut honest| {
                if scene.stored().is_some() {
                    honest.insert(honest.len() / 2, Act::Wait(Duration::from_millis(15)));
                }
                honest
            });
            relays.push(Arc::new(ScriptedRelay::start(plot).await));
        }
        let (stop, mut publishing) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        publishing.spawn(publish(Arc::clone(&relays[0]), Arc::clone(&stop)));
        Self { relays, stop, publishing }
    }

    fn urls(&self) -> Vec<String> {
        self.relays.iter().map(|relay| relay.url()).collect()
    }

    /// Everything that the relays hold; each of it is served in the end.
    fn holds(&self) -> tests::audit::Owed {
        owed(self.relays.iter().flat_map(|relay| relay.holds()))
    }

    async fn quiet(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.publishing.join_next().await.is_some() {}
    }
}

/// Fifty new events a second.
async fn publish(relay: Arc<ScriptedRelay>, stop: Arc<AtomicBool>) {
    let (clock, mut number) = (Clock::system(), 0);
    while !stop.load(Ordering::Relaxed) {
        let now = u64::try_from(clock.now_ms() / 1_000).expect("after 1970");
        relay.publish(&signed::note(now, &format!("news {number}")));
        number += 1;
        sleep(Duration::from_millis(20)).await;
    }
}

/// Kills ingest and lander at random moments, audits after every kill, and at last lets them finish.
fn killed_again_and_again(name: &str, place: &Place, kills: usize) {
    let _turn = alone();
    let mut chance = Chance::of(name);
    let mut town = place.runtime.block_on(Town::new(chance.below(1_000)));
    // Once it has begun, there is a topic to audit.
    let first = place.ingest(&town.urls(), &[]);
    first.must_hear("the topic", SOON, |heard| heard.said("topic created"));
    first.kill();
    let kills = soak().unwrap_or(kills);
    let (mut held, mut grown) = ((0, 0), (0, 0));
    let (mut done, at_work) = (0, |grown: (usize, usize)| grown.0 > kills / 4 && grown.1 > 0);
    // Where kills hit is chance, and depends on the machine: some more are tried before they count as hitting nothing.
    while done < kills || !at_work(grown) && done < 3 * kills {
        done += 1;
        let process = place.ingest(&town.urls(), &[]);
        // Half of the kills may hit anything, the start as well; half find it at work, however long its start takes.
        if chance.below(2) == 0 {
            std::thread::sleep(chance.between(Duration::from_millis(30), Duration::from_millis(900)));
        } else {
            process.must_hear("a connection", SOON, |heard| heard.said("connected"));
            std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(400)));
        }
        process.kill();
        let now = place.audit_unfinished(&town.holds());
        grown = (grown.0 + usize::from(now.0 > held.0), grown.1 + usize::from(now.1 > held.1));
        held = now;
    }
    place.runtime.block_on(town.quiet());
    place.ingest(&town.urls(), &["--once"]).ends_with(0, SOON);
    let owed = town.holds();
    place.audit(&owed);
    assert!(at_work(grown), "{grown:?} of {done} kills found topic and lake at work");
    say(&format!("{name}: {} events, each once; of {done} kills {grown:?} found topic and lake grown", owed.len()));
}

/// 33, 43.
#[test]
fn killed_on_the_embedded_log_ingest_loses_nothing_and_repeats_nothing() {
    killed_again_and_again("ingest killed, embedded", &Place::embedded(), 25);
}

/// 47: asked to stop, it finishes what it has begun.
#[test]
fn asked_to_stop_ingest_lands_what_it_took() {
    let place = Place::embedded();
    let mut chance = Chance::of("ingest stopped");
    let mut town = place.runtime.block_on(Town::new(5));
    for _ in 0..6 {
        let process = place.ingest(&town.urls(), &[]);
        process.must_hear("a connection", SOON, |heard| heard.said("connected"));
        std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(400)));
        process.terminate();
        process.ends_with(0, SOON);
        let (topic, lake) = place.audit_unfinished(&town.holds());
        assert_eq!(topic, lake, "what is in the topic has landed");
    }
    place.runtime.block_on(town.quiet());
    place.ingest(&town.urls(), &["--once"]).ends_with(0, SOON);
    place.audit(&town.holds());
}

/// 34, the other way round: the log does not answer for a while, another process takes over meanwhile, and the first one
/// must not take the topic back from it, since it does not know what that has published.
#[test]
fn whoever_was_taken_over_while_the_log_did_not_answer_ends() {
    fault(async {
        let events = signed::events(91, 150);
        let relay = ScriptedRelay::honest(&events[..100]).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(100).await;
        until("a live subscription", || relay.live_requests() > 0).await;
        lab.gate.shut();
        events[100..].iter().for_each(|event| relay.publish(event));
        run.until("what is new has come", |counters| counters.received >= 150).await;
        lab.clock.set(lab.clock.now_ms() + 1_000);
        let (counters, result) = lab.other_once(&[relay.url()]).await;
        result.expect("it takes over");
        assert_eq!(counters.published, 50);
        lab.gate.refuse();
        let error = run.ends().await.1.expect_err("it was taken over");
        assert_eq!(error.kind(), ingest::ErrorKind::Fenced, "{error:#}");
        assert!(error.to_string().contains("was taken over by"), "{error:#}");
        lab.audit(&[&relay], 150).await;
    });
}

mod kafka {
    mod minio {
        use super::super::*;

        /// 31 to 33, 43.
        #[test]
        fn killed_on_kafka_and_minio_ingest_loses_nothing_and_repeats_nothing() {
            let Some(place) = Place::services() else { return };
            killed_again_and_again("ingest killed, kafka", &place, 25);
        }

        /// 34: a process that was paused wakes up after another has taken over.
        #[test]
        fn a_paused_ingest_that_wakes_up_publishes_nothing_more() {
            let Some(place) = Place::services() else { return };
            wakes_up(&place);
        }

        fn wakes_up(place: &Place) {
            let relay = place.runtime.block_on(ScriptedRelay::honest(&signed::events(90, 100)));
            let urls = [relay.url()];
            let first = place.ingest(&urls, &[]);
            settle(&first);
            signal("STOP", first.id());
            let mut second = place.ingest(&urls, &[]);
            settle(&second);
            let now = u64::try_from(Clock::system().now_ms() / 1_000).expect("after 1970");
            for number in 0..50 {
                relay.publish(&signed::note(now, &format!("to both, {number}")));
            }
            all_there(place, &relay, &mut second);
            signal("CONT", first.id());
            std::thread::sleep(Duration::from_secs(2));
            // However the first ends, by itself or because it is asked to.
            first.terminate();
            first.ends(SOON);
            second.terminate();
            second.ends_with(0, SOON);
            place.audit(&owed(relay.holds()));
        }

        fn settle(process: &Process) {
            process.must_hear("the past", SOON, |heard| heard.said("everything stored has been fetched"));
        }
    }
}
