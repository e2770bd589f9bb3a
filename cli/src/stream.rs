//! `tidegate stream JOB [WINDOW]`: a job that follows the raw topic and emits each window once, when it closes.

use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use event::layout::NOSTR_EVENT_TOPIC;
use event::{Clock, EventTime};
use indicatif::ProgressBar;
use processor::Job;
use processor::run::{Start, StreamObserver, StreamProgress, StreamSettings};
use tokio_util::sync::CancellationToken;

use crate::admin::checkpoints;
use crate::batch::unprintable;
use crate::error::Failure;
use crate::job::{JobArgs, time};
use crate::output::{FormatArgs, Rows};
use crate::place::LogArgs;
use crate::progress::{counted, grouped, note, status, watched};

/// Runs a job over the raw topic as it grows, and emits each window once.
///
/// The watermark of a partition trails the newest event by --watermark-duration (10
/// minutes unless the job says otherwise); no event counts as newer than the moment
/// it was received, so that a date from the future closes nothing. The job's
/// watermark is the least of its partitions that are not idle. A window closes, and
/// is emitted, when the watermark reaches its end.
///
/// A row that comes after a window of its own has closed is late for that window: it
/// is counted, kept with --late-output, and written to <kafka-topic>.late. In
/// windows still open it counts as any other. A wider watermark waits longer and
/// loses less. Relays send their past newest first, so most of what a live job gets
/// as history is late; batch has no such limit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate stream kinds '1 minute' --debug
  tidegate stream kinds '1 hour' --until-latest --format csv
  tidegate stream hashtags '1 hour' --slide-duration '10 minutes' \\
    --watermark-duration '1 minute' --kafka-brokers kafka:19092 \\
    --kafka-topic nostr-hashtags \\
    --checkpoint-dir s3a://processed-data/checkpoints")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobArgs,

    /// Where the first start of the job begins: earliest, latest, or a time of receipt; later the checkpoint says
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true, value_parser = start)]
    start: Start,

    /// Only events from this time on: 2024-07-28, 2024-07-28T12:00:00Z, unix seconds, -7d
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    timestamp_start: Option<EventTime>,

    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    timestamp_end: Option<EventTime>,

    /// Stop when what is in the topic now is consumed, and close all windows
    #[arg(long)]
    until_latest: bool,

    /// Forget the checkpoint and begin anew at --start
    #[arg(long)]
    restart: bool,

    /// Print closed windows to the console; write and commit nothing
    #[arg(long)]
    debug: bool,

    /// Write the windows to this topic instead of printing them
    #[arg(long, value_name = "TOPIC")]
    kafka_topic: Option<String>,

    /// Write late rows to this file as JSON lines
    #[arg(long, value_name = "FILE")]
    late_output: Option<PathBuf>,

    /// Where checkpoints are kept [default: <data-dir>/checkpoints]
    #[arg(long, value_name = "URI", env = "TIDEGATE_CHECKPOINT_DIR", hide_env_values = true)]
    checkpoint_dir: Option<String>,

    /// Raw topic
    #[arg(long, value_name = "TOPIC", default_value = NOSTR_EVENT_TOPIC)]
    raw_events_kafka_topic: String,

    /// Taken for the seed's sake: a stream reads the topic
    #[arg(long, value_name = "URI", hide = true)]
    raw_events_s3_uri: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

impl Args {
    /// Whether it runs until it is told to stop and prints no rows.
    pub(crate) const fn service(&self) -> bool {
        !self.until_latest && self.kafka_topic.is_some() && !self.debug
    }
}

/// Where a stream's first start begins.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    match text.trim() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        other => time(other).map(Start::At).map_err(|why| format!("{why}, earliest or latest")),
    }
}

/// Follows the topic.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let job = args.job.plan().await?;
    let clock = Clock::system();
    let log = args.log.open(&clock).await?;
    let to_topic = args.kafka_topic.clone().filter(|_| !args.debug);
    let checkpoint = match args.debug {
        true => None,
        false => {
            let store = checkpoints(args.checkpoint_dir.as_deref(), &args.log)?.create()?;
            Some((store.objects, store.prefix))
        }
    };
    let settings = StreamSettings {
        raw_topic: args.raw_events_kafka_topic,
        start: args.start,
        from: args.timestamp_start,
        until: args.timestamp_end,
        until_latest: args.until_latest,
        restart: args.restart,
        debug: args.debug,
        output_topic: to_topic.clone(),
        checkpoint,
        ..StreamSettings::default()
    };
    let rows = match to_topic {
        Some(_) => None,
        None => Some(args.format.printer(job.output_schema())?),
    };
    let counts = Arc::new(StreamCounts::default());
    let mut console = Console::new(rows, args.late_output.as_deref(), Arc::clone(&counts))?;
    let summary = processor::run::stream(&job, log, clock, settings, &mut console, shutdown).await;
    console.finish()?;
    let summary = summary?;
    note(&match summary.unreadable {
        0 => counts.text(),
        unreadable => format!("{}, {} unreadable", counts.text(), counted(unreadable, "record")),
    });
    Ok(())
}

/// What a stream has done so far, for a line of totals.
#[derive(Debug, Default)]
pub(crate) struct StreamCounts {
    /// Rows of closed windows.
    pub(crate) rows: AtomicU64,
    /// (row, window) pairs that came late.
    pub(crate) late: AtomicU64,
    /// Events read.
    pub(crate) events: AtomicU64,
}

impl StreamCounts {
    /// `1,204 events read, 96 rows out, 3 late`
    pub(crate) fn text(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} read, {} out, {} late",
            counted(read(&self.events), "event"),
            counted(read(&self.rows), "row"),
            grouped(read(&self.late))
        )
    }
}

/// Prints closed windows, keeps late rows, shows how far the stream is.
pub(crate) struct Console {
    rows: Option<Rows<Stdout>>,
    /// Name to put before each row.
    job: Option<String>,
    late: Option<BufWriter<File>>,
    line: ProgressBar,
    counts: Arc<StreamCounts>,
    /// Events that `counts` has from this job.
    read: u64,
}

impl Console {
    /// Without `rows` the windows go elsewhere.
    pub(crate) fn new(
        rows: Option<Rows<Stdout>>,
        late: Option<&Path>,
        counts: Arc<StreamCounts>,
    ) -> Result<Self, Failure> {
        let late = match late {
            Some(path) => Some(BufWriter::new(
                File::create(path)
                    .map_err(|why| Failure::usage(format!("could not write file `{}`: {why}", path.display())))?,
            )),
            None => None,
        };
        let line = if watched() { status() } else { ProgressBar::hidden() };
        Ok(Self { rows, job: None, late, line, counts, read: 0 })
    }

    /// Windows go elsewhere; they are only counted.
    pub(crate) fn silent(counts: Arc<StreamCounts>) -> Self {
        Self { rows: None, job: None, late: None, line: ProgressBar::hidden(), counts, read: 0 }
    }

    /// Prints the windows of one job among several: its name is the first column.
    pub(crate) fn of_job(format: FormatArgs, job: &Job, counts: Arc<StreamCounts>) -> Result<Self, Failure> {
        let schema = job.output_schema();
        let named = with_name(job.name(), &RecordBatch::new_empty(schema)).map_err(Failure::from)?;
        let rows = format.printer(named.schema())?;
        Ok(Self { rows: Some(rows), job: Some(job.name().to_owned()), ..Self::silent(counts) })
    }

    /// Ends the output.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.line.finish_and_clear();
        if let Some(mut late) = self.late {
            late.flush()?;
        }
        if let Some(rows) = self.rows {
            rows.finish()?;
        }
        Ok(())
    }
}

impl StreamObserver for Console {
    fn rows(&mut self, batch: &RecordBatch) -> processor::Result<()> {
        self.counts.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let named = match &self.job {
            Some(job) => with_name(job, batch)?,
            None => batch.clone(),
        };
        rows.write(&named).and_then(|()| rows.flush()).map_err(unprintable)
    }

    fn late(&mut self, line: &str) -> processor::Result<()> {
        self.counts.late.fetch_add(1, Ordering::Relaxed);
        match &mut self.late {
            Some(file) => writeln!(file, "{line}").map_err(unprintable),
            None => Ok(()),
        }
    }

    fn progress(&mut self, progress: &StreamProgress) {
        self.counts.events.fetch_add(progress.rows_in.saturating_sub(self.read), Ordering::Relaxed);
        self.read = progress.rows_in;
        self.line.set_message(line(progress));
    }
}

/// `watermark 2026-11-21T04:12:00Z (partition 2) · 1,204 events · 96 rows out · 3 late · lag 0 · state 1,200 rows`
fn line(progress: &StreamProgress) -> String {
    let watermark = progress.watermark.map_or_else(|| "none yet".to_owned(), |time| time.to_string());
    let held = progress.held_by.map(|partition| format!(" (partition {partition})")).unwrap_or_default();
    format!(
        "watermark {watermark}{held} · {} · {} out · {} late · lag {} · state {}",
        counted(progress.rows_in, "event"),
        counted(progress.rows_out, "row"),
        grouped(progress.late),
        grouped(progress.lag),
        counted(progress.state.0 as u64, "row")
    )
}

/// The batch with a first column `job`.
fn with_name(job: &str, batch: &RecordBatch) -> arrow::error::Result<RecordBatch> {
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(job, batch.num_rows())));
    let fields = std::iter::once(Arc::new(Field::new("job", DataType::Utf8, false)))
        .chain(batch.schema_ref().fields().iter().cloned());
    let columns = std::iter::once(name).chain(batch.columns().iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}
