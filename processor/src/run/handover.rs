//! The lake first, then the topic at exactly the next record.
//!
//! Every object of the lake says which offsets it holds. Those that follow each other without a gap from a
//! partition's first object on are read, in the order of their least event time; the topic is then read from where
//! they end. A window closes when no unread object can hold a row of it and the watermark of what was read has passed.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use event::schema::{KAFKA_PARTITION, RECEIVED_AT, events_schema};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use topic::{OffsetRange, Offsets};

use super::batch::Frontier;
use super::checkpoint::LakePosition;
use crate::engine::{Emit, Engine, Provenance};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::lake::{LakeObject, LakeTable};

/// What is still to be read of the lake.
pub(super) struct Handover {
    lake: LakeTable,
    /// In the order of their least event time.
    objects: Vec<LakeObject>,
    done: usize,
    frontier: Frontier,
    /// Where the topic is read from.
    offsets: Offsets,
}

impl Handover {
    /// Looks at the lake, and where the topic goes on from it.
    pub(super) async fn begin(lake: LakeTable, ranges: &[OffsetRange]) -> Result<Self> {
        let mut offsets = Vec::new();
        let mut wanted = Vec::new();
        let by_partition = by_partition(lake.objects().await?);
        for range in ranges {
            let mut end = None;
            for object in by_partition.get(&range.partition).into_iter().flatten() {
                let Some(object_end) = object.end else {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("lake object `{}` does not say where it ends", object.path),
                    )
                    .with_hint("only Parquet objects do; start at earliest, or land the topic as Parquet"));
                };
                if end.is_some_and(|end| end != object.key.start) {
                    break;
                }
                end = Some(object_end);
                wanted.push(object.clone());
            }
            let next = end.unwrap_or(range.start);
            if next < range.start {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!(
                        "partition {} of the topic begins at {}, but the lake ends at {next}",
                        range.partition, range.start
                    ),
                )
                .with_hint("the rows between are in neither; start at earliest to go without them"));
            }
            offsets.push((range.partition, next));
        }
        Ok(Self::over(lake, wanted, offsets))
    }

    /// Goes on where a checkpoint left off.
    pub(super) async fn resume(lake: LakeTable, offsets: &Offsets, position: &LakePosition) -> Result<Self> {
        let by_partition = by_partition(lake.objects().await?);
        let mut wanted = Vec::new();
        for (partition, next) in offsets {
            let objects = by_partition.get(partition).into_iter().flatten();
            wanted.extend(objects.filter(|object| object.end.is_some_and(|end| end <= *next)).cloned());
        }
        let mut handover = Self::over(lake, wanted, offsets.clone());
        if handover.names() != position.names {
            return Err(Error::new(ErrorKind::Data, "the lake has changed since the job stopped while it read it")
                .with_hint("begin anew with --restart"));
        }
        for done in 0..position.done {
            handover.frontier.done(done);
        }
        handover.done = position.done;
        Ok(handover)
    }

    fn over(lake: LakeTable, mut objects: Vec<LakeObject>, offsets: Offsets) -> Self {
        let least = |object: &LakeObject| object.event_time.map_or(i64::MIN, |(least, _)| least);
        objects.sort_by(|a, b| least(a).cmp(&least(b)).then_with(|| a.path.cmp(&b.path)));
        let frontier = Frontier::new(objects.iter().map(least).collect());
        Self { lake, objects, done: 0, frontier, offsets }
    }

    /// Where the topic is read from.
    pub(super) const fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Objects still to be read.
    pub(super) fn left(&self) -> usize {
        self.objects.len() - self.done
    }

    /// For the control record.
    pub(super) fn position(&self) -> LakePosition {
        LakePosition { done: self.done, names: self.names() }
    }

    fn names(&self) -> String {
        let mut hash = Sha256::new();
        for object in &self.objects {
            hash.update(object.path.as_ref());
            hash.update("\n");
        }
        hex::encode(hash.finalize())
    }

    /// Takes the next object in; returns how many rows it has.
    pub(super) async fn next(&mut self, job: &Job, engine: &mut Engine<'_>, emit: &mut Emit<'_>) -> Result<u64> {
        let Some(object) = self.objects.get(self.done) else { return Ok(0) };
        let Some(table) = job.plan.tables.first() else { return Ok(0) };
        let schema = events_schema();
        let (partition, received) = (schema.index_of(KAFKA_PARTITION)?, schema.index_of(RECEIVED_AT)?);
        let mut columns = table.columns.clone();
        columns.extend([partition, received]);
        columns.sort_unstable();
        columns.dedup();
        let position = |column: usize| columns.iter().position(|other| *other == column).unwrap_or_default();
        let wanted: Vec<usize> = table.columns.iter().map(|column| position(*column)).collect();
        let mut rows = self.lake.read(object, &columns);
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            let partitions = batch.column(position(partition)).as_primitive::<Int32Type>();
            let received = batch.column(position(received)).as_primitive::<TimestampMicrosecondType>();
            // Without the moment of receipt the date cannot be bounded by it.
            let received = (received.null_count() == 0).then(|| received.values().to_vec());
            let from = Provenance { partitions: partitions.values(), received: received.as_deref() };
            engine.backfill(0, &batch.project(&wanted)?, from, emit).await?;
        }
        let frontier = self.frontier.done(self.done);
        self.done += 1;
        engine.end_backfill(frontier, emit).await?;
        Ok(count)
    }
}

fn by_partition(objects: Vec<LakeObject>) -> BTreeMap<i32, Vec<LakeObject>> {
    let mut by_partition: BTreeMap<i32, Vec<LakeObject>> = BTreeMap::new();
    for object in objects {
        by_partition.entry(object.key.partition).or_default().push(object);
    }
    for objects in by_partition.values_mut() {
        objects.sort_by_key(|object| object.key.start);
    }
    by_partition
}
