//! Brokers as these tests need them: read without the code under test, and one of a test's own that may be ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tests::audit::{Held, read_kafka};
use tests::{kafka, repository};

use super::auditor::Found;
use super::say;

const TIMEOUT: Duration = Duration::from_secs(60);
/// By then a broker that slept leads its partitions again, if ever.
const COMES_BACK: Duration = Duration::from_secs(45);
/// By then another broker has taken over, or one that was away leads again.
const LATER: Duration = Duration::from_secs(90);

fn consumer(brokers: &str, group: &str, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .create()
        .expect("a consumer")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    assert!(partitions > 0, "topic `{topic}` exists");
    i32::try_from(partitions).expect("few partitions")
}

/// Ends of the partitions: the last stable offsets, or with `uncommitted` the high watermarks.
pub(crate) fn ends(brokers: &str, topic: &str, uncommitted: bool) -> BTreeMap<i32, i64> {
    let isolation = if uncommitted { "read_uncommitted" } else { "read_committed" };
    let consumer = consumer(brokers, "tidegate-audit", isolation);
    let end = |partition| consumer.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks").1;
    (0..partitions(&consumer, topic)).map(|partition| (partition, end(partition))).collect()
}

fn leaders(brokers: &str, topic: &str, timeout: Duration) -> KafkaResult<Vec<i32>> {
    let consumer = consumer(brokers, "tidegate-audit", "read_committed");
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    Ok(metadata.topics().iter().flat_map(|topic| topic.partitions().iter().map(|one| one.leader())).collect())
}

/// Offsets that a group has committed.
pub(crate) fn committed(brokers: &str, group: &str, topic: &str) -> BTreeMap<i32, i64> {
    let consumer = consumer(brokers, group, "read_committed");
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions(&consumer, topic) - 1);
    let answer = consumer.committed_offsets(list, TIMEOUT).expect("offsets of the group");
    let of = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), offset)),
        _ => None,
    };
    answer.elements().iter().filter_map(of).collect()
}

/// Every committed record of a topic, from its beginning.
pub(crate) fn read(brokers: &str, topic: &str) -> Vec<Found> {
    let found = |held: Held| Found {
        partition: held.place.0,
        offset: held.place.1,
        key: Some(held.key).filter(|key| !key.is_empty()),
        value: String::from_utf8_lossy(&held.value).into_owned(),
    };
    read_kafka(brokers, topic).into_iter().map(found).collect()
}

/// A broker of a test's own, which it may stop, kill and start again. What is left of it is stopped in the end.
#[derive(Debug)]
pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) address: String,
}

impl Broker {
    /// Starts one; none, loudly, where the tests run without a real Kafka.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        kafka()?;
        Some(Self::by("start", settings))
    }

    /// Starts two of one cluster, in which the second leads some of the partitions whenever it is there, and may be
    /// ended; the first decides who leads.
    pub(crate) fn pair() -> Option<(Self, Self)> {
        let first = Self::start(&[
            "default.replication.factor=2",
            "offsets.topic.replication.factor=2",
            "transaction.state.log.replication.factor=2",
            "transaction.state.log.num.partitions=4",
            "leader.imbalance.check.interval.seconds=1",
            "leader.imbalance.per.broker.percentage=0",
        ])?;
        let second = Self::by("join", &[first.dir.path().to_str().expect("a path of letters")]);
        Some((first, second))
    }

    fn by(command: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let mut broker = Self { dir, address: String::new() };
        broker.script(command, arguments);
        let env = std::fs::read_to_string(broker.dir.path().join("env")).expect("the broker's address");
        let address = env.trim().strip_prefix("export TIDEGATE_TEST_KAFKA=").expect("one variable");
        address.clone_into(&mut broker.address);
        broker
    }

    /// Waits until the second of a pair leads partitions of the topic, or until it leads none; this first one is asked.
    pub(crate) fn until_second_leads(&self, topic: &str, leads: bool) {
        let begun = Instant::now();
        while leaders(&self.address, topic, TIMEOUT).expect("metadata").contains(&2) != leads {
            assert!(begun.elapsed() < LATER, "of the second broker it does not become true that it leads: {leads}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts it again, with the data and on the port that it had; returns how long it took until it served.
    pub(crate) fn restart(&self) -> Duration {
        let started = Instant::now();
        self.script("restart", &[]);
        started.elapsed()
    }

    /// Sends it a signal: `KILL`, `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        self.script("signal", &[name]);
    }

    /// Wakes it up. One that has slept for longer than its own session does not always lead its partitions again by
    /// itself: where it tells a client that asks for the first time of no leader, it is started again.
    pub(crate) fn wake(&self, topic: &str) {
        self.signal("CONT");
        let begun = Instant::now();
        let awake = || leaders(&self.address, topic, Duration::from_secs(5));
        while !awake().is_ok_and(|leaders| !leaders.is_empty() && leaders.iter().all(|leader| *leader > 0)) {
            if begun.elapsed() > COMES_BACK {
                say("the broker that slept leads nothing: it is started again");
                self.signal("KILL");
                self.restart();
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn script(&self, command: &str, arguments: &[&str]) {
        let script: PathBuf = repository().join("tests/services/kafka");
        let mut run = Command::new(script);
        run.arg(command).arg(self.dir.path()).args(arguments);
        let done = run.output().expect("the script runs");
        assert!(done.status.success(), "kafka {command}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let script = repository().join("tests/services/kafka");
        for arguments in [&["signal", "CONT"][..], &["stop"]] {
            let mut run = Command::new(&script);
            run.arg(arguments[0]).arg(self.dir.path()).args(&arguments[1..]);
            // It may have ended before; there is nobody to tell.
            let _ = run.output();
        }
    }
}
