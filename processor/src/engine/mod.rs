//! One run of a job, without any input or output: rows in, state kept, rows of closed windows out.
//!
//! ```text
//! rows ──intake──▶ panes of each cut ──close──▶ closed windows ──┬──▶ queries ──▶ output rows
//!        (late?)                      (watermark)                └──▶ panes of cuts above
//! ```
//!
//! Batch, stream and the test driver all run this; they differ in where rows come from and in who says how far time
//! has come. What an engine does is a function of the calls made to it: nothing here reads a clock.

mod intake;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::DataType;

pub(crate) use intake::{Intake, LateRow, Range, Taken, cut_bit, select_leaf};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::cut::{Cut, Kind};
use crate::plan::physical::{Assembly, closed_for};
use crate::plan::slot::SlotPlan;
use crate::state::{BEGIN_OF_TIME, END_OF_TIME, Panes, Size, SpillDir};
use crate::stream::watermark::{Source, Watermarks};
use crate::workers::at_once;

/// State rows that are merged and evaluated in one run, when many windows close at once.
const ROWS_AT_ONCE: usize = 64 * 1024;

/// Takes the rows of a query, by its number.
pub(crate) type Emit<'a> = dyn FnMut(usize, RecordBatch) -> Result<()> + Send + 'a;

/// Closed windows of a cut, for an engine elsewhere.
#[derive(Debug)]
pub(crate) struct ClosedRows {
    /// The cut.
    pub(crate) cut: usize,
    /// The end of each row's window, microseconds since 1970.
    pub(crate) ends: Int64Array,
    /// Rows of the closed table.
    pub(crate) rows: RecordBatch,
}

/// One run of a job.
#[derive(Debug)]
pub(crate) struct Engine<'a> {
    job: &'a Job,
    /// One at least; as many as rows were ever handed over in parts at once.
    intakes: Vec<Intake>,
    panes: Vec<Panes>,
    assemblies: Vec<Assembly>,
    /// Plans from closed windows to the panes of the cuts that stand above others.
    above: Vec<Option<SlotPlan>>,
    /// Plans of the queries that read closed windows.
    queries: Vec<Option<SlotPlan>>,
    marks: Watermarks,
    /// Every window with an end at or before this has been emitted.
    closed_until: i64,
    range: Range,
    /// Bytes of panes in memory beyond which the coldest go to files.
    panes_max: usize,
    spill: Option<SpillDir>,
}

/// Where the rows of a batch come from, and when they were received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provenance<'a> {
    /// Partition of each row.
    pub(crate) partitions: &'a [i32],
    /// Received time of each row, microseconds since 1970; none where nobody noted it.
    pub(crate) received: Option<&'a [i64]>,
}

/// Rows that one worker takes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// Rows with the columns that the job reads of their table.
    pub(crate) rows: &'a RecordBatch,
    /// Where they come from.
    pub(crate) from: Provenance<'a>,
}

impl<'a> Engine<'a> {
    /// An engine without rows; `delays` has how far the watermark trails each of the job's tables, and `sources` every
    /// partition there is.
    pub(crate) async fn new(
        job: &'a Job,
        range: Range,
        delays: Vec<i64>,
        sources: impl IntoIterator<Item = Source>,
    ) -> Result<Self> {
        let plan = &job.plan;
        let (mut panes, mut assemblies, mut above) = (Vec::new(), Vec::new(), Vec::new());
        for (number, cut) in plan.cuts.iter().enumerate() {
            let assembly = plan.assembly(number).await?;
            panes.push(Panes::new(cut.spec, Arc::clone(&assembly.state), cut.aggregates));
            assemblies.push(assembly);
            above.push(if cut.above.is_empty() { None } else { Some(plan.partial(number).await?.0) });
        }
        let mut queries = Vec::new();
        for (number, query) in plan.queries.iter().enumerate() {
            let reads_closed = matches!(query.kind, Kind::Windowed | Kind::AllTime);
            queries.push(if reads_closed { Some(plan.upper(number).await?.0) } else { None });
        }
        let intakes = vec![Intake::new(job, range).await?];
        let marks = Watermarks::new(delays, sources);
        Ok(Self {
            panes_max: job.memory().panes(),
            spill: None,
            job,
            intakes,
            panes,
            assemblies,
            above,
            queries,
            marks,
            closed_until: BEGIN_OF_TIME,
            range,
        })
    }

    /// Another intake of the same job, for a worker of its own.
    pub(crate) async fn worker(&self) -> Result<Intake> {
        Intake::new(self.job, self.range).await
    }

    /// Remembers what is new, for [`Engine::fresh`].
    pub(crate) fn keep_fresh(&mut self) {
        self.panes.iter_mut().for_each(Panes::keep_fresh);
    }

    /// Remembers which windows change, for [`Engine::changed`].
    pub(crate) fn keep_touched(&mut self) {
        self.panes.iter_mut().for_each(Panes::keep_touched);
    }

    /// Takes rows in, as one part.
    #[cfg(test)]
    pub(crate) async fn rows(
        &mut self,
        table: usize,
        rows: &RecordBatch,
        from: Provenance<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<Vec<LateRow>> {
        self.parts(table, &[Part { rows, from }], emit).await
    }

    /// Takes parts of a table's rows (with the columns that the job reads of it) in, each by a worker of its own and all
    /// at once; returns what came too late, by positions that count through the parts.
    ///
    /// The workers see one watermark and their work is put together in the order of the parts, so that nothing depends
    /// on which of them is done first.
    pub(crate) async fn parts(
        &mut self,
        table: usize,
        parts: &[Part<'_>],
        emit: &mut Emit<'_>,
    ) -> Result<Vec<LateRow>> {
        let watermark = self.marks.current();
        for part in parts {
            self.observe(table, part.rows, part.from);
        }
        let taken = self.take(table, parts, watermark).await?;
        let (mut late, mut first) = (Vec::new(), 0);
        for (taken, part) in taken.into_iter().zip(parts) {
            late.extend(self.add(taken, emit)?.into_iter().map(|late| LateRow { row: first + late.row, ..late }));
            first += part.rows.num_rows();
        }
        Ok(late)
    }

    async fn take(&mut self, table: usize, parts: &[Part<'_>], watermark: Option<i64>) -> Result<Vec<Taken>> {
        if let [part] = parts {
            return Ok(vec![self.intakes[0].take(table, std::slice::from_ref(part.rows), watermark).await?]);
        }
        while self.intakes.len() < parts.len() {
            self.intakes.push(self.worker().await?);
        }
        let idle = self.intakes.split_off(parts.len());
        let workers = std::mem::replace(&mut self.intakes, idle).into_iter().zip(parts).map(|(mut intake, part)| {
            let rows = part.rows.clone();
            async move {
                let taken = intake.take(table, &[rows], watermark).await;
                (intake, taken)
            }
        });
        let (intakes, taken): (Vec<_>, Vec<_>) = at_once(workers).await?.into_iter().unzip();
        self.intakes.extend(intakes);
        taken.into_iter().collect()
    }

    /// Takes rows in of which none is late, because who hands them over knows what is still to come.
    pub(crate) async fn backfill(
        &mut self,
        table: usize,
        rows: &RecordBatch,
        from: Provenance<'_>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.observe(table, rows, from);
        let taken = self.intakes[0].take(table, std::slice::from_ref(rows), None).await?;
        self.add(taken, emit).map(drop)
    }

    /// After some of a back-fill: emits the windows that no row of the rest can belong to, `frontier` being the least
    /// event time of it, and that the watermark has reached; the whole of them at the end, without a frontier.
    pub(crate) async fn end_backfill(&mut self, frontier: Option<i64>, emit: &mut Emit<'_>) -> Result<()> {
        let mut marks = self.marks.clone();
        let Some(reached) = marks.advance(|_| false) else { return Ok(()) };
        self.close(frontier.map_or(reached, |frontier| frontier.min(reached)), emit).await?;
        if frontier.is_none() {
            self.marks = marks;
        }
        Ok(())
    }

    fn observe(&mut self, table: usize, rows: &RecordBatch, from: Provenance<'_>) {
        if let Some(times) = self.job.plan.times(table, rows) {
            for row in 0..times.len() {
                if times.is_valid(row) {
                    let received = from.received.map(|received| received[row]);
                    self.marks.observe((table, from.partitions[row]), times.value(row), received);
                }
            }
        }
    }

    /// Adds what an intake made of rows.
    pub(crate) fn add(&mut self, taken: Taken, emit: &mut Emit<'_>) -> Result<Vec<LateRow>> {
        for (cut, state) in taken.state {
            state.iter().try_for_each(|state| self.add_state(cut, state))?;
        }
        for (query, rows) in taken.rows {
            rows.into_iter().filter(|rows| rows.num_rows() > 0).try_for_each(|rows| emit(query, rows))?;
        }
        Ok(taken.late)
    }

    /// Adds state of a cut.
    pub(crate) fn add_state(&mut self, cut: usize, state: &RecordBatch) -> Result<()> {
        self.panes[cut].add(state)
    }

    /// The end of an epoch: the watermark moves, and the windows that it reached are emitted.
    pub(crate) async fn end_epoch(&mut self, idle: impl Fn(Source) -> bool, emit: &mut Emit<'_>) -> Result<()> {
        let before = self.marks.current();
        let watermark = self.marks.advance(idle);
        if let Some(watermark) = watermark.filter(|_| watermark > before) {
            self.close(watermark, emit).await?;
        }
        for (panes, assembly) in self.panes.iter_mut().zip(&mut self.assemblies) {
            panes.compact(END_OF_TIME, END_OF_TIME, assembly).await?;
        }
        self.shed().await
    }

    /// Moves panes to files while there are more in memory than the budget has room for.
    pub(crate) async fn shed(&mut self) -> Result<()> {
        let held = self.size().bytes;
        if held <= self.panes_max {
            return Ok(());
        }
        let dir = match self.spill.take() {
            Some(dir) => dir,
            None => SpillDir::new()?,
        };
        // Each cut keeps its share, and there is room until the next time.
        for (panes, assembly) in self.panes.iter_mut().zip(&mut self.assemblies) {
            let share = panes.size().bytes as f64 / held as f64 * (self.panes_max as f64 * 0.8);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of what fits")]
            panes.spill(share as usize, &dir, assembly).await?;
        }
        tracing::debug!(held, in_memory = self.size().bytes, "panes moved to files");
        self.spill = Some(dir);
        Ok(())
    }

    /// Bytes of state that wait for the next snapshot.
    pub(crate) fn fresh_bytes(&self) -> usize {
        self.panes.iter().map(Panes::fresh_bytes).sum()
    }

    /// State rows that are in files.
    pub(crate) fn spilled_rows(&self) -> usize {
        self.panes.iter().map(Panes::spilled_rows).sum()
    }

    /// The end of all input: every window is emitted.
    pub(crate) async fn finish(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        self.close(END_OF_TIME, emit).await
    }

    /// Emits every window with an end at or before `until` that has a row and was not emitted before, in the order of
    /// their ends.
    pub(crate) async fn close(&mut self, until: i64, emit: &mut Emit<'_>) -> Result<()> {
        while let Some(to) = self.next_chunk(until) {
            self.close_chunk(to, Vec::new(), emit).await?;
        }
        self.close_rest(until);
        Ok(())
    }

    /// As [`Engine::close`] for `until`, with the closed windows of cuts over tables that end until then and were not
    /// given before, by cut: another engine merged them.
    pub(crate) async fn close_given(
        &mut self,
        until: i64,
        given: Vec<Vec<RecordBatch>>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.close_chunk(until, given, emit).await
    }

    /// Closes some of the windows that are left, for an engine elsewhere to go on with: the end of the last of them, and
    /// the rows of each cut over tables with the ends of their windows. None when there is no window left.
    pub(crate) async fn next_closed(&mut self) -> Result<Option<(i64, Vec<ClosedRows>)>> {
        let after = self.closed_until;
        let Some(to) = self.next_chunk(END_OF_TIME) else { return Ok(None) };
        let mut closed = Vec::new();
        for number in 0..self.panes.len() {
            let ends = self.merge(number, after, to).await?;
            if let Some(state) = self.state_of(number, &ends)? {
                let rows = self.assemblies[number].close_by_end(vec![state]).await?;
                closed.extend(rows.into_iter().map(|(ends, rows)| ClosedRows { cut: number, ends, rows }));
            }
        }
        self.close_rest(to);
        Ok(Some((to, closed)))
    }

    /// The end of the last of the windows that are closed at once: not many state rows' worth, and one window at least.
    fn next_chunk(&self, until: i64) -> Option<i64> {
        let (mut to, mut rows) = (self.closed_until, 0);
        while rows < ROWS_AT_ONCE {
            let next = self.panes.iter().filter_map(|panes| panes.next_end(to)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            rows += self.panes.iter().map(|panes| panes.rows_of(next)).sum::<usize>();
            to = next;
        }
        (to != self.closed_until).then_some(to)
    }

    fn close_rest(&mut self, until: i64) {
        if until > self.closed_until {
            self.closed_until = until;
            self.panes.iter_mut().for_each(|panes| panes.drop_until(until));
        }
    }

    /// Emits the windows that end after those emitted and at or before `to`, all of them at once; the rows of those in
    /// `given`, by cut, are there already.
    async fn close_chunk(&mut self, to: i64, given: Vec<Vec<RecordBatch>>, emit: &mut Emit<'_>) -> Result<()> {
        let after = self.closed_until;
        let mut given = given.into_iter();
        let mut closed: Vec<Vec<RecordBatch>> = Vec::with_capacity(self.panes.len());
        for number in 0..self.panes.len() {
            let given = given.next().filter(|_| self.above[number].is_none());
            // A cut comes after those that it stands above.
            if let Some(plan) = &mut self.above[number] {
                let rows = fill(plan, &closed)?;
                for state in plan.run_batches(rows).await? {
                    self.panes[number].add(&state)?;
                }
            }
            closed.push(match given {
                Some(rows) => rows,
                None => {
                    let ends = self.merge(number, after, to).await?;
                    self.evaluate(number, &ends).await?
                }
            });
        }
        self.close_rest(to);
        self.ask(&closed, emit).await
    }

    /// Merges the panes of the windows of a cut that end in `(after, to]`, as far as they share them: the windows' ends.
    async fn merge(&mut self, number: usize, after: i64, to: i64) -> Result<Vec<i64>> {
        let (panes, assembly) = (&mut self.panes[number], &mut self.assemblies[number]);
        panes.compact(after, to, assembly).await?;
        let ends = panes.ends(after, to);
        for end in &ends {
            panes.roll_up(*end, assembly).await?;
        }
        Ok(ends)
    }

    /// Emits the open windows that changed since the last call (all open ones with `all`), none of them final.
    pub(crate) async fn changed(&mut self, all: bool, emit: &mut Emit<'_>) -> Result<()> {
        let after = self.closed_until;
        let mut ends = BTreeSet::new();
        for panes in &mut self.panes {
            ends.extend(panes.touched_ends(after));
            if all {
                ends.extend(panes.ends(after, END_OF_TIME));
            }
        }
        let mut closed = Vec::with_capacity(self.panes.len());
        for number in 0..self.panes.len() {
            let mine: Vec<i64> = ends.iter().copied().filter(|end| self.panes[number].has_end(*end)).collect();
            closed.push(self.evaluate(number, &mine).await?);
        }
        self.ask(&closed, emit).await
    }

    /// Rows of the closed table of a cut for the windows that end at `ends`.
    async fn evaluate(&mut self, number: usize, ends: &[i64]) -> Result<Vec<RecordBatch>> {
        match self.state_of(number, ends)? {
            Some(state) => self.assemblies[number].close(vec![state]).await,
            None => Ok(Vec::new()),
        }
    }

    /// State of the windows of a cut that end at `ends`, if there is any.
    fn state_of(&self, number: usize, ends: &[i64]) -> Result<Option<RecordBatch>> {
        let mut state = Vec::with_capacity(ends.len());
        for end in ends {
            state.extend(self.panes[number].window(*end)?);
        }
        match state.is_empty() {
            true => Ok(None),
            false => Ok(Some(concat_batches(&self.assemblies[number].state, &state)?)),
        }
    }

    /// Runs the queries that read any of the closed windows.
    async fn ask(&mut self, closed: &[Vec<RecordBatch>], emit: &mut Emit<'_>) -> Result<()> {
        for (number, query) in self.queries.iter_mut().enumerate() {
            let Some(plan) = query else { continue };
            let mut rows = fill(plan, closed)?;
            if rows.iter().all(Vec::is_empty) {
                continue;
            }
            if self.job.plan.queries[number].breaks_ties {
                rows = rows.into_iter().map(sorted).collect::<Result<_>>()?;
            }
            let rows = plan.run_batches(rows).await?;
            let Some(schema) = rows.first().map(RecordBatch::schema) else { continue };
            let rows = concat_batches(&schema, &rows)?;
            if rows.num_rows() > 0 {
                emit(number, self.job.ordered(number, rows)?)?;
            }
        }
        Ok(())
    }

    /// The watermark: no row older than this is expected.
    pub(crate) const fn watermark(&self) -> Option<i64> {
        self.marks.current()
    }

    /// The marks of the partitions.
    pub(crate) const fn marks(&self) -> &Watermarks {
        &self.marks
    }

    /// Registers a partition that was added while the job runs.
    pub(crate) fn add_source(&mut self, source: Source) {
        self.marks.register(source);
    }

    /// Rows and bytes of open panes.
    pub(crate) fn size(&self) -> Size {
        self.panes
            .iter()
            .map(Panes::size)
            .fold(Size::default(), |all, one| Size { rows: all.rows + one.rows, bytes: all.bytes + one.bytes })
    }

    /// Panes held.
    pub(crate) fn panes(&self) -> usize {
        self.panes.iter().map(Panes::len).sum()
    }

    /// The state that came since the last snapshot, by cut.
    pub(crate) async fn fresh(&mut self) -> Result<Vec<RecordBatch>> {
        let mut state = Vec::with_capacity(self.panes.len());
        for (panes, assembly) in self.panes.iter_mut().zip(&mut self.assemblies) {
            state.push(panes.take_fresh(assembly).await?);
        }
        Ok(state)
    }

    /// All state, by cut.
    pub(crate) async fn whole(&mut self) -> Result<Vec<RecordBatch>> {
        let mut state = Vec::with_capacity(self.panes.len());
        for (panes, assembly) in self.panes.iter_mut().zip(&mut self.assemblies) {
            state.push(panes.whole(assembly).await?);
        }
        Ok(state)
    }

    /// Takes up where a snapshot left off: the watermark, what has been emitted and the marks first, then
    /// [`Engine::restore_state`].
    pub(crate) fn restore(
        &mut self,
        watermark: Option<i64>,
        closed_until: Option<i64>,
        marks: impl IntoIterator<Item = (Source, Option<i64>)>,
    ) {
        self.closed_until = closed_until.unwrap_or(BEGIN_OF_TIME);
        self.marks.restore(watermark, marks);
    }

    /// Every window with an end at or before this has been emitted.
    pub(crate) fn closed_until(&self) -> Option<i64> {
        (self.closed_until != BEGIN_OF_TIME).then_some(self.closed_until)
    }

    /// Adds state of a cut from a snapshot.
    pub(crate) fn restore_state(&mut self, cut: usize, state: &RecordBatch) -> Result<()> {
        let panes = self.panes.get_mut(cut).ok_or_else(|| Error::internal("a snapshot has more cuts than the job"))?;
        panes.restore(state, self.closed_until)
    }
}

/// The rows in one batch, by their columns from left to right: in an order that does not depend on how they came.
fn sorted(rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let Some(schema) = rows.first().map(RecordBatch::schema) else { return Ok(rows) };
    Ok(vec![by_columns(concat_batches(&schema, &rows)?, None)?])
}

/// Sorts rows by `first`, then by their columns from left to right.
fn by_columns(rows: RecordBatch, first: Option<usize>) -> Result<RecordBatch> {
    let columns = first.into_iter().chain(0..rows.num_columns());
    let columns = columns.flat_map(|at| match rows.column(at).data_type() {
        // The one nested column with an order that matters is the window.
        DataType::Struct(_) => rows.column(at).as_struct().columns().to_vec(),
        nested if nested.is_nested() => Vec::new(),
        _ => vec![Arc::clone(rows.column(at))],
    });
    let keys: Vec<SortColumn> = columns.map(|values| SortColumn { values, options: None }).collect();
    if keys.is_empty() || rows.num_rows() < 2 {
        return Ok(rows);
    }
    Ok(take_record_batch(&rows, &lexsort_to_indices(&keys, None)?)?)
}

/// For every leaf of a plan over closed windows, the rows of its table.
fn fill(plan: &SlotPlan, closed: &[Vec<RecordBatch>]) -> Result<Vec<Vec<RecordBatch>>> {
    plan.leaves()
        .iter()
        .map(|leaf| match Cut::of_closed(&leaf.table).and_then(|number| closed.get(number)) {
            Some(rows) => closed_for(leaf, rows),
            None => Err(Error::internal(format!("`{}` is no table of closed windows", leaf.table))),
        })
        .collect()
}

impl Job {
    /// Sorts output rows by their window, then by their columns from left to right, so that an answer does not depend
    /// on the order in which groups were found.
    fn ordered(&self, output: usize, rows: RecordBatch) -> Result<RecordBatch> {
        if self.plan.queries[output].sorted {
            return Ok(rows);
        }
        by_columns(rows, self.end_column(output).or_else(|| self.start_column(output)))
    }
}

impl crate::plan::JobPlan {
    /// The event times of rows of a table, if it has any.
    fn times<'a>(&self, table: usize, rows: &'a RecordBatch) -> Option<&'a TimestampMicrosecondArray> {
        self.tables[table].time_at.map(|at| rows.column(at).as_primitive())
    }
}
