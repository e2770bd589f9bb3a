//! Several processes that share their relays: each relay has one follower, each event is written once, whoever is killed,
//! paused, started or ended meanwhile. `TIDEGATE_SOAK=N` asks for N kills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use event::Clock;
use tests::audit::{Owed, audit, audit_unfinished, owed, read_kafka};
use tests::scripted_relay::{Act, Plot, ScriptedRelay};
use tests::{signal, signed};
use tokio::task::JoinSet;
use tokio::time::sleep;
use topic::{KafkaLog, KafkaSettings, Log, TopicSpec};

use super::place::Place;
use crate::crash::process::{Heard, Process};

/// By then a group has done what is expected, take-overs included, on a busy machine too.
const SOON: Duration = Duration::from_secs(90);
const RELAYS: usize = 12;
/// Relays that hold an event.
const COPIES: usize = 5;
const PARTITIONS: i32 = 6;

/// Twelve relays; each event is on five of them, and so is what is no event.
struct Town {
    relays: Vec<Arc<ScriptedRelay>>,
    stop: Arc<AtomicBool>,
    publishing: JoinSet<()>,
}

impl Town {
    async fn new(seed: u64, count: usize) -> Self {
        let events = signed::events(seed, count);
        let mut held = vec![Vec::new(); RELAYS];
        for (number, event) in events.iter().chain(&forged(10)).enumerate() {
            (0..COPIES).for_each(|copy| held[(number + copy) % RELAYS].push(event.clone()));
        }
        let mut relays = Vec::new();
        for held in held {
            // A page takes a while, so that something may fall into it.
            let plot = Plot::of(&held).cap(100).script(|scene, mut honest| {
                if scene.stored().is_some() {
                    honest.insert(honest.len() / 2, Act::Wait(Duration::from_millis(20)));
                }
                honest
            });
            relays.push(Arc::new(ScriptedRelay::start(plot).await));
        }
        Self { relays, stop: Arc::default(), publishing: JoinSet::new() }
    }

    /// From now on somebody publishes 40 events a second, each to five relays.
    fn begin_news(&mut self, place: &Place) {
        let (relays, stop) = (self.relays.clone(), Arc::clone(&self.stop));
        self.publishing.spawn_on(
            async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    publish(&relays, &format!("news {number}"), number);
                    number += 1;
                    sleep(Duration::from_millis(25)).await;
                }
            },
            place.runtime.handle(),
        );
    }

    async fn end_news(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.publishing.join_next().await.is_some() {}
    }

    fn urls(&self) -> String {
        self.relays.iter().map(|relay| relay.url()).collect::<Vec<_>>().join(",")
    }

    fn owed(&self) -> Owed {
        owed(self.relays.iter().flat_map(|relay| relay.holds()))
    }

    /// What was held and is no event, by its bytes.
    fn junk(&self) -> BTreeSet<Vec<u8>> {
        let valid: BTreeSet<Vec<u8>> = self.owed().into_values().flatten().collect();
        let all = self.relays.iter().flat_map(|relay| relay.holds());
        all.map(|text| text.as_bytes().to_vec()).filter(|text| !valid.contains(text)).collect()
    }
}

fn publish(relays: &[Arc<ScriptedRelay>], content: &str, number: usize) {
    let now = u64::try_from(Clock::system().now_ms() / 1_000).expect("after 1970");
    let event = signed::note(now, content);
    (0..COPIES).for_each(|copy| relays[(number + copy) % RELAYS].publish(&event));
}

/// Events whose content was changed after they were signed.
fn forged(count: usize) -> Vec<String> {
    (0..count).map(|number| signed::note(1_767_225_600, &format!("gm {number}")).replacen("gm", "gn", 1)).collect()
}

/// A place whose raw topic has [`PARTITIONS`]; none, loudly, where there is no Kafka.
fn place() -> Option<Place> {
    let place = Place::services()?;
    let spec = TopicSpec { name: place.topic.clone(), partitions: PARTITIONS, config: Vec::new() };
    let created = place.runtime.block_on(log(&place).create_topic(&spec));
    assert!(created.expect("a topic"));
    Some(place)
}

fn log(place: &Place) -> KafkaLog {
    KafkaLog::connect(KafkaSettings::new(place.brokers())).expect("settings")
}

fn member(place: &Place, town: &Town) -> Process {
    let group = ["--group", "porch", "--group-session-timeout", "6s", "--no-lake"];
    Process::start(ingest(place, town, &group))
}

fn ingest(place: &Place, town: &Town, more: &[&str]) -> std::process::Command {
    let mut command = place.command(&["ingest", "nostr", "--relay", &town.urls()]);
    command.args(more);
    command
}

/// The partitions that a member said it has, last.
fn share(heard: &Heard) -> BTreeSet<i32> {
    let told = heard.lines.iter().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let last = told.filter(|line| line["message"] == "this member's share").map(|line| {
        let text = line["partitions"].as_str().expect("partitions as text").to_owned();
        serde_json::from_str::<BTreeSet<i32>>(&text).expect("a list of numbers")
    });
    last.into_iter().next().unwrap_or_default()
}

/// Waits until something holds, and demands it.
fn until(what: &str, members: &[&Process], holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let said = || members.iter().map(|member| member.heard().lines.join("\n")).collect::<Vec<_>>().join("\n---\n");
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}\n{}", said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until members have everything between them, each partition once.
fn until_shared_out(members: &[&Process]) {
    until("the partitions are shared out", members, || {
        let shares: Vec<BTreeSet<i32>> = members.iter().map(|member| share(&member.heard())).collect();
        let all: BTreeSet<i32> = shares.iter().flatten().copied().collect();
        let sum: usize = shares.iter().map(BTreeSet::len).sum();
        shares.iter().all(|share| !share.is_empty()) && all == (0..PARTITIONS).collect() && sum == all.len()
    });
}

/// Waits until the topic holds everything that relays hold.
fn until_all_is_there(place: &Place, town: &Town, members: &[&Process]) {
    let owed = town.owed();
    until("everything is in the topic", members, || place.topic_records().len() >= owed.len());
}

/// Demands each event once and each refusal once.
fn audit_all(place: &Place, town: &Town) {
    let topic = place.topic_records();
    audit(&town.owed(), &topic, &topic).unwrap_or_else(|breaches| panic!("the audit found\n{}", breaches.join("\n")));
    let mut refused: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for record in read_kafka(place.brokers(), &format!("{}.rejected", place.topic)) {
        *refused.entry(record.value).or_default() += 1;
    }
    assert!(refused.values().all(|count| *count == 1), "refused more than once");
    assert_eq!(refused.into_keys().collect::<BTreeSet<_>>(), town.junk());
}

fn audit_so_far(place: &Place, town: &Town) {
    let topic = place.topic_records();
    if let Err(breaches) = audit_unfinished(&town.owed(), &topic, &topic) {
        panic!("the audit found\n{}", breaches.join("\n"));
    }
}

mod kafka {
    use tests::tidegate;

    use super::*;
    use crate::crash::chance::Chance;
    use crate::crash::{alone, say, soak};

    #[test]
    fn members_share_the_relays_and_write_each_event_once() {
        let Some(place) = place() else { return };
        let mut town = place.runtime.block_on(Town::new(120, 600));
        let members: Vec<Process> = (0..3).map(|_| member(&place, &town)).collect();
        let three: Vec<&Process> = members.iter().collect();
        until_shared_out(&three);
        until("every relay is followed", &three, || town.relays.iter().all(|relay| relay.live_requests() > 0));
        until_all_is_there(&place, &town, &three);
        // One joins while nothing is written that would tell the others that they are fenced: what moves was let go.
        let fourth = member(&place, &town);
        let four: Vec<&Process> = members.iter().chain([&fourth]).collect();
        until_shared_out(&four);
        until("every relay is followed", &four, || town.relays.iter().all(|relay| relay.open() > 0));
        town.begin_news(&place);
        // One leaves in good order.
        members[0].terminate();
        let left: Vec<&Process> = members[1..].iter().chain([&fourth]).collect();
        until_shared_out(&left);
        place.runtime.block_on(town.end_news());
        until_all_is_there(&place, &town, &left);
        until("every relay is followed", &left, || town.relays.iter().all(|relay| relay.open() == 1));
        for relay in &town.relays {
            assert_eq!(relay.most_open(), 1, "two members followed `{}`", relay.url());
        }
        for member in members.into_iter().chain([fourth]) {
            member.terminate();
            member.ends_with(0, SOON);
        }
        audit_all(&place, &town);
        let mut coverage = place.command(&["ingest", "coverage", "--format", "ndjson"]);
        let lines = tests::finish(&mut coverage).success().ndjson();
        let proven = lines.iter().filter(|line| line["state"] == "paged").map(|line| line["relay"].as_str());
        let proven: BTreeSet<&str> = proven.map(|relay| relay.expect("a relay")).collect();
        assert_eq!(proven.into_iter().collect::<Vec<_>>(), {
            let mut urls: Vec<String> = town.relays.iter().map(|relay| relay.url()).collect();
            urls.sort();
            urls
        });
    }

    #[test]
    fn members_that_are_killed_again_and_again_lose_nothing_and_repeat_nothing() {
        let _turn = alone();
        let Some(place) = place() else { return };
        let mut chance = Chance::of("group killed");
        let mut town = place.runtime.block_on(Town::new(121, 900));
        let mut members: Vec<Process> = (0..3).map(|_| member(&place, &town)).collect();
        town.begin_news(&place);
        let kills = soak().unwrap_or(10);
        for number in 0..kills {
            // A killed member is missed after six seconds: at times one is killed while another still is.
            match chance.below(3) {
                0 => until("somebody has a share", &members.iter().collect::<Vec<_>>(), || {
                    members.iter().any(|member| !share(&member.heard()).is_empty())
                }),
                _ => std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(2_500))),
            }
            let victim = usize::try_from(chance.below(3)).expect("small");
            members.remove(victim).kill();
            members.push(member(&place, &town));
            if number % 3 == 2 {
                audit_so_far(&place, &town);
            }
        }
        let three: Vec<&Process> = members.iter().collect();
        until_shared_out(&three);
        place.runtime.block_on(town.end_news());
        until_all_is_there(&place, &town, &three);
        until("every relay is followed", &three, || town.relays.iter().all(|relay| relay.open() == 1));
        for member in members {
            member.terminate();
            member.ends_with(0, SOON);
        }
        audit_all(&place, &town);
        say(&format!("group killed: {kills} kills, {} events, each once", town.owed().len()));
    }

    #[test]
    fn a_member_that_was_paused_and_wakes_up_repeats_nothing() {
        let Some(place) = place() else { return };
        let mut town = place.runtime.block_on(Town::new(122, 300));
        let (first, second) = (member(&place, &town), member(&place, &town));
        until_shared_out(&[&first, &second]);
        town.begin_news(&place);
        signal("STOP", first.id());
        let (paused, all) = (Instant::now(), (0..PARTITIONS).collect::<BTreeSet<i32>>());
        until("the other takes over", &[&second], || share(&second.heard()) == all);
        say(&format!("group paused: taken over after {:.1} s", paused.elapsed().as_secs_f64()));
        let before = place.topic_records().len();
        until("the other goes on", &[&second], || place.topic_records().len() > before + 20);
        signal("CONT", first.id());
        until_shared_out(&[&first, &second]);
        place.runtime.block_on(town.end_news());
        until_all_is_there(&place, &town, &[&first, &second]);
        for member in [first, second] {
            member.terminate();
            member.ends_with(0, SOON);
        }
        audit_all(&place, &town);
    }

    #[test]
    fn a_group_and_a_lone_process_take_over_from_each_other_and_leave_nothing_behind() {
        let Some(place) = place() else { return };
        let mut town = place.runtime.block_on(Town::new(123, 200));
        let (one, two) = (member(&place, &town), member(&place, &town));
        until_shared_out(&[&one, &two]);
        until_all_is_there(&place, &town, &[&one, &two]);
        let file = Process::start(place.command(&["ingest", "file", "Cargo.toml", "--no-lake"]));
        let heard = file.ends_with(6, SOON);
        assert!(heard.said("group `porch` ingests into topic"), "{}", heard.lines.join("\n"));

        town.begin_news(&place);
        let lone = Process::start(ingest(&place, &town, &["--no-lake"]));
        for member in [one, two] {
            let heard = member.ends_with(6, SOON);
            assert!(heard.said("was taken over by") && !heard.said("by group"), "{}", heard.lines.join("\n"));
        }
        let back = member(&place, &town);
        let heard = lone.ends_with(6, SOON);
        assert!(heard.said("was taken over by group `porch`"), "{}", heard.lines.join("\n"));
        until_shared_out(&[&back]);
        place.runtime.block_on(town.end_news());
        until_all_is_there(&place, &town, &[&back]);
        back.kill();

        // What the group has handed in and not settled is settled by whoever comes next: no relay holds it any more.
        let orphan = signed::note(1_767_225_600, "handed in, and left behind");
        place.runtime.block_on(hand_in(&place, &orphan));
        Process::start(ingest(&place, &town, &["--no-lake", "--once"])).ends_with(0, SOON);
        place.runtime.block_on(async { town.relays[0].publish(&orphan) });
        audit_all(&place, &town);
    }

    /// As a member does it, which is killed in the middle of the next transaction.
    async fn hand_in(place: &Place, event: &str) {
        let id =
            serde_json::from_str::<serde_json::Value>(event).expect("JSON")["id"].as_str().expect("an id").to_owned();
        let header = |name: &str, value: &str| topic::Header { name: name.into(), value: value.to_owned().into() };
        let frame = topic::Record {
            key: Some(id.into()),
            value: Some(event.to_owned().into()),
            headers: vec![
                header("source", "nostr"),
                header("relay", "wss://gone.example.org"),
                header("phase", "live"),
            ],
            ..topic::Record::default()
        };
        let mut writer =
            log(place).writer(Some(&format!("tidegate.collect.{}.0", place.topic))).await.expect("a writer");
        writer.begin().await.expect("begun");
        writer.send(&format!("{}.intake", place.topic), vec![frame]).await.expect("sent");
        writer.commit().await.expect("durable");
        let line = topic::Record { key: Some("a relay".into()), value: Some("{}".into()), ..topic::Record::default() };
        writer.begin().await.expect("begun");
        writer.send(&format!("{}.coverage", place.topic), vec![line]).await.expect("sent");
        writer.flush().await.expect("taken");
    }

    #[test]
    fn a_group_needs_kafka_and_has_no_end() {
        for (more, said) in [(&["--group", "porch"][..], "needs Kafka"), (&["--group", "porch", "--once"], "--once")] {
            let mut command = tidegate();
            command.args(["ingest", "nostr", "--relay", "ws://127.0.0.1:1", "--data-dir", "nowhere"]).args(more);
            let heard = tests::finish(&mut command).code(2).stderr();
            assert!(heard.contains(said), "{heard}");
        }
    }
}
