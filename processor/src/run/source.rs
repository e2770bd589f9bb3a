//! The topic as a stream reads it: records to rows, how far each partition is, which are idle, which are too far
//! ahead, and which are new.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use event::{EventId, Origin, Table};
use tokio::time::Instant;
use topic::{Log, Offsets, Reader, StoredRecord};

use crate::engine::{Part, Provenance};
use crate::error::{Error, Result};
use crate::workers::at_once;

/// How old what is known of the ends may be for a partition to count as idle.
const ENDS_AGE_MAX: Duration = Duration::from_secs(3);

/// Rows decoded from records, and where each came from.
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    pub(super) partitions: Vec<i32>,
    /// Microseconds since 1970.
    pub(super) received: Vec<i64>,
    /// Position among the records, and id of the event that the row is of, where it is of one.
    pub(super) origins: Vec<(usize, Option<EventId>)>,
    /// Records that are no row of the table.
    pub(super) unreadable: u64,
}

impl Rows {
    /// The rows as an engine takes them in.
    pub(super) fn part(&self) -> Part<'_> {
        Part { rows: &self.batch, from: Provenance { partitions: &self.partitions, received: Some(&self.received) } }
    }
}

/// The raw topic.
pub(super) struct Source {
    log: Arc<dyn Log>,
    topic: String,
    reader: Box<dyn Reader>,
    /// Partitions that are not read for now, and where they stand.
    paused: BTreeMap<i32, i64>,
    /// Ends of the partitions, when they were last asked for, and when there was last an answer.
    ends: HashMap<i32, i64>,
    ends_at: Instant,
    known_at: Instant,
    /// How often they are asked for.
    ends_every: Duration,
    /// When a partition last gave a record.
    heard: HashMap<i32, Instant>,
    started: Instant,
}

impl Source {
    pub(super) async fn open(
        log: Arc<dyn Log>,
        topic: &str,
        from: Offsets,
        ends: HashMap<i32, i64>,
        ends_every: Duration,
    ) -> Result<Self> {
        let reader = log.reader(topic, from).await?;
        let now = Instant::now();
        let topic = topic.to_owned();
        Ok(Self {
            log,
            topic,
            reader,
            paused: BTreeMap::new(),
            ends,
            ends_at: now,
            known_at: now,
            ends_every,
            heard: HashMap::new(),
            started: now,
        })
    }

    pub(super) async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<StoredRecord>> {
        let records = waited_out(self.reader.read(max, wait).await)?.unwrap_or_default();
        let now = Instant::now();
        self.heard.extend(records.iter().map(|record| (record.partition, now)));
        Ok(records)
    }

    /// Next offset of every partition, by partition.
    pub(super) fn positions(&self) -> Offsets {
        let mut positions = self.reader.positions();
        positions.extend(self.paused.iter().map(|(partition, offset)| (*partition, *offset)));
        positions.sort_unstable();
        positions
    }

    /// The end of a partition when it was last asked for.
    pub(super) fn end(&self, partition: i32) -> Option<i64> {
        self.ends.get(&partition).copied()
    }

    pub(super) fn is_paused(&self, partition: i32) -> bool {
        self.paused.contains_key(&partition)
    }

    /// Asks for the ends now and then; returns partitions that were not there before, which are read from their start.
    pub(super) async fn refresh(&mut self) -> Result<Vec<i32>> {
        if self.ends_at.elapsed() < self.ends_every {
            return Ok(Vec::new());
        }
        let ranges = waited_out(self.log.ranges(&self.topic).await)?;
        self.ends_at = Instant::now();
        let Some(ranges) = ranges else { return Ok(Vec::new()) };
        self.known_at = self.ends_at;
        let known: HashSet<i32> = self.positions().into_iter().map(|(partition, _)| partition).collect();
        let new: Offsets = ranges
            .iter()
            .filter(|range| !known.contains(&range.partition))
            .map(|range| (range.partition, range.start))
            .collect();
        self.ends = ranges.iter().map(|range| (range.partition, range.end)).collect();
        if !new.is_empty() {
            let mut from = self.reader.positions();
            from.extend(&new);
            let Some(reader) = waited_out(self.log.reader(&self.topic, from).await)? else { return Ok(Vec::new()) };
            self.reader = reader;
        }
        Ok(new.into_iter().map(|(partition, _)| partition).collect())
    }

    /// Reads no partition in `ahead`, and every other one.
    pub(super) async fn hold_back(&mut self, ahead: &[i32]) -> Result<()> {
        let wanted: HashSet<i32> = ahead.iter().copied().collect();
        let paused: HashSet<i32> = self.paused.keys().copied().collect();
        if wanted == paused {
            return Ok(());
        }
        let (paused, read): (Offsets, Offsets) =
            self.positions().into_iter().partition(|(partition, _)| wanted.contains(partition));
        let Some(reader) = waited_out(self.log.reader(&self.topic, read).await)? else { return Ok(()) };
        self.reader = reader;
        self.paused = paused.into_iter().collect();
        Ok(())
    }

    /// Partitions that are caught up and have been quiet for `timeout`. While the log is away nobody knows: the first
    /// partition to come back would else leave the others behind.
    pub(super) fn idle(&self, timeout: Duration) -> HashSet<i32> {
        if self.known_at.elapsed() > self.ends_every + ENDS_AGE_MAX {
            return HashSet::new();
        }
        let quiet = |partition: &i32| self.heard.get(partition).unwrap_or(&self.started).elapsed() >= timeout;
        self.caught_up().into_iter().filter(quiet).collect()
    }

    /// Partitions that are read to the end that was last known.
    pub(super) fn caught_up(&self) -> HashSet<i32> {
        let at_end = |(partition, offset): &(i32, i64)| self.end(*partition).is_none_or(|end| *offset >= end);
        self.positions().into_iter().filter(at_end).map(|(partition, _)| partition).collect()
    }

    /// Records that are there and not read yet.
    pub(super) fn lag(&self) -> u64 {
        let behind = |(partition, offset): (i32, i64)| (self.end(partition).unwrap_or(offset) - offset).max(0);
        u64::try_from(self.positions().into_iter().map(behind).sum::<i64>()).unwrap_or(0)
    }
}

/// None where the log is away: what was asked for can wait, and is asked for again.
fn waited_out<T>(asked: topic::Result<T>) -> Result<Option<T>> {
    match asked {
        Err(error) if error.kind() == topic::ErrorKind::Unavailable => {
            tracing::warn!(%error, "could not read, will try again");
            Ok(None)
        }
        asked => Ok(Some(asked?)),
    }
}

/// Records to rows with the columns of `table` at `columns`, in so many parts at once, in the order of the records; a
/// record that is no row is counted.
pub(super) async fn decode_all(
    table: Table,
    records: &Arc<[StoredRecord]>,
    columns: &[usize],
    threads: usize,
) -> Result<Vec<Rows>> {
    let each = records.len().div_ceil(threads.max(1)).max(1);
    if each >= records.len() {
        return Ok(vec![decode(table, records, 0..records.len(), columns)?]);
    }
    let part = |first: usize| {
        let (records, columns) = (Arc::clone(records), columns.to_vec());
        async move { decode(table, &records, first..(first + each).min(records.len()), &columns) }
    };
    at_once((0..records.len()).step_by(each).map(part)).await?.into_iter().collect()
}

/// Those of `part` to rows.
pub(crate) fn decode(table: Table, records: &[StoredRecord], part: Range<usize>, columns: &[usize]) -> Result<Rows> {
    let mut builder = table.builder();
    let (mut partitions, mut received, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    let mut unreadable = 0;
    for (at, record) in part.clone().zip(&records[part]) {
        let raw = record.value.as_deref().unwrap_or_default();
        let origin = Origin {
            relay: record.header(event::layout::HEADER_RELAY),
            received_at_ms: Some(record.timestamp_ms),
            phase: record.header(event::layout::HEADER_PHASE),
            partition: record.partition,
            offset: record.offset,
        };
        match builder.take(raw, &origin) {
            Ok(row) => {
                partitions.push(record.partition);
                received.push(record.timestamp_ms.saturating_mul(1_000));
                origins.push((at, row.id));
            }
            Err(rejection) => {
                unreadable += 1;
                tracing::warn!(
                    partition = record.partition,
                    offset = record.offset,
                    reason = rejection.reason.as_str(),
                    "a record of the topic is no row of its table"
                );
            }
        }
    }
    let batch = builder.finish().project(columns).map_err(Error::from)?;
    Ok(Rows { batch, partitions, received, origins, unreadable })
}
