//! `tidegate stream JOB [WINDOW]`: a job that follows the raw topic and emits each window once, when it closes.

pub(crate) mod sink;

use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use event::{Clock, EventTime, Span};
use indicatif::ProgressBar;
use processor::Job;
use processor::database::stream_into;
use processor::run::{OutputMode, Start, StreamObserver, StreamProgress, StreamSettings};
use tokio_util::sync::CancellationToken;

use crate::admin::checkpoints;
use crate::batch::{threads, unprintable};
use crate::error::Failure;
use crate::job::{JobArgs, time};
use crate::output::{FormatArgs, Rows};
use crate::place::{LogArgs, RawArgs};
use crate::progress::{counted, grouped, note, status, watched};
use sink::SinkUrl;

/// How often progress is told while nothing comes in.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

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
  tidegate stream kinds '1 hour' --start lake --output-mode update --debug
  tidegate stream hashtags '1 hour' --slide-duration '10 minutes' \\
    --watermark-duration '1 minute' --kafka-brokers kafka:19092 \\
    --kafka-topic nostr-hashtags \\
    --checkpoint-dir s3a://processed-data/checkpoints
  tidegate stream kinds '1 hour' --sink postgres://me@localhost/rows")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobArgs,

    /// Where the first start of the job begins: earliest, latest, a time of receipt, or lake: the lake, then the
    /// topic from the record after it; later the checkpoint says
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true, value_parser = start)]
    start: Start,

    /// append: each window once, when it closes; update: what changed, marked as not final, and each window once
    /// more when it closes; complete: all open windows again and again, for the console
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Append, hide_possible_values = true)]
    output_mode: Mode,

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

    /// Write the windows to tables of this PostgreSQL database, postgres://user@host:port/database, by way of the topic
    #[arg(long, value_name = "URL")]
    sink: Option<SinkUrl>,

    /// Write late rows to this file as JSON lines
    #[arg(long, value_name = "FILE")]
    late_output: Option<PathBuf>,

    /// Where checkpoints are kept [default: <data-dir>/checkpoints]
    #[arg(long, value_name = "URI", env = "TIDEGATE_CHECKPOINT_DIR", hide_env_values = true)]
    checkpoint_dir: Option<String>,

    /// A partition that is caught up and quiet for so long no longer holds the watermark back
    #[arg(long, value_name = "DURATION", value_parser = Span::parse, default_value = "1 minute")]
    idle_timeout: Span,

    /// How far in event time a partition may be ahead of the slowest before it has to wait [default: the window and
    /// sixteen panes]
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    max_drift: Option<Span>,

    /// Threads that decode and aggregate [default: one a processor]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,

    /// How to tell of progress on standard error: auto (a line on a terminal), json (one record an epoch) or none
    #[arg(long, value_name = "HOW", value_enum, default_value_t = ProgressAs::Auto, hide_possible_values = true)]
    progress: ProgressAs,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Lake")]
    raw: RawArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// `--output-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    Append,
    Update,
    Complete,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProgressAs {
    Auto,
    Json,
    None,
}

impl Args {
    /// Whether it runs until it is told to stop and prints no rows.
    pub(crate) const fn service(&self) -> bool {
        !self.until_latest && (self.kafka_topic.is_some() || self.sink.is_some()) && !self.debug
    }
}

/// Where a stream's first start begins.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    match text.trim() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        "lake" => Ok(Start::Lake),
        other => time(other).map(Start::At).map_err(|why| format!("{why}, earliest, latest or lake")),
    }
}

/// Follows the topic.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let job = args.job.plan().await?;
    let clock = Clock::system();
    let sink = args.sink.as_ref().filter(|_| !args.debug).map(SinkUrl::database).transpose()?;
    let log = args.log.open_within(&clock, Some(job.memory())).await?;
    let mode = match args.output_mode {
        Mode::Append => OutputMode::Append,
        Mode::Update => OutputMode::Update,
        Mode::Complete => OutputMode::Complete,
    };
    let checkpoint = match args.debug {
        true => None,
        false => {
            let store = checkpoints(args.checkpoint_dir.as_deref(), &args.log)?.create()?;
            Some((store.objects, store.prefix))
        }
    };
    let lake = if args.start == Start::Lake { Some(args.raw.table(job.table(), &args.log)?) } else { None };
    let mut rows = Vec::new();
    for output in job.outputs() {
        let to_topic = !args.debug && (output.name.is_some() || args.kafka_topic.is_some() || sink.is_some());
        rows.push((!to_topic).then(|| printed(&output.schema, mode)));
    }
    let rows = args.format.printers(rows)?;
    let settings = StreamSettings {
        raw_topic: args.raw.topic(job.table())?,
        start: args.start,
        lake,
        from: args.timestamp_start,
        until: args.timestamp_end,
        until_latest: args.until_latest,
        restart: args.restart,
        debug: args.debug,
        output_mode: mode,
        output_topic: args.kafka_topic.filter(|_| !args.debug),
        checkpoint,
        threads: threads(args.threads),
        idle_timeout: Duration::from_micros(args.idle_timeout.micros().unsigned_abs()),
        max_drift: args.max_drift,
        ..StreamSettings::default()
    };
    let counts = Arc::new(StreamCounts::default());
    let mut console = Console::new(rows, args.late_output.as_deref(), Arc::clone(&counts))?;
    console.tell(args.progress);
    let summary = match &sink {
        Some(sink) => stream_into(&job, log, clock, settings, sink, &mut console, shutdown).await,
        None => processor::run::stream(&job, log, clock, settings, &mut console, shutdown).await,
    };
    console.finish()?;
    let summary = summary?;
    note(&match summary.unreadable {
        0 => counts.text(),
        unreadable => format!("{}, {} unreadable", counts.text(), counted(unreadable, "record")),
    });
    Ok(())
}

/// The columns of an output as they are printed: where open windows are emitted too, the last says which are final.
fn printed(schema: &SchemaRef, mode: OutputMode) -> SchemaRef {
    if mode == OutputMode::Append {
        return Arc::clone(schema);
    }
    let last = std::iter::once(Arc::new(processor::final_field()));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(last).collect::<Vec<_>>()))
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
    /// A printer for each output; none where its rows go elsewhere.
    rows: Vec<Option<Rows<Stdout>>>,
    /// Name to put before each row.
    job: Option<String>,
    late: Option<BufWriter<File>>,
    line: ProgressBar,
    /// Progress as records, and when the last was printed.
    json: bool,
    told: Option<Instant>,
    counts: Arc<StreamCounts>,
    /// Events that `counts` has from this job.
    read: u64,
}

impl Console {
    /// A printer for each output; without one its rows go elsewhere.
    pub(crate) fn new(
        rows: Vec<Option<Rows<Stdout>>>,
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
        Ok(Self { rows, job: None, late, line, json: false, told: None, counts, read: 0 })
    }

    fn tell(&mut self, how: ProgressAs) {
        self.json = how == ProgressAs::Json;
        if how != ProgressAs::Auto {
            self.line = ProgressBar::hidden();
        }
    }

    /// Windows go elsewhere; they are only counted.
    pub(crate) fn silent(counts: Arc<StreamCounts>) -> Self {
        Self {
            rows: Vec::new(),
            job: None,
            late: None,
            line: ProgressBar::hidden(),
            json: false,
            told: None,
            counts,
            read: 0,
        }
    }

    /// Prints the windows of one job among several: its name is the first column.
    pub(crate) fn of_job(format: FormatArgs, job: &Job, counts: Arc<StreamCounts>) -> Result<Self, Failure> {
        let mut rows = Vec::new();
        for output in job.outputs() {
            let empty = RecordBatch::new_empty(Arc::clone(&output.schema));
            let named = with_name(job.name(), &empty).map_err(Failure::from)?;
            rows.push(if output.name.is_some() { None } else { Some(format.printer(named.schema())?) });
        }
        Ok(Self { rows, job: Some(job.name().to_owned()), ..Self::silent(counts) })
    }

    /// Ends the output.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.line.finish_and_clear();
        if let Some(mut late) = self.late {
            late.flush()?;
        }
        for rows in self.rows.into_iter().flatten() {
            rows.finish()?;
        }
        Ok(())
    }
}

impl StreamObserver for Console {
    fn rows(&mut self, output: usize, batch: &RecordBatch) -> processor::Result<()> {
        self.counts.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let Some(Some(rows)) = self.rows.get_mut(output) else { return Ok(()) };
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
        if self.json {
            let worked = progress.epoch_rows_in > 0 || progress.durations.commit_ms > 0.0;
            if worked || self.told.is_none_or(|told| told.elapsed() >= QUIET_INTERVAL) {
                note(&progress.to_json());
                self.told = Some(Instant::now());
            }
        } else {
            self.line.set_message(line(progress));
        }
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
