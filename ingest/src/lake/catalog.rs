//! One topic of a lake in its store: its raw objects, and its manifests.
//!
//! A manifest's version is put only where its name is free, so that of two who change the lake at once one learns that
//! it lost. What stands in a manifest is decided elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use event::layout::LakeKey;
use event::manifest::{Manifest, curated_prefix, manifest_name, manifest_prefix, manifest_version};
use event::{Clock, Table};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};

use super::writer::BACKOFF;
use crate::error::{Error, ErrorKind, Result};

/// Tries to put an object.
const PUT_TRIES: u32 = 4;

/// A topic in a lake, to be compacted, expired and swept.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The lake's store.
    pub store: Arc<dyn ObjectStore>,
    /// The lake's prefix in it.
    pub prefix: Path,
    /// The topic.
    pub topic: String,
    /// Which table its records are rows of.
    pub table: Table,
    /// Wall clock: hours are closed and graces are over by it.
    pub clock: Clock,
}

/// A raw object in a listing.
#[derive(Clone, Debug)]
pub(super) struct RawObject {
    pub(super) key: LakeKey,
    pub(super) path: Path,
    pub(super) bytes: u64,
}

impl Catalog {
    /// A path below the lake's prefix.
    pub(super) fn path(&self, name: &str) -> Path {
        // Not by text: a part such as `year=2025` must not be encoded anew.
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The path of a compacted file.
    pub(super) fn file(&self, name: &str) -> Path {
        self.path(&format!("{}/{name}", curated_prefix(&self.topic)))
    }

    /// Everything below a folder of the lake.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let folder = self.path(folder);
        self.store.list(Some(&folder)).try_collect().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not list the lake at `{folder}`")).with_source(error)
        })
    }

    /// The raw objects of the topic, by partition and start.
    pub(super) async fn raw(&self) -> Result<Vec<RawObject>> {
        let listed = self.list(&LakeKey::topic_prefix(&self.topic)).await?;
        let known = |meta: ObjectMeta| {
            let key = LakeKey::parse(meta.location.as_ref()).filter(|key| key.topic == self.topic)?;
            Some(RawObject { key, path: meta.location, bytes: meta.size })
        };
        let mut raw: Vec<RawObject> = listed.into_iter().filter_map(known).collect();
        raw.sort_by_key(|object| (object.key.partition, object.key.start));
        Ok(raw)
    }

    /// The raw objects of the topic, by partition and start, none left out before one that is there.
    ///
    /// A listing takes its time: it may pass a name just before an object is put there, and then find the one that was
    /// put after it. Whatever came before what a first listing found is in a second one.
    pub(super) async fn raw_without_gaps(&self) -> Result<Vec<RawObject>> {
        let mut last: HashMap<i32, i64> = HashMap::new();
        for object in self.raw().await? {
            last.insert(object.key.partition, object.key.start);
        }
        let mut raw = self.raw().await?;
        raw.retain(|object| last.get(&object.key.partition).is_some_and(|last| object.key.start <= *last));
        Ok(raw)
    }

    /// The manifest that counts; an empty one where there is none.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer, `Data` when what lies there is no manifest of this topic.
    pub async fn manifest(&self) -> Result<Manifest> {
        let versions = self.versions().await?;
        let Some((_, path)) = versions.last() else { return Ok(Manifest::empty(&self.topic)) };
        let bytes = self.read(path).await?;
        let wrong = |why: String| Error::new(ErrorKind::Data, format!("could not read manifest `{path}`: {why}"));
        let manifest = Manifest::parse(&bytes).map_err(wrong)?;
        if manifest.topic != self.topic {
            return Err(wrong(format!("it is of topic `{}`", manifest.topic)));
        }
        Ok(manifest)
    }

    /// Versions of the manifest that lie in the store, ascending.
    pub(super) async fn versions(&self) -> Result<Vec<(u64, Path)>> {
        let listed = self.list(&manifest_prefix(&self.topic)).await?;
        let version = |meta: ObjectMeta| Some((manifest_version(meta.location.filename()?)?, meta.location));
        let mut versions: Vec<(u64, Path)> = listed.into_iter().filter_map(version).collect();
        versions.sort_unstable_by_key(|(version, _)| *version);
        Ok(versions)
    }

    /// Puts a manifest under its version; `false` when somebody else's was there first.
    pub(super) async fn commit(&self, manifest: &Manifest) -> Result<bool> {
        let name = format!("{}/{}", manifest_prefix(&self.topic), manifest_name(manifest.version));
        let (path, json) = (self.path(&name), Bytes::from(manifest.to_json()));
        if self.put(&path, json.clone()).await? {
            return Ok(true);
        }
        // The answer to a try before may have been lost: then what lies there is ours.
        Ok(self.read(&path).await? == json)
    }

    /// Puts an object where its name is free; `false` when it is taken, which may be by a try of ours whose answer was
    /// lost.
    pub(super) async fn put(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        let mut failures = 0;
        loop {
            // The store's client does not repeat such a put by itself.
            let error = match self.store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
                Err(error) => error,
            };
            if let object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } = error {
                let message = "the lake's store cannot put an object only if its name is free, which compaction needs";
                return Err(Error::new(ErrorKind::Config, message).with_source(error));
            }
            failures += 1;
            if failures == PUT_TRIES {
                let message = format!("could not write `{path}`");
                return Err(Error::new(ErrorKind::Unavailable, message).with_source(error));
            }
            tracing::warn!(object = %path, failures, %error, "could not write to the lake; trying again");
            tokio::time::sleep(BACKOFF.delay(failures, rand::random())).await;
        }
    }

    /// The bytes of an object.
    pub(super) async fn read(&self, path: &Path) -> Result<Bytes> {
        let read = async { self.store.get(path).await?.bytes().await };
        read.await
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("could not read `{path}`")).with_source(error))
    }

    /// Deletes an object; one that is gone already is as good.
    pub(super) async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => {
                Err(Error::new(ErrorKind::Unavailable, format!("could not delete `{path}`")).with_source(error))
            }
        }
    }
}
