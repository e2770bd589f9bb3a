//! `tidegate lake verify`: is what lies in the lake what was in the topic?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use event::Clock;
use processor::lake::{Finding, VerifyProgress, VerifySettings, verify};
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::output::FormatArgs;
use crate::place::{LakeArgs, LogArgs};
use crate::progress::{Ticker, counted, note};

/// Proves that the lake is whole: offsets without overlap or hole, contents as hashed, rows as in the topic.
///
/// Prints what is not as it should be, one row each, and ends with exit code 4 when there is any. Without options only
/// listing, manifest and footers are looked at. Of the topic, committed records are read, as far as it still goes back
/// and the lake goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate lake verify
  tidegate lake verify --content --lake s3://raw-data
  tidegate lake verify --against-topic --kafka-brokers localhost:9092 --lake s3://raw-data")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    topic: super::NamedTopic,

    /// Read every row, and compare counts and hashes with footers and manifest
    #[arg(long)]
    content: bool,

    /// Read topic and lake, and compare every record with its row
    #[arg(long)]
    against_topic: bool,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Lake")]
    lake: LakeArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// Verifies, prints what was found.
pub(super) async fn run(args: &VerifyArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let (lake, topic) = {
        let topic = args.topic.read()?;
        (super::table(&args.lake, &args.log, &topic)?, topic.0)
    };
    let topic = match args.against_topic {
        true => Some((args.log.open(&Clock::system()).await?, topic)),
        false => None,
    };
    let settings = VerifySettings { content: args.content, topic };
    let progress = Arc::new(VerifyProgress::default());
    let ticker = Ticker::start({
        let progress = Arc::clone(&progress);
        move || format!("verifying: {}", summary(&progress))
    });
    let mut rows = args.format.printer(batch(&[])?.schema())?;
    let mut print = |finding: Finding| {
        let batch = batch(&[finding]).map_err(processor::Error::from)?;
        rows.write(&batch).map_err(|error| {
            processor::Error::new(processor::ErrorKind::Unavailable, "could not print what was found")
                .with_source(error)
        })
    };
    let outcome = tokio::select! {
        outcome = verify(&lake, &settings, &progress, &mut print) => outcome,
        () = shutdown.cancelled() => return Err(Failure::interrupted()),
    };
    ticker.stop();
    rows.finish()?;
    outcome?;
    note(&summary(&progress));
    match count(&progress.findings) {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Data, "one thing in the lake is not as it should be")),
        found => Err(Failure::new(Code::Data, format!("{found} things in the lake are not as they should be"))),
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn summary(progress: &VerifyProgress) -> String {
    let done = count(&progress.objects_done);
    let mut parts = vec![format!("{done} of {}", counted(count(&progress.objects_total), "object"))];
    let (rows, records, unreadable) = (count(&progress.rows), count(&progress.records), count(&progress.unreadable));
    if rows > 0 {
        parts.push(counted(rows, "row"));
    }
    if records > 0 {
        parts.push(format!("{} compared", counted(records, "record")));
    }
    if unreadable > 0 {
        parts.push(format!("{unreadable} of them without an event"));
    }
    parts.push(match count(&progress.findings) {
        0 => "nothing found".to_owned(),
        findings => counted(findings, "finding"),
    });
    parts.join(", ")
}

fn batch(findings: &[Finding]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: [(&str, ArrayRef); 5] = [
        ("finding", Arc::new(StringArray::from_iter_values(findings.iter().map(|finding| finding.what)))),
        ("partition", Arc::new(findings.iter().map(|finding| finding.partition).collect::<Int32Array>())),
        ("offset", Arc::new(findings.iter().map(|finding| finding.offset).collect::<Int64Array>())),
        ("object", Arc::new(findings.iter().map(|finding| finding.object.as_deref()).collect::<StringArray>())),
        ("detail", Arc::new(StringArray::from_iter_values(findings.iter().map(|finding| &finding.detail)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
