//! `tidegate quickstart`: the whole of tidegate on traffic that it makes up and signs, or on real relays; no server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::ingest::lake::LanderSettings;
use ::ingest::{CountersSnapshot, IntakeSettings, NostrSettings};
use ::relay::{Generate, Server};
use event::{Clock, Span, Table};
use processor::run::{Start, StreamSettings};
use processor::{Job, JobOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::ingest::{components, rejected};
use crate::job::plan;
use crate::output::FormatArgs;
use crate::place::LogArgs;
use crate::progress::{grouped, note};
use crate::service::{Service, StreamJob};
use crate::store::Location;
use crate::stream::{Console, StreamCounts};

/// Relays that are started when none is named: two, so that there are copies.
const RELAYS: u32 = 2;
/// Rows shown of each window in a table: who watches wants to see the windows go by.
const ROWS_SHOWN: usize = 8;
/// Between two lines of totals.
const TOTALS_EVERY: Duration = Duration::from_secs(5);
/// A lake object is closed at this age, so that the totals move while somebody watches.
const ROTATE_AGE: Duration = Duration::from_secs(10);

/// Shows the main job at work: relays, topic, lake, and windows as they close.
///
/// Two relays are started that make up live traffic and sign it, with copies, late, far-future and forged events among
/// it. Everything lies below --data-dir; it may be run again and goes on there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate quickstart
  tidegate quickstart --duration 60s
  tidegate quickstart --relay wss://nos.lol --relay wss://relay.damus.io")]
pub(crate) struct Args {
    /// Real relays instead of made-up ones; repeatable, or separated by commas
    #[arg(long = "relay", value_name = "URL", value_delimiter = ',')]
    relays: Vec<String>,

    /// How long to run [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    duration: Option<Span>,

    /// The job to run
    #[arg(long, value_name = "JOB", default_value = "kinds")]
    job: String,

    /// Length of its windows
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = Span::parse)]
    window: Span,

    /// How far the watermark trails the newest event
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = Span::parse)]
    watermark_duration: Span,

    /// Made-up events a second
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    rate: f64,

    /// Decides what is made up
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Directory for log, lake and checkpoints
    #[arg(long, value_name = "DIR", default_value = "tidegate-data/quickstart")]
    data_dir: PathBuf,

    #[command(flatten)]
    format: FormatArgs,
}

/// Runs until told to stop, or for the time given.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let options =
        JobOptions { window: Some(args.window), delay: Some(args.watermark_duration), ..JobOptions::default() };
    let job = plan(&args.job, &options).await?;
    if job.table() != Table::Events {
        return Err(Failure::usage(format!(
            "job `{}` reads {}, which quickstart does not keep",
            job.name(),
            job.table().name()
        ))
        .hint(match job.table() {
            Table::Market => "`tidegate stream` and `tidegate batch` run such a job",
            _ => "`tidegate up --sightings` runs such a job",
        }));
    }
    let log = LogArgs::embedded(args.data_dir.clone());
    let components = components(&log).await?;
    let stop = shutdown.child_token();
    let mut helpers = JoinSet::new();
    let relays = if args.relays.is_empty() { start_relays(&args, &mut helpers).await? } else { args.relays.clone() };
    let counts = Arc::new(StreamCounts::default());
    let counters = Arc::clone(&components.counters);
    let line = {
        let counts = Arc::clone(&counts);
        move || line(&counters.snapshot(), &counts)
    };
    note(&format!("relays: {}", relays.join(", ")));
    note(&format!("job {} over windows of {}; the first closes in a few seconds", job.name(), args.window));
    helpers.spawn(say(line.clone()));
    if let Some(duration) = args.duration {
        let stop = stop.clone();
        helpers.spawn(async move {
            tokio::time::sleep(duration.duration()).await;
            stop.cancel();
        });
    }
    let intake = IntakeSettings { ids_dir: Some(args.data_dir.join("ids")), ..IntakeSettings::default() };
    let lake = Location::Local(args.data_dir.join("lake"));
    let service = Service {
        directory: None,
        nostr: Some(NostrSettings {
            relays,
            intake,
            spill_dir: Some(args.data_dir.join("spill")),
            ..NostrSettings::default()
        }),
        opensea: None,
        lander: Some((vec![vec![LanderSettings { age_max: ROTATE_AGE, ..LanderSettings::default() }]], lake.clone())),
        jobs: vec![stream_job(&args, job, &counts)?],
        components,
    };
    let outcome = service.run(stop).await;
    helpers.shutdown().await;
    note(&line());
    outcome?;
    note(&farewell(&args, &lake));
    Ok(())
}

/// `received 3,050 · copies 1,037 · rejected 23 (bad_signature 11, …) · late 75 · in the lake 1,014`
fn line(counters: &CountersSnapshot, counts: &StreamCounts) -> String {
    format!(
        "received {} · copies {} · {} · late {} · in the lake {}",
        grouped(counters.received),
        grouped(counters.copies),
        rejected(counters),
        grouped(counts.late.load(Ordering::Relaxed)),
        grouped(counters.landed_rows)
    )
}

/// Starts relays that share one made-up stream; their URLs.
async fn start_relays(args: &Args, helpers: &mut JoinSet<()>) -> Result<Vec<String>, Failure> {
    let mut urls = Vec::new();
    for relay in 0..RELAYS {
        let generate = Generate { seed: args.seed, rate: args.rate, relays: RELAYS, relay, ..Generate::default() };
        let settings = ::relay::Settings { generate: Some(generate), ..::relay::Settings::default() };
        let server = Server::bind(settings, Clock::system()).await?;
        urls.push(format!("ws://{}", server.local_addr()));
        helpers.spawn(async move {
            if let Err(why) = server.serve(CancellationToken::new()).await {
                tracing::warn!(%why, "a made-up relay ended");
            }
        });
    }
    Ok(urls)
}

/// The totals, every few seconds.
async fn say(line: impl Fn() -> String) {
    loop {
        tokio::time::sleep(TOTALS_EVERY).await;
        note(&line());
    }
}

/// Each run begins anew at the end of the topic: what an earlier run left is in the lake already.
fn stream_job(args: &Args, job: Job, counts: &Arc<StreamCounts>) -> Result<StreamJob, Failure> {
    let checkpoints = Location::Local(args.data_dir.join("checkpoints")).create()?;
    let settings = StreamSettings {
        start: Start::Latest,
        restart: true,
        checkpoint: Some((checkpoints.objects, checkpoints.prefix)),
        ..StreamSettings::default()
    };
    let rows = args.format.printer(Arc::clone(&job.outputs()[0].schema))?.tables_of(ROWS_SHOWN);
    Ok(StreamJob { job, settings, console: Console::new(vec![Some(rows)], None, Arc::clone(counts))? })
}

/// Where things lie, and a command that works as it stands.
fn farewell(args: &Args, lake: &Location) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "tidegate".to_owned());
    format!(
        "\nThe lake lies in {lake}. To ask it:\n  {program} sql --data-dir {} \\\n    \
         'SELECT kind, count(*) AS events FROM events GROUP BY kind ORDER BY events DESC'",
        args.data_dir.display()
    )
}
