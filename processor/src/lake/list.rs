//! Which objects a topic has, with what the manifest or their footers say.

use std::collections::HashMap;
use std::sync::Arc;

use event::layout::{LakeFormat, LakeKey, footer};
use event::manifest::{CompactedFile, CoveredRange, Manifest, manifest_name, manifest_version};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;

use super::file::ObjectFile;
use super::{LakeObject, LakeRange, LakeSnapshot, LakeTable, below};
use crate::error::{Error, ErrorKind, Result};

/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 16;

impl LakeTable {
    /// All objects of the topic, by least event time, those without a known one first.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be listed or read, `Data` when manifest or footer cannot be read or two
    /// objects cover the same offsets.
    pub async fn objects(&self) -> Result<Vec<LakeObject>> {
        Ok(self.snapshot().await?.objects)
    }

    /// The topic as it is now.
    ///
    /// # Errors
    /// As [`LakeTable::objects`].
    pub async fn snapshot(&self) -> Result<LakeSnapshot> {
        let snapshot = self.snapshot_as_found().await?;
        check_overlap(&snapshot.objects)?;
        Ok(snapshot)
    }

    /// The topic as it is now, also when objects overlap.
    pub(super) async fn snapshot_as_found(&self) -> Result<LakeSnapshot> {
        // The raw objects first: what they lack by the time the manifest is read is in the manifest.
        let listed = self.raw().await?;
        let manifest = self.manifest().await?;
        self.under(manifest, listed).await
    }

    /// The topic as a manifest of before has it, as long as its objects are kept; none when it is gone.
    ///
    /// # Errors
    /// As [`LakeTable::objects`].
    pub(crate) async fn snapshot_of(&self, version: u64) -> Result<Option<LakeSnapshot>> {
        let listed = self.raw().await?;
        let manifest = match (&self.curated, version) {
            (_, 0) => Manifest::empty(""),
            (None, _) => return Ok(None),
            (Some(curated), _) => {
                let path = curated.clone().join("_manifest").join(manifest_name(version));
                match self.read_manifest(&path).await {
                    Err(error) if is_not_found(&error) => return Ok(None),
                    manifest => manifest?,
                }
            }
        };
        let snapshot = self.under(manifest, listed).await?;
        check_overlap(&snapshot.objects)?;
        Ok(Some(snapshot))
    }

    async fn under(&self, manifest: Manifest, listed: Vec<(LakeKey, ObjectMeta)>) -> Result<LakeSnapshot> {
        let mut objects = self.describe_all(&manifest, listed.clone()).await?;
        if has_gap(&manifest, &objects) {
            // A listing may pass a name just before an object is put there, and then find the one that was put after
            // it. Whatever came before what was found is in a second listing.
            let last = |key: &LakeKey| {
                let starts =
                    listed.iter().filter(|(seen, _)| seen.partition == key.partition).map(|(seen, _)| seen.start);
                starts.max()
            };
            let mut again = self.raw().await?;
            again.retain(|(key, _)| last(key).is_some_and(|last| key.start <= last));
            objects = self.describe_all(&manifest, again).await?;
        }
        objects.extend(manifest.files.iter().filter_map(|file| self.compacted(&manifest.topic, file)));
        objects.sort_by_key(order);
        Ok(LakeSnapshot { objects, version: manifest.version, covered: manifest.partitions })
    }

    /// The raw objects below the folder, by partition and start.
    async fn raw(&self) -> Result<Vec<(LakeKey, ObjectMeta)>> {
        let listed = self.list(&self.folder).await?;
        let mut known = Vec::with_capacity(listed.len());
        let mut strange = 0_u64;
        for meta in listed {
            match self.key(&meta) {
                Some(key) => known.push((key, meta)),
                None => strange += u64::from(is_data(&meta)),
            }
        }
        if strange > 0 {
            let folder = self.folder.as_ref();
            tracing::warn!(folder, objects = strange, "passed over objects whose names no lander writes");
        }
        known.sort_by_key(|(key, _)| (key.partition, key.start));
        Ok(known)
    }

    async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        self.store.list(Some(folder)).try_collect().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not list the lake at `{folder}`")).with_source(error)
        })
    }

    /// The manifest with the highest version; an empty one where there is none.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer, `Data` when what lies there is no manifest.
    pub async fn manifest(&self) -> Result<Manifest> {
        let Some(curated) = &self.curated else { return Ok(Manifest::empty("")) };
        let listed = self.list(&curated.clone().join("_manifest")).await?;
        let version = |meta: ObjectMeta| Some((manifest_version(meta.location.filename()?)?, meta.location));
        match listed.into_iter().filter_map(version).max() {
            Some((_, path)) => self.read_manifest(&path).await,
            None => Ok(Manifest::empty("")),
        }
    }

    async fn read_manifest(&self, path: &Path) -> Result<Manifest> {
        let read = async { self.store.get(path).await?.bytes().await };
        let bytes = read.await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not read manifest `{path}`")).with_source(error)
        })?;
        Manifest::parse(&bytes)
            .map_err(|why| Error::new(ErrorKind::Data, format!("could not read manifest `{path}`: {why}")))
    }

    /// The raw objects that no compacted file covers, with what their footers say.
    async fn describe_all(&self, manifest: &Manifest, raw: Vec<(LakeKey, ObjectMeta)>) -> Result<Vec<LakeObject>> {
        let counts = raw.into_iter().filter(|(key, _)| !manifest.covers(key.partition, key.start));
        let described = futures::stream::iter(counts.map(|(key, meta)| self.describe(key, meta)));
        described.buffered(FOOTERS_AT_ONCE).try_collect().await
    }

    fn compacted(&self, topic: &str, file: &CompactedFile) -> Option<LakeObject> {
        let range =
            |range: &CoveredRange| LakeRange { partition: range.partition, start: range.start, end: Some(range.end) };
        Some(LakeObject {
            path: below(self.curated.as_ref()?, &file.name),
            topic: topic.to_owned(),
            format: LakeFormat::Parquet,
            compacted: true,
            hours: (file.hour_min, file.hour_max),
            ranges: file.ranges.iter().map(range).collect(),
            size: file.bytes,
            rows: Some(file.rows),
            event_time: file.event_time_min.zip(file.event_time_max),
            sha256: Some(file.sha256.clone()),
        })
    }

    /// The key of an object below the folder. The topic is the one in its own name: where the folder was copied to
    /// says nothing.
    fn key(&self, meta: &ObjectMeta) -> Option<LakeKey> {
        let below: Vec<_> = meta.location.prefix_match(&self.folder)?.map(|part| part.as_ref().to_owned()).collect();
        let mut stem = below.last()?.rsplitn(3, '-');
        let topic = stem.nth(2)?;
        LakeKey::parse(&format!("topics/{topic}/{}", below.join("/")))
    }

    async fn describe(&self, key: LakeKey, meta: ObjectMeta) -> Result<LakeObject> {
        let mut object = LakeObject {
            path: meta.location,
            topic: key.topic,
            format: key.format,
            compacted: false,
            hours: (key.hour, key.hour),
            ranges: vec![LakeRange { partition: key.partition, start: key.start, end: None }],
            size: meta.size,
            rows: None,
            event_time: None,
            sha256: None,
        };
        if object.format == LakeFormat::JsonGz {
            return Ok(object);
        }
        let mut reader = self.parquet(&object);
        let metadata = reader.get_metadata(None).await;
        let metadata = metadata
            .map_err(|error| unread(format!("could not read the footer of lake object `{}`", object.path), error))?;
        let file = metadata.file_metadata();
        let entries = file.key_value_metadata().into_iter().flatten();
        let entries: HashMap<&str, &str> =
            entries.filter_map(|entry| Some((entry.key.as_str(), entry.value.as_deref()?))).collect();
        let number = |name: &str| entries.get(name).and_then(|value| value.parse::<i64>().ok());
        object.rows = u64::try_from(file.num_rows()).ok();
        object.ranges[0].end = number(footer::END);
        object.event_time = number(footer::EVENT_TIME_MIN).zip(number(footer::EVENT_TIME_MAX));
        object.sha256 = entries.get(footer::SHA256).map(|hash| (*hash).to_owned());
        Ok(object)
    }

    pub(super) fn parquet(&self, object: &LakeObject) -> ObjectFile {
        ObjectFile { store: Arc::clone(&self.store), path: object.path.clone(), size: object.size }
    }
}

/// An object that could not be read: the store's fault, or that of what lies there.
pub(super) fn unread(message: String, error: ParquetError) -> Error {
    let kind = match &error {
        ParquetError::External(source) if source.is::<object_store::Error>() => ErrorKind::Unavailable,
        _ => ErrorKind::Data,
    };
    Error::new(kind, message).with_source(error)
}

/// Whether an object's name ends as those that hold rows do.
fn is_data(meta: &ObjectMeta) -> bool {
    meta.location.filename().is_some_and(|name| name.ends_with(".parquet") || name.ends_with(".json.gz"))
}

fn is_not_found(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<object_store::Error>());
    matches!(source, Some(object_store::Error::NotFound { .. }))
}

/// By least event time, then by place.
fn order(object: &LakeObject) -> (Option<i64>, i32, i64) {
    let (partition, start) = object.ranges.first().map_or((0, 0), |range| (range.partition, range.start));
    (object.event_time.map(|(least, _)| least), partition, start)
}

/// Whether raw objects, by partition and start, lack one that may only not have been listed.
fn has_gap(manifest: &Manifest, raw: &[LakeObject]) -> bool {
    let mut before: Option<LakeRange> = None;
    raw.iter().flat_map(|object| &object.ranges).any(|range| {
        let same = before.replace(*range).filter(|before| before.partition == range.partition);
        let expected = match same {
            Some(before) => before.end,
            None => Some(manifest.covered(range.partition).map_or(0, |covered| covered.end)),
        };
        expected.is_some_and(|expected| expected < range.start)
    })
}

/// The ranges of a partition follow each other; two that overlap would count rows twice.
fn check_overlap(objects: &[LakeObject]) -> Result<()> {
    let place = |object: &LakeObject, range: &LakeRange| (object.topic.clone(), range.partition, range.start);
    let mut ranges: Vec<_> = objects
        .iter()
        .flat_map(|object| object.ranges.iter().map(move |range| (place(object, range), range, object)))
        .collect();
    ranges.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    for pair in ranges.windows(2) {
        let [((topic, ..), first, one), ((other_topic, ..), second, other)] = pair else { continue };
        let same = topic == other_topic && first.partition == second.partition;
        if same && (first.end.is_some_and(|end| end > second.start) || first.start == second.start) {
            return Err(Error::new(
                ErrorKind::Data,
                format!("lake objects `{}` and `{}` cover the same offsets", one.path, other.path),
            )
            .with_hint("`tidegate lake verify` says what else is wrong"));
        }
    }
    Ok(())
}
