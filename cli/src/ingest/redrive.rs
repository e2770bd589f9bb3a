//! `tidegate ingest redrive`: refused input once more, by today's rules.

use std::sync::Arc;

use ::ingest::{IntakeSettings, RedriveCounts, RedriveSettings, redrive};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use event::{EventTime, Reason};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::ingest::{IntakeArgs, components, land_behind};
use crate::lake::LandArgs;
use crate::output::FormatArgs;
use crate::place::{LogArgs, TableArgs};

/// Ids that a dry run keeps in memory.
const DRY_RUN_IDS_MAX: usize = 10_000_000;

/// Publishes what was refused and passes today's rules.
///
/// Reads <topic>.rejected to its present end. What passes now goes to the raw topic
/// with the relay and received time that it came with, phase=backfill, and the
/// header redriven=<reason>; each id once, so that it may be stopped and run again.
/// The rejected topic is left as it is. An event dated ahead is measured by the
/// present, not by its receipt. Prints how many records were refused for what, and
/// what became of them.
///
/// One process ingests into a topic: on Kafka it is refused while another does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ingest redrive --dry-run
  tidegate ingest redrive --reason future --since -7d
  tidegate ingest redrive --reason not_object,too_many_tags --no-lake")]
pub(crate) struct Args {
    /// Only what was refused for these reasons, as future,not_object
    #[arg(long = "reason", value_name = "REASONS", value_delimiter = ',', value_parser = str::parse::<Reason>)]
    reasons: Vec<Reason>,

    /// Only what was received at or after this time, as 2024-07-28T12:00:00Z, unix seconds or -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::job::time)]
    since: Option<EventTime>,

    /// Only what was received before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::job::time)]
    until: Option<EventTime>,

    /// Say what would come of it, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// On Kafka: end whoever ingests into the topic, or was cut off doing so
    #[arg(long)]
    take_over: bool,

    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    intake: IntakeArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
    #[command(flatten, next_help_heading = "Lake")]
    land: LandArgs,
}

/// Redrives, lands what was published, and prints the counts.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let intake = args.intake.settings_of(&args.table, &args.log)?;
    let intake = IntakeSettings {
        if_free: args.log.brokers().is_some() && !args.take_over,
        // A dry run leaves the index to whoever ingests: as many ids are read back as are held whatever comes.
        dedup_ids_max: DRY_RUN_IDS_MAX,
        dedup_replay_max: DRY_RUN_IDS_MAX as u64 / 2,
        ..intake
    };
    let millis = |time: EventTime| time.micros().div_euclid(1_000);
    let settings = RedriveSettings {
        intake: intake.clone(),
        reasons: args.reasons,
        since_ms: args.since.map(millis),
        until_ms: args.until.map(millis),
        dry_run: args.dry_run,
    };
    let components = components(&args.log).await?;
    let mut counts = RedriveCounts::new();
    let source = async {
        counts = redrive(settings, components.clone(), shutdown.clone()).await?;
        Ok(())
    };
    match args.dry_run {
        true => source.await?,
        false => land_behind(source, &intake, &args.land, &args.log, components.clone(), shutdown.clone()).await?,
    }
    let batch = report(&counts, args.dry_run)?;
    let mut rows = args.format.printer(batch.schema())?;
    rows.write(&batch)?;
    Ok(rows.finish()?)
}

fn report(counts: &RedriveCounts, dry_run: bool) -> Result<RecordBatch, Failure> {
    let became = |word: &'static str| if dry_run && word == "published" { "passes" } else { word };
    let was = counts.keys().map(|(was, _)| was.as_str());
    let now = counts.keys().map(|(_, now)| became(now.as_str()));
    let records = counts.values().map(|count| i64::try_from(*count).unwrap_or(i64::MAX));
    let columns: [(&str, ArrayRef); 3] = [
        ("was", Arc::new(StringArray::from_iter_values(was))),
        ("now", Arc::new(StringArray::from_iter_values(now))),
        ("records", Arc::new(Int64Array::from_iter_values(records))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
