//! Groups: who holds which partition of a topic, and whose offsets count. Those that need a broker run where
//! `TIDEGATE_TEST_KAFKA=host:port` names one, and say loudly where not.

#![allow(clippy::print_stderr, reason = "tests say what they saw")]

use std::collections::BTreeSet;
use std::time::Duration;

use event::Clock;
use tokio::time::timeout;
use topic::{Change, EmbeddedLog, ErrorKind, GroupSpec, KafkaLog, KafkaSettings, Log, Membership, TopicSpec};

const SOON: Duration = Duration::from_secs(60);

fn spec(topic: &str) -> GroupSpec {
    let (group, session_timeout) = (format!("{topic}/group"), Duration::from_secs(6));
    GroupSpec { group, topic: topic.to_owned(), session_timeout }
}

async fn next(member: &mut dyn Membership) -> Change {
    timeout(SOON, member.changed()).await.expect("a change").expect("a member")
}

/// Waits until the member has so many partitions, taking and giving what it is told to.
async fn holds(member: &mut dyn Membership, held: &mut BTreeSet<i32>, count: usize) {
    while held.len() != count {
        match next(member).await {
            Change::Taken(partitions) => held.extend(partitions),
            Change::Given(partitions, _) | Change::Lost(partitions) => held.retain(|at| !partitions.contains(at)),
        }
    }
}

#[tokio::test]
async fn the_embedded_log_has_no_groups_and_says_what_has() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let log = EmbeddedLog::open(dir.path(), Clock::system()).expect("a log");
    let refused = log.join(&spec("topic")).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("use Kafka"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_when_their_holder_lets_them_go_and_offsets_count_for_the_holder_only() {
    let Ok(brokers) = std::env::var("TIDEGATE_TEST_KAFKA") else {
        eprintln!("SKIPPED: TIDEGATE_TEST_KAFKA is not set, nothing was tested on Kafka");
        return;
    };
    let connect = || KafkaLog::connect(KafkaSettings::new(brokers.clone())).expect("settings");
    let (log, other) = (connect(), connect());
    let topic = format!("group-{}", std::process::id());
    let spec = spec(&topic);
    let missing = log.join(&spec).await.expect_err("there is no such topic");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    log.create_topic(&TopicSpec { name: topic.clone(), partitions: 4, config: Vec::new() }).await.expect("created");

    let mut first = log.join(&spec).await.expect("a member");
    let mut of_first = BTreeSet::new();
    holds(first.as_mut(), &mut of_first, 4).await;
    let mut second = other.join(&spec).await.expect("a member");
    let Change::Given(given, turn) = next(first.as_mut()).await else { panic!("two partitions are to move") };
    assert_eq!(given.len(), 2);
    // The holder takes its time.
    assert!(timeout(Duration::from_secs(2), second.changed()).await.is_err(), "nothing moves before it is let go");
    drop(turn);
    of_first.retain(|at| !given.contains(at));
    let mut of_second = BTreeSet::new();
    holds(second.as_mut(), &mut of_second, 2).await;
    assert_eq!(of_second, given.into_iter().collect());

    // Offsets count for whoever holds the partition.
    let mut writer = log.writer(Some(&topic)).await.expect("a writer");
    for (partition, counts) in [(*of_first.first().expect("two"), true), (*of_second.first().expect("two"), false)] {
        writer.begin().await.expect("begun");
        let sent = writer.send_offsets(&spec.group, &topic, &[(partition, 7)]).await;
        assert_eq!(sent.is_ok(), counts, "{sent:?}");
        match sent {
            Ok(()) => writer.commit().await.expect("committed"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Fenced);
                writer.abort().await.expect("aborted");
            }
        }
    }
    let committed = log.committed(&spec.group, &topic).await.expect("offsets");
    assert_eq!(committed, [(*of_first.first().expect("two"), 7)]);

    // What a member leaves goes to the others, and its offsets count no more.
    first.leave().await;
    holds(second.as_mut(), &mut of_second, 4).await;
    writer.begin().await.expect("begun");
    let sent = writer.send_offsets(&spec.group, &topic, &[(0, 8)]).await;
    assert!(sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced), "{sent:?}");
    second.leave().await;
}
