//! Which objects a topic has, with what their footers say.

use std::collections::HashMap;
use std::sync::Arc;

use event::layout::{LakeFormat, LakeKey, footer};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;

use super::file::ObjectFile;
use super::{LakeObject, LakeTable};
use crate::error::{Error, ErrorKind, Result};

/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 16;

impl LakeTable {
    /// All objects of the topic, by least event time, those without a known one first.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be listed or read, `Data` when a footer cannot be read or two objects
    /// cover the same offsets.
    pub async fn objects(&self) -> Result<Vec<LakeObject>> {
        let listed: Vec<ObjectMeta> = self.store.list(Some(&self.folder)).try_collect().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not list the lake at `{}`", self.folder))
                .with_source(error)
        })?;
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
        let described = futures::stream::iter(known.into_iter().map(|(key, meta)| self.describe(key, meta)));
        let mut objects: Vec<LakeObject> = described.buffer_unordered(FOOTERS_AT_ONCE).try_collect().await?;
        check_overlap(&mut objects)?;
        objects
            .sort_by_key(|object| (object.event_time.map(|(least, _)| least), object.key.partition, object.key.start));
        Ok(objects)
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
        let mut object =
            LakeObject { path: meta.location, key, size: meta.size, rows: None, end: None, event_time: None };
        if object.key.format == LakeFormat::JsonGz {
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
        object.end = number(footer::END);
        object.event_time = number(footer::EVENT_TIME_MIN).zip(number(footer::EVENT_TIME_MAX));
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

fn place(object: &LakeObject) -> (&str, i32, i64) {
    (&object.key.topic, object.key.partition, object.key.start)
}

/// The objects of a partition follow each other; two that overlap would count rows twice.
fn check_overlap(objects: &mut [LakeObject]) -> Result<()> {
    objects.sort_by(|a, b| place(a).cmp(&place(b)));
    for pair in objects.windows(2) {
        let [first, second] = pair else { continue };
        let same = first.key.partition == second.key.partition && first.key.topic == second.key.topic;
        if same && (first.end.is_some_and(|end| end > second.key.start) || first.key.start == second.key.start) {
            return Err(Error::new(
                ErrorKind::Data,
                format!("lake objects `{}` and `{}` cover the same offsets", first.path, second.path),
            ));
        }
    }
    Ok(())
}
