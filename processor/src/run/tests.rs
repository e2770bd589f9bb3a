//! The stream's loop over an embedded log: partitions that run ahead, and late rows of several outputs.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use event::{Clock, Span};
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, Record, TopicSpec};

use super::{Pace, StreamObserver, StreamProgress, StreamSettings, stream};
use crate::error::Result;
use crate::job::{Job, JobOptions, JobSource};
use crate::row::json_rows;

const RAW: &str = "raw";
/// The events were received long after they were made.
const RECEIVED_MS: i64 = 2_000_000_000_000;

/// An event of a kind at a second, in a partition.
pub(super) fn record(at: usize, partition: i32, created_at: i64, kind: u16) -> Record {
    let (id, sig) = (format!("{at:064x}"), format!("{at:0128x}"));
    let raw = format!(
        r#"{{"id":"{id}","pubkey":"{id}","created_at":{created_at},"kind":{kind},"tags":[],"content":"","sig":"{sig}"}}"#
    );
    Record {
        key: Some(Bytes::from(id)),
        value: Some(Bytes::from(raw)),
        headers: Vec::new(),
        timestamp_ms: Some(RECEIVED_MS),
        partition: Some(partition),
    }
}

pub(super) async fn log(dir: &tempfile::TempDir, partitions: i32, records: Vec<Record>) -> Arc<dyn Log> {
    let log = EmbeddedLog::open(dir.path(), Clock::system()).expect("a log");
    log.create_topic(&TopicSpec { name: RAW.into(), partitions, config: Vec::new() }).await.expect("a topic");
    let mut writer = log.writer(None).await.expect("a writer");
    writer.send(RAW, records).await.expect("sent");
    writer.flush().await.expect("written");
    Arc::new(log)
}

pub(super) async fn job(sql: &str, delay: u32) -> Job {
    let source = JobSource { name: "test".into(), sql: sql.into(), path: None };
    let options = JobOptions { delay: Some(Span::from_secs(delay)), ..JobOptions::default() };
    Job::plan(&source, &options).await.expect("a job")
}

/// Keeps what it is told.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) rows: Vec<(usize, String)>,
    pub(super) late: usize,
    told: Vec<StreamProgress>,
}

impl StreamObserver for Kept {
    fn rows(&mut self, output: usize, rows: &RecordBatch) -> Result<()> {
        self.rows.extend(json_rows(rows)?.into_iter().map(|row| (output, row)));
        Ok(())
    }

    fn late(&mut self, _: &str) -> Result<()> {
        self.late += 1;
        Ok(())
    }

    fn progress(&mut self, progress: &StreamProgress) {
        self.told.push(progress.clone());
    }
}

pub(super) fn settings() -> StreamSettings {
    StreamSettings {
        raw_topic: RAW.into(),
        until_latest: true,
        checkpoint: Some((Arc::new(InMemory::new()), Path::from("checkpoint"))),
        epoch_records_max: 10,
        pace: Pace { align: Duration::ZERO, ..Pace::default() },
        ..StreamSettings::default()
    }
}

/// One partition covers ten times the time of the other in the same number of records; it has to wait.
#[tokio::test]
async fn a_partition_that_runs_ahead_waits_for_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let records = (0..400_i64).map(|at| {
        let number = usize::try_from(at).expect("small");
        if at % 2 == 0 { record(number, 0, 1_000 + at, 1) } else { record(number, 1, 1_000 + 10 * at, 1) }
    });
    let log = log(&dir, 2, records.collect()).await;
    let job = job("SELECT window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, '1 minute')", 0).await;
    let settings = StreamSettings { max_drift: Some(Span::from_secs(300)), ..settings() };
    let mut kept = Kept::default();
    let summary = stream(&job, log, Clock::system(), settings, &mut kept, CancellationToken::new()).await;
    let summary = summary.expect("it ends");
    assert_eq!(summary.late, 0);
    let counted: u64 = kept
        .rows
        .iter()
        .map(|(_, row)| serde_json::from_str::<serde_json::Value>(row).expect("JSON")["n"].as_u64().expect("a count"))
        .sum();
    assert_eq!(counted, 400);
    assert!(kept.told.iter().any(|told| told.partitions.iter().any(|p| p.partition == 1 && p.paused)));
    // Until the slow partition is at its end: drift, and what one epoch can add to it.
    for told in &kept.told {
        let mark = |at: usize| told.partitions[at].mark.map(event::EventTime::micros);
        if let (Some(slow), Some(fast)) = (mark(0), mark(1))
            && told.partitions[0].end_offset < told.partitions[0].latest_offset
        {
            assert!(fast - slow <= (300 + 10 * 20) * 1_000_000, "{fast} is ahead of {slow}");
        }
    }
}

/// A row that is late for the windows of one output is no late row of the other.
#[tokio::test]
async fn each_output_gets_the_late_rows_of_its_own_windows() {
    let dir = tempfile::tempdir().expect("a directory");
    let times = [1_000, 1_030, 1_100, 1_200, 1_005];
    let records = times.iter().enumerate().map(|(at, time)| record(at, 0, *time, 1)).collect();
    let log = log(&dir, 1, records).await;
    let sql =
        "INSERT INTO short SELECT window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, '10 seconds');
               INSERT INTO long SELECT window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, '1 hour');
               INSERT INTO rows SELECT kind FROM events;";
    let job = job(sql, 0).await;
    let settings = StreamSettings { epoch_records_max: 1, ..settings() };
    let mut kept = Kept::default();
    let summary = stream(&job, Arc::clone(&log), Clock::system(), settings, &mut kept, CancellationToken::new()).await;
    assert_eq!(summary.expect("it ends").late, 1);
    assert_eq!((kept.late, kept.rows.iter().filter(|(output, _)| *output == 2).count()), (1, times.len()));
    for (topic, want) in [("short.late", 1), ("long.late", 0), ("rows.late", 0)] {
        let ranges = log.ranges(topic).await.expect("the topic");
        assert_eq!(ranges.iter().map(|range| range.end - range.start).sum::<i64>(), want, "{topic}");
    }
}
