//! Where the simulation touches the processor: the jobs, one run of one, and how it ended. Nothing else here calls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use event::{Clock, Span};
use object_store::ObjectStore;
use object_store::path::Path;
use processor::run::{Pace, StreamObserver, StreamProgress, StreamSettings, stream};
use processor::{ErrorKind, Job, JobOptions, JobSource, built_in_jobs};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use topic::Log;

use super::input::RAW_TOPIC;
use crate::oracle::{Late, PlainEvent, Windows, answer};

/// Topic of the results.
pub(super) const OUTPUT_TOPIC: &str = "out";

/// Delays of the watermark that jobs are planned with, seconds.
pub(super) const DELAYS_SECS: [u32; 3] = [0, 30, 120];

/// Counts by kind, of those that are frequent.
const BUSY: &str = "SELECT window.start AS window_start, window.end AS window_end, kind, count(*) AS events, \
                    count(DISTINCT pubkey) AS authors FROM events GROUP BY window(created_at, '${window}'), kind \
                    HAVING count(*) > 2";
/// Counts by kind and nothing else.
const TALLY: &str = "SELECT window.start AS window_start, window.end AS window_end, kind, count(*) AS events \
                     FROM events GROUP BY window(created_at, '${window}'), kind";

/// Name, text unless it is built in, size and slide in seconds.
const JOBS: [(&str, Option<&str>, u32, u32); 5] = [
    ("kinds", None, 60, 60),
    ("activity", None, 60, 20),
    ("hashtags", None, 60, 30),
    ("busy", Some(BUSY), 90, 45),
    ("tally", Some(TALLY), 60, 25),
];

/// How many sorts of jobs there are.
pub(super) const JOB_COUNT: usize = JOBS.len();

/// The jobs, planned once: planning costs more than a run of the simulation.
#[derive(Debug)]
pub struct Jobs(Vec<Vec<Job>>);

impl Jobs {
    /// Plans every job with every delay.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn plan() -> anyhow::Result<Self> {
        let mut jobs = Vec::new();
        for (name, text, size, slide) in JOBS {
            let built_in = || built_in_jobs().iter().find(|(job, _)| *job == name).map(|(_, text)| *text);
            let sql = text.or_else(built_in).context("the job is built in")?;
            let source = JobSource { name: name.to_owned(), sql: sql.to_owned(), path: None };
            let mut delays = Vec::new();
            for delay in DELAYS_SECS {
                let options = JobOptions {
                    window: Some(Span::from_secs(size)),
                    slide: Some(Span::from_secs(slide)),
                    delay: Some(Span::from_secs(delay)),
                    ..JobOptions::default()
                };
                delays.push(Job::plan(&source, &options).await?);
            }
            jobs.push(delays);
        }
        Ok(Self(jobs))
    }

    pub(super) fn get(&self, job: usize, delay: usize) -> &Job {
        &self.0[job][delay]
    }
}

/// Windows of a job.
pub(super) fn windows(job: usize) -> Windows {
    let (_, _, size, slide) = JOBS[job];
    Windows { size: size.into(), slide: slide.into() }
}

/// Rows of a job over `events` without the pairs in `late`, the dumb way.
pub(super) fn expected(job: usize, events: &[PlainEvent], late: &Late) -> Vec<Value> {
    let by = windows(job);
    match JOBS[job].0 {
        "busy" => {
            let rows = answer("kinds", events, by, late).into_iter();
            rows.filter(|row| row["events"].as_u64().is_some_and(|events| events > 2)).collect()
        }
        "tally" => {
            let mut rows = answer("kinds", events, by, late);
            rows.iter_mut().for_each(|row| drop(row.as_object_mut().map(|columns| columns.remove("authors"))));
            rows
        }
        built_in => answer(built_in, events, by, late),
    }
}

/// How one run of the job goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Read to what is there at the start, close all windows and finish.
    pub(super) until_latest: bool,
    /// Records of an epoch at most.
    pub(super) epoch_records_max: usize,
    /// Workers that take an epoch's rows in.
    pub(super) threads: usize,
    /// A partition that is caught up does not hold the watermark back.
    pub(super) idle_at_once: bool,
}

/// How a run of the job ended by itself: in good order, or with an error's kind and text.
pub(super) type Ending = Result<(), (ErrorKind, String)>;

/// One run of the job, ready to be polled; dropping it is its crash.
pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Ending> + Send + 'a>>;

/// Starts a run.
pub(super) fn start<'a>(
    job: &'a Job,
    log: Arc<dyn Log>,
    store: Arc<dyn ObjectStore>,
    clock: Clock,
    manner: Manner,
    shutdown: CancellationToken,
) -> Running<'a> {
    let settings = StreamSettings {
        raw_topic: RAW_TOPIC.to_owned(),
        until_latest: manner.until_latest,
        output_topic: Some(OUTPUT_TOPIC.to_owned()),
        checkpoint: Some((store, Path::from("checkpoint"))),
        epoch_records_max: manner.epoch_records_max,
        threads: manner.threads,
        // Real time must not decide: at once, or never within a test.
        idle_timeout: if manner.idle_at_once { Duration::ZERO } else { Duration::from_secs(24 * 3_600) },
        // Every epoch commits, and nothing waits.
        pace: Pace {
            epoch_wait: Duration::from_millis(1),
            results: Duration::ZERO,
            commit: Duration::ZERO,
            ends: Duration::ZERO,
            align: Duration::ZERO,
            retry: Duration::ZERO,
            retry_max: Duration::ZERO,
        },
        ..StreamSettings::default()
    };
    Box::pin(async move {
        let done = stream(job, log, clock, settings, &mut Silent, shutdown).await;
        done.map(|_| ()).map_err(|error| (error.kind(), format!("{:#}", anyhow::Error::from(error))))
    })
}

/// Looks at the topics only.
struct Silent;

impl StreamObserver for Silent {
    fn rows(&mut self, _: usize, _: &RecordBatch) -> processor::Result<()> {
        Ok(())
    }

    fn late(&mut self, _: &str) -> processor::Result<()> {
        Ok(())
    }

    fn progress(&mut self, _: &StreamProgress) {}
}
