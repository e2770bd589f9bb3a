//! Options that say where things are: the log (embedded or Kafka), the lake, the data directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event::layout::LakeKey;
use event::{Clock, Table};
use processor::lake::LakeTable;

use crate::error::{Code, Failure};
use crate::store::Location;

/// A person who mistyped the port should not wait for half a minute.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// `name=value`, as `--var` and `--kafka-option` take it.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("use name=value".to_owned()),
    }
}

/// Which log, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Directory for all that is kept without a server: log, lake, checkpoints; and, whatever the log, for ingest's
    /// index of known ids and what waits on disk
    #[arg(
        long,
        value_name = "DIR",
        default_value = "tidegate-data",
        env = "TIDEGATE_DATA_DIR",
        hide_env_values = true
    )]
    pub(crate) data_dir: PathBuf,

    /// Kafka brokers, separated by commas; without them the embedded log in --data-dir is used
    #[arg(long, value_name = "HOST:PORT", env = "TIDEGATE_KAFKA_BROKERS", hide_env_values = true)]
    pub(crate) kafka_brokers: Option<String>,

    /// A setting for librdkafka, as `security.protocol=ssl`; repeatable
    #[arg(long = "kafka-option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) kafka_options: Vec<(String, String)>,
}

impl LogArgs {
    /// The embedded log in a directory, whatever the environment says.
    pub(crate) fn embedded(data_dir: PathBuf) -> Self {
        Self { data_dir, kafka_brokers: None, kafka_options: Vec::new() }
    }

    /// The brokers, if any were named; a variable set to nothing names none.
    pub(crate) fn brokers(&self) -> Option<&str> {
        self.kafka_brokers.as_deref().map(str::trim).filter(|brokers| !brokers.is_empty())
    }

    /// Opens the log.
    pub(crate) async fn open(&self, clock: &Clock) -> Result<Arc<dyn ::topic::Log>, Failure> {
        self.open_within(clock, None).await
    }

    /// Opens the log; Kafka's client keeps what it has fetched within its share of `memory`.
    pub(crate) async fn open_within(
        &self,
        clock: &Clock,
        memory: Option<processor::Memory>,
    ) -> Result<Arc<dyn ::topic::Log>, Failure> {
        match self.brokers() {
            Some(brokers) => Ok(Arc::new(::topic::KafkaLog::connect(self.kafka(brokers, memory))?)),
            None => {
                let dir = self.data_dir.join("log");
                std::fs::create_dir_all(&dir).map_err(|why| {
                    Failure::new(Code::Failed, format!("could not make directory `{}`: {why}", dir.display()))
                })?;
                Ok(Arc::new(::topic::EmbeddedLog::open(&dir, clock.clone())?))
            }
        }
    }

    fn kafka(&self, brokers: &str, memory: Option<processor::Memory>) -> ::topic::KafkaSettings {
        let settings = ::topic::KafkaSettings::new(brokers);
        ::topic::KafkaSettings {
            options: self.kafka_options.clone(),
            queue_kib: memory.map_or(settings.queue_kib, |memory| memory.queues() / 1024),
            timeout: KAFKA_TIMEOUT,
            ..settings
        }
    }
}

/// Where the lake is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LakeArgs {
    /// The lake: a directory, s3://bucket/prefix or s3a://… [default: <data-dir>/lake]
    #[arg(long, value_name = "URI", env = "TIDEGATE_LAKE", hide_env_values = true)]
    pub(crate) lake: Option<String>,
}

impl LakeArgs {
    /// The lake as it was named, or the one in the data directory.
    pub(crate) fn location(&self, log: &LogArgs) -> Result<Location, Failure> {
        match self.lake.as_deref().map(str::trim).filter(|uri| !uri.is_empty()) {
            Some(uri) => Location::parse(uri),
            None => Ok(Location::Local(log.data_dir.join("lake"))),
        }
    }
}

/// What a topic holds, where its name does not say so.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct TableArgs {
    /// What the topic holds: events, sightings or market [default: what its name says, else events]
    #[arg(long, value_name = "TABLE", value_parser = table)]
    table: Option<Table>,
}

fn table(name: &str) -> Result<Table, String> {
    Table::named(name).ok_or_else(|| format!("use {}", Table::ALL.map(Table::name).join(", ")))
}

impl TableArgs {
    /// The topic as it was named, or the raw one of the table.
    pub(crate) fn topic(&self, named: Option<&str>) -> String {
        let table = self.table.unwrap_or_default();
        named.map_or_else(|| table.topic(table.raw_topic()), str::to_owned)
    }

    /// The table of a topic.
    pub(crate) fn of(&self, topic: &str) -> Result<Table, Failure> {
        match (self.table, Table::told_by(topic)) {
            (Some(wanted), Some(told)) if wanted != told => Err(holds(topic, told, wanted)),
            (wanted, told) => Ok(wanted.or(told).unwrap_or_default()),
        }
    }
}

fn holds(topic: &str, told: Table, wanted: Table) -> Failure {
    Failure::usage(format!("topic `{topic}` holds {}, not {}", told.name(), wanted.name()))
}

/// Where a job or a query finds the raw events, or what is kept beside them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// The folder of the topic that is read, as s3a://raw-data/topics/nostr-event [default: topics/<topic> in the lake]
    #[arg(long, value_name = "URI")]
    pub(crate) raw_events_s3_uri: Option<String>,

    /// Raw topic; sightings are read from the topic beside it, nostr-sighting or <topic>.sightings [default: nostr-event,
    /// or OpenSeaRawEvents for the market]
    #[arg(long, value_name = "TOPIC")]
    raw_events_kafka_topic: Option<String>,
}

impl RawArgs {
    /// Whether the lake was named on the command line or in the environment.
    pub(crate) fn named(&self) -> bool {
        self.raw_events_s3_uri.is_some() || self.lake.lake.is_some()
    }

    /// The topic that holds `table`.
    pub(crate) fn topic(&self, table: Table) -> Result<String, Failure> {
        let topic = table.topic(self.raw_events_kafka_topic.as_deref().unwrap_or(table.raw_topic()));
        match Table::told_by(&topic) {
            Some(told) if told != table => Err(holds(&topic, told, table)
                .hint("--raw-events-kafka-topic names the raw topic; what is kept beside it is found by its name")),
            _ => Ok(topic),
        }
    }

    /// The folder of the topic that holds `table`, as it was named or as it follows from the lake.
    pub(crate) fn location(&self, table: Table, log: &LogArgs) -> Result<Location, Failure> {
        match &self.raw_events_s3_uri {
            Some(uri) => Location::parse(uri),
            None => Ok(self.lake.location(log)?.below(&LakeKey::topic_prefix(&self.topic(table)?))),
        }
    }

    /// What the lake holds of `table`.
    pub(crate) fn table(&self, table: Table, log: &LogArgs) -> Result<LakeTable, Failure> {
        let location = self.location(table, log)?;
        if matches!(&location, Location::Local(dir) if !dir.is_dir()) {
            let failure = Failure::usage(format!("there is no directory `{location}`"));
            return Err(failure.hint(match table {
                Table::Events => {
                    "`tidegate ingest` and `tidegate up` fill a lake; --data-dir or --lake says where it lies"
                }
                Table::Sightings => "`tidegate ingest nostr --sightings` fills it, as `tidegate up --sightings` does",
                Table::Market => {
                    "`tidegate ingest opensea` and `tidegate ingest file --table market` fill it; --data-dir or --lake \
                     says where it lies"
                }
            }));
        }
        table_at(&location, table)
    }
}

/// The rows of `table` in the folder of a topic.
pub(crate) fn table_at(location: &Location, table: Table) -> Result<LakeTable, Failure> {
    let Some((parent, topic)) = location.split() else {
        return Err(Failure::usage(format!("`{location}` is not the folder of a topic"))
            .hint("name it as s3a://bucket/topics/nostr-event, or the lake above it with --lake"));
    };
    // A lake's compacted files lie beside `topics`, so the store has to begin above it.
    let (root, above) = match parent.split() {
        Some((lake, above)) if above == "topics" => (lake, Some(above)),
        _ => (parent, None),
    };
    let store = root.open()?;
    let folder = above.into_iter().chain([topic]).fold(store.prefix, |path, part| path.join(part));
    Ok(LakeTable::at(store.objects, folder).holding(table))
}
