//! One run of a job over the rows of a case: what the engine emitted, and what came too late.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;

use super::stub::{Engine, LateRow, Planned};
use crate::error::{Error, Result};
use crate::job::Job;

/// An engine and all that came out of it.
pub(super) struct Run<'a> {
    job: &'a Job,
    delays: Vec<i64>,
    partitions: Vec<Vec<i32>>,
    engine: Engine,
    /// By output.
    outputs: Vec<Vec<RecordBatch>>,
    /// Rows that came too late for all of their windows, and for some.
    late: (usize, usize),
}

impl<'a> Run<'a> {
    /// An engine without rows; `delays` in microseconds and `partitions` by table.
    pub(super) async fn start(job: &'a Job, delays: Vec<i64>, partitions: Vec<Vec<i32>>) -> Result<Self> {
        let engine = Engine::new(job, &delays, &partitions).await?;
        let outputs = vec![Vec::new(); job.outputs().len()];
        Ok(Self { job, delays, partitions, engine, outputs, late: (0, 0) })
    }

    /// Ends the engine and goes on with another that knows only its snapshot.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let snapshot = self.engine.snapshot()?;
        self.engine = Engine::new(self.job, &self.delays, &self.partitions).await?;
        self.engine.restore(&snapshot).await
    }

    /// Takes rows in, and counts those that came too late.
    pub(super) async fn rows(&mut self, table: usize, partition: i32, rows: &RecordBatch) -> Result<()> {
        let mut emit = collect(&mut self.outputs);
        let late = self.engine.rows(table, partition, rows, None, &mut emit).await?;
        let (all, some) = count(&late);
        self.late = (self.late.0 + all, self.late.1 + some);
        Ok(())
    }

    /// Ends an epoch; partitions of `drained` hold no further row and hold no window open.
    pub(super) async fn end_epoch(&mut self, drained: &BTreeSet<(usize, i32)>) -> Result<()> {
        let mut emit = collect(&mut self.outputs);
        self.engine.end_epoch(&|table, partition| drained.contains(&(table, partition)), &mut emit).await
    }

    /// Closes everything.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let mut emit = collect(&mut self.outputs);
        self.engine.finish(&mut emit).await
    }

    pub(super) fn watermark(&self) -> Option<i64> {
        self.engine.watermark()
    }

    /// Rows by output.
    pub(super) fn outputs(&self) -> &[Vec<RecordBatch>] {
        &self.outputs
    }

    pub(super) const fn late(&self) -> (usize, usize) {
        self.late
    }

    /// Rows of the first output since this was last asked.
    pub(super) fn take_only(&mut self) -> Result<Vec<RecordBatch>> {
        self.outputs.first_mut().map(std::mem::take).ok_or_else(|| Error::internal("the job has no output"))
    }

    /// Late rows since this was last asked.
    pub(super) const fn take_late(&mut self) -> (usize, usize) {
        std::mem::replace(&mut self.late, (0, 0))
    }
}

fn collect(outputs: &mut [Vec<RecordBatch>]) -> impl FnMut(usize, RecordBatch) -> Result<()> + Send {
    |output, rows| {
        let known = outputs.get_mut(output);
        known.ok_or_else(|| Error::internal(format!("the engine emits to output {output}, which is none")))?.push(rows);
        Ok(())
    }
}

/// A row is reported once for each window that it came too late for.
fn count(late: &[LateRow]) -> (usize, usize) {
    let rows: BTreeMap<usize, bool> = late.iter().map(|late| (late.row, late.dropped_from_all)).collect();
    let all = rows.values().filter(|all| **all).count();
    (all, rows.len() - all)
}
