//! How far a stream has come: one record an epoch, in the shape of Spark's `StreamingQueryProgress`.

use event::EventTime;
use serde_json::{Map, Value, json};

/// How far a stream has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamProgress {
    /// Name of the job.
    pub name: String,
    /// Identity of the job in the log.
    pub id: String,
    /// Identity of this run.
    pub run_id: String,
    /// When the epoch ended.
    pub timestamp: Option<EventTime>,
    /// Epochs so far.
    pub epoch: u64,
    /// Records read so far.
    pub rows_in: u64,
    /// Records of this epoch.
    pub epoch_rows_in: u64,
    /// Rows of output so far.
    pub rows_out: u64,
    /// (Row, window) pairs that came too late, so far.
    pub late: u64,
    /// Rows that came too late for every window of theirs, so far.
    pub late_rows: u64,
    /// The last of those pairs, at most four, as JSON.
    pub late_sample: Vec<String>,
    /// Records that hold no event, so far.
    pub unreadable: u64,
    /// No row older than this is expected.
    pub watermark: Option<EventTime>,
    /// The partition that holds the watermark back.
    pub held_by: Option<i32>,
    /// Records between the job and the ends of the partitions.
    pub lag: u64,
    /// Rows and bytes of open panes in memory.
    pub state: (usize, usize),
    /// Rows of open panes in files.
    pub spilled_rows: usize,
    /// Open panes.
    pub panes: usize,
    /// By partition.
    pub partitions: Vec<PartitionProgress>,
    /// What the epoch's time went to.
    pub durations: Durations,
    /// Commits so far, of this and earlier runs.
    pub commits: u64,
    /// Lake objects still to be read before the topic is.
    pub lake_objects_left: usize,
}

/// How far a partition has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Partition.
    pub partition: i32,
    /// Next offset before the epoch.
    pub start_offset: i64,
    /// Next offset after it.
    pub end_offset: i64,
    /// Where the partition ended when it was last asked for.
    pub latest_offset: i64,
    /// Greatest event time seen, no later than its receipt.
    pub mark: Option<EventTime>,
    /// Caught up and quiet: it does not hold the watermark back.
    pub idle: bool,
    /// Too far ahead of the others: it is not read until they follow.
    pub paused: bool,
}

/// What an epoch's time went to, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Durations {
    /// Waiting for records.
    pub read_ms: f64,
    /// Records to rows to panes.
    pub add_ms: f64,
    /// Closing windows.
    pub close_ms: f64,
    /// Snapshot and transaction; zero where the epoch did not commit.
    pub commit_ms: f64,
}

impl Durations {
    /// All together.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.read_ms + self.add_ms + self.close_ms + self.commit_ms
    }
}

impl StreamProgress {
    /// Why the watermark stands where it stands.
    #[must_use]
    pub fn why(&self) -> String {
        match (self.held_by, self.watermark) {
            (Some(partition), Some(_)) => format!("partition {partition} has the least mark"),
            (Some(partition), None) => format!("partition {partition} has given no row yet"),
            (None, _) => "all partitions are idle".to_owned(),
        }
    }

    /// One JSON object, keys in Spark's camel case.
    #[must_use]
    pub fn to_json(&self) -> String {
        let time = |time: Option<EventTime>| time.map(|time| time.to_string());
        let offsets = |offset: fn(&PartitionProgress) -> i64| {
            let by_partition = self.partitions.iter().map(|p| (p.partition.to_string(), Value::from(offset(p))));
            Value::Object(by_partition.collect::<Map<_, _>>())
        };
        let per_second = |ms: f64| if ms > 0.0 { self.epoch_rows_in as f64 * 1_000.0 / ms } else { 0.0 };
        let working = self.durations.total_ms() - self.durations.read_ms;
        let marks = self
            .partitions
            .iter()
            .map(|p| json!({"partition": p.partition, "mark": time(p.mark), "idle": p.idle, "paused": p.paused}));
        let sample: Vec<Value> = self.late_sample.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        json!({
            "id": self.id,
            "runId": self.run_id,
            "name": self.name,
            "timestamp": time(self.timestamp),
            "batchId": self.epoch,
            "numInputRows": self.epoch_rows_in,
            "inputRowsPerSecond": per_second(self.durations.total_ms()),
            "processedRowsPerSecond": per_second(working),
            "durationMs": {
                "getBatch": self.durations.read_ms,
                "addBatch": self.durations.add_ms,
                "closeWindows": self.durations.close_ms,
                "commit": self.durations.commit_ms,
                "triggerExecution": self.durations.total_ms(),
            },
            "eventTime": {
                "watermark": time(self.watermark),
                "why": self.why(),
                "partitions": marks.collect::<Vec<_>>(),
            },
            "stateOperators": [{
                "numRowsTotal": self.state.0 + self.spilled_rows,
                "numRowsInFiles": self.spilled_rows,
                "memoryUsedBytes": self.state.1,
                "numPanes": self.panes,
                "numLateWindows": self.late,
                "numRowsDroppedByWatermark": self.late_rows,
                "lateSample": sample,
            }],
            "sources": [{
                "startOffset": offsets(|p| p.start_offset),
                "endOffset": offsets(|p| p.end_offset),
                "latestOffset": offsets(|p| p.latest_offset),
                "numInputRows": self.epoch_rows_in,
                "lag": self.lag,
                "lakeObjectsLeft": self.lake_objects_left,
                "unreadable": self.unreadable,
            }],
            "sink": {"numOutputRows": self.rows_out, "commits": self.commits},
        })
        .to_string()
    }
}
