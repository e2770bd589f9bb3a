//! The two loops that run a job: over the lake to its end, or over a topic for ever.
//!
//! Both aggregate rows into the same panes and close windows through the same plans; they differ in where rows come
//! from and in who says how far time has come.

mod batch;
mod checkpoint;
mod late;
mod stream;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use event::EventTime;

pub use batch::{BatchProgress, BatchSettings, BatchSummary, batch};
pub use stream::{Start, StreamObserver, StreamProgress, StreamSettings, StreamSummary, stream};

use crate::error::Result;
use crate::job::Job;
use crate::plan::locality::Origin;

/// Event times `[from, until)`, microseconds.
#[derive(Clone, Copy, Debug)]
struct Range {
    from: i64,
    until: i64,
}

impl Range {
    fn new(from: Option<EventTime>, until: Option<EventTime>) -> Self {
        Self { from: from.map_or(i64::MIN, EventTime::micros), until: until.map_or(i64::MAX, EventTime::micros) }
    }

    const fn contains(self, time: i64) -> bool {
        self.from <= time && time < self.until
    }
}

/// Sorts output rows by their window, then by their columns from left to right, so that an answer does not depend on
/// the order in which groups were found.
fn ordered(job: &Job, rows: RecordBatch) -> Result<RecordBatch> {
    let window = job.column_of(Origin::End).or_else(|| job.column_of(Origin::Start));
    let columns = window.into_iter().chain(0..rows.num_columns());
    let sortable = columns.map(|at| rows.column(at)).filter(|column| !column.data_type().is_nested());
    let keys: Vec<SortColumn> =
        sortable.map(|column| SortColumn { values: std::sync::Arc::clone(column), options: None }).collect();
    if keys.is_empty() || rows.num_rows() < 2 {
        return Ok(rows);
    }
    Ok(take_record_batch(&rows, &lexsort_to_indices(&keys, None)?)?)
}
