//! Where landing goes on: the newest object of every partition, and what it says of its end.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};

use event::layout::{LakeFormat, LakeKey, footer};
use flate2::bufread::MultiGzDecoder;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use topic::OffsetRange;

use super::object::OpenObject;
use crate::error::{Error, ErrorKind, Result};

const MILLIS_PER_HOUR: i64 = 3_600_000;
/// Bytes read at the end of an object in the hope that the whole footer is among them.
const FOOTER_HINT: u64 = 64 * 1024;

/// What an object in the lake says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landed {
    /// Offset at which the next object starts.
    pub(super) end: i64,
    /// Greatest received time of the partition so far, milliseconds.
    pub(super) received_max: i64,
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
}

/// Path of an object under the lake's prefix.
pub(super) fn object_path(prefix: &Path, key: &LakeKey) -> Path {
    // Not by text: a part such as `year=2025` must not be encoded anew.
    key.to_string().split('/').fold(prefix.clone(), |path, part| path.join(part))
}

/// Every partition of the topic, set to where the lake ends.
pub(super) async fn shelves(
    store: &dyn ObjectStore,
    prefix: &Path,
    topic: &str,
    ranges: &[OffsetRange],
) -> Result<Vec<Shelf>> {
    let wanted = ranges.iter().map(|range| range.partition).collect();
    let newest = newest(store, prefix, topic, &wanted).await?;
    let mut shelves = Vec::with_capacity(ranges.len());
    for range in ranges {
        let landed = match newest.get(&range.partition) {
            Some((_, path)) => {
                let landed = landed(store, path).await?;
                tracing::info!(object = %path, end = landed.end, "landing goes on after this object");
                Some(landed)
            }
            None => None,
        };
        let (start, received_max) = landed.map_or((range.start, i64::MIN), |landed| (landed.end, landed.received_max));
        check_fit(topic, *range, start)?;
        shelves.push(Shelf {
            partition: range.partition,
            start,
            received_max,
            open: None,
            stale: false,
            warned: false,
        });
    }
    Ok(shelves)
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
    Ok(Landed { end: key.start + lines, received_max: key.hour * MILLIS_PER_HOUR, sha256: None })
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

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Data, format!("lake object `{path}` is not what a lander writes"))
}
