//! A log and a store that do on demand what real ones do rarely: offsets with holes, records that retention deleted,
//! partitions that are added, reads that fail; puts that fail, or succeed while their answer is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use topic::{Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Result, StoredRecord, TopicInfo, TopicSpec, Writer};

use crate::lake_contract::{Chance, TOPIC, event_json, record};

/// One partition: its range, and the records in it.
#[derive(Debug, Default)]
struct Partition {
    start: i64,
    end: i64,
    records: BTreeMap<i64, StoredRecord>,
}

/// A log in memory with one topic; clones are the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedLog {
    partitions: Arc<Mutex<Vec<Partition>>>,
    /// Reads that will fail as if no broker answered.
    pub(crate) failing_reads: Arc<AtomicU32>,
}

impl ScriptedLog {
    pub(crate) fn new(partitions: usize) -> Self {
        let log = Self::default();
        (0..partitions).for_each(|_| log.add_partition());
        log
    }

    pub(crate) fn add_partition(&self) {
        self.partitions.lock().expect("a lock").push(Partition::default());
    }

    /// Adds an event received at `time_ms`.
    pub(crate) fn push(&self, partition: usize, time_ms: i64, chance: &mut Chance) {
        let made = record(event_json(chance), time_ms);
        let mut partitions = self.partitions.lock().expect("a lock");
        let there = &mut partitions[partition];
        let stored = StoredRecord {
            partition: i32::try_from(partition).expect("few"),
            offset: there.end,
            timestamp_ms: time_ms,
            key: None,
            value: made.value,
            headers: made.headers,
        };
        there.records.insert(there.end, stored);
        there.end += 1;
    }

    /// Takes offsets without records, as aborted transactions and markers do.
    pub(crate) fn skip(&self, partition: usize, offsets: i64) {
        self.partitions.lock().expect("a lock")[partition].end += offsets;
    }

    /// Deletes what lies before `offset`, as retention does.
    pub(crate) fn forget(&self, partition: usize, offset: i64) {
        let mut partitions = self.partitions.lock().expect("a lock");
        let there = &mut partitions[partition];
        there.start = offset;
        there.records.retain(|at, _| *at >= offset);
    }

    /// All records, by partition and offset.
    pub(crate) fn records(&self) -> Vec<StoredRecord> {
        self.partitions.lock().expect("a lock").iter().flat_map(|there| there.records.values().cloned()).collect()
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Internal, "a lander does not need this"))
}

#[async_trait]
impl Log for ScriptedLog {
    async fn create_topic(&self, _: &TopicSpec) -> Result<bool> {
        unused()
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        unused()
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        assert_eq!(topic, TOPIC);
        let partitions = self.partitions.lock().expect("a lock");
        let range =
            |(partition, there): (i32, &Partition)| OffsetRange { partition, start: there.start, end: there.end };
        Ok((0..).zip(partitions.iter()).map(range).collect())
    }

    async fn offsets_at(&self, _: &str, _: i64) -> Result<Offsets> {
        unused()
    }

    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        for (partition, offset) in &from {
            let ranges = self.ranges(topic).await?;
            let range = ranges.iter().find(|range| range.partition == *partition).expect("the partition is there");
            if !(range.start..=range.end).contains(offset) {
                return Err(Error::new(ErrorKind::Data, format!("offset {offset} is not in {range:?}")));
            }
        }
        Ok(Box::new(ScriptedReader { log: self.clone(), positions: from }))
    }

    async fn writer(&self, _: Option<&str>) -> Result<Box<dyn Writer>> {
        unused()
    }

    async fn committed(&self, _: &str, _: &str) -> Result<Offsets> {
        unused()
    }

    async fn last_by_key(&self, _: &str, _: &[u8]) -> Result<Option<StoredRecord>> {
        unused()
    }
}

struct ScriptedReader {
    log: ScriptedLog,
    positions: Offsets,
}

impl ScriptedReader {
    fn found(&mut self, max_records: usize) -> Vec<StoredRecord> {
        let partitions = self.log.partitions.lock().expect("a lock");
        let mut found = Vec::new();
        for (partition, position) in &mut self.positions {
            let there = &partitions[usize::try_from(*partition).expect("a partition")];
            let room = max_records - found.len();
            let before = found.len();
            found.extend(there.records.range(*position..).take(room).map(|(_, record)| record.clone()));
            // Past the last record that came, and past what is no record where no record follows.
            let taken = found[before..].last().map_or(*position, |record| record.offset + 1);
            *position = if there.records.range(taken..).next().is_none() { there.end } else { taken };
        }
        found
    }
}

#[async_trait]
impl Reader for ScriptedReader {
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>> {
        let failing = &self.log.failing_reads;
        if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Error::new(ErrorKind::Unavailable, "no broker answers"));
        }
        // Few at a time, so that the lander is seen in many states.
        let found = self.found(max_records.min(13));
        if found.is_empty() {
            tokio::time::sleep(max_wait.min(Duration::from_millis(3))).await;
        }
        Ok(found)
    }

    fn positions(&self) -> Offsets {
        self.positions.clone()
    }
}

/// How often, out of a hundred puts, something goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Nothing is written.
    pub(crate) fail: u64,
    /// It is written, and the answer is lost.
    pub(crate) lose_answer: u64,
    /// The store knows no conditional put.
    pub(crate) unconditional: bool,
}

/// A store with faults.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<Faults>,
    chance: Mutex<Chance>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: Faults, seed: u64) -> Arc<Self> {
        Arc::new(Self { inner, faults: Mutex::new(faults), chance: Mutex::new(Chance(seed)) })
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.faults.lock().expect("a lock") = faults;
    }

    fn below(&self, bound: u64) -> u64 {
        self.chance.lock().expect("a lock").below(bound)
    }
}

fn no_answer<T>() -> object_store::Result<T> {
    Err(object_store::Error::Generic { store: "faulty", source: "no answer".into() })
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store with faults")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let faults = *self.faults.lock().expect("a lock");
        if faults.unconditional {
            let (operation, implementer) = ("put_opts".to_owned(), "FaultyStore".to_owned());
            return Err(object_store::Error::NotImplemented { operation, implementer });
        }
        tokio::time::sleep(Duration::from_millis(self.below(3))).await;
        if self.below(100) < faults.fail {
            return no_answer();
        }
        let result = self.inner.put_opts(path, payload, options).await?;
        tokio::time::sleep(Duration::from_millis(self.below(3))).await;
        if self.below(100) < faults.lose_answer { no_answer() } else { Ok(result) }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
