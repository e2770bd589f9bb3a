//! One run of a job over the rows of a case: what came out, and what came too late.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::engine::{Engine, LateRow, Part, Provenance, Range, select_leaf};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::cut::Kind;
use crate::run::checkpoint::{decode, encode};

/// Segments of state after which a snapshot holds everything again; few, so that cases see both.
const SEGMENTS_MAX: usize = 4;

/// Threads of a run, at most.
const THREADS_MAX: usize = 3;

/// An engine and all that came out of it.
pub(super) struct Run<'a> {
    job: &'a Job,
    delays: Vec<i64>,
    partitions: i32,
    engine: Engine<'a>,
    /// Rows are taken in by so many workers; another number after each restart.
    threads: usize,
    /// What a restart has to go on with: state of a cut, as a checkpoint has it.
    segments: Vec<(usize, Vec<u8>)>,
    /// By output.
    outputs: Vec<Vec<RecordBatch>>,
    /// Rows that came too late for all of their windows, and for some.
    late: (usize, usize),
}

impl<'a> Run<'a> {
    /// An engine without rows; `delays` in microseconds by table, and each table of so many partitions.
    pub(super) async fn start(job: &'a Job, delays: Vec<i64>, partitions: i32) -> Result<Self> {
        let engine = engine(job, &delays, partitions).await?;
        let outputs = vec![Vec::new(); job.outputs().len()];
        Ok(Self { job, delays, partitions, engine, threads: 1, segments: Vec::new(), outputs, late: (0, 0) })
    }

    /// Ends the engine and goes on with another, on another number of threads, that knows only what a checkpoint would
    /// hold.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let whole = self.segments.len() >= SEGMENTS_MAX * self.job.plan.cuts.len();
        let state = if whole { self.engine.whole().await? } else { self.engine.fresh().await? };
        if whole {
            self.segments.clear();
        }
        for (cut, state) in state.iter().enumerate().filter(|(_, state)| state.num_rows() > 0) {
            self.segments.push((cut, encode(state)?));
        }
        let (watermark, closed_until) = (self.engine.watermark(), self.engine.closed_until());
        let marks: Vec<_> = self.engine.marks().marks().collect();
        self.engine = engine(self.job, &self.delays, self.partitions).await?;
        self.engine.restore(watermark, closed_until, marks);
        for (cut, state) in &self.segments {
            self.engine.restore_state(*cut, &decode(Bytes::copy_from_slice(state))?)?;
        }
        self.threads = self.threads % THREADS_MAX + 1;
        Ok(())
    }

    /// Takes rows, with all columns of their table, in; counts those that came too late.
    pub(super) async fn rows(&mut self, table: usize, partition: i32, rows: &RecordBatch) -> Result<()> {
        let rows = rows.project(&self.job.plan.tables[table].columns)?;
        let partitions = vec![partition; rows.num_rows()];
        let each = rows.num_rows().div_ceil(self.threads).max(1);
        let starts = (0..rows.num_rows()).step_by(each);
        let slices: Vec<RecordBatch> = starts.map(|at| rows.slice(at, each.min(rows.num_rows() - at))).collect();
        let part = |rows| Part { rows, from: Provenance { partitions: &partitions, received: None } };
        let parts: Vec<Part<'_>> = slices.iter().map(part).collect();
        let mut emit = collect(&mut self.outputs);
        let late = self.engine.parts(table, &parts, &mut emit).await?;
        let (all, some) = count(&late);
        self.late = (self.late.0 + all, self.late.1 + some);
        Ok(())
    }

    /// Ends an epoch; partitions of `drained` hold no further row and hold no window open.
    pub(super) async fn end_epoch(&mut self, drained: &BTreeSet<(usize, i32)>) -> Result<()> {
        let mut emit = collect(&mut self.outputs);
        self.engine.end_epoch(|source| drained.contains(&source), &mut emit).await
    }

    /// Closes everything.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let mut emit = collect(&mut self.outputs);
        self.engine.finish(&mut emit).await
    }

    /// Runs the queries that need all rows at once; `tables` has the rows of each table of the job.
    pub(super) async fn bounded(&mut self, tables: &[&RecordBatch]) -> Result<()> {
        let plan = &self.job.plan;
        for (number, _) in plan.queries.iter().enumerate().filter(|(_, query)| query.kind == Kind::Bounded) {
            let (mut upper, readers) = plan.upper(number).await?;
            let mut fills = Vec::with_capacity(readers.len());
            for reader in readers {
                let (table, reader) = reader.ok_or_else(|| Error::internal("a query over all rows reads no table"))?;
                let rows = tables[table].project(&plan.tables[table].columns)?;
                fills.push(vec![select_leaf(&reader, &rows, plan.tables[table].time_at, Range::new(None, None))?]);
            }
            self.outputs[number].extend(upper.run_batches(fills).await?);
        }
        Ok(())
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
    pub(super) fn take_only(&mut self) -> Vec<RecordBatch> {
        self.outputs.first_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Late rows since this was last asked.
    pub(super) fn take_late(&mut self) -> (usize, usize) {
        std::mem::take(&mut self.late)
    }
}

async fn engine<'a>(job: &'a Job, delays: &[i64], partitions: i32) -> Result<Engine<'a>> {
    let sources = (0..delays.len()).flat_map(|table| (0..partitions).map(move |partition| (table, partition)));
    let mut engine = Engine::new(job, Range::new(None, None), delays.to_vec(), sources).await?;
    engine.keep_fresh();
    Ok(engine)
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
    let rows: BTreeMap<usize, bool> = late.iter().map(|late| (late.row, late.for_all)).collect();
    let all = rows.values().filter(|all| **all).count();
    (all, rows.len() - all)
}
