//! The log without a server: one machine, one process, one directory, on fjall.
//!
//! ```text
//! EmbeddedWriter ─┐ one at a time (a lock around commit)     ┌─ EmbeddedReader
//! EmbeddedWriter ─┴──▶ Store: one atomic batch + fsync ──────┴─ EmbeddedReader (woken after each commit)
//! ```
//!
//! Offsets are given at commit: they are dense and in order within a partition. A transaction lives in the writer's
//! memory until commit, so an aborted one leaves nothing. Clones of an [`EmbeddedLog`] share all of it; a second
//! process is refused. Disk work runs on blocking threads, never on the runtime's. Nothing is ever deleted.

mod codec;
mod reader;
mod store;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use event::Clock;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use self::reader::EmbeddedReader;
use self::store::{Store, Topic};
use self::writer::EmbeddedWriter;
use crate::name::{check_spec, no_partition, no_topic, out_of_range};
use crate::partitioner::partition_for_key;
use crate::{Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Result, StoredRecord, TopicInfo, TopicSpec, Writer};

/// A log in a directory of this machine. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// Held by whoever writes, from before offsets are given until they are visible.
    writing: Arc<Mutex<()>>,
    clock: Clock,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, creating it if need be. `clock` gives the time of records that bring none.
    ///
    /// # Errors
    /// `Config` when another process has the directory open, `Unavailable` when it cannot be read or written, `Data`
    /// when it holds something else or is damaged.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self> {
        let store = Store::open(dir)?;
        Ok(Self { shared: Arc::new(Shared { store, writing: Arc::default(), clock }) })
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.shared.store.topic(name).ok_or_else(|| no_topic(name))
    }

    /// Runs `work` on a blocking thread.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        joined(spawn_blocking(move || work(&shared)).await)
    }

    /// Runs `work`, which writes, on a blocking thread, alone. Once begun it ends, also when nobody waits any more.
    async fn writing<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let turn = Arc::clone(&self.shared.writing).lock_owned().await;
        self.blocking(move |shared| {
            let done = work(shared);
            drop(turn);
            done
        })
        .await
    }
}

/// Result of a blocking task.
fn joined<T>(task: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    task.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "a task of the embedded log did not end").with_source(error))
    })
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").finish_non_exhaustive()
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        check_spec(spec)?;
        let spec = spec.clone();
        self.writing(move |shared| shared.store.create_topic(&spec)).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let topics = self.shared.store.topics();
        let shown = topics.iter().filter(|topic| !topic.name.starts_with("__"));
        Ok(shown.map(|topic| TopicInfo { name: topic.name.clone(), partitions: topic.partitions }).collect())
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        let ends = self.shared.store.ends(&*self.topic(topic)?);
        Ok((0..).zip(ends).map(|(partition, end)| OffsetRange { partition, start: 0, end }).collect())
    }

    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        let topic = self.topic(topic)?;
        self.blocking(move |shared| {
            let ends = (0..).zip(shared.store.ends(&topic));
            ends.map(|(partition, end)| Ok((partition, shared.store.offset_at(&topic, partition, end, timestamp_ms)?)))
                .collect()
        })
        .await
    }

    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        let found = self.topic(topic)?;
        let ends = self.shared.store.ends(&found);
        for (partition, offset) in &from {
            let end = usize::try_from(*partition).ok().and_then(|at| ends.get(at));
            let end = *end.ok_or_else(|| no_partition(topic, *partition, found.partitions))?;
            if !(0..=end).contains(offset) {
                return Err(out_of_range(topic, *partition, *offset, 0, end));
            }
        }
        Ok(Box::new(EmbeddedReader::new(self.clone(), found, from)))
    }

    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        let fence = match transactional_id {
            Some(id) => {
                let owned = id.to_owned();
                let epoch = self.writing(move |shared| shared.store.fence(&owned)).await?;
                Some((id.to_owned(), epoch))
            }
            None => None,
        };
        Ok(Box::new(EmbeddedWriter::new(self.clone(), fence)))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        self.topic(topic)?;
        Ok(self.shared.store.committed(group, topic))
    }

    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        let topic = self.topic(topic)?;
        let partition = partition_for_key(key, topic.partitions);
        let key = key.to_vec();
        let last = self.blocking(move |shared| {
            let ends = shared.store.ends(&topic);
            let end = usize::try_from(partition).ok().and_then(|at| ends.get(at).copied()).unwrap_or_default();
            shared.store.last_by_key(&topic, partition, end, &key)
        });
        Ok(last.await?.filter(|record| record.value.is_some()))
    }
}
