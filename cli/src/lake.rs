//! `tidegate lake …`: the lander alone, and what is done with its objects later; and the lander as `ingest` and `up` run
//! it beside themselves.

mod compact;
mod expire;
mod ls;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::ingest::lake::{Catalog, LanderSettings, land};
use ::ingest::{Components, IntakeSettings};
use event::layout::LakeFormat;
use event::{Clock, EventTime, Span, Table};
use processor::lake::LakeTable;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::place::{LakeArgs, LogArgs, TableArgs};
use crate::progress::{Ticker, counted, note};
use crate::store::Location;

/// Works on the lake.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: LakeCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LakeCommand {
    Land(Box<LandAloneArgs>),
    Ls(ls::LsArgs),
    Verify(verify::VerifyArgs),
    Compact(compact::CompactArgs),
    Expire(expire::ExpireArgs),
}

impl Args {
    /// Whether the command runs until it is told to stop.
    pub(crate) fn service(&self) -> bool {
        match &self.command {
            LakeCommand::Land(_) => true,
            LakeCommand::Compact(args) => args.repeats(),
            _ => false,
        }
    }
}

/// Which topic of which lake.
#[derive(Clone, Debug, clap::Args)]
struct TopicArgs {
    #[command(flatten)]
    topic: NamedTopic,

    #[command(flatten)]
    lake: LakeArgs,

    /// Directory for all that is kept without a server
    #[arg(
        long,
        value_name = "DIR",
        default_value = "tidegate-data",
        env = "TIDEGATE_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: PathBuf,
}

/// A topic, and what it holds.
#[derive(Clone, Debug, clap::Args)]
struct NamedTopic {
    /// Topic [default: nostr-event, or that of --table]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    #[command(flatten)]
    table: TableArgs,
}

impl NamedTopic {
    fn read(&self) -> Result<(String, Table), Failure> {
        let topic = self.table.topic(self.topic.as_deref());
        let table = self.table.of(&topic)?;
        Ok((topic, table))
    }
}

impl TopicArgs {
    fn catalog(&self) -> Result<Catalog, Failure> {
        let store = self.lake.location(&LogArgs::embedded(self.data_dir.clone()))?.open()?;
        let (clock, (topic, table)) = (Clock::system(), self.topic.read()?);
        Ok(Catalog { store: store.objects, prefix: store.prefix, topic, table, clock })
    }

    fn table(&self) -> Result<LakeTable, Failure> {
        table(&self.lake, &LogArgs::embedded(self.data_dir.clone()), &self.topic.read()?)
    }
}

/// A topic of the lake, to be read.
fn table(lake: &LakeArgs, log: &LogArgs, (topic, table): &(String, Table)) -> Result<LakeTable, Failure> {
    let store = lake.location(log)?.open()?;
    Ok(LakeTable::new(store.objects, &store.prefix, topic).holding(*table))
}

/// An hour since 1970 as a time.
fn hour_text(hour: i64) -> String {
    let time = hour.checked_mul(3_600_000).and_then(EventTime::from_millis);
    time.map_or_else(|| format!("hour {hour}"), |time| time.to_string())
}

/// How long what is replaced stays for those who began to read it.
#[derive(Clone, Copy, Debug, clap::Args)]
struct GraceArgs {
    /// Delete what is replaced or removed after this long, at least 1h; longer than the longest query
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = grace)]
    grace: Span,
}

impl GraceArgs {
    fn grace(self) -> Duration {
        self.grace.duration()
    }
}

/// A lander that was asleep looks at the lake again after ten minutes; an hour leaves it time.
fn grace(text: &str) -> Result<Span, String> {
    let span = Span::parse(text)?;
    if span.duration() < Duration::from_secs(3_600) { Err("use at least 1h".to_owned()) } else { Ok(span) }
}

/// Writes a raw topic, one of sightings or of the market, to the lake, following it until told to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate lake land --kafka-brokers localhost:9092 --lake s3://raw-data
  tidegate lake land --until-latest")]
struct LandAloneArgs {
    #[command(flatten)]
    topic: NamedTopic,

    /// Stop when what is in the topic now has landed
    #[arg(long)]
    until_latest: bool,

    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten)]
    land: RotateArgs,
    #[command(flatten, next_help_heading = "Lake")]
    lake: LakeArgs,
}

/// Whether and how `ingest` and `up` land in the lake.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LandArgs {
    /// Only publish to the topic
    #[arg(long)]
    no_lake: bool,

    #[command(flatten)]
    lake: LakeArgs,
    #[command(flatten)]
    rotate: RotateArgs,
}

/// Form and size of lake objects.
#[derive(Clone, Debug, clap::Args)]
struct RotateArgs {
    /// Form of the objects: parquet, or json (gzip JSON lines)
    #[arg(long, value_name = "FORM", default_value = "parquet", value_parser = lake_format)]
    lake_format: LakeFormat,

    /// Close an object at this many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rotate_rows: Option<u64>,

    /// Close an object at this many bytes of events, as 64MiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    rotate_bytes: Option<u64>,

    /// Close an object at this age
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    rotate_age: Option<Span>,
}

impl LandArgs {
    /// The lake, unless it is not wanted.
    pub(crate) fn location(&self, log: &LogArgs) -> Result<Option<Location>, Failure> {
        if self.no_lake { Ok(None) } else { self.lake.location(log).map(Some) }
    }

    /// Settings for a lander of each topic that an intake fills and the lake keeps.
    pub(crate) fn settings(&self, intake: &IntakeSettings) -> Vec<LanderSettings> {
        let taken_in = intake.table();
        let wanted = |table: &Table| *table == taken_in || (*table == Table::Sightings && intake.sightings);
        let tables = Table::ALL.into_iter().filter(wanted);
        tables.map(|table| self.rotate.settings(table.topic(&intake.topic), table)).collect()
    }
}

impl RotateArgs {
    fn settings(&self, topic: String, table: Table) -> LanderSettings {
        let mut settings =
            LanderSettings { topic, table: Some(table), format: self.lake_format, ..LanderSettings::default() };
        if let Some(rows) = self.rotate_rows {
            settings.rows_max = usize::try_from(rows).unwrap_or(usize::MAX);
        }
        if let Some(bytes) = self.rotate_bytes {
            settings.bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Some(age) = self.rotate_age {
            settings.age_max = age.duration();
        }
        settings
    }
}

fn lake_format(text: &str) -> Result<LakeFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "parquet" => Ok(LakeFormat::Parquet),
        "json" | "json.gz" | "jsonl" => Ok(LakeFormat::JsonGz),
        _ => Err("use parquet or json".to_owned()),
    }
}

/// `64MiB`, `100 MB`, `4096`.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        _ => return Err("use a number of bytes, as 67108864, 64MiB or 100MB".to_owned()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| "the number is missing".to_owned())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "it must be more than zero".to_owned())
}

/// Landers at work beside a source, one a topic.
pub(crate) struct Landers {
    tasks: JoinSet<::ingest::Result<()>>,
    drain: CancellationToken,
}

impl Landers {
    /// Starts them. Should one fail, it cancels `stop`: a source must not run on without its lake. The first one counts
    /// what it lands among the source's figures.
    pub(crate) fn start(
        settings: Vec<LanderSettings>,
        components: &Components,
        location: &Location,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        let store = location.create()?;
        let drain = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, settings) in settings.into_iter().enumerate() {
            let mut components = components.clone();
            if number > 0 {
                components.counters = Arc::default();
            }
            let (store, drain, stop) = (store.clone(), drain.clone(), stop.clone());
            tasks.spawn(async move {
                let landed = land(settings, components, store.objects, store.prefix, drain).await;
                if landed.is_err() {
                    stop.cancel();
                }
                landed
            });
        }
        Ok(Self { tasks, drain })
    }

    /// Lands what is in the topics now, then ends.
    pub(crate) async fn drain(mut self) -> Result<(), Failure> {
        self.drain.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let landed = ended.map_err(|_| Failure::new(Code::Failed, "a lander panicked"));
            outcome = outcome.and(landed.and_then(|landed| landed.map_err(Failure::from)));
        }
        outcome
    }
}

/// Runs one of the lake's commands.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    match args.command {
        LakeCommand::Land(args) => land_alone(*args, shutdown).await,
        LakeCommand::Ls(args) => ls::run(&args).await,
        LakeCommand::Verify(args) => verify::run(&args, &shutdown).await,
        LakeCommand::Compact(args) => compact::run(&args, &shutdown).await,
        LakeCommand::Expire(args) => expire::run(&args).await,
    }
}

async fn land_alone(args: LandAloneArgs, shutdown: CancellationToken) -> Result<(), Failure> {
    let components = crate::ingest::components(&args.log).await?;
    let counters = Arc::clone(&components.counters);
    let store = args.lake.location(&args.log)?.create()?;
    let (topic, table) = args.topic.read()?;
    let settings = args.land.settings(topic, table);
    let drain = shutdown.child_token();
    if args.until_latest {
        drain.cancel();
    }
    let landed = move || {
        let now = counters.snapshot();
        format!("landed {} in {}", counted(now.landed_rows, "row"), counted(now.landed_objects, "object"))
    };
    let ticker = Ticker::start(landed.clone());
    let outcome = land(settings, components, store.objects, store.prefix, drain).await;
    ticker.stop();
    note(&landed());
    Ok(outcome?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("100 MB"), Ok(100_000_000));
        assert_eq!(bytes("4096"), Ok(4_096));
        for text in ["", "MiB", "0", "1 stone", "99999999999999999999"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
