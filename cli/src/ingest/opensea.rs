//! `tidegate ingest opensea`: the market's stream to the raw topic, and by the lander on into the lake.

use std::path::PathBuf;
use std::time::Duration;

use ::ingest::{ApiKey, Endpoint, IntakeSettings, OpenSeaSettings};
use event::layout::OPENSEA_RAW_TOPIC;
use event::{Span, Table};
use tokio_util::sync::CancellationToken;

use super::{DEDUP_IDS_MAX, components, land_behind};
use crate::error::Failure;
use crate::job::size;
use crate::keys;
use crate::lake::LandArgs;
use crate::place::LogArgs;

/// The variable that holds the key to the stream.
const KEY: &str = "OPENSEA_API_KEY";

/// Which stream, and what of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StreamArgs {
    /// Which stream: main (or production), test (or development), or the wss:// URL of another; the key does not belong
    /// into a URL
    #[arg(
        long,
        value_name = "main|test|URL",
        env = "OPENSEA_DATA_STREAM_ENV",
        hide_env_values = true,
        default_value = "main",
        value_parser = endpoint
    )]
    endpoint: Endpoint,

    /// File that holds the API key, - for standard input [default: the variable OPENSEA_API_KEY]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Slug of a collection to follow, the last part of its address on OpenSea; repeatable, or separated by commas
    /// [default: all collections]
    #[arg(long = "collection", value_name = "SLUG", value_delimiter = ',')]
    collections: Vec<String>,

    /// Follow all collections beside those of --collection: the channel of all was seen to leave events out that a
    /// collection's own had
    #[arg(long)]
    all_collections: bool,
}

/// Lands what happens on OpenSea's market, from its stream.
///
/// Each event goes to the raw topic once, as the whole frame that brought it, whether it came on the channel of its
/// collection or on that of all, or was sent again. What is sent while nobody listens is not sent again: `tidegate ingest
/// coverage --topic OpenSeaRawEvents` shows when that was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  OPENSEA_API_KEY=… tidegate ingest opensea
  tidegate ingest opensea --api-key-file key.txt --collection boredapeyachtclub,cryptopunks
  tidegate ingest opensea --collection cryptopunks --all-collections \\
    --kafka-brokers localhost:9092 --lake s3://raw-data
  tidegate ingest opensea --endpoint test --no-lake")]
pub(super) struct Args {
    #[command(flatten)]
    stream: StreamArgs,

    /// What the server sees as our User-Agent; put a contact into it
    #[arg(long, value_name = "TEXT", default_value = concat!("tidegate/", env!("CARGO_PKG_VERSION")))]
    user_agent: String,

    /// Time between heartbeats, 100ms to 50s; the server ends a connection without one for a minute. What is known to
    /// be complete ends at the last one that was answered
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = heartbeat)]
    heartbeat: Span,

    /// Memory for frames on their way to the log
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size)]
    room: u64,

    /// How much may wait on disk, below --data-dir, when that is used up: a log that is away is waited for. When it is
    /// full, the connection is not read, and may be lost; 0 for no disk
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    spill: u64,

    /// Raw topic
    #[arg(long, value_name = "TOPIC", default_value = OPENSEA_RAW_TOPIC)]
    topic: String,

    /// Partitions of the raw topic, if it has to be created
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,

    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    land: LandArgs,
}

/// A variable that is set to nothing chooses nothing.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.trim() {
        "" => Ok(Endpoint::main()),
        text => text.parse().map_err(|error: ::ingest::Error| error.to_string()),
    }
}

fn heartbeat(text: &str) -> Result<Span, String> {
    let span = Span::parse(text)?;
    match (Duration::from_millis(100)..=Duration::from_secs(50)).contains(&span.duration()) {
        true => Ok(span),
        false => Err("use 100ms to 50s".to_owned()),
    }
}

impl StreamArgs {
    /// Whether something was chosen.
    pub(crate) const fn given(&self) -> bool {
        self.api_key_file.is_some() || !self.collections.is_empty() || self.all_collections
    }

    /// The same as settings; the index of known ids lies in the data directory, whatever the log.
    pub(crate) fn settings(&self, log: &LogArgs) -> Result<OpenSeaSettings, Failure> {
        let key = match &self.api_key_file {
            Some(path) => {
                let (text, place) = keys::contents(path)?;
                Some(ApiKey::new(&text, &place).map_err(Failure::usage)?)
            }
            None => match std::env::var(KEY).ok().filter(|text| !text.trim().is_empty()) {
                Some(text) => Some(ApiKey::new(&text, &format!("variable {KEY}")).map_err(Failure::usage)?),
                None => None,
            },
        };
        if key.is_none() && self.endpoint.wants_key() {
            return Err(Failure::usage(format!("`{}` wants an API key, and there is none", self.endpoint)).hint(format!(
                "put it into the variable {KEY}, or into a file for --api-key-file; OpenSea gives them out at https://opensea.io/settings/developer"
            )));
        }
        let defaults = OpenSeaSettings::default();
        Ok(OpenSeaSettings {
            endpoint: self.endpoint.clone(),
            key,
            collections: self.collections.clone(),
            all_collections: self.all_collections,
            intake: IntakeSettings {
                ids_dir: Some(log.data_dir.join("ids")),
                dedup_ids_max: DEDUP_IDS_MAX,
                ..defaults.intake
            },
            ..defaults
        })
    }
}

/// Follows the stream, and the lander behind it.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if Table::told_by(&args.topic).is_some_and(|told| told != Table::Market) {
        return Err(Failure::usage(format!("topic `{}` is not one of the market, as its name says", args.topic))
            .hint("use OpenSeaRawEvents, or a name that ends in .market"));
    }
    let settings = args.stream.settings(&args.log)?;
    let intake = IntakeSettings { topic: args.topic, partitions: args.partitions, ..settings.intake };
    let settings = OpenSeaSettings {
        intake: intake.clone(),
        room_bytes: args.room,
        spill_dir: Some(args.log.data_dir.join("spill")),
        spill_bytes_max: args.spill,
        heartbeat_interval: args.heartbeat.duration(),
        user_agent: args.user_agent,
        ..settings
    };
    let components = components(&args.log).await?;
    let source = ::ingest::opensea(settings, components.clone(), shutdown.clone());
    land_behind(source, &intake, &args.land, &args.log, components, shutdown).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_the_environment_names_an_endpoint() {
        assert_eq!(endpoint("production"), Ok(Endpoint::main()));
        assert_eq!(endpoint(" "), Ok(Endpoint::main()));
        assert_eq!(endpoint("development"), Ok(Endpoint::test()));
        assert!(endpoint("staging").is_err_and(|why| why.contains("`staging` is no endpoint")));
    }
}
