//! `tidegate ingest nostr|opensea|file|relays|redrive|coverage`: events into the raw topic, and by the lander on into the lake, in
//! one process.

mod coverage;
mod group;
pub(crate) mod opensea;
mod redrive;

use std::path::PathBuf;
use std::sync::Arc;

use ::ingest::{
    Components, Counters, CountersSnapshot, FileSettings, IntakeSettings, Kinds, NostrSettings, OpenSeaSettings,
};
use clap::ArgGroup;
use event::layout::NOSTR_EVENT_TOPIC;
use event::{Clock, EventTime, Span, Table};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::job::{size, time};
use crate::keys;
use crate::lake::{LandArgs, Landers};
use crate::place::{LogArgs, TableArgs};
use crate::progress::{Ticker, grouped, note};

/// Known ids that are kept in memory beside the index of all: what relays send of an event comes within a short time.
pub(crate) const DEDUP_IDS_MAX: usize = 1_000_000;

/// Lands events in the raw topic and in the lake.
///
/// Events are verified (id and signature), copies are dropped by id, refused input goes to <topic>.rejected with its
/// reason. The lander writes the topic to the lake in the same process, unless --no-lake.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ingest nostr --relay wss://nos.lol
  tidegate ingest opensea --collection cryptopunks
  tidegate ingest file events.jsonl.gz
  tidegate ingest relays --geo-db GeoLite2-City.mmdb
  tidegate ingest coverage")]
pub(crate) struct Args {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, clap::Subcommand)]
enum Source {
    Nostr(Box<NostrArgs>),
    Opensea(Box<opensea::Args>),
    File(Box<FileArgs>),
    Relays(Box<crate::relays::FollowArgs>),
    Redrive(Box<redrive::Args>),
    Coverage(coverage::Args),
}

impl Args {
    /// Whether it runs until it is told to stop.
    pub(crate) const fn service(&self) -> bool {
        match &self.source {
            Source::Nostr(args) => !args.once,
            Source::Opensea(_) => true,
            Source::Relays(args) => args.service(),
            Source::File(_) | Source::Redrive(_) | Source::Coverage(_) => false,
        }
    }
}

/// Which relays are followed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RelayArgs {
    /// Relay URL, ws:// or wss://; repeatable, or separated by commas
    #[arg(long = "relay", value_name = "URL", value_delimiter = ',', env = "TIDEGATE_RELAYS", hide_env_values = true)]
    pub(crate) relays: Vec<String>,

    /// File of relays, a URL a line, `paused` behind those that are not to be followed now, # before a comment; it is
    /// read again whenever it changes, so that relays are added, paused and removed while this runs
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_file: Option<PathBuf>,
}

/// Lands events from Nostr relays: what they send live, then what they have stored.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("followed").args(["relays", "relay_file"]).required(true).multiple(true)))]
#[command(after_help = "\
Examples:
  tidegate ingest nostr --relay wss://nos.lol,wss://relay.damus.io
  tidegate ingest nostr --relay ws://127.0.0.1:7777 --once --max-future off
  tidegate ingest nostr --relay wss://nos.lol --once --lookback '7 days'
  tidegate ingest nostr --relay wss://nos.lol,wss://relay.damus.io --sightings
  tidegate ingest nostr --relay wss://nos.lol --kinds 1,7,5000-6999 \\
    --kafka-brokers localhost:9092 --lake s3://raw-data
  tidegate ingest nostr --relay wss://nos.lol,wss://relay.damus.io \\
    --kafka-brokers localhost:9092 --no-lake --group porch")]
struct NostrArgs {
    #[command(flatten)]
    relays: RelayArgs,

    /// Stop when everything stored was fetched from all relays and has landed
    #[arg(long)]
    once: bool,

    /// Fetch stored events from this time on: 2024-07-28, 2024-07-28T12:00:00Z, unix seconds, -7d; what is live comes
    /// whatever its date
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<EventTime>,

    /// Fetch stored events before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<EventTime>,

    /// Fetch stored events of so long a time before now; the same as --since -DURATION
    #[arg(long, value_name = "DURATION", value_parser = Span::parse, conflicts_with = "since")]
    lookback: Option<Span>,

    /// Say who we are, with the key in this file, to relays that let nobody else read (NIP-42); an nsec or hex, - for
    /// standard input [default: TIDEGATE_SECRET_KEY, else such relays are left]
    #[arg(long, value_name = "FILE")]
    auth_key_file: Option<PathBuf>,

    /// What relays see as our User-Agent; put a contact into it
    #[arg(long, value_name = "TEXT", default_value = concat!("tidegate/", env!("CARGO_PKG_VERSION")))]
    user_agent: String,

    /// Requests a second that a relay is asked at most; fewer while it complains (rate-limited:)
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: u32,

    /// Do not ask relays what they say of themselves, their limits among it (NIP-11)
    #[arg(long)]
    no_nip11: bool,

    /// Fetch again what the coverage ledger proves to be there
    #[arg(long)]
    refetch: bool,

    /// Keep a record of every delivery of an event by a relay, copies too, in the topic nostr-sighting (or
    /// <topic>.sightings) and in the lake
    #[arg(long, conflicts_with = "group")]
    sightings: bool,

    #[command(flatten)]
    group: group::GroupArgs,
    #[command(flatten)]
    bounds: BoundsArgs,
    #[command(flatten)]
    intake: IntakeArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    land: LandArgs,
}

/// What relays may have waiting.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BoundsArgs {
    /// Memory for events on their way to the log
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size)]
    room: u64,

    /// How much may wait on disk, below --data-dir, when that is used up: a log that is away is waited for. At half of
    /// it relays are not asked for stored events any more, when it is full the least useful are closed until there is
    /// room; 0 for no disk
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    spill: u64,
}

impl BoundsArgs {
    /// The same for OpenSea's stream, which has as much of its own.
    pub(crate) fn bound_stream(&self, settings: OpenSeaSettings, log: &LogArgs) -> OpenSeaSettings {
        let spill_dir = Some(log.data_dir.join("spill"));
        OpenSeaSettings { room_bytes: self.room, spill_dir, spill_bytes_max: self.spill, ..settings }
    }

    /// The same in settings.
    pub(crate) fn bound(&self, settings: NostrSettings, log: &LogArgs) -> NostrSettings {
        let spill_dir = Some(log.data_dir.join("spill"));
        NostrSettings { room_bytes: self.room, spill_dir, spill_bytes_max: self.spill, ..settings }
    }
}

/// Lands events from a file or a pipe, in order.
///
/// One event a line, or JSON arrays of events; plain, gzip or zstd, told by the
/// first bytes. An event may stand in a frame, as dumps of relays have it:
/// ["EVENT","…",{…}]. Frames of OpenSea's stream, one a line, go to a topic of the
/// market (--table market). A file may be read again, after a stop or a tear, and goes on
/// where it was: ids that the topic holds are known, and refused lines that
/// <topic>.rejected holds are not written again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ingest file events.jsonl.gz --max-future off
  curl -s https://example.org/events.json | tidegate ingest file -
  nak req -k 1 wss://nos.lol | tidegate ingest file -
  tidegate ingest file frames.jsonl --table market")]
struct FileArgs {
    /// File of events; - is standard input
    path: PathBuf,

    #[command(flatten)]
    table: TableArgs,

    /// On Kafka: end whoever ingests into the topic, or was cut off doing so
    #[arg(long)]
    take_over: bool,

    #[command(flatten)]
    intake: IntakeArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    land: LandArgs,
}

/// What is believed, and which topic it goes to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct IntakeArgs {
    /// Kinds of Nostr events to keep, as 1,7,5000-6999 [default: all]
    #[arg(long, value_name = "KINDS", value_parser = Kinds::parse)]
    kinds: Option<Kinds>,

    /// Reject Nostr events dated further ahead of their receipt than this, or off
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = max_future)]
    max_future: MaxFuture,

    /// Raw topic [default: nostr-event, or OpenSeaRawEvents for the market]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Partitions of the raw topic, if it has to be created
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
}

/// How far ahead an event may be dated; none switches the rule off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxFuture(pub(crate) Option<Span>);

/// A duration, or `off`.
pub(crate) fn max_future(text: &str) -> Result<MaxFuture, String> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(MaxFuture(None));
    }
    Span::parse(text).map(|span| MaxFuture(Some(span))).map_err(|why| format!("{why}, or off"))
}

impl IntakeArgs {
    /// The raw topic of Nostr's events.
    pub(crate) fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or(Table::Events.raw_topic())
    }

    /// The same as settings for whoever takes in more than Nostr's events.
    pub(crate) fn settings_of(&self, table: &TableArgs, log: &LogArgs) -> Result<IntakeSettings, Failure> {
        let topic = table.topic(self.topic.as_deref());
        let table = table.of(&topic)?;
        if table == Table::Market && self.kinds.is_some() {
            return Err(Failure::usage("events of the market have no kinds").hint("leave --kinds out"));
        }
        Ok(IntakeSettings { topic, table: Some(table), ..self.settings(log) })
    }

    /// The same as settings; the index of known ids lies in the data directory, whatever the log.
    pub(crate) fn settings(&self, log: &LogArgs) -> IntakeSettings {
        IntakeSettings {
            ids_dir: Some(log.data_dir.join("ids")),
            dedup_ids_max: DEDUP_IDS_MAX,
            topic: self.topic().to_owned(),
            partitions: self.partitions,
            kinds: self.kinds.clone().unwrap_or_default(),
            max_future: self.max_future.0,
            ..IntakeSettings::default()
        }
    }
}

/// Runs a source and the lander behind it.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    match args.source {
        Source::Nostr(args) => {
            let group = args.group.settings(&args.log)?;
            let intake = IntakeSettings { sightings: args.sightings, ..args.intake.settings(&args.log) };
            let intake = match &group {
                // What others publish is known from the topic, and no index on disk is kept of it.
                Some(_) => IntakeSettings { dedup_ids_max: IntakeSettings::default().dedup_ids_max, ..intake },
                None => intake,
            };
            let now = Clock::system().now_ms();
            let back = args.lookback.and_then(|span| EventTime::from_micros(now * 1_000 - span.micros()));
            let since = args.since.or(back);
            if let (Some(since), Some(until)) = (since, args.until)
                && since >= until
            {
                return Err(Failure::usage(format!("there is nothing between {since} and {until}"))
                    .hint("--until must come after --since"));
            }
            let auth_key = match &args.auth_key_file {
                Some(path) => Some(keys::read(path)?),
                None => keys::from_environment()?,
            };
            let settings = NostrSettings {
                relays: args.relays.relays,
                relay_file: args.relays.relay_file,
                group,
                once: args.once,
                since,
                until: args.until,
                refetch: args.refetch,
                auth_key: auth_key.map(Arc::new),
                user_agent: args.user_agent,
                nip11: !args.no_nip11,
                requests_per_sec_max: args.requests_per_second,
                intake: intake.clone(),
                ..NostrSettings::default()
            };
            let settings = args.bounds.bound(settings, &args.log);
            let components = components(&args.log).await?;
            let source = ::ingest::nostr(settings, components.clone(), shutdown.clone());
            land_behind(source, &intake, &args.land, &args.log, components, shutdown).await
        }
        Source::Opensea(args) => Box::pin(opensea::run(*args, shutdown)).await,
        Source::File(args) => {
            let if_free = args.log.brokers().is_some() && !args.take_over;
            let intake = IntakeSettings { if_free, ..args.intake.settings_of(&args.table, &args.log)? };
            let settings = FileSettings { path: args.path, intake: intake.clone(), ..FileSettings::default() };
            let components = components(&args.log).await?;
            let source = ::ingest::file(settings, components.clone(), shutdown.clone());
            land_behind(source, &intake, &args.land, &args.log, components, shutdown).await
        }
        Source::Relays(args) => crate::relays::follow(*args, shutdown).await,
        Source::Redrive(args) => Box::pin(redrive::run(*args, shutdown)).await,
        Source::Coverage(args) => coverage::run(args).await,
    }
}

/// Log, clock and fresh counters.
pub(crate) async fn components(log: &LogArgs) -> Result<Components, Failure> {
    let clock = Clock::system();
    let log = log.open(&clock).await?;
    Ok(Components { log, clock, counters: Arc::new(Counters::default()) })
}

/// Runs a source, the lander behind it, and says in the end what came of both.
pub(crate) async fn land_behind(
    source: impl Future<Output = ::ingest::Result<()>>,
    intake: &IntakeSettings,
    land: &LandArgs,
    log: &LogArgs,
    components: Components,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    ::ingest::create_topics(components.log.as_ref(), intake).await?;
    let counters = Arc::clone(&components.counters);
    let lander = match land.location(log)? {
        Some(location) => Some(Landers::start(land.settings(intake), &components, &location, shutdown)?),
        None => None,
    };
    let line = {
        let (counters, topic) = (Arc::clone(&counters), intake.topic.clone());
        move || totals(&counters.snapshot(), &topic)
    };
    let ticker = Ticker::start(line.clone());
    let received = source.await.map_err(Failure::from);
    let landed = match lander {
        Some(lander) => lander.drain().await,
        None => Ok(()),
    };
    ticker.stop();
    note(&line());
    // The lander's failure stops the source, so it is the cause.
    landed.and(received)
}

/// One line: received 10,405 · copies 0 · published 10,403 · rejected 2 (future 2) · landed 10,403 rows in 12 objects.
pub(crate) fn totals(counters: &CountersSnapshot, topic: &str) -> String {
    let mut parts = vec![
        format!("received {}", grouped(counters.received)),
        format!("copies {}", grouped(counters.copies)),
        format!("published {}", grouped(counters.published)),
    ];
    if counters.sightings > 0 {
        parts.push(format!("sightings {}", grouped(counters.sightings)));
    }
    if counters.handed_in > 0 {
        parts.insert(2, format!("handed in {}", grouped(counters.handed_in)));
    }
    if counters.filtered > 0 {
        parts.push(format!("filtered {}", grouped(counters.filtered)));
    }
    parts.push(rejected(counters));
    if counters.gaps > 0 {
        let of = if topic == NOSTR_EVENT_TOPIC { String::new() } else { format!(" --topic {topic}") };
        parts.push(format!("gaps {} (see tidegate ingest coverage{of})", grouped(counters.gaps)));
    }
    let counted = |count: u64, one: &str, many: &str| match count {
        1 => one.to_owned(),
        _ => format!("{} {many}", grouped(count)),
    };
    if counters.spilled > 0 {
        parts.push(format!("spilled {}", grouped(counters.spilled)));
    }
    if counters.backfill_pauses > 0 {
        parts.push(format!("stored events not asked for {}", counted(counters.backfill_pauses, "once", "times")));
    }
    if counters.relays_closed > 0 {
        let closed = counted(counters.relays_closed, "1 relay", "relays");
        parts.push(format!("{closed} closed for want of room"));
    }
    parts.push(format!(
        "landed {} rows in {} objects",
        grouped(counters.landed_rows),
        grouped(counters.landed_objects)
    ));
    parts.join(" · ")
}

/// `rejected 12 (id_mismatch 8, bad_signature 4), 6 more repeated`
pub(crate) fn rejected(counters: &CountersSnapshot) -> String {
    let reasons: Vec<String> =
        counters.rejected.iter().map(|(reason, count)| format!("{} {}", reason.as_str(), grouped(*count))).collect();
    let repeated = match counters.rejected_again {
        0 => String::new(),
        count => format!(", {} more repeated", grouped(count)),
    };
    match counters.rejected_total() {
        0 => format!("rejected 0{repeated}"),
        total => format!("rejected {} ({}){repeated}", grouped(total), reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;

    #[test]
    fn the_totals_name_every_reason() {
        let counters = CountersSnapshot {
            received: 10_405,
            copies: 3,
            published: 10_400,
            spilled: 7_000,
            backfill_pauses: 1,
            relays_closed: 2,
            gaps: 3,
            rejected: vec![(Reason::BadSignature, 1), (Reason::Future, 1)],
            landed_rows: 10_400,
            landed_objects: 12,
            ..CountersSnapshot::default()
        };
        assert_eq!(
            totals(&counters, "mine.market"),
            "received 10,405 · copies 3 · published 10,400 · rejected 2 (bad_signature 1, future 1) · \
             gaps 3 (see tidegate ingest coverage --topic mine.market) · \
             spilled 7,000 · stored events not asked for once · 2 relays closed for want of room · \
             landed 10,400 rows in 12 objects"
        );
    }

    #[test]
    fn the_rule_about_the_future_can_be_switched_off() {
        assert!(max_future("off").is_ok_and(|rule| rule.0.is_none()));
        assert!(max_future("PT1H").is_ok_and(|rule| rule.0 == Some(Span::from_secs(3_600))));
        assert!(max_future("never").is_err());
    }
}
