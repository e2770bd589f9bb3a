//! Deletes what no reader needs any more: raw objects whose rows are in a file, files that were removed by age, both
//! after a grace; files that no manifest has or will have; manifests of long ago.
//!
//! A reader works with the listing and the manifest that it began with. The grace is for it, and has to be longer than
//! the longest query and the longest hand-over. What a newer manifest may still want is never touched, whatever the
//! clock says: files are known by the version they were written for.

use std::collections::HashMap;
use std::time::Duration;

use event::manifest::{FileName, Manifest, curated_prefix};

use super::catalog::Catalog;
use crate::error::Result;

/// Manifests that stay: a reader that listed one a while ago finds it, and a stopped job the one it worked with.
const MANIFESTS_KEPT: usize = 64;

/// What a sweep deleted, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Raw objects whose rows are in a file, or were removed by age.
    pub raw_objects: u64,
    /// Compacted files that were removed by age, or never came into a manifest.
    pub files: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Manifests of long ago.
    pub manifests: u64,
}

/// Deletes what nobody needs since `grace`; with `dry_run` it only counts.
///
/// # Errors
/// `Unavailable` when the store does not answer, `Data` when the manifest cannot be read.
pub async fn sweep(catalog: &Catalog, grace: Duration, dry_run: bool) -> Result<Swept> {
    let manifest = catalog.manifest().await?;
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let over = |since_ms: i64| catalog.clock.now_ms().saturating_sub(since_ms) >= grace_ms;
    let mut swept = Swept::default();
    for object in catalog.raw().await? {
        let (partition, start) = (object.key.partition, object.key.start);
        let kept = manifest.covered_since(partition, start).is_some_and(|since| !over(since));
        if manifest.covers(partition, start) && !kept {
            (swept.raw_objects, swept.bytes) = (swept.raw_objects + 1, swept.bytes + object.bytes);
            if !dry_run {
                catalog.delete(&object.path).await?;
            }
        }
    }
    sweep_files(catalog, &manifest, over, dry_run, &mut swept).await?;
    let versions = catalog.versions().await?;
    for (_, path) in versions.iter().rev().skip(MANIFESTS_KEPT) {
        swept.manifests += 1;
        if !dry_run {
            catalog.delete(path).await?;
        }
    }
    Ok(swept)
}

/// Deletes files that never came into a manifest, so that who reads the files by their folder sees no row twice.
pub(super) async fn sweep_leftovers(catalog: &Catalog, manifest: &Manifest) -> Result<()> {
    sweep_files(catalog, manifest, |_| false, false, &mut Swept::default()).await
}

async fn sweep_files(
    catalog: &Catalog,
    manifest: &Manifest,
    over: impl Fn(i64) -> bool,
    dry_run: bool,
    swept: &mut Swept,
) -> Result<()> {
    let removed = manifest.removed.iter().flat_map(|removal| removal.files.iter().map(|name| (name, removal.at_ms)));
    let removed: HashMap<_, i64> = removed.map(|(name, at)| (catalog.file(name), at)).collect();
    let wanted: Vec<_> = manifest.files.iter().map(|file| catalog.file(&file.name)).collect();
    for meta in catalog.list(&curated_prefix(&catalog.topic)).await? {
        let Some(version) = FileName::version_of(meta.location.as_ref()) else { continue };
        // A manifest has the files of the one before it, and those that were written for its own version.
        let lost = version <= manifest.version && !wanted.contains(&meta.location);
        if lost && removed.get(&meta.location).is_none_or(|at| over(*at)) {
            (swept.files, swept.bytes) = (swept.files + 1, swept.bytes + meta.size);
            if !dry_run {
                catalog.delete(&meta.location).await?;
            }
        }
    }
    Ok(())
}
