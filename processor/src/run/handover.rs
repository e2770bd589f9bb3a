//! The lake first, then the topic at exactly the next record.
//!
//! Every object of the lake, or the manifest for it, says which offsets it holds. Those that follow each other without a
//! gap from a partition's first one on are read, in the order of their least event time; the topic is then read from where
//! they end. A window closes when no unread object can hold a row of it and the watermark of what was read has passed.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use event::schema::{KAFKA_PARTITION, RECEIVED_AT};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use topic::{OffsetRange, Offsets};

use super::batch::Frontier;
use super::checkpoint::LakePosition;
use crate::engine::{Emit, Engine, Provenance};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::lake::{LakeObject, LakeRange, LakeSnapshot, LakeTable};

/// What is still to be read of the lake.
pub(super) struct Handover {
    lake: LakeTable,
    /// In the order of their least event time.
    objects: Vec<LakeObject>,
    /// Version of the lake's manifest that has them.
    manifest: u64,
    done: usize,
    frontier: Frontier,
    /// Where the topic is read from.
    offsets: Offsets,
}

impl Handover {
    /// Looks at the lake, and where the topic goes on from it.
    pub(super) async fn begin(lake: LakeTable, ranges: &[OffsetRange]) -> Result<Self> {
        let mut offsets = Vec::new();
        let snapshot = lake.snapshot().await?;
        let mut follows = vec![None; snapshot.objects.len()];
        let by_partition = snapshot.by_partition();
        for range in ranges {
            let covered = snapshot.covered.iter().find(|covered| covered.partition == range.partition);
            let held = by_partition.get(&range.partition).map_or(&[][..], Vec::as_slice);
            let end = follow(&snapshot, held, &mut follows)?;
            // What was removed by age is not read anew from the topic.
            let next = end.or(covered.map(|covered| covered.end)).unwrap_or(range.start);
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
        let wanted = snapshot.objects.into_iter().zip(follows).filter(|(_, follows)| *follows == Some(true));
        Ok(Self::over(lake, wanted.map(|(object, _)| object).collect(), offsets, snapshot.version))
    }

    /// Goes on where a checkpoint left off, with the objects that the lake had then.
    pub(super) async fn resume(lake: LakeTable, offsets: &Offsets, position: &LakePosition) -> Result<Self> {
        let changed = || {
            Error::new(ErrorKind::Data, "the lake has changed since the job stopped while it read it")
                .with_hint("begin anew with --restart")
        };
        let snapshot = lake.snapshot_of(position.manifest).await?.ok_or_else(changed)?;
        let read = |range: &LakeRange| {
            let next = offsets.iter().find(|(partition, _)| *partition == range.partition).map(|(_, next)| *next);
            range.end.zip(next).is_some_and(|(end, next)| end <= next)
        };
        let wanted = snapshot.objects.into_iter().filter(|object| object.ranges.iter().all(read)).collect();
        let mut handover = Self::over(lake, wanted, offsets.clone(), snapshot.version);
        if handover.names() != position.names {
            return Err(changed());
        }
        for done in 0..position.done {
            handover.frontier.done(done);
        }
        handover.done = position.done;
        Ok(handover)
    }

    fn over(lake: LakeTable, mut objects: Vec<LakeObject>, offsets: Offsets, manifest: u64) -> Self {
        let least = |object: &LakeObject| object.event_time.map_or(i64::MIN, |(least, _)| least);
        objects.sort_by(|a, b| least(a).cmp(&least(b)).then_with(|| a.path.cmp(&b.path)));
        let frontier = Frontier::new(objects.iter().map(least).collect());
        Self { lake, objects, manifest, done: 0, frontier, offsets }
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
        LakePosition { done: self.done, names: self.names(), manifest: self.manifest }
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
        let schema = self.lake.table().schema();
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

/// Follows a partition's ranges as long as each begins where the one before ended, and notes of their objects whether
/// they are to be read; returns where they end.
fn follow(snapshot: &LakeSnapshot, held: &[(LakeRange, usize)], follows: &mut [Option<bool>]) -> Result<Option<i64>> {
    let mut end = None;
    let mut broken = false;
    for (range, number) in held {
        let object = &snapshot.objects[*number];
        let Some(range_end) = range.end else {
            let message = format!("lake object `{}` does not say where it ends", object.path);
            return Err(Error::new(ErrorKind::Config, message).with_hint(
                "only Parquet objects do; compact the lake (`tidegate lake compact`), start at earliest, or land the \
                 topic as Parquet",
            ));
        };
        broken |= end.is_some_and(|end| end != range.start);
        if follows[*number].replace(!broken) == Some(broken) {
            let message = format!(
                "lake object `{}` holds rows before and after a gap: partition {} lacks offsets before {}",
                object.path, range.partition, range.start
            );
            return Err(Error::new(ErrorKind::Data, message)
                .with_hint("`tidegate lake verify` lists the gaps; start at earliest to read the topic alone"));
        }
        if !broken {
            end = Some(range_end);
        }
    }
    Ok(end)
}
