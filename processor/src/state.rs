//! The panes that are open: partial aggregates as record batches, one list a pane.
//!
//! In go batches of state (first column: the pane's start); out come the rows of windows that the watermark has
//! reached. A pane is dropped when the last window that holds it has closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, partition, sort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::error::Result;
use crate::plan::Assembly;
use crate::stream::window::WindowSpec;

/// State rows that are merged and evaluated in one run, when many windows close at once.
const ROWS_AT_ONCE: usize = 64 * 1024;
/// A pane with more batches than this is merged into one before it is asked for again.
const SEGMENTS_MAX: usize = 64;

/// Partial aggregates of the panes that some open window still needs.
#[derive(Debug)]
pub(crate) struct Panes {
    spec: WindowSpec,
    schema: SchemaRef,
    panes: BTreeMap<i64, Vec<RecordBatch>>,
    /// Windows whose end is at or before this have been emitted.
    closed_until: Option<i64>,
}

impl Panes {
    pub(crate) fn new(spec: WindowSpec, assembly: &Assembly) -> Self {
        Self { spec, schema: Arc::clone(assembly.reduce.input_schema()), panes: BTreeMap::new(), closed_until: None }
    }

    /// Adds partial aggregates of any panes.
    pub(crate) fn add(&mut self, state: &RecordBatch) -> Result<()> {
        if state.num_rows() == 0 {
            return Ok(());
        }
        let starts = state.column(0).as_primitive::<Int64Type>();
        let first = starts.value(0);
        if starts.values().iter().all(|start| *start == first) {
            self.panes.entry(first).or_default().push(state.clone());
            return Ok(());
        }
        let sorted = take_record_batch(state, &sort_to_indices(starts, None, None)?)?;
        for range in partition(&[Arc::clone(sorted.column(0))])?.ranges() {
            let slice = sorted.slice(range.start, range.len());
            let start = slice.column(0).as_primitive::<Int64Type>().value(0);
            self.panes.entry(start).or_default().push(slice);
        }
        Ok(())
    }

    /// Emits every window with `end <= watermark` (all, when none is given) that has a pane and was not emitted
    /// before, in the order of their ends; `emit` gets the output rows of some windows at a time.
    pub(crate) async fn close(
        &mut self,
        watermark: Option<i64>,
        assembly: &mut Assembly,
        emit: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        let starts = self.closable(watermark);
        self.compact(&starts, assembly).await?;
        let mut chunk = Vec::new();
        let mut rows = 0;
        for start in starts {
            for segment in self.panes.range(start..start + self.spec.size()).flat_map(|(_, segments)| segments) {
                rows += segment.num_rows();
                chunk.push(in_window(segment, start)?);
            }
            if rows >= ROWS_AT_ONCE {
                self.flush(&mut chunk, assembly, emit).await?;
                rows = 0;
            }
        }
        self.flush(&mut chunk, assembly, emit).await?;
        match watermark {
            Some(watermark) => {
                self.closed_until = Some(self.closed_until.map_or(watermark, |before| before.max(watermark)));
                self.panes.retain(|pane, _| self.spec.last_end(*pane) > watermark);
            }
            None => self.panes.clear(),
        }
        Ok(())
    }

    /// Starts of the windows that close at `watermark`, ascending.
    fn closable(&self, watermark: Option<i64>) -> BTreeSet<i64> {
        let size = self.spec.size();
        let until = watermark.unwrap_or(i64::MAX);
        let panes = self.panes.keys().take_while(|pane| **pane < until);
        panes
            .flat_map(|pane| self.spec.windows_of(*pane))
            .filter(|start| start + size <= until && self.closed_until.is_none_or(|closed| start + size > closed))
            .collect()
    }

    async fn flush(
        &self,
        chunk: &mut Vec<RecordBatch>,
        assembly: &mut Assembly,
        emit: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        // Many panes are small; the operators like few batches better.
        let state = concat_batches(&self.schema, chunk.iter())?;
        chunk.clear();
        let closed = assembly.close(vec![state]).await?;
        match closed.first().map(RecordBatch::schema) {
            Some(schema) if closed.iter().any(|rows| rows.num_rows() > 0) => emit(concat_batches(&schema, &closed)?),
            _ => Ok(()),
        }
    }

    /// Merges the batches of those panes that the windows at `starts` are made of and that have several.
    async fn compact(&mut self, starts: &BTreeSet<i64>, assembly: &mut Assembly) -> Result<()> {
        let (Some(first), Some(last)) = (starts.first(), starts.last()) else { return Ok(()) };
        // A pane of a tumbling window is read once: merging it first would do the work twice.
        let segments_max = if self.spec.size() == self.spec.slide() { SEGMENTS_MAX } else { 1 };
        let mut many = Vec::new();
        for (_, segments) in self.panes.range_mut(*first..*last + self.spec.size()) {
            if segments.len() > segments_max {
                many.append(segments);
            }
        }
        if many.is_empty() {
            return Ok(());
        }
        let many = concat_batches(&self.schema, many.iter())?;
        for state in assembly.reduce.run_batches(vec![many]).await? {
            self.add(&state)?;
        }
        Ok(())
    }

    /// Rows and bytes held.
    pub(crate) fn size(&self) -> (usize, usize) {
        let segments = || self.panes.values().flatten();
        (segments().map(RecordBatch::num_rows).sum(), segments().map(RecordBatch::get_array_memory_size).sum())
    }

    /// All state as batches, for a snapshot.
    pub(crate) fn snapshot(&self) -> Result<RecordBatch> {
        Ok(concat_batches(&self.schema, self.panes.values().flatten())?)
    }

    /// Takes up where a snapshot left off.
    pub(crate) fn restore(&mut self, state: &[RecordBatch], closed_until: Option<i64>) -> Result<()> {
        self.closed_until = closed_until;
        state.iter().try_for_each(|state| self.add(state))
    }
}

/// The state rows of a pane as rows of the window at `start`.
fn in_window(segment: &RecordBatch, start: i64) -> Result<RecordBatch> {
    let mut columns = segment.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from_value(start, segment.num_rows()));
    Ok(RecordBatch::try_new(segment.schema(), columns)?)
}
