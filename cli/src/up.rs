//! `tidegate up`: sources, lander and jobs in one process, on the embedded log or on Kafka.

use std::sync::Arc;

use ::ingest::{IntakeSettings, NostrSettings};
use clap::ArgGroup;
use event::{Span, Table};
use processor::run::{Start, StreamSettings};
use processor::{Job, JobOptions};
use tokio_util::sync::CancellationToken;

use crate::admin::checkpoints;
use crate::error::Failure;
use crate::ingest::opensea::StreamArgs;
use crate::ingest::{BoundsArgs, IntakeArgs, RelayArgs, components, totals};
use crate::job::plan;
use crate::lake::LandArgs;
use crate::output::{Format, FormatArgs};
use crate::place::LogArgs;
use crate::progress::{Ticker, grouped, note};
use crate::relays::DirectoryArgs;
use crate::service::{Service, StreamJob};
use crate::store::Store;
use crate::stream::{Console, StreamCounts, start};

/// Stands for the job's name in `--kafka-topic`.
const JOB: &str = "<job>";

/// Runs ingest, the lander and any number of stream jobs in one process.
///
/// Each job prints its closed windows, with its name as the first column, or writes them to the topic that
/// --kafka-topic names.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("followed").args(["relays", "relay_file", "opensea"]).required(true).multiple(true)))]
#[command(after_help = "\
Examples:
  tidegate up --relay wss://nos.lol --job kinds='1 hour'
  tidegate up --relay wss://nos.lol,wss://relay.damus.io \\
    --job kinds='1 minute' --job hashtags='1 hour/10 minutes' \\
    --watermark-duration '30 seconds'
  tidegate up --relay wss://nos.lol --job kinds --kafka-topic 'nostr-<job>' \\
    --kafka-brokers localhost:9092 --lake s3://raw-data
  OPENSEA_API_KEY=… tidegate up --opensea --job my-sales.sql='1 hour'")]
pub(crate) struct Args {
    #[command(flatten)]
    relays: RelayArgs,

    /// Follow OpenSea's stream too, or alone, into the topic OpenSeaRawEvents, as `tidegate ingest opensea` does
    #[arg(long)]
    opensea: bool,

    /// A job, with its window if wanted: kinds, kinds='1 hour', kinds='1 hour/10 minutes', my.sql='1 minute'; repeatable
    #[arg(long = "job", value_name = "JOB[=WINDOW[/SLIDE]]", value_parser = job_window)]
    jobs: Vec<JobWindow>,

    /// Keep a record of every delivery of an event by a relay, copies too, in the topic nostr-sighting and in the lake
    #[arg(long)]
    sightings: bool,

    /// How far the watermark trails the newest event [default: 10 minutes]
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    watermark_duration: Option<Span>,

    /// Where the first start of a job begins: earliest, latest, or a time of receipt; later the checkpoint says
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true, value_parser = start)]
    start: Start,

    /// Forget the checkpoints of the jobs and begin anew at --start
    #[arg(long)]
    restart: bool,

    /// Write the windows to this topic; <job> in it stands for the job's name
    #[arg(long, value_name = "TOPIC")]
    kafka_topic: Option<String>,

    /// Where checkpoints are kept [default: <data-dir>/checkpoints]
    #[arg(long, value_name = "URI", env = "TIDEGATE_CHECKPOINT_DIR", hide_env_values = true)]
    checkpoint_dir: Option<String>,

    /// Keep a document for each relay that events name, as `tidegate ingest relays` does
    #[arg(long)]
    keep_relays: bool,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    bounds: BoundsArgs,
    #[command(flatten)]
    intake: IntakeArgs,
    #[command(flatten, next_help_heading = "OpenSea's stream")]
    stream: StreamArgs,
    #[command(flatten, next_help_heading = "Documents of relays")]
    directory: DirectoryArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    land: LandArgs,
}

/// A job as `--job` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JobWindow {
    job: String,
    window: Option<Span>,
    slide: Option<Span>,
}

fn job_window(text: &str) -> Result<JobWindow, String> {
    let (job, spans) = text.split_once('=').map_or((text, None), |(job, spans)| (job, Some(spans)));
    if job.trim().is_empty() {
        return Err("the job is missing: use kinds or kinds='1 hour'".to_owned());
    }
    let (window, slide) =
        match spans.map(|spans| spans.split_once('/').map_or((spans, None), |(window, slide)| (window, Some(slide)))) {
            Some((window, slide)) => (Some(Span::parse(window)?), slide.map(Span::parse).transpose()?),
            None => (None, None),
        };
    Ok(JobWindow { job: job.trim().to_owned(), window, slide })
}

/// Runs until told to stop.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if args.format.format.is_some_and(Format::is_document) {
        return Err(Failure::usage("jobs that run together print no single document")
            .hint("use --format table, ndjson, csv or markdown"));
    }
    if args.directory.given() && !args.keep_relays {
        return Err(Failure::usage("--nip11, --resolve and --allow-local are about documents of relays")
            .hint("--keep-relays keeps them"));
    }
    if args.stream.given() && !args.opensea {
        return Err(Failure::usage("--api-key-file, --collection and --all-collections are about OpenSea's stream")
            .hint("--opensea follows it"));
    }
    if args.keep_relays && !args.follows_relays() {
        return Err(Failure::usage("--keep-relays reads what relays bring").hint("--relay names one"));
    }
    let jobs = plan_all(&args).await?;
    jobs.iter().try_for_each(|job| args.fills(job))?;
    let opensea = args.opensea.then(|| args.stream.settings(&args.log)).transpose()?;
    let opensea = opensea.map(|settings| args.bounds.bound_stream(settings, &args.log));
    let directory = args.keep_relays.then(|| args.directory.open(args.intake.topic(), false)).transpose()?;
    let kept = directory.as_ref().map(|directory| directory.counters());
    let components = components(&args.log).await?;
    let counters = Arc::clone(&components.counters);
    let counts = Arc::new(StreamCounts::default());
    let checkpoints = checkpoints(args.checkpoint_dir.as_deref(), &args.log)?.create()?;
    let mut stream_jobs = Vec::with_capacity(jobs.len());
    for job in jobs {
        stream_jobs.push(stream_job(&args, job, &checkpoints, &counts)?);
    }
    let intake = IntakeSettings { sightings: args.sightings, ..args.intake.settings(&args.log) };
    let follows_relays = args.follows_relays();
    let intakes = follows_relays.then_some(&intake).into_iter().chain(opensea.iter().map(|stream| &stream.intake));
    let settings = intakes.map(|intake| args.land.settings(intake)).collect();
    let lander = args.land.location(&args.log)?.map(|location| (settings, location));
    let nostr = follows_relays.then(|| NostrSettings {
        relays: args.relays.relays,
        relay_file: args.relays.relay_file,
        intake,
        ..NostrSettings::default()
    });
    let nostr = nostr.map(|settings| args.bounds.bound(settings, &args.log));
    let service = Service { components, nostr, opensea, lander, directory, jobs: stream_jobs };
    let line = {
        // Gaps may be of either; with relays they are of theirs for the most part.
        let topic = if follows_relays { args.intake.topic() } else { Table::Market.raw_topic() }.to_owned();
        let counts = Arc::clone(&counts);
        let kept = move || kept.as_ref().map(|kept| format!(" · relays {}", grouped(kept.snapshot().relays)));
        move || format!("{} · {}{}", totals(&counters.snapshot(), &topic), counts.text(), kept().unwrap_or_default())
    };
    let ticker = Ticker::start(line.clone());
    let outcome = service.run(shutdown).await;
    ticker.stop();
    note(&line());
    outcome
}

impl Args {
    fn follows_relays(&self) -> bool {
        !self.relays.relays.is_empty() || self.relays.relay_file.is_some()
    }

    /// Demands that something fills the topic that a job reads.
    fn fills(&self, job: &Job) -> Result<(), Failure> {
        let (table, hint) = match job.table() {
            Table::Events if !self.follows_relays() => ("events", "--relay names a relay that has some"),
            Table::Sightings if !self.sightings || !self.follows_relays() => {
                ("sightings", "--sightings keeps those of --relay")
            }
            Table::Market if !self.opensea => ("the market", "--opensea follows it"),
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("job `{}` reads {table}, and none of it comes in", job.name())).hint(hint))
    }
}

async fn plan_all(args: &Args) -> Result<Vec<Job>, Failure> {
    let mut jobs: Vec<Job> = Vec::with_capacity(args.jobs.len());
    for wanted in &args.jobs {
        let options = JobOptions {
            window: wanted.window,
            slide: wanted.slide,
            delay: args.watermark_duration,
            ..JobOptions::default()
        };
        let job = plan(&wanted.job, &options).await?;
        if jobs.iter().any(|other| other.name() == job.name()) {
            return Err(Failure::usage(format!("job `{}` is named twice", job.name())).hint(
                "a job's name is what its checkpoint is kept under; give a copy of the file another `SET job.name`",
            ));
        }
        jobs.push(job);
    }
    if let Some(topic) = args.kafka_topic.as_ref().filter(|topic| jobs.len() > 1 && !topic.contains(JOB)) {
        return Err(Failure::usage(format!("{} jobs would write to one topic `{topic}`", jobs.len()))
            .hint(format!("put {JOB} into the name: --kafka-topic '{topic}-{JOB}'")));
    }
    Ok(jobs)
}

fn stream_job(args: &Args, job: Job, checkpoints: &Store, counts: &Arc<StreamCounts>) -> Result<StreamJob, Failure> {
    let output_topic = args.kafka_topic.as_ref().map(|topic| topic.replace(JOB, job.name()));
    let console = match output_topic {
        Some(_) => Console::silent(Arc::clone(counts)),
        None => Console::of_job(args.format, &job, Arc::clone(counts))?,
    };
    let settings = StreamSettings {
        raw_topic: match job.table() {
            Table::Market => Table::Market.raw_topic().to_owned(),
            table => table.topic(args.intake.topic()),
        },
        start: args.start,
        restart: args.restart,
        output_topic,
        checkpoint: Some((Arc::clone(&checkpoints.objects), checkpoints.prefix.clone())),
        ..StreamSettings::default()
    };
    Ok(StreamJob { job, settings, console })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_may_bring_its_window_and_slide() {
        let of = |text: &str| job_window(text).expect(text);
        let (hour, ten) = (Span::from_secs(3_600), Span::from_secs(600));
        assert_eq!(of("kinds"), JobWindow { job: "kinds".into(), window: None, slide: None });
        assert_eq!(of("kinds=1 hour"), JobWindow { job: "kinds".into(), window: Some(hour), slide: None });
        assert_eq!(
            of("a/b.sql=1h/10 minutes"),
            JobWindow { job: "a/b.sql".into(), window: Some(hour), slide: Some(ten) }
        );
        assert!(job_window("=1h").is_err() && job_window("kinds=soon").is_err());
    }
}
