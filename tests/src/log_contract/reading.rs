//! Offsets, readers and their positions.

use std::time::{Duration, Instant};

use topic::{ErrorKind, Log, Record};

use super::{
    PATIENCE, assert_kind, fresh, fresh_topic, ranges, read_until, record, starts, transactional, values, writer,
};

pub(super) async fn offsets_are_found_by_time(log: &dyn Log) {
    let topic = fresh_topic(log, "times", 2).await;
    let mut writer = writer(log).await;
    // Times need not ascend: the first record at or after a time is meant.
    for (n, time) in (0..).zip([1_000, 3_000, 2_000, 3_000, 5_000, 4_000]) {
        let record = Record { timestamp_ms: Some(time), partition: Some(0), ..record("key", &format!("{n}")) };
        writer.send(&topic, vec![record]).await.expect("sent");
        writer.flush().await.expect("durable");
    }
    for (time, offset) in
        [(i64::MIN, 0), (0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (3_000, 1), (3_001, 4), (5_000, 4), (5_001, 6)]
    {
        let found = log.offsets_at(&topic, time).await.expect("offsets");
        assert_eq!(found, [(0, offset), (1, 0)], "at {time}");
    }
}

pub(super) async fn a_reader_starts_at_its_offset(log: &dyn Log) {
    let topic = fresh_topic(log, "from", 2).await;
    let mut writer = writer(log).await;
    let records = (0..20).map(|n| Record { partition: Some(n % 2), ..record("key", &format!("{n:02}")) });
    writer.send(&topic, records.collect()).await.expect("sent");
    writer.flush().await.expect("durable");
    let mut reader = log.reader(&topic, vec![(1, 7)]).await.expect("a reader of one partition");
    assert_eq!(reader.positions(), [(1, 7)]);
    assert_eq!(values(&read_until(reader.as_mut(), 3).await), ["15", "17", "19"]);
    assert_eq!(reader.positions(), [(1, 10)]);
    // Positions are those of what was handed over, not of what was fetched.
    let mut reader = log.reader(&topic, vec![(1, 0), (0, 4)]).await.expect("a reader of both");
    let (mut read, began) = (0, Instant::now());
    while read < 16 {
        assert!(began.elapsed() < PATIENCE);
        let some = reader.read(3, Duration::from_secs(1)).await.expect("a read");
        assert!(some.len() <= 3);
        read += some.len();
        let positions = reader.positions();
        for record in some {
            let (_, position) =
                positions.iter().find(|(partition, _)| *partition == record.partition).expect("assigned");
            assert!(record.offset < *position);
        }
        let passed: i64 = positions.iter().map(|(_, position)| position).sum::<i64>() - 4;
        assert_eq!(usize::try_from(passed).expect("positions ascend"), read);
    }
    assert_eq!(reader.positions(), [(0, 10), (1, 10)]);
    // At the end there is nothing, and then there is.
    assert!(reader.read(10, Duration::from_millis(50)).await.expect("a read").is_empty());
    writer.send(&topic, vec![record("key", "more")]).await.expect("sent");
    writer.flush().await.expect("durable");
    assert_eq!(values(&read_until(reader.as_mut(), 1).await), ["more"]);
}

pub(super) async fn offsets_out_of_range_are_refused(log: &dyn Log) {
    let topic = fresh_topic(log, "range", 1).await;
    let mut writer = writer(log).await;
    writer.send(&topic, vec![record("key", "value")]).await.expect("sent");
    writer.flush().await.expect("durable");
    for offset in [-1, 2, 1_000_000] {
        assert_kind(log.reader(&topic, vec![(0, offset)]).await, ErrorKind::Data);
    }
    log.reader(&topic, vec![(0, 1)]).await.expect("the end is a place to start");
}

pub(super) async fn a_read_waits_no_longer_than_needed(log: &dyn Log) {
    let topic = fresh_topic(log, "waiting", 1).await;
    let mut reader = log.reader(&topic, starts(log, &topic).await).await.expect("a reader");
    let began = Instant::now();
    let short = Duration::from_millis(300);
    assert!(reader.read(10, short).await.expect("a read").is_empty());
    assert!((short..PATIENCE).contains(&began.elapsed()), "waited {:?}", began.elapsed());
    let mut writer = writer(log).await;
    let write = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        writer.send(&topic, vec![record("key", "value")]).await.expect("sent");
        writer.flush().await.expect("durable");
    };
    let began = Instant::now();
    let (read, ()) = tokio::join!(reader.read(10, Duration::from_secs(60)), write);
    assert_eq!(values(&read.expect("a read")), ["value"]);
    assert!(began.elapsed() < PATIENCE, "waited {:?}", began.elapsed());
}

pub(super) async fn a_cancelled_read_loses_nothing(log: &dyn Log) {
    let topic = fresh_topic(log, "cancelled", 1).await;
    let mut writer = writer(log).await;
    writer.send(&topic, (0..2_000).map(|n| record("key", &format!("{n:04}"))).collect()).await.expect("sent");
    writer.flush().await.expect("durable");
    let mut reader = log.reader(&topic, vec![(0, 0)]).await.expect("a reader");
    let (mut read, mut cancelled, began) = (Vec::new(), 0_u32, Instant::now());
    for turn in 0_u32.. {
        if read.len() == 2_000 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{} records came", read.len());
        // Every other read is given up, after the work for it has begun and at more than one point of it.
        let patience = async {
            for _ in 0..turn % 16 / 2 {
                tokio::task::yield_now().await;
            }
            if turn % 2 == 1 {
                tokio::time::sleep(PATIENCE).await;
            }
        };
        tokio::select! {
            biased;
            more = reader.read(100, Duration::from_secs(10)) => read.extend(more.expect("a read")),
            () = patience => cancelled += 1,
        }
    }
    assert!(cancelled > 0, "no read was cancelled");
    assert!(read.iter().map(|record| record.offset).eq(0..2_000));
}

pub(super) async fn positions_reach_the_end(log: &dyn Log) {
    let topic = fresh_topic(log, "ends", 2).await;
    let mut plain = writer(log).await;
    let mut aborting = transactional(log, &fresh("ends")).await;
    let mut expected = 0;
    for round in 0..3 {
        plain.send(&topic, vec![Record { partition: Some(0), ..record("key", "kept") }]).await.expect("sent");
        plain.flush().await.expect("durable");
        expected += 1;
        aborting.begin().await.expect("begun");
        let both = [0, 1].map(|partition| Record { partition: Some(partition), ..record("key", "aborted") });
        aborting.send(&topic, both.to_vec()).await.expect("sent");
        aborting.flush().await.expect("acknowledged");
        aborting.abort().await.expect("aborted");
        let mut reader = log.reader(&topic, starts(log, &topic).await).await.expect("a reader");
        let (mut read, began) = (Vec::new(), Instant::now());
        // Nothing follows the aborted records, and still the reader gets to the end.
        loop {
            let ends: Vec<_> = ranges(log, &topic).await.iter().map(|range| (range.partition, range.end)).collect();
            if reader.positions() == ends && read.len() == expected {
                break;
            }
            let positions = reader.positions();
            assert!(began.elapsed() < PATIENCE, "round {round}: at {positions:?} of {ends:?}");
            read.extend(reader.read(10, Duration::from_millis(100)).await.expect("a read"));
        }
        assert!(values(&read).iter().all(|value| value == "kept"));
    }
}
