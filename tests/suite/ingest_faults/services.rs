//! Faults 29, 30, 38 to 42 and 44: the broker dies or freezes, the store refuses, stalls, resets and loses answers, two
//! landers share a topic, a record is too large, the clock jumps.

use std::time::{Duration, Instant};

use event::Clock;
use futures::TryStreamExt;
use tests::audit::owed;
use tests::scripted_relay::ScriptedRelay;
use tests::{signal, signed};

use super::fault;
use super::lab::Lab;

/// 38: an event just within the limit, and one beyond it.
#[test]
fn an_event_beyond_the_limit_is_rejected_and_one_within_it_is_kept() {
    fault(async {
        let large = |bytes: usize| signed::note(1_700_000_000, &"x".repeat(bytes));
        let within = large((1 << 20) - 1_000);
        let mut events = signed::events(100, 50);
        events.push(within);
        let owed = owed(&events);
        events.extend([large((1 << 20) + 1), large(3 << 20)]);
        let relay = ScriptedRelay::honest(&events).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit_owed(&owed, 51).await;
        assert_eq!(lab.rejected().await, [("too_large".to_owned(), 2)].into());
    });
}

/// 44: the next hour, an hour back, the next day.
#[test]
fn a_clock_that_jumps_never_leads_the_lake_back() {
    fault(async {
        const HOUR_MS: i64 = 3_600_000;
        let start = 1_795_219_200_000 + HOUR_MS - 500;
        let lab = Lab::at(Clock::mock(start));
        let events = signed::events(101, 1_500);
        let relay = ScriptedRelay::honest(&[]).await;
        let run = lab.follow(&[relay.url()]);
        super::lab::until("a live subscription", || relay.live_requests() > 0).await;
        for (number, (burst, at)) in events.chunks(300).zip([0, 1_000, -HOUR_MS, 24 * HOUR_MS, 2 * HOUR_MS]).enumerate()
        {
            lab.clock.set(start + at);
            burst.iter().for_each(|event| relay.publish(event));
            run.until_published(300 * (number + 1)).await;
        }
        run.stop().await;
        lab.audit(&[&relay], 1_500).await;
        let mut objects: Vec<(i32, i64, String)> = Vec::new();
        let listed: Vec<_> = lab.lake.list(None).try_collect().await.expect("a list");
        for object in listed {
            let (hour, name) = object.location.as_ref().rsplit_once('/').expect("a prefix");
            let mut numbers = name.trim_end_matches(".parquet").rsplit('-');
            let start = numbers.next().expect("an offset").parse().expect("a number");
            let partition = numbers.next().expect("a partition").parse().expect("a number");
            objects.push((partition, start, hour.to_owned()));
        }
        objects.sort();
        assert!(objects.len() > 4, "{objects:?}");
        for pair in objects.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert!(pair[0].2 <= pair[1].2, "an object lies in an earlier hour than the one before it: {pair:?}");
        }
    });
}

mod kafka {
    mod minio {
        use super::super::super::place::{Place, SOON, all_there};
        use super::super::*;
        use crate::crash::broker::Broker;
        use crate::crash::process::{Heard, Process};
        use crate::crash::proxy::Proxy;
        use crate::crash::{alone, say, soak};
        use tests::wire::{Blow, Course, Wire};

        /// A relay with some past, and a process that follows it and has everything so far.
        fn following(place: &Place, seed: u64) -> (ScriptedRelay, Process) {
            let relay = place.runtime.block_on(ScriptedRelay::honest(&signed::events(seed, 300)));
            let mut process = place.ingest(&[relay.url()], &[]);
            process.must_hear("the past", SOON, |heard| heard.said("everything stored has been fetched"));
            all_there(place, &relay, &mut process);
            (relay, process)
        }

        fn news(relay: &ScriptedRelay, sort: &str, count: usize) {
            let now = u64::try_from(Clock::system().now_ms() / 1_000).expect("after 1970");
            (0..count).for_each(|number| relay.publish(&signed::note(now, &format!("{sort} {number}"))));
        }

        /// The process is still the same and does what it has to.
        fn finish(place: &Place, relay: &ScriptedRelay, mut process: Process) {
            news(relay, "after it all", 20);
            all_there(place, relay, &mut process);
            process.terminate();
            process.ends_with(0, SOON);
            place.audit(&owed(relay.holds()));
        }

        /// 29, 30: it dies while events come, and is back; it answers nobody for a while, as during an election.
        /// `TIDEGATE_SOAK` makes minutes of both.
        #[test]
        fn ingest_outlives_its_broker() {
            let _turn = alone();
            let Some(broker) = Broker::start(&[]) else { return };
            let Some(place) = Place::on(&broker.address) else { return };
            let wait = Duration::from_secs(if soak().is_some() { 60 } else { 3 });
            let (relay, process) = following(&place, 110);
            broker.signal("KILL");
            news(&relay, "while the broker is away", 200);
            let away = broker.restart();
            say(&format!("ingest, broker killed: away for {:.1} s", away.as_secs_f64()));
            news(&relay, "when it is back", 200);
            std::thread::sleep(wait);
            broker.signal("STOP");
            news(&relay, "while the broker is frozen", 200);
            std::thread::sleep(wait);
            broker.wake(&place.topic);
            finish(&place, &relay, process);
        }

        /// 30: of two brokers the one that leads some of the partitions is killed, and comes back; then it freezes, and
        /// wakes up when the other one leads.
        #[test]
        fn ingest_outlives_the_leader_of_its_topic() {
            let _turn = alone();
            let Some((first, second)) = Broker::pair() else { return };
            let Some(place) = Place::on(&format!("{},{}", first.address, second.address)) else { return };
            let (relay, mut process) = following(&place, 130);
            for (end, back) in [("KILL", None), ("STOP", Some("CONT"))] {
                first.until_second_leads(&place.topic, true);
                news(&relay, &format!("just before {end}"), 200);
                second.signal(end);
                news(&relay, &format!("after {end}"), 200);
                first.until_second_leads(&place.topic, false);
                news(&relay, &format!("while the other one leads, after {end}"), 200);
                match back {
                    Some(signal) => {
                        std::thread::sleep(Duration::from_secs(if soak().is_some() { 60 } else { 0 }));
                        second.signal(signal);
                    }
                    None => {
                        all_there(&place, &relay, &mut process);
                        second.restart();
                    }
                }
                first.until_second_leads(&place.topic, true);
                news(&relay, &format!("when it leads again, after {end}"), 200);
                all_there(&place, &relay, &mut process);
            }
            finish(&place, &relay, process);
        }

        /// A process whose memory and disk are used up by a few hundred events, with all that its relays have stored.
        fn small(place: &Place, relays: &[ScriptedRelay]) -> Process {
            let urls: Vec<String> = relays.iter().map(ScriptedRelay::url).collect();
            let mut process = place.ingest(&urls, &["--room", "64KiB", "--spill", "256KiB"]);
            let begun = Instant::now();
            while relays.iter().any(|relay| relay.live_requests() == 0)
                || place.topic_records().len() < 50 * relays.len()
            {
                assert!(process.alive() && begun.elapsed() < SOON, "{}", process.heard().lines.join("\n"));
                std::thread::sleep(Duration::from_millis(50));
            }
            process
        }

        /// 29: memory, then the disk, then half of the disk, then all of it; the broker is away for `TIDEGATE_SOAK` 90
        /// seconds.
        #[test]
        fn a_broker_that_is_away_fills_disk_and_closes_relays_and_nothing_is_lost() {
            let _turn = alone();
            let Some(broker) = Broker::start(&[]) else { return };
            let Some(place) = Place::on(&broker.address) else { return };
            let relays: Vec<ScriptedRelay> = (120..125)
                .map(|seed| place.runtime.block_on(ScriptedRelay::honest(&signed::events(seed, 50))))
                .collect();
            let process = small(&place, &relays);
            let begun = Instant::now();
            broker.signal("STOP");
            let text = "x".repeat(500);
            relays.iter().zip(0..).for_each(|(relay, number)| news(relay, &format!("{number} {text}"), 150));
            let closed = |heard: &Heard| heard.said("relay closed for want of room");
            let heard = process.must_hear("a relay closed", SOON, closed);
            let stages =
                ["arrivals wait on disk", "not asked for what they have stored", "relay closed for want of room"];
            let at = stages.map(|stage| heard.lines.iter().position(|line| line.contains(stage)));
            assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?} in {}", heard.lines.join("\n"));
            let away = Duration::from_secs(if soak().is_some() { 90 } else { 0 });
            std::thread::sleep(away.saturating_sub(begun.elapsed()));
            broker.wake(&place.topic);
            let back = process.must_hear("a relay opened", 2 * SOON, |heard| heard.said("relay opened"));
            let count = |words: &str| back.lines.iter().filter(|line| line.contains(words)).count();
            say(&format!("broker away for {:.0} s: {} relays closed", begun.elapsed().as_secs_f64(), count(stages[2])));
            process.must_hear("all relays opened", 2 * SOON, |heard| {
                let count = |words: &str| heard.lines.iter().filter(|line| line.contains(words)).count();
                count("relay opened") == count("relay closed for want of room")
            });
            // The lander comes back by itself too; told to stop before, it would end with what it could not reach.
            let (published, begun) = (place.topic_records().len(), Instant::now());
            while place.lake_rows().len() < published {
                assert!(begun.elapsed() < 2 * SOON, "{published} events of the topic are not in the lake");
                std::thread::sleep(Duration::from_millis(500));
            }
            process.terminate();
            process.ends_with(0, SOON);
            // Where it was stopped before it had asked for all that it left, that is asked for now.
            let urls: Vec<String> = relays.iter().map(ScriptedRelay::url).collect();
            place.ingest(&urls, &["--once"]).ends_with(0, SOON);
            place.audit(&owed(relays.iter().flat_map(ScriptedRelay::holds)));
        }

        /// 28: killed while arrivals wait on disk: they are asked for again.
        #[test]
        fn killed_with_arrivals_on_disk_ingest_has_them_once() {
            let _turn = alone();
            let Some(broker) = Broker::start(&[]) else { return };
            let Some(place) = Place::on(&broker.address) else { return };
            let relays = [place.runtime.block_on(ScriptedRelay::honest(&signed::events(126, 50)))];
            let process = small(&place, &relays);
            broker.signal("STOP");
            news(&relays[0], &"x".repeat(500), 200);
            process.must_hear("arrivals on disk", SOON, |heard| heard.said("arrivals wait on disk"));
            process.kill();
            broker.signal("CONT");
            place.ingest(&[relays[0].url()], &["--once"]).ends_with(0, SOON);
            place.audit(&owed(relays[0].holds()));
        }

        /// 39, 40, 42: a store that stalls, resets in the middle of a put, and loses its answers.
        #[test]
        fn ingest_outlives_its_store() {
            let Some(mut place) = Place::services() else { return };
            let store = place.store_endpoint().strip_prefix("http://").expect("the tests' store speaks plain HTTP");
            let wire = place.runtime.block_on(Wire::to(store));
            place.store_at(format!("http://{}", wire.address()));
            let (relay, process) = following(&place, 112);
            for (sort, course) in [("stalled", Course::Stalled), ("answers lost", Course::AnswersLost)] {
                wire.set(course);
                news(&relay, sort, 700);
                std::thread::sleep(Duration::from_secs(if soak().is_some() { 60 } else { 3 }));
                wire.strike(Blow::Reset);
                wire.set(Course::Through);
            }
            for number in 0..10 {
                news(&relay, &format!("reset {number}"), 150);
                std::thread::sleep(Duration::from_millis(100));
                wire.strike(Blow::Reset);
            }
            finish(&place, &relay, process);
        }

        /// 39, 42: a store that answers, and takes nothing: it is busy, broken, full.
        #[test]
        fn ingest_outlives_a_store_that_refuses() {
            let Some(mut place) = Place::services() else { return };
            let door = Proxy::start(place.store_endpoint());
            place.store_at(door.endpoint());
            let (relay, process) = following(&place, 114);
            for status in [503, 500, 507, 429] {
                let before = door.refused();
                door.refuse_with(Some(status));
                news(&relay, &format!("http status {status}"), 200);
                let begun = Instant::now();
                while door.refused() == before {
                    assert!(begun.elapsed() < SOON, "nothing was put while the answer was {status}");
                    std::thread::sleep(Duration::from_millis(50));
                }
                std::thread::sleep(Duration::from_secs(if soak().is_some() { 60 } else { 3 }));
                let refused = door.refused() - before;
                door.refuse_with(None);
                say(&format!("ingest, store answers {status}: {refused} requests refused"));
            }
            finish(&place, &relay, process);
        }

        /// 41: three landers of one topic, one of them asleep for a while.
        #[test]
        fn landers_that_share_a_topic_repeat_nothing() {
            let Some(place) = Place::services() else { return };
            let relay = place.runtime.block_on(ScriptedRelay::honest(&signed::events(113, 2_000)));
            let mut source = place.ingest(&[relay.url()], &["--no-lake"]);
            source.must_hear("the past", SOON, |heard| heard.said("everything stored has been fetched"));
            let landers: Vec<Process> = (0..3).map(|_| place.land(&[])).collect();
            for round in 0..4 {
                signal(if round % 2 == 0 { "STOP" } else { "CONT" }, landers[0].id());
                news(&relay, &format!("round {round}"), 500);
                std::thread::sleep(Duration::from_millis(1_300));
            }
            all_there(&place, &relay, &mut source);
            source.terminate();
            source.ends_with(0, SOON);
            for lander in landers {
                lander.terminate();
                lander.ends_with(0, SOON);
            }
            place.audit(&owed(relay.holds()));
        }
    }
}
