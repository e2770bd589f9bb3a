//! A stretch of a topic as rows of its table: what lies beyond the lake, or what has come since.
//!
//! In: a log and offsets. Out: batches, each partition in the order of its offsets. Every record of the stretch is
//! given once; what the lake holds as well is the caller's matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use event::Table;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use topic::{Log, OffsetRange, Offsets, Reader};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::LakeTable;
use crate::run::source::decode;

/// Records read at once: an event has a kilobyte, so a batch has some megabytes.
const READ_RECORDS: usize = 5_000;
/// Silence after which reading what must be there is given up.
const READ_WAIT: Duration = Duration::from_secs(30);

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
            let open = tail.from.iter().zip(&tail.to).filter(|((_, from), (_, to))| from < to);
            let (from, to): (Offsets, HashMap<i32, i64>) = open.map(|(from, to)| (*from, *to)).unzip();
            let reader = match from.is_empty() {
                true => None,
                false => Some(tail.log.reader(&tail.topic, from).await?),
            };
            let reading = Reading { reader, to, topic: tail.topic, table: tail.table, columns };
            Result::Ok(stream::try_unfold(reading, Reading::next))
        };
        stream::once(opened).try_flatten().boxed()
    }
}

fn ends(ranges: &[OffsetRange]) -> Offsets {
    ranges.iter().map(|range| (range.partition, range.end)).collect()
}

struct Reading {
    /// None once the stretch is through.
    reader: Option<Box<dyn Reader>>,
    to: HashMap<i32, i64>,
    topic: String,
    table: Table,
    columns: Vec<usize>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let before = reader.positions();
        let mut records = reader.read(READ_RECORDS, READ_WAIT).await?;
        let positions = reader.positions();
        let ended = positions.iter().all(|(partition, at)| self.to.get(partition).is_none_or(|to| at >= to));
        // Past what is no record, as the markers of transactions, a reader moves without giving one.
        if records.is_empty() && !ended && positions == before {
            let message =
                format!("topic `{}` does not give back its newest records: nothing in {READ_WAIT:?}", self.topic);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        records.retain(|record| self.to.get(&record.partition).is_some_and(|to| record.offset < *to));
        let rows = decode(self.table, &records, 0..records.len(), &self.columns)?;
        self.reader = (!ended).then_some(reader);
        Ok(Some((rows.batch, self)))
    }
}
