//! The manifest of a topic in the lake: which compacted files there are, and how far each partition is accounted for.
//!
//! `ingest` writes manifests, both halves read them; this is what they say, and the names under which they and the
//! files lie. A manifest is one JSON object. The highest version counts; a version is put only where its name is free.
//! Every offset of a partition below its *covered end* is either in one of the files, or was removed by age, or never
//! was landed. Raw objects that start at or after the covered end are the rest of the topic; raw objects that start
//! before it are copies which nobody reads any more, kept for those who began to before the manifest was written.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::EventTime;

/// Version of the form of a manifest; readers refuse a higher one.
pub const MANIFEST_FORMAT: u32 = 1;

/// Footer metadata of a compacted file: offsets covered, as `0:0-100 1:5-20`, both by partition and offset.
pub const FOOTER_RANGES: &str = "tidegate.ranges";

/// What a topic's lake consists of, apart from raw objects that are not covered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of this object, [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Counts up from 1; 0 where there is no manifest yet.
    pub version: u64,
    /// Topic the rows come from.
    pub topic: String,
    /// When this version was written, milliseconds since 1970.
    pub written_at_ms: i64,
    /// How far each partition is accounted for, by partition.
    pub partitions: Vec<CoveredPartition>,
    /// Compacted files, in the order in which they were written: the offsets of each partition ascend.
    pub files: Vec<CompactedFile>,
    /// What was removed by age, oldest first.
    pub removed: Vec<Removal>,
}

/// How far a partition is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredPartition {
    /// Partition.
    pub partition: i32,
    /// Covered end: the offset at which the first raw object that counts starts.
    pub end: i64,
    /// Greatest received time below it, milliseconds since 1970; the hour of the next object is not before it.
    pub received_max_ms: i64,
}

/// One Parquet file with the rows of several raw objects, sorted by event time and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactedFile {
    /// Name below [`curated_prefix`], as [`FileName`] prints it.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the file's bytes, lower-case hex.
    pub sha256: String,
    /// First hour of receipt, hours since 1970 (UTC).
    pub hour_min: i64,
    /// Last hour of receipt, hours since 1970 (UTC).
    pub hour_max: i64,
    /// Least event time, microseconds since 1970; absent when there is no row.
    pub event_time_min: Option<i64>,
    /// Greatest event time, microseconds since 1970; absent when there is no row.
    pub event_time_max: Option<i64>,
    /// Offsets covered, by partition and offset.
    pub ranges: Vec<CoveredRange>,
    /// When the file came into the manifest, milliseconds since 1970.
    pub since_ms: i64,
}

/// Offsets `[start, end)` of a partition. Not every one needs to have a row: markers of transactions take some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredRange {
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub start: i64,
    /// Offset after the last one.
    pub end: i64,
}

/// An entry of the log of deletions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// When it was decided, milliseconds since 1970; the bytes go after the grace.
    pub at_ms: i64,
    /// Everything received before this hour went, hours since 1970 (UTC).
    pub before_hour: i64,
    /// Compacted files, by name.
    pub files: Vec<String>,
    /// Number of raw objects that had not been compacted.
    pub raw_objects: u64,
    /// Rows of files and objects.
    pub rows: u64,
    /// Bytes of files and objects.
    pub bytes: u64,
    /// Offsets covered.
    pub ranges: Vec<CoveredRange>,
}

impl Manifest {
    /// The manifest of a topic that has none.
    #[must_use]
    pub fn empty(topic: &str) -> Self {
        Self {
            format: MANIFEST_FORMAT,
            version: 0,
            topic: topic.to_owned(),
            written_at_ms: 0,
            partitions: Vec::new(),
            files: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong: it is no manifest, or one of a later form.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let form: Form = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if form.format > MANIFEST_FORMAT {
            return Err(format!("its form is {}, and only forms up to {MANIFEST_FORMAT} are known here", form.format));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// As it is stored: JSON with a line feed at the end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("numbers and texts are JSON");
        json.push(b'\n');
        json
    }

    /// Covered end of `partition`; none where nothing of it is covered.
    #[must_use]
    pub fn covered(&self, partition: i32) -> Option<CoveredPartition> {
        self.partitions.iter().find(|covered| covered.partition == partition).copied()
    }

    /// Whether a raw object that starts at `start` is a copy which nobody reads any more.
    #[must_use]
    pub fn covers(&self, partition: i32, start: i64) -> bool {
        self.covered(partition).is_some_and(|covered| start < covered.end)
    }

    /// Since when the offset has been covered, milliseconds since 1970; none where neither a file nor the log of
    /// deletions has it.
    #[must_use]
    pub fn covered_since(&self, partition: i32, offset: i64) -> Option<i64> {
        let has = |ranges: &[CoveredRange]| {
            ranges.iter().any(|range| range.partition == partition && (range.start..range.end).contains(&offset))
        };
        let file = self.files.iter().find(|file| has(&file.ranges)).map(|file| file.since_ms);
        // What was removed was covered before that; the copies of it may go no sooner than its files.
        file.or_else(|| self.removed.iter().find(|removal| has(&removal.ranges)).map(|removal| removal.at_ms))
    }

    /// Moves the covered end of a partition on.
    pub fn cover(&mut self, covered: CoveredPartition) {
        match self.partitions.iter_mut().find(|other| other.partition == covered.partition) {
            Some(other) => {
                other.end = other.end.max(covered.end);
                other.received_max_ms = other.received_max_ms.max(covered.received_max_ms);
            }
            None => {
                self.partitions.push(covered);
                self.partitions.sort_unstable_by_key(|covered| covered.partition);
            }
        }
    }
}

/// Prefix of a topic's compacted files and manifests, without a trailing slash.
#[must_use]
pub fn curated_prefix(topic: &str) -> String {
    format!("curated/{topic}/v1")
}

/// Prefix of a topic's manifests, without a trailing slash. Readers of folders pass over names that start with `_`.
#[must_use]
pub fn manifest_prefix(topic: &str) -> String {
    format!("{}/_manifest", curated_prefix(topic))
}

/// Name of a manifest below [`manifest_prefix`].
#[must_use]
pub fn manifest_name(version: u64) -> String {
    format!("{version:020}.json")
}

/// The version that a manifest's file name says; none when it is no such name.
#[must_use]
pub fn manifest_version(name: &str) -> Option<u64> {
    name.strip_suffix(".json").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// Name of a compacted file below [`curated_prefix`]: `rx_day=YYYY-MM-DD/part-<version>-<hash>.parquet`.
///
/// The version is that of the manifest for which the file was written: a file whose version is taken and whose name
/// that manifest does not have will never be in one. The hash is that of the bytes, so that a taken name means that
/// the same bytes lie there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// First hour of receipt, hours since 1970 (UTC); it says the day.
    pub hour_min: i64,
    /// Version of the manifest that the file was written for.
    pub version: u64,
    /// The first 16 hex digits of the SHA-256 of the bytes.
    pub hash: String,
}

impl FileName {
    /// The version in the file name at the end of `path`; none when it is not one of a compacted file.
    #[must_use]
    pub fn version_of(path: &str) -> Option<u64> {
        let file = path.rsplit('/').next()?;
        let (version, hash) = file.strip_prefix("part-")?.strip_suffix(".parquet")?.split_once('-')?;
        let plain = version.len() == 20 && hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if plain { version.parse().ok() } else { None }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, _) = EventTime::from_hours(self.hour_min).calendar_hour();
        write!(f, "rx_day={year:04}-{month:02}-{day:02}/part-{:020}-{}.parquet", self.version, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let range = |partition, start, end| CoveredRange { partition, start, end };
        let mut manifest = Manifest::empty("t");
        manifest.version = 3;
        manifest.files.push(CompactedFile {
            name: FileName { hour_min: 483_000, version: 3, hash: "0123456789abcdef".into() }.to_string(),
            bytes: 10,
            rows: 4,
            sha256: "ab".repeat(32),
            hour_min: 483_000,
            hour_max: 483_001,
            event_time_min: Some(-1),
            event_time_max: None,
            ranges: vec![range(0, 5, 9), range(1, 0, 3)],
            since_ms: 70,
        });
        manifest.removed.push(Removal {
            at_ms: 90,
            before_hour: 482_000,
            files: vec!["x".into()],
            raw_objects: 1,
            rows: 2,
            bytes: 3,
            ranges: vec![range(0, 0, 5)],
        });
        manifest.cover(CoveredPartition { partition: 1, end: 3, received_max_ms: 7 });
        manifest.cover(CoveredPartition { partition: 0, end: 9, received_max_ms: 8 });
        manifest
    }

    #[test]
    fn a_manifest_reads_back_what_it_prints() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(&manifest.to_json()), Ok(manifest));
        let later = br#"{"format":2,"all":"else"}"#;
        assert!(Manifest::parse(later).is_err_and(|why| why.contains("form is 2")));
        assert!(Manifest::parse(b"[]").is_err());
    }

    #[test]
    fn the_covered_end_parts_copies_from_what_counts() {
        let mut manifest = manifest();
        assert_eq!(manifest.partitions.iter().map(|one| one.partition).collect::<Vec<_>>(), [0, 1]);
        assert!(manifest.covers(0, 8) && !manifest.covers(0, 9) && !manifest.covers(2, 0));
        let since = |offset| manifest.covered_since(0, offset);
        assert_eq!([since(4), since(5), since(9)], [Some(90), Some(70), None]);
        // It never goes back.
        manifest.cover(CoveredPartition { partition: 0, end: 2, received_max_ms: 100 });
        assert_eq!(manifest.covered(0), Some(CoveredPartition { partition: 0, end: 9, received_max_ms: 100 }));
    }

    #[test]
    fn names_say_day_version_and_hash() {
        let name = FileName { hour_min: 483_001, version: 12, hash: "0123456789abcdef".into() }.to_string();
        assert_eq!(name, "rx_day=2025-02-06/part-00000000000000000012-0123456789abcdef.parquet");
        assert_eq!(FileName::version_of(&format!("lake/curated/t/v1/{name}")), Some(12));
        for strange in ["part-12-0123456789abcdef.parquet", "t-0-00000000000000000000.parquet", ""] {
            assert_eq!(FileName::version_of(strange), None, "{strange}");
        }
        assert_eq!(manifest_version(&manifest_name(7)), Some(7));
        assert_eq!(manifest_version("7.json"), None);
    }
}
