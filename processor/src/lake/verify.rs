//! Is what lies in the lake what was in the topic? Three proofs, each on request.
//!
//! * *Tiling*: the ranges of every partition follow each other, without overlap, without a hole, and files are as large
//!   as the manifest says.
//! * *Content*: every object's rows have the count and the hash that its footer or the manifest says, and lie in its
//!   ranges.
//! * *Topic*: every record of the topic below a partition's end in the lake has exactly one row with its bytes, and no
//!   row is without a record, as far as the topic still goes back.
//!
//! What differs is handed on as it is found; nothing is mended. Memory holds a hash a row of one object.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use event::layout::LakeFormat;
use event::schema::{KAFKA_OFFSET, KAFKA_PARTITION, RAW};
use event::{EventId, Table};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use topic::{Log, OffsetRange, Reader, StoredRecord};

use super::{LakeObject, LakeRange, LakeSnapshot, LakeTable};
use crate::error::{Error, ErrorKind, Result};

/// Records taken from the topic at once.
const READ_RECORDS: usize = 4 * 1024;
/// How long the topic may take for records that it has.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Reads of the topic without a record, after which it counts as unavailable.
const EMPTY_READS_MAX: u32 = 60;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `overlap`, `hole`, `damaged`, `no_row`, `no_record`, `other_bytes` or `twice`.
    pub what: &'static str,
    /// Partition, where it is one.
    pub partition: Option<i32>,
    /// Offset, where it is one.
    pub offset: Option<i64>,
    /// Object, where it is one.
    pub object: Option<String>,
    /// What exactly.
    pub detail: String,
}

/// How far a verification has come, and what it looked at; read it from another task.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// Objects to be looked at.
    pub objects_total: AtomicU64,
    /// Objects looked at.
    pub objects_done: AtomicU64,
    /// Rows of the lake looked at.
    pub rows: AtomicU64,
    /// Records of the topic that were compared.
    pub records: AtomicU64,
    /// Records of the topic that are no row of its table, and so have none.
    pub unreadable: AtomicU64,
    /// Findings.
    pub findings: AtomicU64,
}

/// What is proven beside the tiling.
#[derive(Clone, Debug, Default)]
pub struct VerifySettings {
    /// Whether contents are read and hashed.
    pub content: bool,
    /// The log and topic to compare with.
    pub topic: Option<(Arc<dyn Log>, String)>,
}

/// Verifies the lake; `on_finding` gets what is not as it should be, in the order in which it is found.
///
/// # Errors
/// `Unavailable` when store or log do not answer, `Data` when the manifest cannot be read, or what `on_finding` says.
pub async fn verify(
    lake: &LakeTable,
    settings: &VerifySettings,
    progress: &VerifyProgress,
    on_finding: &mut (dyn FnMut(Finding) -> Result<()> + Send),
) -> Result<()> {
    let mut report = |finding: Finding| {
        progress.findings.fetch_add(1, Ordering::Relaxed);
        on_finding(finding)
    };
    let snapshot = lake.snapshot_as_found().await?;
    progress.objects_total.store(snapshot.objects.len() as u64, Ordering::Relaxed);
    tiling(&snapshot, &mut report)?;
    let mut topic = match &settings.topic {
        Some((log, topic)) => Some(TopicSide::open(Arc::clone(log), topic).await?),
        None => None,
    };
    for object in in_offset_order(&snapshot) {
        let read = settings.content || topic.is_some();
        if read && is_there(lake, object, settings.content, &mut report).await? {
            let rows = rows_of(lake, object, progress, &mut report).await?;
            if let (Some(topic), Some(rows)) = (&mut topic, rows) {
                topic.compare(object, lake.table, rows, progress, &mut report).await?;
            }
        }
        progress.objects_done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

type Report<'a> = &'a mut (dyn FnMut(Finding) -> Result<()> + Send);

fn finding(what: &'static str, range: Option<(i32, i64)>, object: Option<&LakeObject>, detail: String) -> Finding {
    Finding {
        what,
        partition: range.map(|(partition, _)| partition),
        offset: range.map(|(_, offset)| offset),
        object: object.map(|object| object.path.to_string()),
        detail,
    }
}

/// The ranges of every partition follow each other.
fn tiling(snapshot: &LakeSnapshot, report: Report<'_>) -> Result<()> {
    for (partition, ranges) in snapshot.by_partition() {
        let mut before: Option<i64> = None;
        for (range, number) in ranges {
            let object = &snapshot.objects[number];
            let here = Some((partition, range.start));
            match before {
                Some(end) if range.start < end => {
                    let detail = format!("the object before it ends at {end}");
                    report(finding("overlap", here, Some(object), detail))?;
                }
                // A JSON object cannot start at an offset without a record.
                Some(end) if range.start > end && object.format == LakeFormat::Parquet => {
                    let detail = format!("no object has offsets {end} to {}", range.start - 1);
                    report(finding("hole", Some((partition, end)), None, detail))?;
                }
                _ => {}
            }
            // Where an object does not say its end, nothing can be said of what follows.
            before = range.end;
        }
        let covered = snapshot.covered.iter().find(|covered| covered.partition == partition).map(|covered| covered.end);
        if let (Some(covered), Some(end)) = (covered, before)
            && end < covered
        {
            let detail = format!("the manifest accounts for offsets {end} to {}, which no object has", covered - 1);
            report(finding("hole", Some((partition, end)), None, detail))?;
        }
    }
    Ok(())
}

/// Compacted files as they were written, then raw objects: of each partition, offsets ascend.
fn in_offset_order(snapshot: &LakeSnapshot) -> Vec<&LakeObject> {
    let mut objects: Vec<&LakeObject> = snapshot.objects.iter().collect();
    let start = |object: &LakeObject| object.ranges.first().map(|range| (range.partition, range.start));
    // The name of a file says the version of the manifest that it came with.
    objects.sort_by(|a, b| match (a.compacted, b.compacted) {
        (true, true) => a.path.filename().cmp(&b.path.filename()),
        (false, false) => start(a).cmp(&start(b)),
        (one, other) => other.cmp(&one),
    });
    objects
}

/// Whether the store has the object; where `hash` says so, with the bytes that the manifest says of a compacted file.
async fn is_there(lake: &LakeTable, object: &LakeObject, hash: bool, report: Report<'_>) -> Result<bool> {
    let found = async {
        if hash && object.compacted {
            let bytes = lake.store.get(&object.path).await?.bytes().await?;
            return Ok(Some(hex::encode(Sha256::digest(&bytes))));
        }
        lake.store.head(&object.path).await.map(|_| None)
    };
    let said = object.sha256.as_deref().unwrap_or_default();
    match found.await {
        Ok(Some(hash)) if hash != said => {
            let detail = format!("its bytes hash to {hash}, the manifest says {said}");
            report(finding("damaged", None, Some(object), detail))?;
            Ok(true)
        }
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => {
            let detail = "the lake should have it, but the store does not".to_owned();
            report(finding("damaged", None, Some(object), detail))?;
            Ok(false)
        }
        Err(error) => {
            let message = format!("could not read lake object `{}`", object.path);
            Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
        }
    }
}

/// What is kept of a row: a hash of its bytes, and its id, where the table has one.
type Digests = HashMap<(i32, i64), ([u8; 32], Option<EventId>)>;

/// Reads an object's rows; none when it is damaged, which is reported.
async fn rows_of(
    lake: &LakeTable,
    object: &LakeObject,
    progress: &VerifyProgress,
    report: Report<'_>,
) -> Result<Option<Digests>> {
    let (table, schema) = (lake.table, lake.table.schema());
    let mut columns = Vec::new();
    for name in [RAW, KAFKA_PARTITION, KAFKA_OFFSET].into_iter().chain(table.id()) {
        columns.push(schema.index_of(name)?);
    }
    columns.sort_unstable();
    let (mut digests, mut rows, mut hash) = (Digests::new(), 0_u64, Sha256::new());
    let mut batches = lake.read(object, &columns);
    loop {
        let batch = match batches.try_next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::Data => {
                report(finding("damaged", None, Some(object), error.to_string()))?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        rows += batch.num_rows() as u64;
        digest(table, object, &batch, &mut digests, &mut hash, report)?;
    }
    progress.rows.fetch_add(rows, Ordering::Relaxed);
    let hash = hex::encode(hash.finalize());
    let other_values = !object.compacted && object.sha256.as_ref().is_some_and(|said| *said != hash);
    if object.rows.is_some_and(|said| said != rows) || other_values {
        let detail = format!("it has {rows} rows whose values hash to {hash}, which is not what it says of itself");
        report(finding("damaged", None, Some(object), detail))?;
    }
    Ok(Some(digests))
}

fn digest(
    table: Table,
    object: &LakeObject,
    batch: &RecordBatch,
    digests: &mut Digests,
    hash: &mut Sha256,
    report: Report<'_>,
) -> Result<()> {
    let column = |name: &str| {
        let missing = || Error::internal("a batch of the lake lacks a column that was asked for");
        batch.column_by_name(name).ok_or_else(missing)
    };
    let ids = table.id().map(|name| Ok::<_, Error>(column(name)?.as_fixed_size_binary())).transpose()?;
    let raw = column(RAW)?.as_binary::<i32>();
    let partitions = column(KAFKA_PARTITION)?.as_primitive::<Int32Type>();
    let offsets = column(KAFKA_OFFSET)?.as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        let place = (partitions.value(row), offsets.value(row));
        hash.update(raw.value(row));
        hash.update(b"\n");
        let inside = |range: &LakeRange| {
            range.partition == place.0 && range.start <= place.1 && range.end.is_none_or(|end| place.1 < end)
        };
        if !object.ranges.iter().any(inside) {
            let detail = "the row lies outside the offsets that its object covers".to_owned();
            report(finding("damaged", Some(place), Some(object), detail))?;
        }
        let id = ids.and_then(|ids| ids.value(row).try_into().ok()).map(EventId);
        if digests.insert(place, (Sha256::digest(raw.value(row)).into(), id)).is_some() {
            report(finding("twice", Some(place), Some(object), "two rows have this offset".to_owned()))?;
        }
    }
    Ok(())
}

/// The topic, read beside the lake: one reader a partition, each going forward.
struct TopicSide {
    log: Arc<dyn Log>,
    topic: String,
    ranges: BTreeMap<i32, OffsetRange>,
    cursors: HashMap<i32, Cursor>,
}

impl TopicSide {
    async fn open(log: Arc<dyn Log>, topic: &str) -> Result<Self> {
        let ranges = log.ranges(topic).await?.into_iter().map(|range| (range.partition, range)).collect();
        Ok(Self { log, topic: topic.to_owned(), ranges, cursors: HashMap::new() })
    }

    /// Compares the rows of an object with the records of its ranges.
    async fn compare(
        &mut self,
        object: &LakeObject,
        table: Table,
        mut rows: Digests,
        progress: &VerifyProgress,
        report: Report<'_>,
    ) -> Result<()> {
        for range in &object.ranges {
            let Some(held) = self.ranges.get(&range.partition).copied() else { continue };
            // Rows from before the topic's beginning cannot be compared any more.
            rows.retain(|(partition, offset), _| *partition != held.partition || *offset >= held.start);
            // Where an object does not say it, its last row does.
            let last = || rows.keys().filter(|place| place.0 == held.partition).map(|place| place.1 + 1).max();
            let end = range.end.or_else(last).unwrap_or(range.start).min(held.end);
            let mut cursor = match self.cursors.remove(&held.partition) {
                Some(cursor) => cursor,
                None => Cursor::open(&self.log, &self.topic, held, range.start).await?,
            };
            if range.start.max(held.start) < cursor.next {
                let detail = format!("rows up to offset {} were compared before", cursor.next - 1);
                report(finding("overlap", Some((range.partition, range.start)), Some(object), detail))?;
                rows.retain(|(partition, offset), _| *partition != held.partition || *offset >= cursor.next);
            }
            // What lies between two objects is compared with the second one, which has no row of it.
            while let Some(record) = cursor.next_before(end).await? {
                compare_one(table, object, &record, &mut rows, progress, report)?;
            }
            self.cursors.insert(held.partition, cursor);
        }
        let mut left: Vec<(i32, i64)> = rows.into_keys().collect();
        left.sort_unstable();
        for place in left {
            report(finding("no_record", Some(place), Some(object), "the topic has no record there".to_owned()))?;
        }
        Ok(())
    }
}

/// One partition of the topic, read forward.
struct Cursor {
    reader: Box<dyn Reader>,
    /// Records that were read and lie behind what was compared.
    ahead: VecDeque<StoredRecord>,
    /// Offset after what was compared.
    next: i64,
}

impl Cursor {
    async fn open(log: &Arc<dyn Log>, topic: &str, held: OffsetRange, start: i64) -> Result<Self> {
        // A lake that is ahead of its topic has nothing to be compared with.
        let next = start.clamp(held.start, held.end);
        let reader = log.reader(topic, vec![(held.partition, next)]).await?;
        Ok(Self { reader, ahead: VecDeque::new(), next })
    }

    /// The next record, if there is one before `end`.
    async fn next_before(&mut self, end: i64) -> Result<Option<StoredRecord>> {
        let mut empty = 0;
        while self.next < end {
            if let Some(record) = self.ahead.pop_front_if(|record| record.offset < end) {
                self.next = record.offset + 1;
                return Ok(Some(record));
            }
            let passed = self.reader.positions().iter().all(|(_, position)| *position >= end);
            if !self.ahead.is_empty() || passed {
                self.next = end;
                break;
            }
            self.ahead.extend(self.reader.read(READ_RECORDS, READ_WAIT).await?);
            empty = if self.ahead.is_empty() { empty + 1 } else { 0 };
            if empty > EMPTY_READS_MAX {
                let message = format!("the topic gives no records before offset {end}, where it should have some");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(None)
    }
}

fn compare_one(
    table: Table,
    object: &LakeObject,
    record: &StoredRecord,
    rows: &mut Digests,
    progress: &VerifyProgress,
    report: Report<'_>,
) -> Result<()> {
    progress.records.fetch_add(1, Ordering::Relaxed);
    let place = (record.partition, record.offset);
    let value = record.value.as_deref().unwrap_or_default();
    let Some((hash, id)) = rows.remove(&place) else {
        if table.row(value).is_ok() {
            return report(finding("no_row", Some(place), Some(object), "a record of the topic has no row".to_owned()));
        }
        progress.unreadable.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    };
    let same = |value: &[u8]| <[u8; 32]>::from(Sha256::digest(value)) == hash;
    // A JSON object keeps a line feed between tokens as a blank, and a file that was made of one does.
    let blank: Vec<u8> = value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
    if !same(value) && !same(&blank) {
        let id = id.map(|id| format!("; its id is {id}")).unwrap_or_default();
        let detail = format!("the row has other bytes than the record{id}");
        return report(finding("other_bytes", Some(place), Some(object), detail));
    }
    match (id, table.row(value).map(|row| row.id)) {
        (Some(id), Ok(Some(claimed))) if claimed != id => {
            let detail = format!("the row's id is {id}, its bytes say {claimed}");
            report(finding("other_bytes", Some(place), Some(object), detail))
        }
        _ => Ok(()),
    }
}
