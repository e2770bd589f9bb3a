//! `tidegate lake compact`: closed hours into large sorted files, once or again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::ingest::lake::{Catalog, CompactProgress, CompactSettings, Swept, compact, sweep};
use bytesize::ByteSize;
use event::Span;
use tokio_util::sync::CancellationToken;

use super::{GraceArgs, TopicArgs, bytes};
use crate::error::Failure;
use crate::progress::{Ticker, counted, note};

/// Writes the raw objects of closed hours as large sorted files, and deletes raw objects whose rows have been in one
/// for the grace.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate lake compact --lake s3://raw-data
  tidegate lake compact --every 1h --older-than 1h")]
pub(super) struct CompactArgs {
    /// Compact an hour of receipt when it has been over for this long
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = Span::parse)]
    older_than: Span,

    /// Bytes of raw objects that become one file, nearly
    #[arg(long, value_name = "BYTES", default_value = "128MiB", value_parser = bytes)]
    target: u64,

    /// Go on, and compact again at this interval
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    every: Option<Span>,

    /// Keep all rows of an event that was published twice, instead of refusing to compact it
    #[arg(long)]
    allow_duplicates: bool,

    /// Leave lines of JSON objects out that hold no event, instead of refusing to compact them
    #[arg(long)]
    drop_unreadable: bool,

    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten, next_help_heading = "Lake")]
    topic: TopicArgs,
}

impl CompactArgs {
    /// Whether it goes on until told to stop.
    pub(super) const fn repeats(&self) -> bool {
        self.every.is_some()
    }
}

/// Compacts until nothing is left, or until told to stop.
pub(super) async fn run(args: &CompactArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let catalog = args.topic.catalog()?;
    let settings = CompactSettings {
        older_than: args.older_than.duration(),
        target_bytes: args.target,
        allow_duplicates: args.allow_duplicates,
        drop_unreadable: args.drop_unreadable,
        ..CompactSettings::new(std::env::temp_dir())
    };
    loop {
        once(args, &catalog, &settings, shutdown).await?;
        let Some(every) = args.every else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep(every.duration()) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn once(
    args: &CompactArgs,
    catalog: &Catalog,
    settings: &CompactSettings,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let progress = Arc::new(CompactProgress::default());
    let ticker = Ticker::start({
        let progress = Arc::clone(&progress);
        move || {
            let (done, total) = (read(&progress.objects_done), read(&progress.objects_total));
            format!("compacting: {done} of {}", counted(total, "object"))
        }
    });
    let outcome = compact(catalog, settings, Arc::clone(&progress), shutdown).await;
    ticker.stop();
    note(&summary(&progress));
    outcome?;
    if !shutdown.is_cancelled() {
        note_swept(&sweep(catalog, args.grace.grace(), false).await?, "deleted");
    }
    Ok(())
}

fn read(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn summary(progress: &CompactProgress) -> String {
    let (objects, files) = (read(&progress.objects_done), read(&progress.files));
    if files == 0 {
        return "no closed hour is left to be compacted".to_owned();
    }
    let size = |counter| ByteSize(read(counter)).display().iec().to_string();
    let mut text = format!(
        "compacted {} ({}) into {} ({}), {}",
        counted(objects, "object"),
        size(&progress.bytes_in),
        counted(files, "file"),
        size(&progress.bytes_out),
        counted(read(&progress.rows), "row")
    );
    for (counter, what) in [
        (&progress.duplicates, "row of an event that had one"),
        (&progress.unreadable, "line without an event left out"),
    ] {
        if read(counter) > 0 {
            text.push_str(&format!("; {} × {what}", read(counter)));
        }
    }
    text
}

/// Says what a sweep did, if it did anything.
pub(super) fn note_swept(swept: &Swept, verb: &str) {
    if swept.raw_objects + swept.files > 0 {
        note(&format!(
            "{verb} {} and {}, {}",
            counted(swept.raw_objects, "raw object"),
            counted(swept.files, "compacted file"),
            ByteSize(swept.bytes).display().iec()
        ));
    }
}
