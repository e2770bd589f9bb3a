//! What the Kafka log alone promises, beside the contract: errors of settings and of the cluster in our words.
//! Those that need a broker run where `TIDEGATE_TEST_KAFKA=host:port` names one, and say loudly where not.

#![allow(clippy::print_stderr, reason = "tests say what they saw")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use topic::{ErrorKind, KafkaLog, KafkaSettings, Log, Record, TopicSpec};

fn broker() -> Option<KafkaLog> {
    let Ok(brokers) = std::env::var("TIDEGATE_TEST_KAFKA") else {
        eprintln!("SKIPPED: TIDEGATE_TEST_KAFKA is not set, nothing was tested on Kafka");
        return None;
    };
    Some(KafkaLog::connect(KafkaSettings::new(brokers)).expect("settings"))
}

async fn fresh_topic(log: &KafkaLog, what: &str) -> String {
    let name = format!("kafka-{what}-{}", std::process::id());
    let spec = TopicSpec { name: name.clone(), partitions: 1, config: Vec::new() };
    assert!(log.create_topic(&spec).await.expect("created"));
    name
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let odd = |key: &str, value: &str| {
        let options = vec![(key.to_owned(), value.to_owned())];
        KafkaSettings { options, ..KafkaSettings::new("127.0.0.1:1") }
    };
    for settings in [odd("no.such.option", "1"), odd("socket.timeout.ms", "soon")] {
        let refused = KafkaLog::connect(settings).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    }
    let settings = KafkaSettings { compression: "lzw".to_owned(), ..KafkaSettings::new("127.0.0.1:1") };
    let refused = KafkaLog::connect(settings).expect("compression is the writer's").writer(None).await;
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Config && error.to_string().contains("lzw")));
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_unavailable() {
    let settings = KafkaSettings { timeout: Duration::from_secs(1), ..KafkaSettings::new("127.0.0.1:1") };
    let log = KafkaLog::connect(settings).expect("settings");
    let began = Instant::now();
    let spec = TopicSpec { name: "topic".to_owned(), partitions: 1, config: Vec::new() };
    for error in [
        log.ranges("topic").await.expect_err("no cluster"),
        log.create_topic(&spec).await.expect_err("no cluster"),
        log.writer(Some("id")).await.err().expect("no cluster"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// What a cluster says of a partition in between, as while it elects a leader, is no answer; that it says so for too
/// long is, and no reason to take the topic for deleted.
#[tokio::test]
async fn a_partition_that_is_not_known_just_now_is_asked_for_again() {
    let cluster = MockCluster::new(1).expect("a cluster of librdkafka's own");
    cluster.create_topic("topic", 2, 1).expect("a topic");
    let settings = KafkaSettings { timeout: Duration::from_secs(3), ..KafkaSettings::new(cluster.bootstrap_servers()) };
    let log = KafkaLog::connect(settings).expect("settings");
    let known = log.ranges("topic").await.expect("two partitions");
    assert_eq!(known.len(), 2);
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 3]);
    assert_eq!(log.ranges("topic").await.expect("three errors later"), known);
    for leaderless in [vec![1], vec![0, 1]] {
        let lead = |leader| {
            leaderless.iter().for_each(|partition| {
                cluster.partition_leader("topic", *partition, leader).expect("a partition");
            });
        };
        lead(None);
        let error = log.ranges("topic").await.expect_err("no leader");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let asked = tokio::join!(log.ranges("topic"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            lead(Some(1));
        });
        assert_eq!(asked.0.expect("a leader again"), known);
    }
}

#[tokio::test]
async fn a_transaction_with_a_record_that_was_refused_can_be_aborted() {
    let Some(log) = broker() else { return };
    let topic = fresh_topic(&log, "refused").await;
    // Larger than the topic takes, though not than a record may be; and not to be compressed.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let large = Record { value: Some(noise.take(3 * 1024 * 1024).collect()), ..Record::default() };
    let small = Record { value: Some(Bytes::from_static(b"small")), ..Record::default() };
    let mut writer = log.writer(Some(&topic)).await.expect("a writer");
    for flush in [true, false] {
        writer.begin().await.expect("begun");
        writer.send(&topic, vec![small.clone(), large.clone()]).await.expect("queued");
        if flush {
            let error = writer.flush().await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        }
        let error = writer.commit().await.expect_err("refused");
        assert!(flush || error.kind() == ErrorKind::Data, "{error:?}");
        writer.abort().await.expect("aborted");
    }
    writer.begin().await.expect("begun");
    writer.send(&topic, vec![small]).await.expect("sent");
    writer.commit().await.expect("committed");
    let mut reader = log.reader(&topic, vec![(0, 0)]).await.expect("a reader");
    let mut read = Vec::new();
    let began = Instant::now();
    while read.is_empty() && began.elapsed() < Duration::from_secs(60) {
        read.extend(reader.read(10, Duration::from_secs(1)).await.expect("a read"));
    }
    assert_eq!(read.len(), 1);
}
