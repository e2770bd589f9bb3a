//! A stretch of a topic as rows of its table: what lies beyond the lake, or what has come since.
//!
//! In: a log and offsets. Out: batches, each partition in the order of its offsets. Every record of the stretch is
//! given once; what the lake holds as well is the caller's matter.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use event::Table;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use topic::{Log, OffsetRange, Offsets, Tail};

use crate::error::Result;
use crate::lake::LakeTable;
use crate::run::source::decode;

/// Records read at once: an event has a kilobyte, so a batch has some megabytes.
const READ_RECORDS: usize = 5_000;

/// A stretch of every partition of a topic, `[from, to)`.
#[derive(Clone, Debug)]
pub struct TopicTail {
    log: Arc<dyn Log>,
    topic: String,
    table: Table,
    from: Offsets,
    to: Offsets,
}

impl TopicTail {
    /// What `topic` holds now beyond the last object of each of its partitions in `lake`, or all it holds without one.
    /// Behind an object that does not say where it ends (JSON lines), its own rows are part of the stretch again.
    ///
    /// # Errors
    /// `Config` when there is no such topic, `Unavailable` when log or lake cannot be read.
    pub async fn beyond(lake: Option<&LakeTable>, log: Arc<dyn Log>, topic: &str) -> Result<Self> {
        let ranges = log.ranges(topic).await?;
        let mut landed: HashMap<i32, i64> = HashMap::new();
        if let Some(lake) = lake {
            let snapshot = lake.snapshot().await?;
            let held = snapshot.objects.iter().flat_map(|object| &object.ranges);
            let ends = held.map(|range| (range.partition, range.end.unwrap_or(range.start)));
            for (partition, end) in ends.chain(snapshot.covered.iter().map(|covered| (covered.partition, covered.end)))
            {
                let landed = landed.entry(partition).or_default();
                *landed = end.max(*landed);
            }
        }
        let start = |range: &OffsetRange| landed.get(&range.partition).map_or(range.start, |end| *end);
        let from = ranges.iter().map(|range| (range.partition, start(range).clamp(range.start, range.end))).collect();
        Ok(Self { log, topic: topic.to_owned(), table: Table::of_topic(topic), from, to: ends(&ranges) })
    }

    /// The stretch that has come behind this one since, with partitions that are new.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read.
    pub async fn next(&self) -> Result<Self> {
        let ranges = self.log.ranges(&self.topic).await?;
        let known: HashMap<i32, i64> = self.to.iter().copied().collect();
        let from = ranges.iter().map(|range| {
            // What retention has taken meanwhile is gone.
            let next = known.get(&range.partition).map_or(range.start, |end| *end);
            (range.partition, next.clamp(range.start, range.end))
        });
        let (log, from, to) = (Arc::clone(&self.log), from.collect(), ends(&ranges));
        Ok(Self { log, topic: self.topic.clone(), table: self.table, from, to })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.from.iter().zip(&self.to).any(|((_, from), (_, to))| from < to)
    }

    /// The rows with the columns of its table at `columns`, ascending.
    pub(crate) fn read(&self, columns: &[usize]) -> BoxStream<'static, Result<RecordBatch>> {
        let (tail, columns) = (self.clone(), columns.to_vec());
        let opened = async move {
            let range = |((partition, start), (_, end)): (&(i32, i64), &(i32, i64))| OffsetRange {
                partition: *partition,
                start: *start,
                end: *end,
            };
            let ranges = tail.from.iter().zip(&tail.to).map(range).collect();
            let records = Tail::of(tail.log.as_ref(), &tail.topic, ranges).await?.in_batches_of(READ_RECORDS);
            let reading = Reading { records, table: tail.table, columns };
            Result::Ok(stream::try_unfold(reading, Reading::next))
        };
        stream::once(opened).try_flatten().boxed()
    }
}

fn ends(ranges: &[OffsetRange]) -> Offsets {
    ranges.iter().map(|range| (range.partition, range.end)).collect()
}

struct Reading {
    records: Tail,
    table: Table,
    columns: Vec<usize>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        let Some(records) = self.records.next().await? else { return Ok(None) };
        let rows = decode(self.table, &records, 0..records.len(), &self.columns)?;
        Ok(Some((rows.batch, self)))
    }
}
