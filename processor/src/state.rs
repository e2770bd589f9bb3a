//! The panes of one cut that are open: partial aggregates as record batches, one list a pane.
//!
//! In go batches of state (first column: the pane's start); out come the state rows of a window, merged by the caller.
//! A pane is dropped when the last window that holds it has closed. Under memory pressure the panes that were longest
//! left alone go to files, and are read back when a window wants them.

mod rollup;
mod spill;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, partition, sort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::error::Result;
use crate::plan::physical::Assembly;
use crate::stream::window::WindowSpec;
use rollup::{Part, RollUp};
pub(crate) use spill::SpillDir;
use spill::Spilled;

/// A pane with more batches than this is merged into one.
const SEGMENTS_MAX: usize = 64;
/// The end of the one window of a cut over all time.
pub(crate) const END_OF_TIME: i64 = i64::MAX;
/// Before every window.
pub(crate) const BEGIN_OF_TIME: i64 = i64::MIN / 4;

/// Partial aggregates of the panes that some open window still needs.
#[derive(Debug)]
pub(crate) struct Panes {
    spec: Option<WindowSpec>,
    schema: SchemaRef,
    panes: BTreeMap<i64, Pane>,
    /// What came since the last snapshot; none where nobody asks.
    fresh: Option<Vec<RecordBatch>>,
    /// Bytes of that.
    fresh_bytes: usize,
    /// Panes that changed since they were last asked for; none where nobody asks.
    touched: Option<BTreeSet<i64>>,
    size: Size,
    /// Merged runs of panes, where windows have many.
    rollup: Option<RollUp>,
    /// Counts the batches added, to tell which pane was longest left alone.
    clock: u64,
}

#[derive(Debug, Default)]
struct Pane {
    segments: Vec<RecordBatch>,
    /// Merged state in a file, beside what came since.
    spilled: Vec<Spilled>,
    /// What is in memory.
    size: Size,
    /// When it last changed.
    at: u64,
}

impl Pane {
    /// All its state.
    fn state(&self, schema: &SchemaRef, segments: &mut Vec<RecordBatch>) -> Result<()> {
        for file in &self.spilled {
            segments.push(file.read(schema)?);
        }
        segments.extend_from_slice(&self.segments);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.size.rows + self.spilled.iter().map(Spilled::rows).sum::<usize>()
    }
}

/// How much state there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    /// Bytes of the columns, shared buffers counted by their share of rows.
    pub(crate) bytes: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Self) {
        self.rows = self.rows.saturating_sub(other.rows);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

impl Panes {
    /// For the windows of `spec`; `merges` says that state of several panes becomes less when it is merged.
    pub(crate) fn new(spec: Option<WindowSpec>, schema: SchemaRef, merges: bool) -> Self {
        let rollup = spec.filter(|_| merges).and_then(RollUp::new);
        Self {
            spec,
            schema,
            panes: BTreeMap::new(),
            fresh: None,
            fresh_bytes: 0,
            touched: None,
            size: Size::default(),
            rollup,
            clock: 0,
        }
    }

    /// Remembers what comes from now on for [`Panes::take_fresh`].
    pub(crate) fn keep_fresh(&mut self) {
        self.fresh = Some(Vec::new());
    }

    /// Remembers which panes change from now on for [`Panes::touched_ends`].
    pub(crate) fn keep_touched(&mut self) {
        self.touched = Some(BTreeSet::new());
    }

    /// Adds partial aggregates of any panes.
    pub(crate) fn add(&mut self, state: &RecordBatch) -> Result<()> {
        if state.num_rows() == 0 {
            return Ok(());
        }
        let bytes = state.get_array_memory_size();
        if let Some(fresh) = &mut self.fresh {
            fresh.push(state.clone());
            self.fresh_bytes += bytes;
        }
        let starts = state.column(0).as_primitive::<Int64Type>();
        let first = starts.value(0);
        if starts.values().iter().all(|start| *start == first) {
            self.put(first, state.clone(), Size { rows: state.num_rows(), bytes });
            return Ok(());
        }
        let sorted = take_record_batch(state, &sort_to_indices(starts, None, None)?)?;
        for range in partition(&[Arc::clone(sorted.column(0))])?.ranges() {
            let slice = sorted.slice(range.start, range.len());
            let start = slice.column(0).as_primitive::<Int64Type>().value(0);
            let size = Size { rows: range.len(), bytes: bytes * range.len() / state.num_rows() };
            self.put(start, slice, size);
        }
        Ok(())
    }

    fn put(&mut self, start: i64, segment: RecordBatch, size: Size) {
        self.clock += 1;
        let pane = self.panes.entry(start).or_default();
        pane.at = self.clock;
        pane.segments.push(segment);
        pane.size.add(size);
        self.size.add(size);
        if let Some(rollup) = &mut self.rollup {
            rollup.forget(start);
        }
        if let Some(touched) = &mut self.touched {
            touched.insert(start);
        }
    }

    /// Rows and bytes in memory; the bytes of merged runs of panes count too.
    pub(crate) fn size(&self) -> Size {
        Size { rows: self.size.rows, bytes: self.size.bytes + self.rollup.as_ref().map_or(0, RollUp::bytes) }
    }

    /// Bytes that wait for the next snapshot.
    pub(crate) const fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// Rows in files.
    pub(crate) fn spilled_rows(&self) -> usize {
        self.panes.values().flat_map(|pane| &pane.spilled).map(Spilled::rows).sum()
    }

    /// Moves panes to files, the one that was longest left alone first, until no more than `bytes` are in memory.
    pub(crate) async fn spill(&mut self, bytes: usize, dir: &SpillDir, assembly: &mut Assembly) -> Result<()> {
        if let Some(rollup) = &mut self.rollup {
            rollup.clear();
        }
        let mut coldest: Vec<(u64, i64)> = self.panes.iter().map(|(start, pane)| (pane.at, *start)).collect();
        coldest.sort_unstable();
        for (_, start) in coldest {
            if self.size.bytes <= bytes {
                break;
            }
            let Some(pane) = self.panes.get_mut(&start) else { continue };
            let segments = std::mem::take(&mut pane.segments);
            self.size.take(std::mem::take(&mut pane.size));
            if segments.is_empty() {
                continue;
            }
            let merged = assembly.reduce(vec![concat_batches(&self.schema, &segments)?]).await?;
            pane.spilled.push(dir.write(&concat_batches(&self.schema, &merged)?)?);
        }
        Ok(())
    }

    /// Number of panes held.
    pub(crate) fn len(&self) -> usize {
        self.panes.len()
    }

    /// The least end after `after` of a window that has a pane.
    pub(crate) fn next_end(&self, after: i64) -> Option<i64> {
        let Some(spec) = self.spec else {
            return (after < END_OF_TIME && !self.panes.is_empty()).then_some(END_OF_TIME);
        };
        let mut from = after - spec.size() + 1;
        loop {
            let pane = *self.panes.range(from..).next()?.0;
            let end = spec.end_after(after.max(pane));
            if end - spec.size() <= pane {
                return Some(end);
            }
            from = pane + 1;
        }
    }

    /// Ends in `(after, until]` of windows that have a pane, ascending.
    pub(crate) fn ends(&self, after: i64, until: i64) -> Vec<i64> {
        let mut ends = Vec::new();
        let mut at = after;
        while let Some(end) = self.next_end(at).filter(|end| *end <= until) {
            ends.push(end);
            at = end;
        }
        ends
    }

    /// Ends after `after` of windows that hold a pane which changed since this was last asked.
    pub(crate) fn touched_ends(&mut self, after: i64) -> BTreeSet<i64> {
        let touched = self.touched.as_mut().map(std::mem::take).unwrap_or_default();
        let Some(spec) = self.spec else {
            return touched.into_iter().map(|_| END_OF_TIME).collect();
        };
        touched
            .into_iter()
            .flat_map(|pane| spec.windows_of(pane))
            .map(|start| start + spec.size())
            .filter(|end| *end > after)
            .collect()
    }

    /// Whether a window ends at `end` and has a pane.
    pub(crate) fn has_end(&self, end: i64) -> bool {
        self.next_end(end - 1) == Some(end)
    }

    /// State rows of the window that ends at `end`, nearly: runs of panes that are merged have fewer.
    pub(crate) fn rows_of(&self, end: i64) -> usize {
        let rows = self.within(end).map(Pane::rows);
        match self.rollup {
            Some(_) => rows.max().unwrap_or(0),
            None => rows.sum(),
        }
    }

    fn within(&self, end: i64) -> impl Iterator<Item = &Pane> {
        let range = match self.spec {
            Some(spec) => end - spec.size()..end,
            None => BEGIN_OF_TIME..END_OF_TIME,
        };
        self.panes.range(range).map(|(_, pane)| pane)
    }

    /// The state of the window that ends at `end`, its start in the place of the panes'.
    pub(crate) fn window(&self, end: i64) -> Result<Option<RecordBatch>> {
        let start = self.spec.map_or(0, |spec| end - spec.size());
        let mut segments = Vec::new();
        match &self.rollup {
            Some(rollup) => {
                for part in rollup.cover(start, end) {
                    self.state_of(rollup, part, &mut segments)?;
                }
            }
            None => self.within(end).try_for_each(|pane| pane.state(&self.schema, &mut segments))?,
        }
        if segments.is_empty() {
            return Ok(None);
        }
        // Many panes are small; the operators like few batches better.
        Ok(Some(self.as_of(start, &segments)?))
    }

    /// State of several panes as that of one which starts at `start`.
    fn as_of(&self, start: i64, segments: &[RecordBatch]) -> Result<RecordBatch> {
        let state = concat_batches(&self.schema, segments)?;
        let mut columns = state.columns().to_vec();
        columns[0] = Arc::new(Int64Array::from_value(start, state.num_rows()));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The state of a pane or a node; of a node that is not built, that of its children.
    fn state_of(&self, rollup: &RollUp, part: Part, segments: &mut Vec<RecordBatch>) -> Result<()> {
        if part.level == 0 {
            return self.panes.get(&part.start).map_or(Ok(()), |pane| pane.state(&self.schema, segments));
        }
        if let Some(state) = rollup.get(part) {
            segments.push(state.clone());
            return Ok(());
        }
        if self.is_empty(rollup, part) {
            return Ok(());
        }
        rollup.children(part).try_for_each(|child| self.state_of(rollup, child, segments))
    }

    fn is_empty(&self, rollup: &RollUp, part: Part) -> bool {
        self.panes.range(part.start..part.start + rollup.span(part.level)).next().is_none()
    }

    /// Builds what the window that ends at `end` is merged from, where that is more than panes. The window closes, so
    /// that few rows come to its panes any more.
    pub(crate) async fn roll_up(&mut self, end: i64, assembly: &mut Assembly) -> Result<()> {
        let (Some(mut rollup), Some(spec)) = (self.rollup.take(), self.spec) else { return Ok(()) };
        let mut open = rollup.cover(end - spec.size(), end);
        let mut missing = Vec::new();
        while let Some(part) = open.pop() {
            if part.level > 0 && rollup.get(part).is_none() && !self.is_empty(&rollup, part) {
                missing.push(part);
                open.extend(rollup.children(part));
            }
        }
        // Children were found after their parents.
        for part in missing.into_iter().rev() {
            let mut segments = Vec::new();
            rollup.children(part).try_for_each(|child| self.state_of(&rollup, child, &mut segments))?;
            let merged = assembly.reduce(vec![self.as_of(part.start, &segments)?]).await?;
            rollup.put(part, concat_batches(&self.schema, &merged)?);
        }
        self.rollup = Some(rollup);
        Ok(())
    }

    /// Merges the batches of the panes of windows that end in `(after, until]`, where windows share panes, and of
    /// every pane that has many.
    pub(crate) async fn compact(&mut self, after: i64, until: i64, assembly: &mut Assembly) -> Result<()> {
        // A pane of a tumbling window is read once: merging it first would do the work twice.
        let shared = self.spec.filter(|spec| spec.size() != spec.slide());
        let range = shared.map(|spec| (after.saturating_sub(spec.size()), until));
        let wanted = |start: i64, pane: &Pane| {
            let read = range.is_some_and(|(from, until)| from < start && start < until);
            pane.segments.len() > if read { 1 } else { SEGMENTS_MAX }
        };
        let many: Vec<i64> =
            self.panes.iter().filter(|(start, pane)| wanted(**start, pane)).map(|(start, _)| *start).collect();
        if many.is_empty() {
            return Ok(());
        }
        let mut segments = Vec::new();
        for start in many {
            if let Some(pane) = self.panes.get_mut(&start) {
                self.size.take(std::mem::take(&mut pane.size));
                segments.append(&mut pane.segments);
            }
        }
        // Merged or not, it is the same state.
        let (fresh, touched, rollup) = (self.fresh.take(), self.touched.take(), self.rollup.take());
        let state = concat_batches(&self.schema, &segments)?;
        for state in assembly.reduce(vec![state]).await? {
            // The operator's batches are cut from larger ones, which would stay.
            self.add(&concat_batches(&self.schema, [&state])?)?;
        }
        (self.fresh, self.touched, self.rollup) = (fresh, touched, rollup);
        Ok(())
    }

    /// Drops what no window that ends after `closed` needs.
    pub(crate) fn drop_until(&mut self, closed: i64) {
        if let Some(rollup) = &mut self.rollup {
            rollup.drop_until(closed);
        }
        if closed == END_OF_TIME {
            self.panes.clear();
            self.size = Size::default();
            return;
        }
        let Some(spec) = self.spec else { return };
        while let Some(entry) = self.panes.first_entry() {
            if spec.last_end(*entry.key()) > closed {
                break;
            }
            self.size.take(entry.remove().size);
        }
    }

    /// What came since the last snapshot and is still needed, merged.
    pub(crate) async fn take_fresh(&mut self, assembly: &mut Assembly) -> Result<RecordBatch> {
        let fresh = self.fresh.as_mut().map(std::mem::take).unwrap_or_default();
        self.fresh_bytes = 0;
        let mut needed = Self::new(self.spec, Arc::clone(&self.schema), false);
        for state in &fresh {
            needed.add(state)?;
        }
        needed.panes.retain(|start, _| self.panes.contains_key(start));
        let state = concat_batches(&self.schema, needed.panes.values().flat_map(|pane| &pane.segments))?;
        Ok(concat_batches(&self.schema, &assembly.reduce(vec![state]).await?)?)
    }

    /// All state, merged.
    pub(crate) async fn whole(&mut self, assembly: &mut Assembly) -> Result<RecordBatch> {
        if let Some(fresh) = &mut self.fresh {
            fresh.clear();
        }
        self.fresh_bytes = 0;
        let read = self.panes.values().flat_map(|pane| &pane.spilled).map(|file| file.read(&self.schema));
        let read = read.collect::<Result<Vec<RecordBatch>>>()?;
        let held = self.panes.values().flat_map(|pane| &pane.segments);
        let state = concat_batches(&self.schema, held.chain(&read))?;
        Ok(concat_batches(&self.schema, &assembly.reduce(vec![state]).await?)?)
    }

    /// Adds state that a snapshot holds, except what `closed` has made useless.
    pub(crate) fn restore(&mut self, state: &RecordBatch, closed: i64) -> Result<()> {
        let fresh = self.fresh.take();
        // A segment's schema says the same in other words after it has been written.
        let state = RecordBatch::try_new(Arc::clone(&self.schema), state.columns().to_vec())?;
        self.add(&state)?;
        self.fresh = fresh;
        self.drop_until(closed);
        Ok(())
    }
}
