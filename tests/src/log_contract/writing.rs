//! Topics, and records written outside transactions.

use bytes::Bytes;
use topic::{ErrorKind, Header, Log, Record, TopicInfo, TopicSpec, partition_for_key};

use super::{assert_kind, by_partition, fresh, fresh_topic, ranges, read_all, record, transactional, values, writer};

pub(super) async fn a_topic_is_created_once(log: &dyn Log) {
    let spec = TopicSpec { name: fresh("created"), partitions: 3, config: Vec::new() };
    assert!(log.create_topic(&spec).await.expect("created"));
    let other = TopicSpec { partitions: 5, ..spec.clone() };
    assert!(!log.create_topic(&other).await.expect("there already"));
    let info = TopicInfo { name: spec.name.clone(), partitions: 3 };
    assert!(log.topics().await.expect("topics").contains(&info));
    let ranges = ranges(log, &spec.name).await;
    assert_eq!(
        ranges.iter().map(|r| (r.partition, r.start, r.end)).collect::<Vec<_>>(),
        [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    );
    // Books of the house are not shown, but they are there.
    let hidden = TopicSpec { name: format!("__{}", fresh("hidden")), partitions: 1, config: Vec::new() };
    assert!(log.create_topic(&hidden).await.expect("created"));
    assert!(log.topics().await.expect("topics").iter().all(|topic| !topic.name.starts_with("__")));
    assert_eq!(super::ranges(log, &hidden.name).await.len(), 1);
}

pub(super) async fn what_cannot_be_a_topic_is_refused(log: &dyn Log) {
    for name in ["", ".", "..", "two words", "a/b", "ä", &"n".repeat(250)] {
        let spec = TopicSpec { name: name.to_owned(), partitions: 1, config: Vec::new() };
        assert_kind(log.create_topic(&spec).await, ErrorKind::Config);
    }
    let none = TopicSpec { name: fresh("none"), partitions: 0, config: Vec::new() };
    assert_kind(log.create_topic(&none).await, ErrorKind::Config);
}

pub(super) async fn what_is_not_there_is_not_found(log: &dyn Log) {
    let nowhere = fresh("nowhere");
    assert_kind(log.ranges(&nowhere).await, ErrorKind::NotFound);
    assert_kind(log.offsets_at(&nowhere, 0).await, ErrorKind::NotFound);
    assert_kind(log.reader(&nowhere, vec![(0, 0)]).await, ErrorKind::NotFound);
    assert_kind(log.committed("group", &nowhere).await, ErrorKind::NotFound);
    assert_kind(log.last_by_key(&nowhere, b"key").await, ErrorKind::NotFound);
    assert_kind(writer(log).await.send(&nowhere, vec![record("key", "value")]).await, ErrorKind::NotFound);
    // Asking for it has not made it.
    assert_kind(log.ranges(&nowhere).await, ErrorKind::NotFound);
    let topic = fresh_topic(log, "one", 1).await;
    let elsewhere = Record { partition: Some(1), ..record("key", "value") };
    assert_kind(writer(log).await.send(&topic, vec![elsewhere]).await, ErrorKind::NotFound);
    assert_kind(log.reader(&topic, vec![(1, 0)]).await, ErrorKind::NotFound);
    assert!(log.committed("nobody", &topic).await.expect("no offsets").is_empty());
}

pub(super) async fn records_come_back_byte_for_byte(log: &dyn Log) {
    let topic = fresh_topic(log, "bytes", 1).await;
    let header = |name: &str, value: &[u8]| Header { name: name.to_owned(), value: Bytes::copy_from_slice(value) };
    let all_bytes: Vec<u8> = (0..=255).collect();
    let written = [
        Record {
            key: Some(Bytes::from(all_bytes.clone())),
            value: Some(Bytes::from(all_bytes.clone())),
            headers: vec![
                header("relay", b"wss://a"),
                header("relay", b"wss://b"),
                header("empty", b""),
                header("bytes", &all_bytes),
            ],
            timestamp_ms: Some(1_700_000_000_123),
            partition: Some(0),
        },
        Record { key: Some(Bytes::from_static(b"tombstone")), timestamp_ms: Some(1), ..Record::default() },
        Record {
            value: Some(Bytes::from_static(b"no key")),
            timestamp_ms: Some(1_699_999_999_000),
            ..Record::default()
        },
        Record {
            key: Some(Bytes::new()),
            value: Some(Bytes::new()),
            timestamp_ms: Some(1_500_000_000_999),
            ..Record::default()
        },
        Record { timestamp_ms: Some(2), ..Record::default() },
    ];
    let mut writer = writer(log).await;
    writer.send(&topic, written.to_vec()).await.expect("sent");
    writer.flush().await.expect("durable");
    let read = read_all(log, &topic, written.len()).await;
    for ((offset, written), read) in (0..).zip(&written).zip(&read) {
        assert_eq!((read.partition, read.offset), (0, offset));
        assert_eq!(Some(read.timestamp_ms), written.timestamp_ms);
        assert_eq!((&read.key, &read.value, &read.headers), (&written.key, &written.value, &written.headers));
    }
    assert_eq!(read[0].header("relay"), Some("wss://a"));
    // Without a time the log puts its own.
    writer.send(&topic, vec![record("key", "now")]).await.expect("sent");
    writer.flush().await.expect("durable");
    assert!(read_all(log, &topic, written.len() + 1).await[written.len()].timestamp_ms > 1_600_000_000_000);
    // A time that Kafka's client would take for "now" is refused, not changed.
    let zero = Record { timestamp_ms: Some(0), ..record("key", "zero") };
    assert_kind(writer.send(&topic, vec![zero]).await, ErrorKind::Data);
}

pub(super) async fn order_holds_within_a_partition(log: &dyn Log) {
    let topic = fresh_topic(log, "order", 3).await;
    let mut writer = writer(log).await;
    for chunk in 0..10 {
        let records = (0..300).map(|n| Record { partition: Some(n % 3), ..record("key", &format!("{chunk} {n:03}")) });
        writer.send(&topic, records.collect()).await.expect("sent");
        writer.flush().await.expect("durable");
    }
    let read = read_all(log, &topic, 3_000).await;
    for (partition, records) in by_partition(&read) {
        assert!(records.iter().map(|r| r.offset).eq(0..1_000), "offsets of partition {partition}");
        let values: Vec<_> = records.iter().map(|record| &record.value).collect();
        assert!(values.is_sorted(), "values of partition {partition}");
    }
    let ends: Vec<_> = ranges(log, &topic).await.iter().map(|range| range.end).collect();
    assert_eq!(ends, [1_000, 1_000, 1_000]);
}

pub(super) async fn a_key_decides_its_partition(log: &dyn Log) {
    let topic = fresh_topic(log, "keys", 7).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
    let mut writer = writer(log).await;
    writer.send(&topic, keys.iter().map(|key| record(key, key)).collect()).await.expect("sent");
    // Partitions take turns where there is no key.
    let keyless = (0..14).map(|_| Record { value: Some(Bytes::from_static(b"turn")), ..Record::default() });
    writer.send(&topic, keyless.collect()).await.expect("sent");
    writer.flush().await.expect("durable");
    let read = read_all(log, &topic, 114).await;
    for record in read.iter().filter(|record| record.key.is_some()) {
        let key = record.key.as_deref().expect("filtered");
        assert_eq!(record.partition, partition_for_key(key, 7), "{key:?}");
    }
    for (partition, records) in by_partition(&read) {
        assert_eq!(records.iter().filter(|record| record.key.is_none()).count(), 2, "turns of partition {partition}");
    }
}

pub(super) async fn interleaved_writers_lose_nothing(log: &dyn Log) {
    let topic = fresh_topic(log, "interleaved", 2).await;
    let (mut one, mut two) = (writer(log).await, writer(log).await);
    let mut three = transactional(log, &fresh("interleaved")).await;
    for round in 0..5 {
        one.send(&topic, vec![record("k", &format!("one {round}"))]).await.expect("sent");
        two.send(&topic, vec![record("k", &format!("two {round}"))]).await.expect("sent");
        three.begin().await.expect("begun");
        three.send(&topic, vec![record("k", &format!("three {round}"))]).await.expect("sent");
        let (first, second, third) = tokio::join!(two.flush(), three.commit(), one.flush());
        first.and(second).and(third).expect("all durable");
    }
    let mut read = values(&read_all(log, &topic, 15).await);
    for who in ["one", "two", "three"] {
        let own: Vec<_> = read.iter().filter(|value| value.starts_with(who)).cloned().collect();
        assert_eq!(own, (0..5).map(|round| format!("{who} {round}")).collect::<Vec<_>>());
    }
    read.sort_unstable();
    read.dedup();
    assert_eq!(read.len(), 15);
}

pub(super) async fn a_flush_makes_records_visible(log: &dyn Log) {
    let topic = fresh_topic(log, "flushed", 1).await;
    let mut writer = writer(log).await;
    writer.flush().await.expect("nothing to flush");
    for count in 1..=3 {
        writer.send(&topic, vec![record("key", "value")]).await.expect("sent");
        writer.flush().await.expect("durable");
        assert_eq!(ranges(log, &topic).await[0].end, count);
    }
    drop(writer);
    // More than a writer keeps in memory goes out by itself, and nothing of it is lost or repeated.
    let mut writer = super::writer(log).await;
    let big = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..200 {
        let record = Record { value: Some(big.clone()), ..Record::default() };
        writer.send(&topic, vec![record]).await.expect("sent");
    }
    writer.flush().await.expect("durable");
    assert_eq!(ranges(log, &topic).await[0].end, 203);
}

pub(super) async fn records_have_a_largest_size(log: &dyn Log) {
    let topic = fresh_topic(log, "large", 1).await;
    let mut writer = writer(log).await;
    let of = |bytes: usize| {
        // Not compressible, so that its size on the wire is its size.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let value = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        Record { value: Some(value.take(bytes).collect()), ..Record::default() }
    };
    let mebibyte = of(1024 * 1024);
    writer.send(&topic, vec![mebibyte.clone()]).await.expect("sent");
    writer.flush().await.expect("durable");
    let too_large = match writer.send(&topic, vec![of(20 * 1024 * 1024)]).await {
        Ok(()) => writer.flush().await,
        refused => refused,
    };
    assert_kind(too_large, ErrorKind::Data);
    writer.send(&topic, vec![record("after", "it")]).await.expect("sent");
    writer.flush().await.expect("the writer goes on");
    let read = read_all(log, &topic, 2).await;
    assert!(read[0].value == mebibyte.value);
}

pub(super) async fn the_last_record_of_a_key_is_found(log: &dyn Log) {
    let topic = fresh_topic(log, "last", 3).await;
    let last = async |key: &[u8]| log.last_by_key(&topic, key).await.expect("an answer");
    assert_eq!(last(b"a").await, None);
    let mut writer = writer(log).await;
    for round in 0..3 {
        let records = ["a", "b", "c", "d"].map(|key| record(key, &format!("{key}{round}")));
        writer.send(&topic, records.to_vec()).await.expect("sent");
    }
    let tombstone = Record { key: Some(Bytes::from_static(b"b")), ..Record::default() };
    writer.send(&topic, vec![tombstone]).await.expect("sent");
    writer.flush().await.expect("durable");
    assert_eq!(last(b"a").await.and_then(|record| record.value).as_deref(), Some(&b"a2"[..]));
    assert_eq!(last(b"b").await, None);
    assert_eq!(last(b"nobody").await, None);
    // What was aborted does not count.
    let mut aborting = transactional(log, &fresh("last")).await;
    aborting.begin().await.expect("begun");
    aborting.send(&topic, vec![record("a", "aborted")]).await.expect("sent");
    aborting.flush().await.expect("acknowledged");
    aborting.abort().await.expect("aborted");
    assert_eq!(last(b"a").await.and_then(|record| record.value).as_deref(), Some(&b"a2"[..]));
}
