//! All or nothing: records and offsets of a transaction, and who may still commit.

use std::time::{Duration, Instant};

use topic::{ErrorKind, Log, Record};

use super::{
    PATIENCE, assert_kind, fresh, fresh_topic, ranges, read_all, read_until, record, starts, transactional, values,
    writer,
};

pub(super) async fn nothing_is_visible_before_commit(log: &dyn Log) {
    let topic = fresh_topic(log, "commit", 2).await;
    let mut writer = transactional(log, &fresh("commit")).await;
    let mut reader = log.reader(&topic, starts(log, &topic).await).await.expect("a reader");
    for round in 0..3 {
        writer.begin().await.expect("begun");
        let records = (0..10).map(|n| Record { partition: Some(n % 2), ..record("key", &format!("{round}")) });
        writer.send(&topic, records.collect()).await.expect("sent");
        writer.flush().await.expect("acknowledged");
        assert!(reader.read(10, Duration::from_millis(200)).await.expect("a read").is_empty());
        // The range ends where readers do, before what is open.
        let ends: Vec<_> = ranges(log, &topic).await.iter().map(|range| (range.partition, range.end)).collect();
        let began = Instant::now();
        while reader.positions() != ends {
            assert!(began.elapsed() < PATIENCE, "at {:?} of {ends:?}", reader.positions());
            assert!(reader.read(10, Duration::from_millis(100)).await.expect("a read").is_empty());
        }
        writer.commit().await.expect("committed");
        let read = read_until(reader.as_mut(), 10).await;
        assert!(values(&read).iter().all(|value| *value == round.to_string()));
        assert_eq!(read.len(), 10);
    }
    // An empty transaction is one too.
    writer.begin().await.expect("begun");
    writer.commit().await.expect("committed");
    read_all(log, &topic, 30).await;
}

pub(super) async fn an_abort_leaves_nothing(log: &dyn Log) {
    let topic = fresh_topic(log, "abort", 1).await;
    let mut writer = transactional(log, &fresh("abort")).await;
    let mut reader = log.reader(&topic, vec![(0, 0)]).await.expect("a reader");
    for round in 0..3 {
        writer.begin().await.expect("begun");
        writer.send(&topic, vec![record("key", "aborted")]).await.expect("sent");
        if round > 0 {
            // Aborted records that lie in the log already are passed over.
            writer.flush().await.expect("acknowledged");
        }
        writer.abort().await.expect("aborted");
        assert!(reader.read(10, Duration::from_millis(100)).await.expect("a read").is_empty());
        writer.begin().await.expect("begun again");
        writer.send(&topic, vec![record("key", &format!("kept {round}"))]).await.expect("sent");
        writer.commit().await.expect("committed");
        assert_eq!(values(&read_until(reader.as_mut(), 1).await), [format!("kept {round}")]);
    }
    // A writer that is gone in the middle of a transaction leaves nothing either, once a new one has come.
    let id = fresh("gone");
    let mut gone = transactional(log, &id).await;
    gone.begin().await.expect("begun");
    gone.send(&topic, vec![record("key", "gone")]).await.expect("sent");
    gone.flush().await.expect("acknowledged");
    drop(gone);
    let mut next = transactional(log, &id).await;
    next.begin().await.expect("begun");
    next.send(&topic, vec![record("key", "next")]).await.expect("sent");
    next.commit().await.expect("committed");
    assert_eq!(values(&read_until(reader.as_mut(), 1).await), ["next"]);
    read_all(log, &topic, 4).await;
}

pub(super) async fn offsets_are_committed_with_records(log: &dyn Log) {
    let (input, output) = (fresh_topic(log, "input", 3).await, fresh_topic(log, "output", 1).await);
    let (group, id) = (fresh("group"), fresh("offsets"));
    let committed = async || log.committed(&group, &input).await.expect("offsets");
    let mut writer = transactional(log, &id).await;
    assert!(committed().await.is_empty());
    writer.begin().await.expect("begun");
    writer.send(&output, vec![record("key", "1")]).await.expect("sent");
    writer.send_offsets(&group, &input, &[(0, 5), (2, 7)]).await.expect("sent");
    writer.commit().await.expect("committed");
    assert_eq!(committed().await, [(0, 5), (2, 7)]);
    writer.begin().await.expect("begun");
    writer.send(&output, vec![record("key", "2")]).await.expect("sent");
    writer.send_offsets(&group, &input, &[(0, 6)]).await.expect("sent");
    writer.abort().await.expect("aborted");
    assert_eq!(committed().await, [(0, 5), (2, 7)]);
    // Offsets alone, and the last of several for a partition counts.
    writer.begin().await.expect("begun");
    writer.send_offsets(&group, &input, &[(0, 8), (1, 1)]).await.expect("sent");
    writer.send_offsets(&group, &input, &[(0, 9)]).await.expect("sent");
    writer.commit().await.expect("committed");
    assert_eq!(committed().await, [(0, 9), (1, 1), (2, 7)]);
    assert_eq!(values(&read_all(log, &output, 1).await), ["1"]);
    let other = log.committed(&fresh("other"), &input).await.expect("another group has none");
    assert!(other.is_empty());
}

pub(super) async fn an_older_writer_is_fenced(log: &dyn Log) {
    let topic = fresh_topic(log, "fenced", 1).await;
    let (group, id) = (fresh("fenced"), fresh("fenced"));
    let mut older = transactional(log, &id).await;
    older.begin().await.expect("begun");
    older.send(&topic, vec![record("key", "older")]).await.expect("sent");
    older.send_offsets(&group, &topic, &[(0, 1)]).await.expect("sent");
    older.flush().await.expect("acknowledged");
    let mut newer = transactional(log, &id).await;
    newer.begin().await.expect("begun");
    newer.send(&topic, vec![record("key", "newer")]).await.expect("sent");
    assert_kind(older.commit().await, ErrorKind::Fenced);
    newer.commit().await.expect("committed");
    assert_eq!(values(&read_all(log, &topic, 1).await), ["newer"]);
    assert!(log.committed(&group, &topic).await.expect("offsets").is_empty());
    // Another id is another writer.
    let mut other = transactional(log, &fresh("other")).await;
    other.begin().await.expect("begun");
    newer.begin().await.expect("begun");
    newer.commit().await.expect("committed");
    other.commit().await.expect("committed");
}

pub(super) async fn calls_out_of_order_are_refused(log: &dyn Log) {
    let topic = fresh_topic(log, "calls", 1).await;
    let mut plain = writer(log).await;
    assert_kind(plain.begin().await, ErrorKind::Internal);
    assert_kind(plain.commit().await, ErrorKind::Internal);
    assert_kind(plain.send_offsets("group", &topic, &[(0, 0)]).await, ErrorKind::Internal);
    let mut writer = transactional(log, &fresh("calls")).await;
    assert_kind(writer.send(&topic, vec![record("key", "value")]).await, ErrorKind::Internal);
    assert_kind(writer.send_offsets("group", &topic, &[(0, 0)]).await, ErrorKind::Internal);
    assert_kind(writer.commit().await, ErrorKind::Internal);
    assert_kind(writer.abort().await, ErrorKind::Internal);
    writer.begin().await.expect("begun");
    assert_kind(writer.begin().await, ErrorKind::Internal);
    writer.commit().await.expect("committed");
}

pub(super) async fn one_transaction_spans_topics(log: &dyn Log) {
    let topics = [fresh_topic(log, "span-a", 2).await, fresh_topic(log, "span-b", 3).await];
    let mut writer = transactional(log, &fresh("span")).await;
    for (round, commit) in [(0, true), (1, false), (2, true)] {
        writer.begin().await.expect("begun");
        for topic in &topics {
            let records = (0..50).map(|n| record(&format!("key {n}"), &format!("{round}")));
            writer.send(topic, records.collect()).await.expect("sent");
        }
        let ended = if commit { writer.commit().await } else { writer.abort().await };
        ended.expect("ended");
    }
    for topic in &topics {
        let read = values(&read_all(log, topic, 100).await);
        assert_eq!(read.iter().filter(|value| *value == "0").count(), 50);
        assert_eq!(read.iter().filter(|value| *value == "2").count(), 50);
    }
}
