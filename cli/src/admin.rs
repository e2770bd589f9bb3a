//! `tidegate admin init`: topics and buckets, made where they are not there; safe to repeat.

use ::topic::TopicSpec;
use event::Clock;
use event::layout::late_topic;

use crate::error::Failure;
use crate::ingest::IntakeArgs;
use crate::place::{LakeArgs, LogArgs};
use crate::progress::{counted, note};
use crate::store::Location;

/// Prepares what tidegate needs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AdminCommand {
    Init(Box<InitArgs>),
}

/// Makes the raw topic, its rejected topic, output topics and the buckets of lake and checkpoints.
///
/// What exists is left as it is, so it can run at every start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate admin init
  tidegate admin init --kafka-brokers kafka:19092 --lake s3://raw-data \\
    --checkpoint-dir s3://processed-data/checkpoints --kafka-topic nostr-kinds")]
struct InitArgs {
    #[command(flatten)]
    intake: IntakeArgs,

    /// Output topic of a job; repeatable
    #[arg(long = "kafka-topic", value_name = "TOPIC")]
    output_topics: Vec<String>,

    /// Where checkpoints are kept [default: <data-dir>/checkpoints]
    #[arg(long, value_name = "URI", env = "TIDEGATE_CHECKPOINT_DIR", hide_env_values = true)]
    checkpoint_dir: Option<String>,

    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    lake: LakeArgs,
}

/// Makes what is not there.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let AdminCommand::Init(args) = args.command;
    let log = args.log.open(&Clock::system()).await?;
    let before: Vec<String> = log.topics().await?.into_iter().map(|topic| topic.name).collect();
    let intake = args.intake.settings(&args.log);
    ::ingest::create_topics(log.as_ref(), &intake).await?;
    for name in &args.output_topics {
        for name in [name.clone(), late_topic(name)] {
            log.create_topic(&TopicSpec { name, partitions: 1, config: Vec::new() }).await?;
        }
    }
    for topic in log.topics().await? {
        let verb = if before.contains(&topic.name) { "was there" } else { "made" };
        let partitions = counted(u64::from(topic.partitions.unsigned_abs()), "partition");
        note(&format!("topic {} ({partitions}): {verb}", topic.name));
    }
    for (what, location) in [
        ("lake", args.lake.location(&args.log)?),
        ("checkpoints", checkpoints(args.checkpoint_dir.as_deref(), &args.log)?),
    ] {
        let verb = if location.make().await? { "made" } else { "was there" };
        note(&format!("{what} {location}: {verb}"));
    }
    Ok(())
}

/// Where checkpoints are kept.
pub(crate) fn checkpoints(named: Option<&str>, log: &LogArgs) -> Result<Location, Failure> {
    match named.map(str::trim).filter(|uri| !uri.is_empty()) {
        Some(uri) => Location::parse(uri),
        None => Ok(Location::Local(log.data_dir.join("checkpoints"))),
    }
}
