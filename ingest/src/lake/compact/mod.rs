//! Compaction: the raw objects of closed hours into few large sorted files, under a manifest.
//!
//! ```text
//! raw objects ──build──▶ a file, put where its name is free ──▶ the next manifest, put where its version is free
//!                                                                     └── after the grace: raw objects deleted (sweep)
//! ```
//!
//! The put of the manifest is the one step that changes what a reader sees: before it the raw objects count, after it
//! the file does. A crash before it leaves a file that no manifest has, and the sweep knows it by its version. An
//! hour need not be complete for a reader of the manifest: what lands late starts at or after the covered end, counts
//! as a raw object, and is compacted later.
//!
//! Read in this order: `input` (what a raw object holds), `sort`, `build` (a pure function). Left to others: landing,
//! what goes by age (`expire`), deleting (`sweep`).

mod build;
mod input;
mod sort;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event::manifest::{CompactedFile, CoveredPartition, FileName, Manifest};
use event::{Clock, EventTime};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::catalog::{Catalog, RawObject};
use super::sweep::sweep_leftovers;
use crate::error::{Error, ErrorKind, Result};
use build::{Built, Rules, build};
use input::Input;

/// Inputs fetched at once.
const READS_AT_ONCE: usize = 8;
/// Hours of a day.
const DAY: i64 = 24;

/// What is compacted, and how large files get.
#[derive(Clone, Debug)]
pub struct CompactSettings {
    /// How long an hour has been over when it is compacted; 15 minutes by default.
    pub older_than: Duration,
    /// Bytes of raw objects that become one file, nearly; 128 MiB by default. All of them are held in memory.
    pub target_bytes: u64,
    /// Keep all rows of an event that was published twice, instead of refusing to compact.
    pub allow_duplicates: bool,
    /// Leave lines of JSON objects out that hold no event, instead of refusing to compact.
    pub drop_unreadable: bool,
    /// Directory for files in which rows are sorted.
    pub scratch: PathBuf,
}

impl CompactSettings {
    /// The defaults, with the given directory for files in which rows are sorted.
    #[must_use]
    pub fn new(scratch: PathBuf) -> Self {
        Self {
            older_than: Duration::from_secs(15 * 60),
            target_bytes: 128 * 1024 * 1024,
            allow_duplicates: false,
            drop_unreadable: false,
            scratch,
        }
    }
}

/// How far a compaction has come; read it from another task.
#[derive(Debug, Default)]
pub struct CompactProgress {
    /// Raw objects to be compacted.
    pub objects_total: AtomicU64,
    /// Raw objects that are in a manifest now.
    pub objects_done: AtomicU64,
    /// Their bytes.
    pub bytes_in: AtomicU64,
    /// Files written.
    pub files: AtomicU64,
    /// Their bytes.
    pub bytes_out: AtomicU64,
    /// Rows in them.
    pub rows: AtomicU64,
    /// Rows of events that had a row already.
    pub duplicates: AtomicU64,
    /// Lines without an event that were left out.
    pub unreadable: AtomicU64,
}

/// Compacts what is closed, file by file; ends when nothing is left or `stop` fires.
///
/// # Errors
/// `Data` when an object is not what its lander wrote, or an event is there twice, or a line is no event, as far as the
/// settings do not allow it; `Config` when the store cannot put conditionally; `Unavailable` when it does not answer.
/// What was compacted before stays.
pub async fn compact(
    catalog: &Catalog,
    settings: &CompactSettings,
    progress: Arc<CompactProgress>,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        // The raw objects first: what they lack by the time the manifest is read is in the manifest.
        let raw = catalog.raw_without_gaps().await?;
        let mut manifest = catalog.manifest().await?;
        sweep_leftovers(catalog, &manifest).await?;
        let groups = plan(&manifest, raw, closed_before(&catalog.clock, settings.older_than)?, settings.target_bytes);
        let left: usize = groups.iter().map(Vec::len).sum();
        progress.objects_total.store(progress.objects_done.load(Ordering::Relaxed) + left as u64, Ordering::Relaxed);
        let mut won = true;
        for group in groups {
            if stop.is_cancelled() {
                return Ok(());
            }
            let objects = group.len() as u64;
            won = compact_group(catalog, settings, &mut manifest, group, &progress).await?;
            if !won {
                break;
            }
            progress.objects_done.fetch_add(objects, Ordering::Relaxed);
        }
        if won {
            return Ok(());
        }
        tracing::info!(topic = catalog.topic, "another process changed the manifest; looking at the lake anew");
    }
}

/// The first hour that is not closed.
pub(super) fn closed_before(clock: &Clock, older_than: Duration) -> Result<i64> {
    let older_than = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
    let now = EventTime::from_millis(clock.now_ms().saturating_sub(older_than));
    now.map(EventTime::hours).ok_or_else(|| {
        Error::new(ErrorKind::Config, "the age lies before the beginning of the calendar; name a smaller one")
    })
}

/// A raw object with the hour that counts for it: names of foreign writers may go back, a partition's hours do not.
type Dated = (i64, RawObject);

/// The raw objects that no file covers yet and whose hour is closed, by hour, partition and start; no file spans a day
/// of receipt. A group holds of each partition what follows the group before.
fn plan(manifest: &Manifest, raw: Vec<RawObject>, closed_before: i64, target_bytes: u64) -> Vec<Vec<Dated>> {
    let mut latest: HashMap<i32, i64> = HashMap::new();
    let mut dated: Vec<Dated> = Vec::new();
    for object in raw {
        if manifest.covers(object.key.partition, object.key.start) {
            continue;
        }
        let hour = latest.entry(object.key.partition).or_insert(object.key.hour);
        *hour = object.key.hour.max(*hour);
        if *hour < closed_before {
            dated.push((*hour, object));
        }
    }
    dated.sort_by_key(|(hour, object)| (*hour, object.key.partition, object.key.start));
    let mut groups: Vec<Vec<Dated>> = Vec::new();
    let mut bytes = 0;
    for (hour, object) in dated {
        let goes_on =
            |group: &Vec<Dated>| group.first().is_some_and(|(first, _)| first.div_euclid(DAY) == hour.div_euclid(DAY));
        match groups.last_mut().filter(|group| goes_on(group) && bytes + object.bytes <= target_bytes) {
            Some(group) => {
                bytes += object.bytes;
                group.push((hour, object));
            }
            None => {
                bytes = object.bytes;
                groups.push(vec![(hour, object)]);
            }
        }
    }
    groups
}

/// Makes a file of a group and puts it under the next manifest; `false` when somebody else's manifest was first.
async fn compact_group(
    catalog: &Catalog,
    settings: &CompactSettings,
    manifest: &mut Manifest,
    group: Vec<Dated>,
    progress: &CompactProgress,
) -> Result<bool> {
    let (hour_min, hour_max) =
        group.iter().fold((i64::MAX, i64::MIN), |(a, b), (hour, _)| (a.min(*hour), b.max(*hour)));
    let bytes_in = group.iter().map(|(_, object)| object.bytes).sum();
    let built = build_group(catalog, settings, manifest, group).await?;
    let version = manifest.version + 1;
    let name = FileName { hour_min, version, hash: built.sha256[..16].to_owned() }.to_string();
    // A name that is taken means that the same bytes lie there, of a try before.
    catalog.put(&catalog.file(&name), built.bytes.clone()).await?;
    let since_ms = catalog.clock.now_ms();
    let mut next = Manifest { version, written_at_ms: since_ms, ..manifest.clone() };
    next.files.push(CompactedFile {
        name,
        bytes: built.bytes.len() as u64,
        rows: built.rows,
        sha256: built.sha256,
        hour_min,
        hour_max,
        event_time_min: built.event_time.map(|(least, _)| least),
        event_time_max: built.event_time.map(|(_, most)| most),
        ranges: built.ranges,
        since_ms,
    });
    built.ends.into_iter().for_each(|end| next.cover(end));
    if !catalog.commit(&next).await? {
        return Ok(false);
    }
    *manifest = next;
    let add = |counter: &AtomicU64, number: u64| counter.fetch_add(number, Ordering::Relaxed);
    add(&progress.bytes_in, bytes_in);
    add(&progress.files, 1);
    add(&progress.bytes_out, built.bytes.len() as u64);
    add(&progress.rows, built.rows);
    add(&progress.duplicates, built.duplicates);
    add(&progress.unreadable, built.unreadable);
    Ok(true)
}

async fn build_group(
    catalog: &Catalog,
    settings: &CompactSettings,
    manifest: &Manifest,
    group: Vec<Dated>,
) -> Result<Built> {
    let read = futures::stream::iter(group).map(|(_, RawObject { key, path, .. })| async move {
        let bytes = catalog.read(&path).await?;
        Ok::<_, Error>(Input { key, path, bytes })
    });
    let mut inputs: Vec<Input> = read.buffered(READS_AT_ONCE).try_collect().await?;
    inputs.sort_by_key(|input| (input.key.partition, input.key.start));
    let (topic, table, scratch) = (catalog.topic.clone(), catalog.table, settings.scratch.clone());
    let rules = Rules { allow_duplicates: settings.allow_duplicates, drop_unreadable: settings.drop_unreadable };
    let partitions: Vec<i32> = inputs.iter().map(|input| input.key.partition).collect();
    let mut covered: Vec<CoveredPartition> = manifest.partitions.clone();
    covered.retain(|covered| partitions.contains(&covered.partition));
    let built = tokio::task::spawn_blocking(move || build((&topic, table), &inputs, &covered, rules, &scratch)).await;
    built.map_err(|error| Error::new(ErrorKind::Internal, "a compaction ended early").with_source(error))?
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "could not build a compacted file").with_source(error)
}
