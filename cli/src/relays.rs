//! `tidegate ingest relays`: a document for each relay that events name; `tidegate relays`: those documents as a table.

use std::path::PathBuf;
use std::sync::Arc;

use ::ingest::Components;
use ::ingest::directory::{
    DirectoryCounters, DirectoryCounts, DirectorySettings, GeoDatabase, RelayDocument, documents, follow as keep,
};
use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use event::Clock;
use event::layout::{NOSTR_EVENT_TOPIC, NOSTR_RELAY_TOPIC};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::ingest::components;
use crate::output::FormatArgs;
use crate::place::LogArgs;
use crate::progress::{Ticker, grouped, note};

/// Keeps a document for each relay that events of the raw topic name.
///
/// Authors' relay lists (kind 10002, and kind 3 where an author has no other) say who reads and writes where, monitors'
/// reports (kind 30166, NIP-66) how fast it is and where it stands. The newest list of each author and the newest report
/// of each monitor count. Documents go to a compacted topic, key the relay's URL, and authors' lists to
/// <relay-topic>.lists. `tidegate relays` shows them.
///
/// A relay is placed by the geohash of a report, else by --geo-db, else not; the document says which. No service is
/// asked for that, and nobody at all unless --nip11 or --resolve is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ingest relays --until-latest
  tidegate ingest relays --geo-db GeoLite2-City.mmdb --resolve
  tidegate ingest relays --nip11 --kafka-brokers localhost:9092")]
pub(crate) struct FollowArgs {
    /// Stop when what is in the raw topic now is in the documents
    #[arg(long)]
    until_latest: bool,

    /// Raw topic
    #[arg(long, value_name = "TOPIC", default_value = NOSTR_EVENT_TOPIC)]
    topic: String,

    #[command(flatten)]
    directory: DirectoryArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// What is kept of relays, and whom else to ask.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DirectoryArgs {
    /// Topic of the documents
    #[arg(long, value_name = "TOPIC", default_value = NOSTR_RELAY_TOPIC)]
    relay_topic: String,

    /// Ask each relay for its own document (NIP-11) once a day
    #[arg(long)]
    nip11: bool,

    /// A database of addresses and places in MaxMind's format, from MaxMind or another vendor
    #[arg(long, value_name = "FILE", env = "TIDEGATE_GEO_DB", hide_env_values = true)]
    geo_db: Option<PathBuf>,

    /// Look up the addresses of relays' names (DNS), so that --geo-db can place them; else it places those whose URL has
    /// an address
    #[arg(long, requires = "geo_db")]
    resolve: bool,

    /// Take loopback and private addresses, and names as relay.local
    #[arg(long)]
    allow_local: bool,
}

/// Shows what is known of relays, those first that most authors use.
///
/// read and write: how many authors read from it and write to it. rtt_…: what monitors measured, the median. country,
/// lat, lon: where it stands; placed_by says who knows: nip66, a monitor; mmdb, the --geo-db of `tidegate ingest
/// relays`, which keeps these documents. The whole documents are in the topic: `tidegate topic read nostr-relay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate relays
  tidegate relays --format csv > relays.csv
  tidegate topic read nostr-relay")]
pub(crate) struct Args {
    /// Topic of the documents
    #[arg(long, value_name = "TOPIC", default_value = NOSTR_RELAY_TOPIC)]
    relay_topic: String,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

impl FollowArgs {
    /// Whether it runs until it is told to stop.
    pub(crate) const fn service(&self) -> bool {
        !self.until_latest
    }
}

/// Documents to be kept, as they were asked for.
pub(crate) struct Directory {
    settings: DirectorySettings,
    database: Option<Arc<GeoDatabase>>,
    counters: Arc<DirectoryCounters>,
}

impl DirectoryArgs {
    /// Whether an option was given that means nothing unless documents are kept.
    pub(crate) const fn given(&self) -> bool {
        self.nip11 || self.resolve || self.allow_local
    }

    /// Opens the database, so that one that is damaged is known before anything starts.
    pub(crate) fn open(&self, raw_topic: &str, until_latest: bool) -> Result<Directory, Failure> {
        let named = self.geo_db.as_deref().filter(|path| !path.as_os_str().is_empty());
        let settings = DirectorySettings {
            raw_topic: raw_topic.to_owned(),
            relay_topic: self.relay_topic.clone(),
            until_latest,
            allow_local: self.allow_local,
            nip11: self.nip11,
            resolve: self.resolve,
            ..DirectorySettings::default()
        };
        let database = named.map(GeoDatabase::open).transpose()?.map(Arc::new);
        Ok(Directory { settings, database, counters: Arc::default() })
    }
}

impl Directory {
    /// Counters of the run.
    pub(crate) fn counters(&self) -> Arc<DirectoryCounters> {
        Arc::clone(&self.counters)
    }

    /// Keeps the documents until `stop`, or to the end.
    pub(crate) async fn run(self, components: Components, stop: CancellationToken) -> Result<(), Failure> {
        Ok(keep(self.settings, components, self.database, self.counters, stop).await?)
    }
}

/// Keeps documents.
pub(crate) async fn follow(args: FollowArgs, shutdown: CancellationToken) -> Result<(), Failure> {
    let directory = args.directory.open(&args.topic, args.until_latest)?;
    let counters = directory.counters();
    let components = components(&args.log).await?;
    let ticker = Ticker::start({
        let counters = Arc::clone(&counters);
        move || totals(counters.snapshot())
    });
    let outcome = Box::pin(directory.run(components, shutdown)).await;
    ticker.stop();
    note(&totals(counters.snapshot()));
    outcome
}

/// One line: read 10,405 records · lists 118 · reports 11 · superseded 10 · dropped 37 (junk 12, local 25) · …
pub(crate) fn totals(counts: DirectoryCounts) -> String {
    let mut parts = vec![
        format!("read {} records", grouped(counts.read)),
        format!("lists {}", grouped(counts.lists)),
        format!("reports {}", grouped(counts.reports)),
        format!("superseded {}", grouped(counts.superseded)),
        format!(
            "dropped {} (junk {}, local {})",
            grouped(counts.junk + counts.local),
            grouped(counts.junk),
            grouped(counts.local)
        ),
        format!("relays {}", grouped(counts.relays)),
        format!("written {}", grouped(counts.written)),
    ];
    if counts.beyond > 0 {
        parts.push(format!("beyond what is kept {}", grouped(counts.beyond)));
    }
    if counts.unreadable > 0 {
        parts.push(format!("unreadable {}", grouped(counts.unreadable)));
    }
    if counts.asked + counts.unanswered > 0 {
        parts.push(format!("fetched {}, failed {}", grouped(counts.asked), grouped(counts.unanswered)));
    }
    parts.join(" · ")
}

/// Prints the documents.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let log = args.log.open(&Clock::system()).await?;
    let mut documents = documents(log.as_ref(), &args.relay_topic).await?;
    documents.sort_by_key(|document| std::cmp::Reverse(document.policy.read + document.policy.write));
    let batch = table(&documents)?;
    let mut rows = args.format.printer(batch.schema())?;
    rows.write(&batch)?;
    Ok(rows.finish()?)
}

fn table(documents: &[RelayDocument]) -> Result<RecordBatch, Failure> {
    let text = |of: fn(&RelayDocument) -> Option<&str>| -> ArrayRef {
        Arc::new(documents.iter().map(of).collect::<StringArray>())
    };
    let count = |of: fn(&RelayDocument) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(documents.iter().map(of)))
    };
    let millis = |of: fn(&RelayDocument) -> Option<u32>| -> ArrayRef {
        Arc::new(documents.iter().map(of).collect::<UInt32Array>())
    };
    let degrees = |of: fn(&RelayDocument) -> Option<f64>| -> ArrayRef {
        Arc::new(documents.iter().map(of).collect::<Float64Array>())
    };
    let seen = documents.iter().map(|document| document.last_seen.saturating_mul(1_000_000));
    let seen = TimestampMicrosecondArray::from_iter_values(seen).with_timezone("UTC");
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("url", text(|document| Some(&document.url)), false),
        ("network", text(|document| Some(document.network.as_str())), false),
        ("read", count(|document| document.policy.read), false),
        ("write", count(|document| document.policy.write), false),
        ("rtt_open_ms", millis(|document| document.rtt.open_ms), true),
        ("rtt_read_ms", millis(|document| document.rtt.read_ms), true),
        ("rtt_write_ms", millis(|document| document.rtt.write_ms), true),
        ("country", text(|document| document.place.as_ref()?.country.as_deref()), true),
        ("lat", degrees(|document| document.place.as_ref()?.lat), true),
        ("lon", degrees(|document| document.place.as_ref()?.lon), true),
        ("placed_by", text(|document| Some(document.place.as_ref()?.source.as_str())), true),
        ("software", text(|document| document.software.as_deref()), true),
        ("version", text(|document| document.version.as_deref()), true),
        ("last_seen", Arc::new(seen), false),
    ])?)
}
