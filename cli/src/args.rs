//! The command line at its top: global options, the list of subcommands, and what `tidegate --help` says.
//!
//! Each subcommand's own options stand in its file.

mod market;

use clap::{Parser, Subcommand};
use market::Environment;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::progress::note;
use crate::{
    admin, batch, cluster, events, explain, ingest, keygen, lake, publish, quickstart, relay, relays, sql, stream,
    test, topic, up, verify,
};

/// Lands Nostr events in Kafka and in a lake, and runs SQL jobs over both, as batch or as stream.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 80, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What is logged on standard error: error, warn, info, debug, trace, or directives as `ingest=debug,warn`
    /// [default: RUST_LOG, else LOG_LEVEL, else info for services and warn for the rest]
    #[arg(short, long, value_name = "LEVEL", global = true, display_order = 1_000)]
    pub(crate) log_level: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  tidegate quickstart
  tidegate up --relay wss://nos.lol --job kinds='1 minute'
  tidegate batch kinds '1 hour' --format csv
  tidegate sql 'SELECT kind, count(*) FROM events GROUP BY kind'

Data goes to standard output, everything else to standard error. Without
--kafka-brokers no server is needed: log, lake and checkpoints lie below
--data-dir (./tidegate-data).

Exit codes:
  0    done, or drained cleanly after the first Ctrl-C or SIGTERM
  1    failed
  2    the command line, a setting or a job is wrong
  3    a broker, relay, store or database cannot be reached
  4    stored data is not what it should be
  5    the checkpoint does not fit the job
  6    another process took over
  130  stopped at once by a second Ctrl-C or SIGTERM; batch and sql, whose
       output must be whole, by the first";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(quickstart::Args),
    Up(Box<up::Args>),
    Ingest(Box<ingest::Args>),
    Batch(Box<batch::Args>),
    Stream(Box<stream::Args>),
    /// What the market did as a whole, and its top collections: a batch or a stream, by the length of the window
    Global(market::Args),
    /// What each collection of the market did, and its top assets: a batch or a stream, by the length of the window
    Collections(market::Args),
    /// `global` and `collections` in one: a batch or a stream, by the length of the window
    All(market::Args),
    Sink(Box<stream::sink::SinkArgs>),
    Sql(sql::Args),
    Cluster(cluster::Args),
    Events(Box<events::Args>),
    Explain(explain::ExplainArgs),
    Check(explain::CheckArgs),
    Test(test::Args),
    Topic(topic::Args),
    Lake(lake::Args),
    Verify(verify::Args),
    Keygen(keygen::Args),
    Publish(Box<publish::Args>),
    Relay(Box<relay::Args>),
    Relays(relays::Args),
    Admin(admin::Args),
}

impl Command {
    /// Whether the command runs until it is told to stop: such ones log their life by default.
    pub(crate) fn service(&self) -> bool {
        match self {
            Self::Up(_) | Self::Relay(_) | Self::Cluster(_) => true,
            Self::Lake(args) => args.service(),
            Self::Ingest(args) => args.service(),
            Self::Stream(args) => args.service(),
            Self::Sink(args) => args.service(),
            _ => false,
        }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        match self {
            Self::Quickstart(args) => Box::pin(quickstart::run(args, shutdown)).await,
            Self::Up(args) => Box::pin(up::run(*args, shutdown)).await,
            Self::Ingest(args) => Box::pin(ingest::run(*args, shutdown)).await,
            Self::Batch(args) => Box::pin(batch::run(*args, shutdown)).await,
            Self::Stream(args) => Box::pin(stream::run(*args, shutdown)).await,
            Self::Global(_) | Self::Collections(_) | Self::All(_) => {
                Err(Failure::new(Code::Failed, "a command that is short for another was not spelt out"))
            }
            Self::Sink(args) => Box::pin(stream::sink::run(*args, shutdown)).await,
            Self::Sql(args) => Box::pin(sql::run(args, shutdown)).await,
            Self::Cluster(args) => Box::pin(cluster::run(args, shutdown)).await,
            Self::Events(args) => Box::pin(events::run(*args, shutdown)).await,
            Self::Explain(args) => Box::pin(explain::explain(args)).await,
            Self::Check(args) => Box::pin(explain::check(args)).await,
            Self::Test(args) => Box::pin(test::run(args, shutdown)).await,
            Self::Topic(args) => Box::pin(topic::run(args, shutdown)).await,
            Self::Lake(args) => Box::pin(lake::run(args, shutdown)).await,
            Self::Verify(args) => verify::run(args, shutdown).await,
            Self::Keygen(args) => keygen::run(&args),
            Self::Publish(args) => Box::pin(publish::run(*args, shutdown)).await,
            Self::Relay(args) => Box::pin(relay::run(*args, shutdown)).await,
            Self::Relays(args) => relays::run(args).await,
            Self::Admin(args) => Box::pin(admin::run(args)).await,
        }
    }
}

impl Cli {
    /// What the command line says; a command that is short for another is spelt out, and says so.
    ///
    /// # Errors
    /// Of such a command, what is wrong with it; otherwise the process ends with the usage.
    pub(crate) fn of_command_line() -> Result<Self, Failure> {
        let cli = Self::parse();
        let (job, args) = match cli.command {
            Command::Global(args) => ("global", args),
            Command::Collections(args) => ("collections", args),
            Command::All(args) => ("all", args),
            command => return Ok(Self { command, ..cli }),
        };
        let meant = args.meant(job, cli.log_level.as_deref(), &Environment::read())?;
        meant.notes.iter().for_each(|line| note(line));
        Ok(Self::parse_from(std::iter::once("tidegate".to_owned()).chain(meant.words)))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
