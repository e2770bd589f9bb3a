//! A topic read up to its ends as of now, and no further.

use std::fmt;
use std::time::Duration;

use crate::{Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Result, StoredRecord};

/// Records read at once; a rejected one may have a megabyte, and a read ends by bytes too.
const RECORDS_MAX: usize = 10_000;
/// Silence after which reading is given up.
const WAIT: Duration = Duration::from_secs(30);

/// What is left to be read.
pub struct Tail {
    topic: String,
    /// Partitions with something to be read.
    ranges: Vec<OffsetRange>,
    reader: Option<Box<dyn Reader>>,
    records_max: usize,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("topic", &self.topic).field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

impl Tail {
    /// All records.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic, `Unavailable` when the log cannot be reached.
    pub async fn whole(log: &dyn Log, topic: &str) -> Result<Self> {
        let ranges = log.ranges(topic).await?;
        Self::of(log, topic, ranges).await
    }

    /// All records that can have been committed by now: waits for transactions that are open.
    ///
    /// # Errors
    /// As [`Tail::whole`].
    pub async fn written(log: &dyn Log, topic: &str) -> Result<Self> {
        let ranges = log.written(topic).await?;
        Self::of(log, topic, ranges).await
    }

    /// About the `last` newest records.
    ///
    /// # Errors
    /// As [`Tail::whole`].
    pub async fn newest(log: &dyn Log, topic: &str, last: u64) -> Result<Self> {
        let mut ranges = log.ranges(topic).await?;
        let share = last.div_ceil(u64::try_from(ranges.len()).unwrap_or(1).max(1));
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        for range in &mut ranges {
            range.start = range.start.max(range.end.saturating_sub(share));
        }
        Self::of(log, topic, ranges).await
    }

    /// Records from these offsets on that can have been committed by now; of a partition that is not named, or whose
    /// offset is gone, all of them.
    ///
    /// # Errors
    /// As [`Tail::whole`].
    pub async fn since(log: &dyn Log, topic: &str, from: &[(i32, i64)]) -> Result<Self> {
        let mut ranges = log.written(topic).await?;
        for range in &mut ranges {
            let asked = from.iter().find(|(partition, _)| *partition == range.partition);
            range.start = asked.map_or(range.start, |(_, offset)| range.start.max(*offset));
        }
        Self::of(log, topic, ranges).await
    }

    /// The records of these ranges.
    ///
    /// # Errors
    /// As [`Log::reader`].
    pub async fn of(log: &dyn Log, topic: &str, mut ranges: Vec<OffsetRange>) -> Result<Self> {
        ranges.retain(|range| range.end > range.start);
        let from: Offsets = ranges.iter().map(|range| (range.partition, range.start)).collect();
        let reader = if from.is_empty() { None } else { Some(log.reader(topic, from).await?) };
        Ok(Self { topic: topic.to_owned(), ranges, reader, records_max: RECORDS_MAX })
    }

    /// Next offset of every partition with something to be read.
    #[must_use]
    pub fn positions(&self) -> Offsets {
        self.reader.as_ref().map(|reader| reader.positions()).unwrap_or_default()
    }

    /// The same, in batches of at most `records_max` records; 10,000 unless told.
    #[must_use]
    pub fn in_batches_of(self, records_max: usize) -> Self {
        Self { records_max, ..self }
    }

    /// The next records; none when everything has been read.
    ///
    /// # Errors
    /// `Unavailable` when nothing comes for half a minute.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredRecord>>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        if reached(&reader.positions(), &self.ranges) {
            return Ok(None);
        }
        let before = reader.positions();
        let mut records = reader.read(self.records_max, WAIT).await?;
        // Past what is no record a reader moves without giving one.
        if records.is_empty() && reader.positions() == before {
            let message = format!("topic `{}` does not give back its newest records: nothing in {WAIT:?}", self.topic);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let end = |partition: i32| self.ranges.iter().find(|range| range.partition == partition);
        records.retain(|record| end(record.partition).is_some_and(|range| record.offset < range.end));
        Ok(Some(records))
    }
}

/// Whether positions of a reader lie at or past the ends of all these ranges.
#[must_use]
pub fn reached(positions: &[(i32, i64)], ranges: &[OffsetRange]) -> bool {
    ranges
        .iter()
        .all(|range| positions.iter().any(|(partition, next)| *partition == range.partition && *next >= range.end))
}
