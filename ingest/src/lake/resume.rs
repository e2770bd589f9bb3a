//! Where landing goes on: after the newest object of every partition, or after what the manifest covers.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};

use event::layout::{LakeFormat, LakeKey, footer};
use event::manifest::CoveredPartition;
use flate2::bufread::MultiGzDecoder;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use topic::{Log, OffsetRange};

use super::catalog::Catalog;
use super::object::OpenObject;
use crate::error::{Error, ErrorKind, Result};

pub(super) const MILLIS_PER_HOUR: i64 = 3_600_000;
/// Bytes read at the end of an object in the hope that the whole footer is among them.
const FOOTER_HINT: u64 = 64 * 1024;

/// What an object in the lake says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landed {
    /// Offset at which the next object starts.
    pub(super) end: i64,
    /// Greatest received time of the partition so far, milliseconds.
    pub(super) received_max: i64,
    /// Rows; of JSON lines, also those that hold no event.
    pub(super) rows: u64,
    /// Hash of the raw values; none where the form does not keep it.
    pub(super) sha256: Option<String>,
}

/// One partition on its way into the lake.
pub(super) struct Shelf {
    pub(super) partition: i32,
    /// Offset at which the next object starts.
    pub(super) start: i64,
    /// Greatest received time so far, milliseconds.
    pub(super) received_max: i64,
    pub(super) open: Option<OpenObject>,
    /// The reader has to be set to `start` before further records are taken.
    pub(super) stale: bool,
    /// A record without an event was told of.
    pub(super) warned: bool,
    /// When it was known that the lake ends at `start`, milliseconds since 1970.
    pub(super) known_at_ms: i64,
}

/// The partitions of `ranges`, set to where the lake ends.
pub(super) async fn shelves(catalog: &Catalog, log: &dyn Log, ranges: &[OffsetRange]) -> Result<Vec<Shelf>> {
    let known_at_ms = catalog.clock.now_ms();
    let ends = ends(catalog, &ranges.iter().map(|range| range.partition).collect()).await?;
    // Asked again: what came to the topic since may have been landed by another lander.
    let topic = &catalog.topic;
    let now = log.ranges(topic).await;
    let now = now.map_err(|error| Error::of_log(format!("could not land topic `{topic}`"), error))?;
    let mut shelves = Vec::with_capacity(ranges.len());
    for range in now.iter().filter(|now| ranges.iter().any(|range| range.partition == now.partition)) {
        let landed = ends.get(&range.partition);
        let (start, received_max) = landed.map_or((range.start, i64::MIN), |landed| (landed.end, landed.received_max));
        check_fit(topic, *range, start)?;
        shelves.push(Shelf {
            partition: range.partition,
            start,
            received_max,
            open: None,
            stale: false,
            warned: false,
            known_at_ms,
        });
    }
    Ok(shelves)
}

/// Where the lake ends, for those of the partitions of which it has, or once had, anything.
pub(super) async fn ends(catalog: &Catalog, wanted: &HashSet<i32>) -> Result<HashMap<i32, Landed>> {
    let newest = newest(catalog.store.as_ref(), &catalog.prefix, &catalog.topic, wanted).await?;
    // Read after the objects were listed: one that was compacted and deleted since is in it.
    let manifest = catalog.manifest().await?;
    let mut ends = HashMap::new();
    for partition in wanted {
        let covered = manifest.covered(*partition);
        let newest = newest.get(partition).filter(|(start, _)| !manifest.covers(*partition, *start));
        let end = match (newest, covered) {
            (Some((_, path)), _) => {
                let landed = landed(catalog.store.as_ref(), path).await?;
                tracing::info!(object = %path, end = landed.end, "landing goes on after this object");
                landed
            }
            (None, Some(CoveredPartition { end, received_max_ms, .. })) => {
                tracing::info!(partition, end, "landing goes on after what the lake's manifest covers");
                Landed { end, received_max: received_max_ms, rows: 0, sha256: None }
            }
            (None, None) => continue,
        };
        ends.insert(*partition, end);
    }
    Ok(ends)
}

fn check_fit(topic: &str, range: OffsetRange, lake_end: i64) -> Result<()> {
    let OffsetRange { partition, start, end } = range;
    if lake_end < start {
        return Err(Error::new(
            ErrorKind::Data,
            format!(
                "topic `{topic}` partition {partition} starts at offset {start}, but the lake ends at {lake_end}: its \
             retention deleted records before they were landed; give the topic a longer retention, and land into another \
             lake to go on without them"
            ),
        ));
    }
    if lake_end > end {
        return Err(Error::new(
            ErrorKind::Data,
            format!(
                "topic `{topic}` partition {partition} ends at offset {end}, but the lake at {lake_end}: the topic was made \
             anew; land into another lake, or under another topic name"
            ),
        ));
    }
    Ok(())
}

/// The object with the greatest start offset of every partition wanted, looked for from the newest hour back.
///
/// Only a partition that never was landed makes it look through all hours.
async fn newest(
    store: &dyn ObjectStore,
    prefix: &Path,
    topic: &str,
    wanted: &HashSet<i32>,
) -> Result<HashMap<i32, (i64, Path)>> {
    let folder = LakeKey::topic_prefix(topic).split('/').fold(prefix.clone(), |path, part| path.join(part));
    let mut found: HashMap<i32, (i64, Path)> = HashMap::new();
    // Year, month, day, hour: names sort by time, and a partition's hours never go back.
    let mut open = vec![vec![folder]];
    while let Some(level) = open.last_mut() {
        let Some(folder) = level.pop() else {
            open.pop();
            continue;
        };
        let listed = store.list_with_delimiter(Some(&folder)).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not list the lake at `{folder}`")).with_source(error)
        })?;
        if open.len() <= 4 {
            let mut below = listed.common_prefixes;
            below.sort();
            open.push(below);
            continue;
        }
        let mut here: HashMap<i32, (i64, Path)> = HashMap::new();
        for object in listed.objects {
            let Some(key) = LakeKey::parse(object.location.as_ref()) else { continue };
            if key.topic != topic || !wanted.contains(&key.partition) {
                continue;
            }
            let newest = here.entry(key.partition).or_insert_with(|| (key.start, object.location.clone()));
            if key.start > newest.0 {
                *newest = (key.start, object.location);
            }
        }
        for (partition, newest) in here {
            found.entry(partition).or_insert(newest);
        }
        if found.len() >= wanted.len() {
            break;
        }
    }
    Ok(found)
}

/// What the object at `path` says of itself.
pub(super) async fn landed(store: &dyn ObjectStore, path: &Path) -> Result<Landed> {
    let key = LakeKey::parse(path.as_ref())
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("`{path}` is no name of a lake object")))?;
    match key.format {
        LakeFormat::Parquet => landed_parquet(store, path).await,
        LakeFormat::JsonGz => landed_json(store, path, &key).await,
    }
}

/// From the footer.
async fn landed_parquet(store: &dyn ObjectStore, path: &Path) -> Result<Landed> {
    let metadata = read_footer(store, path).await?;
    let entries = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let facts: HashMap<&str, &str> =
        entries.filter_map(|entry| Some((entry.key.as_str(), entry.value.as_deref()?))).collect();
    let number = |name: &str| facts.get(name).and_then(|value| value.parse::<i64>().ok()).ok_or_else(|| damaged(path));
    Ok(Landed {
        end: number(footer::END)?,
        received_max: number(footer::RECEIVED_MAX)?,
        rows: number(footer::ROWS)?.unsigned_abs(),
        sha256: facts.get(footer::SHA256).map(|sha| (*sha).to_owned()),
    })
}

/// From name and lines: rows are dense in offsets, and all were received in the hour of the name at the latest.
async fn landed_json(store: &dyn ObjectStore, path: &Path, key: &LakeKey) -> Result<Landed> {
    let read = async { store.get(path).await?.bytes().await };
    let bytes = read.await.map_err(|error| unread(path, error))?;
    let lines = BufReader::new(MultiGzDecoder::new(&bytes[..])).split(b'\n');
    let lines = lines.map(|line| line.map(|_| 1_i64)).sum::<std::io::Result<i64>>();
    let lines = lines.map_err(|error| damaged(path).with_source(error))?;
    let (end, received_max) = (key.start + lines, key.hour * MILLIS_PER_HOUR);
    Ok(Landed { end, received_max, rows: lines.unsigned_abs(), sha256: None })
}

async fn read_footer(store: &dyn ObjectStore, path: &Path) -> Result<ParquetMetaData> {
    let tail = async {
        let range = GetOptions { range: Some(GetRange::Suffix(FOOTER_HINT)), ..GetOptions::default() };
        let result = store.get_opts(path, range).await?;
        let size = result.meta.size;
        Ok((result.bytes().await?, size))
    };
    let (bytes, size) = tail.await.map_err(|error| unread(path, error))?;
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(&bytes, size) {
        Err(ParquetError::NeedMoreData(needed)) if (needed as u64) < size => {
            let range = size - needed as u64..size;
            let bytes = store.get_range(path, range).await.map_err(|error| unread(path, error))?;
            reader.try_parse_sized(&bytes, size).map_err(|error| damaged(path).with_source(error))?;
        }
        parsed => parsed.map_err(|error| damaged(path).with_source(error))?,
    }
    reader.finish().map_err(|error| damaged(path).with_source(error))
}

fn unread(path: &Path, error: object_store::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("could not read lake object `{path}`")).with_source(error)
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Data, format!("lake object `{path}` is not what a lander writes"))
}
