//! Retention by age: whole hours of receipt leave the lake, raw objects and compacted files alike, under the manifest.
//!
//! The next manifest no longer has them and logs their deletion; the bytes go with the sweep, after the grace. The
//! covered ends stay, so that the lander and a job that reads the lake first go on at the right offset even when
//! nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use event::manifest::{CoveredPartition, CoveredRange, Removal};

use super::catalog::{Catalog, RawObject};
use super::compact::closed_before;
use super::resume::{Landed, landed};
use crate::error::Result;

/// How long the log of deletions goes back, milliseconds: 400 days.
const LOG_MS: i64 = 400 * 24 * 3_600_000;

/// Removes every hour that has been over for `older_than`; returns the entry of the log of deletions, none when there
/// is nothing to remove. With `dry_run` nothing changes.
///
/// # Errors
/// `Unavailable` when the store does not answer; `Data` when the manifest or an object cannot be read; `Config` when
/// the store cannot put conditionally.
pub async fn expire(catalog: &Catalog, older_than: Duration, dry_run: bool) -> Result<Option<Removal>> {
    loop {
        let raw = catalog.raw_without_gaps().await?;
        let mut next = catalog.manifest().await?;
        let (at_ms, before_hour) = (catalog.clock.now_ms(), closed_before(&catalog.clock, older_than)?);
        let mut removal =
            Removal { at_ms, before_hour, files: Vec::new(), raw_objects: 0, rows: 0, bytes: 0, ranges: Vec::new() };
        // Of a partition, what comes after something that stays, stays as well: its offsets have no gap.
        let mut stays: BTreeSet<i32> = BTreeSet::new();
        next.files.retain(|file| {
            let partitions = || file.ranges.iter().map(|range| range.partition);
            let kept = file.hour_max >= before_hour || partitions().any(|partition| stays.contains(&partition));
            if kept {
                stays.extend(partitions());
            } else {
                removal.files.push(file.name.clone());
                removal.rows += file.rows;
                removal.bytes += file.bytes;
                removal.ranges.extend(&file.ranges);
            }
            kept
        });
        for object in &raw {
            let (partition, start) = (object.key.partition, object.key.start);
            if next.covers(partition, start) {
                continue;
            }
            if object.key.hour >= before_hour || stays.contains(&partition) {
                stays.insert(partition);
                continue;
            }
            let said = landed(catalog.store.as_ref(), &object.path).await?;
            note_raw(&mut removal, object, &said);
            next.cover(CoveredPartition { partition, end: said.end, received_max_ms: said.received_max });
        }
        if removal.ranges.is_empty() {
            return Ok(None);
        }
        if dry_run {
            return Ok(Some(removal));
        }
        (next.version, next.written_at_ms) = (next.version + 1, at_ms);
        next.removed.retain(|entry| at_ms - entry.at_ms < LOG_MS);
        next.removed.push(removal.clone());
        if catalog.commit(&next).await? {
            return Ok(Some(removal));
        }
    }
}

fn note_raw(removal: &mut Removal, object: &RawObject, said: &Landed) {
    let range = CoveredRange { partition: object.key.partition, start: object.key.start, end: said.end };
    removal.raw_objects += 1;
    removal.rows += said.rows;
    removal.bytes += object.bytes;
    match removal.ranges.last_mut().filter(|last| last.partition == range.partition && last.end == range.start) {
        Some(last) => last.end = range.end,
        None => removal.ranges.push(range),
    }
}
