//! Rows of a table to partial aggregates by pane, and to the output of queries that go row by row.
//!
//! Every row is decided against the watermark as it was when the epoch began: it counts in each of its windows that is
//! still open, and is late for the others. A worker has an intake of its own.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch};
use event::EventTime;

use crate::error::Result;
use crate::job::Job;
use crate::plan::cut::Kind;
use crate::plan::physical::LeafReader;
use crate::plan::slot::SlotPlan;
use crate::stream::window::WindowSpec;

/// Event times `[from, until)`, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    from: i64,
    until: i64,
}

impl Range {
    pub(crate) fn new(from: Option<EventTime>, until: Option<EventTime>) -> Self {
        Self { from: from.map_or(i64::MIN, EventTime::micros), until: until.map_or(i64::MAX, EventTime::micros) }
    }

    const fn contains(self, time: i64) -> bool {
        self.from <= time && time < self.until
    }

    const fn is_all(self) -> bool {
        self.from == i64::MIN && self.until == i64::MAX
    }
}

/// A window that a row came too late for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateRow {
    /// Position of the row among those taken in.
    pub(crate) row: usize,
    /// Event time of the row, microseconds since 1970.
    pub(crate) time: i64,
    /// Start of the window.
    pub(crate) start: i64,
    /// End of the window.
    pub(crate) end: i64,
    /// The watermark that had passed it.
    pub(crate) watermark: i64,
    /// The row came too late for all its windows, not only for this one.
    pub(crate) for_all: bool,
    /// The cuts that have this window, a bit each.
    pub(crate) cuts: u64,
}

/// The bit of a cut in [`LateRow::cuts`]; cuts beyond the sixty-third share one.
pub(crate) fn cut_bit(number: usize) -> u64 {
    1 << number.min(63)
}

/// What an intake made of rows.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// State by cut.
    pub(crate) state: Vec<(usize, Vec<RecordBatch>)>,
    /// Rows of queries that go row by row.
    pub(crate) rows: Vec<(usize, Vec<RecordBatch>)>,
    /// By row, then by window.
    pub(crate) late: Vec<LateRow>,
}

/// Rows to state; one worker's.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Plans to the panes of cuts over tables.
    cuts: Vec<Feed>,
    /// Plans of queries that go row by row.
    queries: Vec<Feed>,
    /// Position of the event time, by table.
    time_at: Vec<Option<usize>>,
    range: Range,
}

/// A plan over tables.
#[derive(Debug)]
struct Feed {
    /// The cut's or the query's number.
    number: usize,
    /// Windows of the cut.
    spec: Option<WindowSpec>,
    plan: SlotPlan,
    /// For every leaf, its table and how to read it.
    readers: Vec<Option<(usize, LeafReader)>>,
}

impl Feed {
    fn reads(&self, table: usize) -> bool {
        self.readers.iter().flatten().any(|(of, _)| *of == table)
    }
}

impl Intake {
    pub(crate) async fn new(job: &Job, range: Range) -> Result<Self> {
        let plan = &job.plan;
        let mut cuts = Vec::new();
        for (number, cut) in plan.cuts.iter().enumerate().filter(|(_, cut)| cut.above.is_empty()) {
            let (slots, readers) = plan.partial(number).await?;
            cuts.push(Feed { number, spec: cut.spec, plan: slots, readers });
        }
        let mut queries = Vec::new();
        for (number, _) in plan.queries.iter().enumerate().filter(|(_, query)| query.kind == Kind::Stateless) {
            let (slots, readers) = plan.upper(number).await?;
            queries.push(Feed { number, spec: None, plan: slots, readers });
        }
        let time_at = plan.tables.iter().map(|table| table.time_at).collect();
        Ok(Self { cuts, queries, time_at, range })
    }

    /// Takes rows of `table` in. Without a watermark nothing is late.
    pub(crate) async fn take(&mut self, table: usize, rows: &[RecordBatch], watermark: Option<i64>) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut late = Late::default();
        let times = self.time_at[table];
        for feed in self.cuts.iter_mut().filter(|feed| feed.reads(table)) {
            let fills = select(feed, table, rows, times, self.range, watermark, &mut late)?;
            if fills.iter().any(|fill| !fill.is_empty()) {
                taken.state.push((feed.number, feed.plan.run_batches(fills).await?));
            }
        }
        for feed in self.queries.iter_mut().filter(|feed| feed.reads(table)) {
            let fills = select(feed, table, rows, times, self.range, None, &mut late)?;
            if fills.iter().any(|fill| !fill.is_empty()) {
                taken.rows.push((feed.number, feed.plan.run_batches(fills).await?));
            }
        }
        taken.late = late.finish();
        Ok(taken)
    }
}

/// The rows that each leaf of `feed` wants and that are not too late for all their windows.
fn select(
    feed: &Feed,
    table: usize,
    rows: &[RecordBatch],
    time_at: Option<usize>,
    range: Range,
    watermark: Option<i64>,
    late: &mut Late,
) -> Result<Vec<Vec<RecordBatch>>> {
    let mut fills = Vec::with_capacity(feed.readers.len());
    for reader in &feed.readers {
        let mut fill = Vec::new();
        if let Some((of, reader)) = reader
            && *of == table
        {
            let mut first = 0;
            for batch in rows {
                let mut mask = reader.filter(batch)?;
                if let Some(at) = time_at {
                    let times = batch.column(at);
                    mask = in_range(mask, times.as_ref(), range)?;
                    if let (Some(spec), Some(watermark)) = (feed.spec, watermark) {
                        late.cut = cut_bit(feed.number);
                        mask = late.decide(mask, times.as_ref(), spec, watermark, first)?;
                    }
                }
                first += batch.num_rows();
                let wanted = reader.wanted(batch)?;
                let wanted = match mask {
                    Some(mask) if mask.true_count() < mask.len() => filter_record_batch(&wanted, &mask)?,
                    _ => wanted,
                };
                if wanted.num_rows() > 0 {
                    fill.push(wanted);
                }
            }
        }
        fills.push(fill);
    }
    Ok(fills)
}

/// The rows of a batch that a leaf wants: those of the range that pass its filters.
pub(crate) fn select_leaf(
    reader: &LeafReader,
    rows: &RecordBatch,
    time_at: Option<usize>,
    range: Range,
) -> Result<RecordBatch> {
    let mut mask = reader.filter(rows)?;
    if let Some(at) = time_at {
        mask = in_range(mask, rows.column(at).as_ref(), range)?;
    }
    let wanted = reader.wanted(rows)?;
    Ok(match mask {
        Some(mask) => filter_record_batch(&wanted, &mask)?,
        None => wanted,
    })
}

fn times_of(times: &dyn Array) -> &arrow::array::TimestampMicrosecondArray {
    arrow::array::AsArray::as_primitive(times)
}

fn narrowed(mask: Option<BooleanArray>, by: BooleanArray) -> Result<Option<BooleanArray>> {
    Ok(Some(match mask {
        Some(mask) => and(&mask, &by)?,
        None => by,
    }))
}

fn in_range(mask: Option<BooleanArray>, times: &dyn Array, range: Range) -> Result<Option<BooleanArray>> {
    if range.is_all() {
        return Ok(mask);
    }
    let times = times_of(times);
    if times.null_count() == 0 && times.values().iter().all(|time| range.contains(*time)) {
        return Ok(mask);
    }
    narrowed(mask, times.iter().map(|time| Some(time.is_some_and(|time| range.contains(time)))).collect())
}

/// Gathers what came too late over the cuts of a job.
#[derive(Debug, Default)]
struct Late {
    rows: Vec<LateRow>,
    /// Rows that count in some window of some cut.
    kept: Vec<usize>,
    /// The cut that is being decided.
    cut: u64,
}

impl Late {
    /// Notes what came too late for windows of `spec`, and takes the rows out that came too late for all of them.
    fn decide(
        &mut self,
        mask: Option<BooleanArray>,
        times: &dyn Array,
        spec: WindowSpec,
        watermark: i64,
        first: usize,
    ) -> Result<Option<BooleanArray>> {
        let times = times_of(times);
        // Nothing that is as young as the watermark lies in a closed window.
        if times.values().iter().all(|time| *time >= watermark) {
            return Ok(mask);
        }
        let mut keep = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let wanted = mask.as_ref().is_none_or(|mask| mask.value(row));
            let Some(time) = time.filter(|time| wanted && *time < watermark) else {
                keep.push(wanted);
                continue;
            };
            let pane = spec.pane_of(time);
            let for_all = spec.last_end(pane) <= watermark;
            let mut starts: Vec<i64> = spec.windows_of(pane).filter(|start| start + spec.size() <= watermark).collect();
            starts.reverse();
            self.rows.extend(starts.into_iter().map(|start| LateRow {
                row: first + row,
                time,
                start,
                end: start + spec.size(),
                watermark,
                for_all,
                cuts: self.cut,
            }));
            keep.push(!for_all);
            if !for_all {
                self.kept.push(first + row);
            }
        }
        Ok(Some(BooleanArray::from(keep)))
    }

    /// By row and window, each once; a row is late for all when every cut says so.
    fn finish(mut self) -> Vec<LateRow> {
        self.rows.sort_by_key(|late| (late.row, late.end, late.start));
        self.kept.sort_unstable();
        for late in &mut self.rows {
            late.for_all = self.kept.binary_search(&late.row).is_err();
        }
        self.rows.dedup_by(|again, late| {
            let same = (again.row, again.end, again.start) == (late.row, late.end, late.start);
            if same {
                late.cuts |= again.cuts;
            }
            same
        });
        self.rows
    }
}
