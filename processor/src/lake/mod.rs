//! The lake as a source of rows: which objects a topic has, which of them a range needs, and their rows.
//!
//! ```text
//! <prefix>/topics/<topic>/year=YYYY/month=MM/day=DD/hour=HH/<topic>-<partition>-<start offset>.parquet | .json.gz
//! <prefix>/curated/<topic>/v1/_manifest/<version>.json
//! <prefix>/curated/<topic>/v1/rx_day=YYYY-MM-DD/part-….parquet
//! ```
//!
//! A topic's objects are the compacted files of the manifest with the highest version, and the raw objects that start
//! at or after its covered ends. An object is left out only when its footer or the manifest proves that it holds no row
//! of the range; hours in names are those of receipt and prove nothing about event time. Writing is left to others.

mod file;
mod list;
mod read;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event::Table;
use event::layout::{LakeFormat, LakeKey};
use event::manifest::{CoveredPartition, curated_prefix};
use object_store::ObjectStore;
use object_store::path::Path;

pub use verify::{Finding, VerifyProgress, VerifySettings, verify};

/// One topic of a lake.
#[derive(Clone, Debug)]
pub struct LakeTable {
    store: Arc<dyn ObjectStore>,
    /// What its rows are.
    table: Table,
    /// Where the hours of raw objects lie.
    folder: Path,
    /// Where compacted files and manifests lie; none beside a folder that was copied.
    curated: Option<Path>,
    needed: Needed,
    unreadable: Arc<AtomicU64>,
}

/// Rows that are asked for. Row groups that provably hold none of them are passed over; other rows may come as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Event times, `[start, end)` in microseconds since 1970.
    pub event_time: Range<Option<i64>>,
    /// Only the event with this id.
    pub id: Option<[u8; 32]>,
    /// Only events of this author.
    pub pubkey: Option<[u8; 32]>,
}

/// One object of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeObject {
    /// Full path in the store.
    pub path: Path,
    /// Topic, as its name says it.
    pub topic: String,
    /// Form of the rows.
    pub format: LakeFormat,
    /// Whether it is a compacted file; else it is as the lander wrote it.
    pub compacted: bool,
    /// First and last hour of receipt, hours since 1970 (UTC).
    pub hours: (i64, i64),
    /// Offsets it covers, by partition and offset; a raw object has one range.
    pub ranges: Vec<LakeRange>,
    /// Bytes.
    pub size: u64,
    /// Rows, where a footer says it.
    pub rows: Option<u64>,
    /// Least and greatest event time, microseconds since 1970, where a footer says it.
    pub event_time: Option<(i64, i64)>,
    /// SHA-256, lower-case hex: of a compacted file its bytes; of a raw object, where its footer says it, its raw values
    /// in offset order, each followed by a line feed.
    pub sha256: Option<String>,
}

/// Offsets of a partition that an object covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LakeRange {
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub start: i64,
    /// Offset at which the next object starts, where a footer says it.
    pub end: Option<i64>,
}

/// What a topic consists of at one moment.
#[derive(Clone, Debug)]
pub struct LakeSnapshot {
    /// By least event time, those without a known one first.
    pub objects: Vec<LakeObject>,
    /// Version of the manifest, 0 where there is none.
    pub version: u64,
    /// How far the manifest accounts for each partition, by partition.
    pub covered: Vec<CoveredPartition>,
}

impl LakeSnapshot {
    /// The ranges of every partition with the number of the object that covers them, by offset.
    #[must_use]
    pub fn by_partition(&self) -> BTreeMap<i32, Vec<(LakeRange, usize)>> {
        let mut by_partition: BTreeMap<i32, Vec<(LakeRange, usize)>> = BTreeMap::new();
        for (number, object) in self.objects.iter().enumerate() {
            for range in &object.ranges {
                by_partition.entry(range.partition).or_default().push((*range, number));
            }
        }
        for ranges in by_partition.values_mut() {
            ranges.sort_by_key(|(range, _)| range.start);
        }
        by_partition
    }
}

impl LakeTable {
    /// The topic `topic` of the lake under `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &Path, topic: &str) -> Self {
        Self::at(store, below(prefix, &LakeKey::topic_prefix(topic)))
    }

    /// The topic whose hours lie right under `folder`; the folder's name says which table its rows are of. Only in a
    /// lake, below `topics`, does it have compacted files.
    #[must_use]
    pub fn at(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        let parts: Vec<_> = folder.parts().collect();
        let curated = match parts.as_slice() {
            [lake @ .., topics, topic] if topics.as_ref() == "topics" => {
                Some(below(&lake.iter().cloned().collect(), &curated_prefix(topic.as_ref())))
            }
            _ => None,
        };
        let table = Table::of_topic(folder.filename().unwrap_or_default());
        Self { store, table, folder, curated, needed: Needed::default(), unreadable: Arc::default() }
    }

    /// The same, whose rows are of `table`, whatever the folder's name says.
    #[must_use]
    pub fn holding(mut self, table: Table) -> Self {
        self.table = table;
        self
    }

    /// What its rows are.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The same, to be read for these rows only.
    #[must_use]
    pub fn needing(mut self, needed: Needed) -> Self {
        self.needed = needed;
        self
    }

    /// Where the topic's hours lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lines of JSON objects that are no row of the table, among what was read so far.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Counts lines that were found elsewhere to be no row of the table.
    pub(crate) fn note_unreadable(&self, lines: u64) {
        self.unreadable.fetch_add(lines, Ordering::Relaxed);
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

/// A path below another, part by part: one such as `year=2025` must not be encoded anew.
fn below(prefix: &Path, name: &str) -> Path {
    name.split('/').fold(prefix.clone(), |path, part| path.join(part))
}
