//! `tidegate lake expire`: whole hours leave the lake by age.

use ::ingest::lake::{expire, sweep};
use bytesize::ByteSize;
use event::Span;
use event::manifest::Removal;

use super::compact::note_swept;
use super::{GraceArgs, TopicArgs, hour_text};
use crate::error::Failure;
use crate::progress::{counted, note};

/// Removes whole hours of receipt by age, raw objects and compacted files alike.
///
/// Readers no longer see them at once; the bytes are deleted after the grace, by the next expire or compact. `lake ls
/// --removed` lists what went.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate lake expire --older-than 30d --dry-run
  tidegate lake expire --older-than 30d --lake s3://raw-data")]
pub(super) struct ExpireArgs {
    /// Remove an hour of receipt when it has been over for this long
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    older_than: Span,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten, next_help_heading = "Lake")]
    topic: TopicArgs,
}

/// Removes, then deletes what was removed long enough ago.
pub(super) async fn run(args: &ExpireArgs) -> Result<(), Failure> {
    let catalog = args.topic.catalog()?;
    let removal = expire(&catalog, args.older_than.duration(), args.dry_run).await?;
    note(&removal.map_or_else(|| "nothing is that old".to_owned(), |removal| summary(&removal, args.dry_run)));
    let swept = sweep(&catalog, args.grace.grace(), args.dry_run).await?;
    note_swept(&swept, if args.dry_run { "would delete" } else { "deleted" });
    Ok(())
}

fn summary(removal: &Removal, dry_run: bool) -> String {
    format!(
        "{} what was received before {}: {} in {} and {}, {}",
        if dry_run { "would remove" } else { "removed" },
        hour_text(removal.before_hour),
        counted(removal.rows, "row"),
        counted(removal.files.len() as u64, "compacted file"),
        counted(removal.raw_objects, "raw object"),
        ByteSize(removal.bytes).display().iec()
    )
}
