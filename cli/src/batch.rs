//! `tidegate batch JOB [WINDOW]`: a job over what the lake holds of a range of event time.

use std::io::{self, Stdout, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use event::{Clock, EventTime};
use indicatif::ProgressBar;
use processor::database::{Database, DatabaseSink};
use processor::run::{BatchProgress, BatchSettings, BatchSummary, batch};
use processor::{Job, TopicSink};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::job::{JobArgs, time};
use crate::master::{Master, MasterArgs};
use crate::output::{FormatArgs, Rows};
use crate::place::{LogArgs, RawArgs};
use crate::progress::{bar, counted, note, watched};
use crate::sql::warn_of_unreadable;
use crate::stream::sink::SinkUrl;

/// Runs a job over the lake, once, and prints its windows or writes them to a topic.
///
/// The range is [start, end) of event time, which is created_at of events and received_at of sightings. Nothing is late
/// in a batch: every row counts in every window it belongs to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate batch kinds '1 hour'
  tidegate batch hashtags '1 hour' --slide-duration '10 minutes' --format csv
  tidegate batch kinds '1 hour' --timestamp-start 2024-07-28 \\
    --timestamp-end 2024-07-28T12:00:00
  tidegate batch kinds '1 hour' --kafka-topic nostr-kinds \\
    --raw-events-s3-uri s3a://raw-data/topics/nostr-event \\
    --kafka-brokers kafka:19092 -l INFO
  tidegate batch kinds '1 hour' --sink postgres://me@localhost/rows
  tidegate batch kinds '1 hour' --lake s3://raw-data \\
    --master tidegate://worker-1:7400,worker-2:7400")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobArgs,

    /// Only events from this time on: 2024-07-28, 2024-07-28T12:00:00Z, unix seconds, -7d
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    timestamp_start: Option<EventTime>,

    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    timestamp_end: Option<EventTime>,

    /// Write the windows to this topic instead of printing them
    #[arg(long, value_name = "TOPIC")]
    kafka_topic: Option<String>,

    /// Write the windows to tables of this PostgreSQL database instead of printing them:
    /// postgres://user@host:port/database; a password that is not in it comes from PGPASSWORD or a pgpass file
    #[arg(long, value_name = "URL")]
    sink: Option<SinkUrl>,

    /// Print the windows even where a topic or a database is named, and write none
    #[arg(long)]
    debug: bool,

    #[command(flatten)]
    master: MasterArgs,

    /// Threads [default: one a processor]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,

    /// Taken for the seed's sake: a batch keeps no checkpoint
    #[arg(long, value_name = "URI", hide = true)]
    checkpoint_dir: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Lake")]
    raw: RawArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// Runs the job over the range.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if args.checkpoint_dir.is_some() {
        tracing::warn!("a batch keeps no checkpoint: --checkpoint-dir is not used");
    }
    let started = Instant::now();
    let job = args.job.plan().await?;
    let database = args.sink.as_ref().filter(|_| !args.debug).map(SinkUrl::database).transpose()?;
    let lake = args.raw.table(job.table(), &args.log)?;
    let place = args.raw.location(job.table(), &args.log)?.absolute()?.to_string();
    let cluster = args.master.cluster()?;
    let settings = BatchSettings { from: args.timestamp_start, until: args.timestamp_end, threads: args.threads()? };
    if let Some(cluster) = cluster.as_ref().filter(|_| args.master.explain()) {
        return print(&cluster.explain(&job, lake, &place, &settings).await?);
    }
    let mut target = Target::open(&args, &job, database.as_ref()).await?;
    let progress = Arc::new(BatchProgress::default());
    let bar = Bar::start(Arc::clone(&progress));
    let mut on_rows = |output: usize, rows: RecordBatch| target.take(output, rows);
    let running = async {
        let progress = Arc::clone(&progress);
        match &cluster {
            Some(cluster) => cluster.batch(&job, lake.clone(), &place, &settings, progress, &mut on_rows).await,
            None => batch(&job, lake.clone(), settings, progress, &mut on_rows).await,
        }
    };
    let outcome = tokio::select! {
        outcome = running => outcome.map_err(Failure::from),
        () = shutdown.cancelled() => Err(Failure::interrupted()),
    };
    bar.stop();
    let summary = outcome?;
    target.finish().await?;
    if summary.objects + summary.skipped == 0 {
        note(&format!("there is no object in {}", args.raw.location(job.table(), &args.log)?));
    }
    warn_of_unreadable(&lake);
    note(&done(&summary, started.elapsed()));
    Ok(())
}

impl Args {
    fn threads(&self) -> Result<usize, Failure> {
        match (self.threads, self.master.master.as_ref()) {
            (1.., Some(Master::Workers(_))) => Err(Failure::usage("--threads says nothing of workers elsewhere")
                .hint("`tidegate cluster worker --threads N` says how many each has")),
            (asked @ 1.., Some(Master::Local(Some(other)))) if asked != *other => {
                Err(Failure::usage(format!("--threads {asked} and --master local[{other}] say two things")))
            }
            (asked, _) => Ok(threads(self.master.threads().unwrap_or(asked))),
        }
    }
}

/// Prints a text that ends with a line feed.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// As many as were asked for; else one a processor.
pub(crate) fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked,
    }
}

/// Where the rows go: each output to its topic and its table, or to the console.
struct Target<'a> {
    console: Vec<Option<Rows<Stdout>>>,
    topics: Option<TopicSink<'a>>,
    tables: Option<DatabaseSink<'a>>,
    /// Rows are held until the end: a batch goes to its topics in one transaction or not at all, and so to its tables.
    held: Vec<(usize, RecordBatch)>,
}

impl<'a> Target<'a> {
    async fn open(args: &Args, job: &'a Job, database: Option<&Database>) -> Result<Self, Failure> {
        let named = args.kafka_topic.is_some() || job.outputs().iter().any(|output| output.name.is_some());
        let clock = Clock::system();
        // The database first: whether it takes the rows is known before anything else is opened.
        let tables = match database {
            Some(database) => Some(DatabaseSink::open(database, job, clock.clone()).await?),
            None => None,
        };
        let topics = if named && !args.debug {
            let log = args.log.open(&clock).await?;
            Some(TopicSink::open(log, job, args.kafka_topic.as_deref(), clock).await?)
        } else {
            None
        };
        let elsewhere = |number| tables.is_some() || topics.as_ref().is_some_and(|sink| sink.takes(number));
        let outputs = job.outputs().iter().enumerate();
        let printed = outputs.map(|(number, output)| (!elsewhere(number)).then(|| Arc::clone(&output.schema)));
        let console = args.format.printers(printed.collect())?;
        Ok(Self { console, topics, tables, held: Vec::new() })
    }

    fn take(&mut self, output: usize, rows: RecordBatch) -> processor::Result<()> {
        match &mut self.console[output] {
            Some(console) => console.write(&rows).map_err(unprintable)?,
            None => self.held.push((output, rows)),
        }
        Ok(())
    }

    async fn finish(self) -> Result<(), Failure> {
        for console in self.console.into_iter().flatten() {
            console.finish()?;
        }
        if let Some(mut sink) = self.topics {
            for (output, batch) in &self.held {
                sink.write(*output, batch).await?;
            }
            let rows = sink.finish().await?;
            tracing::info!(rows, "rows written");
        }
        if let Some(mut sink) = self.tables {
            for (output, batch) in &self.held {
                sink.write(*output, batch)?;
            }
            let rows = sink.finish().await?;
            tracing::info!(rows, "rows written to tables that were not there just so");
        }
        Ok(())
    }
}

/// Standard output took no more.
pub(crate) fn unprintable(why: io::Error) -> processor::Error {
    processor::Error::new(processor::ErrorKind::Internal, "could not print the rows").with_source(why)
}

/// The bar on standard error, fed from the batch's counters.
struct Bar {
    bar: ProgressBar,
    _tasks: JoinSet<()>,
}

impl Bar {
    fn start(progress: Arc<BatchProgress>) -> Self {
        let mut tasks = JoinSet::new();
        if !watched() {
            return Self { bar: ProgressBar::hidden(), _tasks: tasks };
        }
        let bar = bar("reading");
        tasks.spawn({
            let bar = bar.clone();
            async move {
                loop {
                    // A batch that is done at once needs no bar.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let total = progress.objects_total.load(Ordering::Relaxed);
                    let done = progress.objects_done.load(Ordering::Relaxed);
                    bar.set_length(total);
                    bar.set_position(done);
                    let rows = counted(progress.rows.load(Ordering::Relaxed), "row");
                    let next = if done == total { ", closing windows" } else { "" };
                    bar.set_message(format!("objects, {rows}{next}"));
                }
            }
        });
        Self { bar, _tasks: tasks }
    }

    fn stop(self) {
        self.bar.finish_and_clear();
    }
}

/// `10,403 rows of 12 objects read (3 objects skipped), 7,031 rows out, 1.2 s`
fn done(summary: &BatchSummary, took: Duration) -> String {
    let skipped = match summary.skipped {
        0 => String::new(),
        skipped => format!(" ({} skipped)", counted(skipped, "object")),
    };
    let (rows, objects) = (counted(summary.rows_in, "row"), counted(summary.objects, "object"));
    format!("{rows} of {objects} read{skipped}, {} out, {:.1} s", counted(summary.rows_out, "row"), took.as_secs_f64())
}
