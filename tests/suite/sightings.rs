//! Sightings: every delivery of an event by a relay is one record, the first one of each event is marked, and the job
//! `relays` counts them. What the relays served is taken from their own records.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use event::layout::LakeFormat;
use event::{Clock, EventId, Sighting};
use ingest::lake::{LanderSettings, land};
use ingest::{Components, Counters};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use serde_json::Value;
use tests::oracle::{PlainSighting, Windows, relays};
use tests::scripted_relay::{Plot, ScriptedRelay};
use tests::stage::Stage;
use tests::{finish, signed, sorted};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, Record, TopicSpec};

/// One window holds all that is received until 2051.
const ALL_TIME: &str = "10000 days";
const NOTHING_LATE: &[&str] = &["--watermark-duration", "1 day"];
const HOUR: i64 = 3_600_000;

/// How often each relay delivered each event: relay and id.
pub(crate) type Deliveries = BTreeMap<(String, String), u64>;

/// Three relays that share 300 events: 100 lie on two of them, 75 on all three.
pub(crate) struct Town {
    pub(crate) relays: Vec<ScriptedRelay>,
    /// The relays live on it.
    _runtime: Runtime,
}

impl Town {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let events = signed::events(18, 300);
        let held = [&events[..200], &events[100..], &events[50..175]];
        let relays = held.map(|events| runtime.block_on(ScriptedRelay::start(Plot::of(events))));
        Self { relays: relays.into(), _runtime: runtime }
    }

    fn urls(&self) -> String {
        self.relays.iter().map(ScriptedRelay::url).collect::<Vec<_>>().join(",")
    }

    /// What the relays say that they have delivered.
    pub(crate) fn served(&self) -> Deliveries {
        let mut served = Deliveries::new();
        for relay in &self.relays {
            for (event, times) in relay.served() {
                let event: Value = serde_json::from_str(&event).expect("an event");
                *served.entry((normal(&relay.url()), id(&event))).or_default() += times;
            }
        }
        served
    }
}

/// A relay's URL as records have it.
pub(crate) fn normal(url: &str) -> String {
    ingest::normal_relay_url(url).expect("a URL")
}

pub(crate) fn id(event: &Value) -> String {
    event["id"].as_str().expect("an id").to_owned()
}

fn sighting_topic(stage: &Stage) -> String {
    format!("{}.sightings", stage.topic())
}

fn records(stage: &Stage, topic: &str) -> Vec<Value> {
    finish(&mut stage.log_command(&["topic", "read", topic, "--until-latest"])).success().ndjson()
}

fn sightings(stage: &Stage) -> Vec<PlainSighting> {
    let records = records(stage, &sighting_topic(stage));
    let plain = |record: &Value| {
        let sighting = PlainSighting::parse(&record["value"]);
        assert_eq!(record["key"], sighting.id, "the key is the event's id");
        sighting
    };
    records.iter().map(plain).collect()
}

pub(crate) fn counted(sightings: &[PlainSighting]) -> Deliveries {
    let mut counted = Deliveries::new();
    for sighting in sightings {
        *counted.entry((sighting.relay.clone(), sighting.id.clone())).or_default() += 1;
    }
    counted
}

/// Demands of the first deliveries that they are the raw topic's records, one for one.
fn must_have_each_first_once(stage: &Stage, sightings: &[PlainSighting]) {
    let header = |record: &Value, name: &str| record["headers"][name].as_str().expect("a header").to_owned();
    let raw: Vec<_> = records(stage, stage.topic())
        .iter()
        .map(|record| {
            let (relay, received_at) = (header(record, "relay"), header(record, "received_at"));
            (id(&record["value"]), relay, received_at, record["value"]["created_at"].as_i64())
        })
        .collect();
    let first = sightings.iter().filter(|sighting| sighting.first).map(|sighting| {
        let received_at = sighting.received_at.to_string();
        (sighting.id.clone(), sighting.relay.clone(), received_at, sighting.created_at)
    });
    let mut first: Vec<_> = first.collect();
    first.sort();
    let mut wanted = raw;
    wanted.sort();
    assert!(first == wanted, "{} first deliveries of {} events", first.len(), wanted.len());
    assert!(sightings.iter().filter(|sighting| !sighting.first).all(|copy| copy.created_at.is_none()));
}

fn rows(command: &mut Command) -> Vec<String> {
    sorted(finish(command).success().ndjson())
}

fn ingest(stage: &Stage, town: &Town, more: &[&str]) {
    let urls = town.urls();
    let arguments = [&["nostr", "--relay", &urls, "--once", "--sightings", "--max-future", "off"], more].concat();
    finish(&mut stage.ingest(&arguments)).success();
}

fn every_delivery_is_counted(stage: &Stage) {
    let town = Town::new();
    ingest(stage, &town, &[]);
    // A second run gets everything again: copies only.
    ingest(stage, &town, &["--refetch"]);
    let (noted, served) = (sightings(stage), town.served());
    assert!(counted(&noted) == served, "what was noted is not what was served");
    assert!(served.values().sum::<u64>() >= 2 * (200 + 200 + 125));
    must_have_each_first_once(stage, &noted);
    assert_eq!(noted.iter().filter(|sighting| sighting.first).count(), 300);

    // By the relays' own records.
    let all = finish(&mut stage.batch(&["relays", ALL_TIME])).success().ndjson();
    assert_eq!(all.len(), town.relays.len());
    for (row, url) in all.iter().map(|row| (row, row["relay"].as_str().expect("a relay"))) {
        let of = served.iter().filter(|((relay, _), _)| relay == url);
        let (ids, times) = of.fold((0, 0), |(ids, times), (_, more)| (ids + 1, times + more));
        let number = |name: &str| row[name].as_u64().expect("a number");
        assert_eq!((number("events"), number("first_deliveries") + number("copies")), (ids, times), "{url}");
        assert!(row["lateness_max_ms"].is_null(), "nothing came live");
    }
    let first = |row: &Value| row["first_deliveries"].as_u64().expect("a number");
    assert_eq!(all.iter().map(first).sum::<u64>(), 300);

    // By the oracle, from the records of the topic.
    for (slide, more) in [(3_600, &[][..]), (600, &["--slide-duration", "10 minutes"])] {
        let wanted = sorted(relays(&noted, Windows { size: 3_600, slide }));
        let job = [&["relays", "1 hour"], more].concat();
        assert_eq!(rows(&mut stage.batch(&job)), wanted, "batch");
        assert_eq!(rows(&mut stage.stream(&[&job[..], NOTHING_LATE].concat())), wanted, "stream");
        let lake_first = [&["stream"], &job[..], NOTHING_LATE, &["--start", "lake", "--debug"]].concat();
        let mut command = stage.command(&lake_first);
        command.args(["--raw-events-kafka-topic", stage.topic(), "--format", "ndjson", "--until-latest"]);
        assert_eq!(rows(&mut command), wanted, "the lake, then the topic");
    }
    ask_the_lake(stage, &served);
}

/// SQL over both tables, and the proof that the lake holds what the topic does.
fn ask_the_lake(stage: &Stage, served: &Deliveries) {
    let query = "SELECT s.relay, count(*) AS n, count(DISTINCT s.id) AS ids FROM sightings s JOIN events e ON e.id = s.id \
                 GROUP BY s.relay";
    let mut command = stage.lake_command(&["sql", query, "--format", "ndjson"]);
    let rows = finish(command.args(["--raw-events-kafka-topic", stage.topic()])).success().ndjson();
    let number = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(number("ids"), served.len() as u64);
    assert_eq!(number("n"), served.values().sum::<u64>());
    let topic = sighting_topic(stage);
    let verify = ["lake", "verify", "--topic", &topic, "--content", "--against-topic"];
    finish(&mut stage.command(&verify)).success();
}

mod embedded {
    use super::*;

    #[test]
    fn every_delivery_is_counted() {
        super::every_delivery_is_counted(&Stage::embedded());
    }
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn every_delivery_is_counted() {
            let Some(stage) = Stage::services() else { return };
            super::super::every_delivery_is_counted(&stage);
        }
    }
}

#[test]
fn without_the_option_there_is_no_topic_and_the_job_says_what_to_do() {
    let (stage, town) = (Stage::embedded(), Town::new());
    let urls = town.urls();
    finish(&mut stage.ingest(&["nostr", "--relay", &urls, "--once", "--max-future", "off"])).success();
    for said in [
        finish(&mut stage.batch(&["relays", "1 hour"])).code(2).stderr(),
        finish(
            stage.lake_command(&["sql", "SELECT * FROM sightings"]).args(["--raw-events-kafka-topic", stage.topic()]),
        )
        .code(2)
        .stderr(),
    ] {
        assert!(said.contains(&sighting_topic(&stage)) && said.contains("--sightings"), "{said}");
    }
    // A raw topic is told from one of sightings by its name.
    let mut wrong = stage.log_command(&["ingest", "nostr", "--relay", &urls, "--topic", "nostr-sighting", "--no-lake"]);
    assert!(finish(&mut wrong).code(2).stderr().contains("give the raw topic another one"));
    let both = stage.dir().join("both.sql").to_string_lossy().into_owned();
    let sql = "INSERT INTO a SELECT kind FROM events; INSERT INTO b SELECT relay FROM sightings";
    fs::write(&both, sql).expect("written");
    let said = finish(tests::tidegate().args(["explain", &both])).code(2).stderr();
    assert!(said.contains("a job reads one table") && said.contains("tidegate sql"), "{said}");
    let said = finish(&mut stage.log_command(&["up", "--relay", &urls, "--job", "relays"])).code(2).stderr();
    assert!(said.contains("--sightings"), "{said}");
}

/// A lake of sightings that were received some hours ago.
async fn received_earlier(stage: &Stage, format: LakeFormat) -> Vec<PlainSighting> {
    let clock = Clock::system();
    let began = (clock.now_ms() - 6 * HOUR).div_euclid(HOUR) * HOUR;
    let made = (0..400_i64).map(|number| {
        let id = EventId([u8::try_from(number % 90).expect("small"); 32]);
        let (relay, first) = (format!("wss://relay{}.example", number % 7).into(), number < 90);
        let (received_at_ms, created_at) = (began + number * 30_000, first.then_some(began / 1_000 + number * 30 - 2));
        Sighting { id, relay, received_at_ms, phase: "live".into(), first, created_at }
    });
    let made: Vec<Sighting<'static>> = made.collect();
    let dir = stage.dir().join("log");
    fs::create_dir_all(&dir).expect("a directory");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir, clock.clone()).expect("a log"));
    let topic = sighting_topic(stage);
    let spec = TopicSpec { name: topic.clone(), partitions: 2, config: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let mut writer = log.writer(None).await.expect("a writer");
    let record = |sighting: &Sighting<'_>| Record {
        key: Some(sighting.id.to_string().into()),
        value: Some(sighting.to_json().into()),
        timestamp_ms: Some(sighting.received_at_ms),
        ..Record::default()
    };
    writer.send(&topic, made.iter().map(record).collect()).await.expect("sent");
    writer.flush().await.expect("flushed");
    drop(writer);
    let lake = stage.dir().join("lake");
    fs::create_dir_all(&lake).expect("a directory");
    let store = Arc::new(LocalFileSystem::new_with_prefix(lake).expect("a store"));
    let drain = CancellationToken::new();
    drain.cancel();
    let settings = LanderSettings { topic, format, rows_max: 40, ..LanderSettings::default() };
    let components = Components { log, clock, counters: Arc::new(Counters::default()) };
    land(settings, components, store, Path::default(), drain).await.expect("landed");
    let plain = |sighting: &Sighting<'_>| {
        PlainSighting::parse(&serde_json::from_str(&sighting.to_json()).expect("a sighting is JSON"))
    };
    made.iter().map(plain).collect()
}

/// Landed, compacted, cleared of raw objects: the job's answers stay, and so does the proof against the topic.
#[tokio::test]
async fn sightings_live_in_the_lake_as_events_do() {
    for format in [LakeFormat::Parquet, LakeFormat::JsonGz] {
        let stage = Stage::embedded();
        let made = received_earlier(&stage, format).await;
        let wanted = sorted(relays(&made, Windows { size: 3_600, slide: 3_600 }));
        assert!(wanted.len() > 14);
        let topic = sighting_topic(&stage);
        let lake = |arguments: &[&str]| {
            finish(stage.lake_command(&[&["lake"], arguments].concat()).args(["--topic", &topic])).success().stderr()
        };
        assert_eq!(rows(&mut stage.batch(&["relays", "1 hour"])), wanted, "{format:?}");
        lake(&["verify", "--content", "--against-topic"]);
        let said = lake(&["compact"]);
        assert!(said.contains("400 rows"), "{said}");
        assert_eq!(rows(&mut stage.batch(&["relays", "1 hour"])), wanted, "{format:?}, compacted");
        lake(&["verify", "--content", "--against-topic"]);
        let query = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM sightings WHERE first";
        let mut command = stage.lake_command(&["sql", query, "--format", "ndjson"]);
        let first = finish(command.args(["--raw-events-kafka-topic", &topic])).success().ndjson();
        assert_eq!((first[0]["n"].as_u64(), first[0]["ids"].as_u64()), (Some(90), Some(90)));
        lake(&["expire", "--older-than", "1h"]);
        assert_eq!(rows(&mut stage.batch(&["relays", "1 hour"])), Vec::<String>::new(), "{format:?}, expired");
    }
}
