//! The lake as a source of rows: which objects a topic has, which of them a range needs, and their rows.
//!
//! ```text
//! <prefix>/topics/<topic>/year=YYYY/month=MM/day=DD/hour=HH/<topic>-<partition>-<start offset>.parquet | .json.gz
//! ```
//!
//! An object is left out only when its footer proves that it holds no row of the range; hours in names are those of
//! receipt and prove nothing about event time. Writing is the lander's matter.

mod file;
mod list;
mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event::layout::LakeKey;
use object_store::ObjectStore;
use object_store::path::Path;

/// One topic of a lake.
#[derive(Clone, Debug)]
pub struct LakeTable {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    unreadable: Arc<AtomicU64>,
}

/// One object of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeObject {
    /// Full path in the store.
    pub path: Path,
    /// What its name says.
    pub key: LakeKey,
    /// Bytes.
    pub size: u64,
    /// Rows, where a footer says it.
    pub rows: Option<u64>,
    /// Offset at which the next object starts, where a footer says it.
    pub end: Option<i64>,
    /// Least and greatest event time, microseconds since 1970, where a footer says it.
    pub event_time: Option<(i64, i64)>,
}

impl LakeTable {
    /// The topic `topic` of the lake under `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &Path, topic: &str) -> Self {
        let topic_prefix = LakeKey::topic_prefix(topic);
        let folder = topic_prefix.split('/').fold(prefix.clone(), |folder, part| folder.join(part));
        Self::at(store, folder)
    }

    /// The topic whose hours lie right under `folder`.
    #[must_use]
    pub fn at(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self { store, folder, unreadable: Arc::default() }
    }

    /// Where the topic's hours lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lines of JSON objects that hold no event, among what was read so far.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Sorts out the objects that provably hold no row with an event time in `range`; returns those to be read, and
    /// how many were left out.
    #[must_use]
    pub fn prune(mut objects: Vec<LakeObject>, range: &Range<Option<i64>>) -> (Vec<LakeObject>, usize) {
        let before = objects.len();
        objects.retain(|object| {
            let empty = object.rows == Some(0);
            let outside = object.event_time.is_some_and(|(least, greatest)| {
                range.start.is_some_and(|start| greatest < start) || range.end.is_some_and(|end| least >= end)
            });
            !empty && !outside
        });
        let skipped = before - objects.len();
        (objects, skipped)
    }
}
