//! How a stream job runs, and what cannot be asked of it.

use std::sync::Arc;
use std::time::Duration;

use event::EventTime;
use event::layout::NOSTR_EVENT_TOPIC;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::lake::LakeTable;

/// Where a job starts that has no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record still there.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record received at or after an instant.
    At(EventTime),
    /// With the lake, then at the first record that the lake does not hold.
    Lake,
}

/// Which rows a stream emits, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Each window once, when it closes.
    #[default]
    Append,
    /// The rows that changed, now and then, marked as not final; each window's rows once more when it closes.
    Update,
    /// All rows of all open windows, now and then, marked as not final; for the console.
    Complete,
}

/// How a stream job runs.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Topic to read; [`NOSTR_EVENT_TOPIC`] by default.
    pub raw_topic: String,
    /// Where to start without a checkpoint; [`Start::Earliest`] by default.
    pub start: Start,
    /// The lake of [`Start::Lake`].
    pub lake: Option<LakeTable>,
    /// Only rows with an event time from this on.
    pub from: Option<EventTime>,
    /// Only rows with an event time before this.
    pub until: Option<EventTime>,
    /// Stop when what was there at the start is read, and close all windows.
    pub until_latest: bool,
    /// Begin anew, whatever the checkpoint says.
    pub restart: bool,
    /// Write and commit nothing.
    pub debug: bool,
    /// Which rows are emitted; [`OutputMode::Append`] by default.
    pub output_mode: OutputMode,
    /// Topic for the results of the query that is not inserted into one; none gives them to the observer only.
    pub output_topic: Option<String>,
    /// Where state lies; needed unless `debug`.
    pub checkpoint: Option<(Arc<dyn ObjectStore>, Path)>,
    /// Records of one epoch at most; what is late is decided once an epoch. 4,096 by default.
    pub epoch_records_max: usize,
    /// Workers that decode and aggregate the records of an epoch, at least one; 1 by default.
    pub threads: usize,
    /// A partition that is caught up and has been quiet for so long no longer holds the watermark back; one minute.
    pub idle_timeout: Duration,
    /// How long things take at most, or at least.
    pub pace: Pace,
    /// How far a partition may be ahead of the slowest before it waits, in event time; by default the longest window
    /// and sixteen panes.
    pub max_drift: Option<event::Span>,
}

/// The job's own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long an epoch waits for its first record; 200 ms.
    pub epoch_wait: Duration,
    /// Least time between two commits that carry results, and between two looks at open windows; 500 ms.
    pub results: Duration,
    /// Longest time between two commits; 10 s.
    pub commit: Duration,
    /// How often the ends of the partitions are asked for; 1 s.
    pub ends: Duration,
    /// Least time between two changes of which partitions are read; 1 s.
    pub align: Duration,
    /// First wait before what the log or the store refused is tried again, doubling; 20 ms.
    pub retry: Duration,
    /// Longest such wait; 5 s.
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            epoch_wait: Duration::from_millis(200),
            results: Duration::from_millis(500),
            commit: Duration::from_secs(10),
            ends: Duration::from_secs(1),
            align: Duration::from_secs(1),
            retry: Duration::from_millis(20),
            retry_max: Duration::from_secs(5),
        }
    }
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            raw_topic: NOSTR_EVENT_TOPIC.to_owned(),
            start: Start::Earliest,
            lake: None,
            from: None,
            until: None,
            until_latest: false,
            restart: false,
            debug: false,
            output_mode: OutputMode::Append,
            output_topic: None,
            checkpoint: None,
            epoch_records_max: 4_096,
            threads: 1,
            idle_timeout: Duration::from_secs(60),
            pace: Pace::default(),
            max_drift: None,
        }
    }
}

/// Refuses what cannot be.
pub(super) fn check_settings(job: &Job, settings: &StreamSettings) -> Result<()> {
    job.can_stream()?;
    let refuse = |message: &str, hint: &str| Err(Error::new(ErrorKind::Config, message).with_hint(hint));
    if job.over_all_time() && settings.output_mode == OutputMode::Append && !settings.until_latest {
        return refuse(
            "the job aggregates over all time, and all time never ends",
            "use --output-mode update, or --until-latest, or group by window(…)",
        );
    }
    if settings.output_mode != OutputMode::Append && job.chains_windows() {
        return refuse(
            "windows over windows can only be appended: what is not final below cannot be taken back above",
            "leave --output-mode out",
        );
    }
    let to_topic = settings.output_topic.is_some() || job.outputs().iter().any(|output| output.name.is_some());
    if settings.output_mode == OutputMode::Complete && to_topic && !settings.debug {
        return refuse("all open windows again and again are for the console", "use --output-mode update for a topic");
    }
    if settings.start == Start::Lake && settings.lake.is_none() {
        return refuse("a start with the lake needs a lake", "name it with --lake or --raw-events-s3-uri");
    }
    Ok(())
}
