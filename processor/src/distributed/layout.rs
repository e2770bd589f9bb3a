//! Rows of several sorts in one schema: what travels between the stages of a distributed batch.
//!
//! A stage has one output, a job many sorts of rows: the state of each cut, the rows of each query, and notes on how far
//! a reader is. Each row says what it is; columns of the other sorts are NULL in it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::plan::JobPlan;
use crate::plan::cut::Kind;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// An object has been read to its end; all its rows for queries came before.
    Read,
    /// Some of an object has been read.
    Reading,
    /// Lines of an object that are no row of the table.
    Unreadable,
    /// All windows that end at or before a time have come.
    Closed,
    /// A row of a section: of a cut, or of a query after all cuts.
    Section(usize),
}

impl What {
    fn code(self) -> i32 {
        match self {
            Self::Read => -1,
            Self::Reading => -2,
            Self::Unreadable => -3,
            Self::Closed => -4,
            Self::Section(number) => i32::try_from(number).unwrap_or(i32::MAX),
        }
    }

    fn of(code: i32) -> Result<Self> {
        match code {
            -1 => Ok(Self::Read),
            -2 => Ok(Self::Reading),
            -3 => Ok(Self::Unreadable),
            -4 => Ok(Self::Closed),
            code => usize::try_from(code)
                .map(Self::Section)
                .map_err(|_| Error::internal(format!("a stage sent rows of the unknown sort {code}"))),
        }
    }
}

/// The column of what a row is.
const WHAT: usize = 0;
/// The column of the object's number or the window's end. Rows and notes of one object go the same way, so that they keep
/// their order.
const AT: usize = 1;
/// The column of what a note counts.
const COUNT: usize = 2;

/// The sorts of rows of a stage.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    sections: Vec<(SchemaRef, Range<usize>)>,
    cuts: usize,
    schema: SchemaRef,
    /// Columns in which rows that belong together are alike: those that say where a row has to go.
    keys: Vec<usize>,
}

/// Rows of one sort.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) what: What,
    /// In the schema of the stage.
    pub(super) batch: RecordBatch,
}

impl Parcel {
    /// Number of the object, or end of the window in microseconds, of each row.
    pub(super) fn at(&self) -> &Int64Array {
        self.batch.column(AT).as_primitive()
    }

    /// What a note counts.
    pub(super) fn count(&self) -> &Int64Array {
        self.batch.column(COUNT).as_primitive()
    }
}

impl Layout {
    /// State of cuts over tables, and rows of queries that go row by row.
    pub(super) async fn of_state(plan: &JobPlan) -> Result<Self> {
        let (mut cuts, mut groups) = (Vec::new(), Vec::new());
        for (number, cut) in plan.cuts.iter().enumerate() {
            let assembly = plan.assembly(number).await?;
            let over_table = cut.above.is_empty();
            cuts.push(if over_table { assembly.state } else { Arc::new(Schema::empty()) });
            groups.push(if over_table { assembly.groups } else { 0 });
        }
        let mut layout = Self::new(cuts, plan);
        for (section, groups) in layout.sections.iter().zip(groups) {
            // The first column is the pane: all panes of a group belong together.
            layout.keys.extend(section.1.clone().skip(1).take(groups));
        }
        Ok(layout)
    }

    /// Closed windows of cuts over tables, and rows of queries that go row by row.
    pub(super) fn of_closed(plan: &JobPlan) -> Self {
        let closed = plan.cuts.iter().map(|cut| match cut.above.is_empty() {
            true => Arc::clone(&cut.closed),
            false => Arc::new(Schema::empty()),
        });
        Self::new(closed.collect(), plan)
    }

    fn new(mut sections: Vec<SchemaRef>, plan: &JobPlan) -> Self {
        let cuts = sections.len();
        sections.extend(plan.queries.iter().map(|query| match query.kind {
            Kind::Stateless => Arc::clone(&query.schema),
            _ => Arc::new(Schema::empty()),
        }));
        let mut fields = vec![
            Field::new("what", DataType::Int32, false),
            Field::new("at", DataType::Int64, false),
            Field::new("count", DataType::Int64, false),
        ];
        let mut placed = Vec::with_capacity(sections.len());
        for (number, section) in sections.into_iter().enumerate() {
            let first = fields.len();
            fields.extend(
                section
                    .fields()
                    .iter()
                    .enumerate()
                    .map(|(at, field)| Field::new(format!("s{number}_{at}"), field.data_type().clone(), true)),
            );
            placed.push((section, first..fields.len()));
        }
        Self { sections: placed, cuts, schema: Arc::new(Schema::new(fields)), keys: vec![AT] }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The section of a query's rows.
    pub(super) const fn of_query(&self, query: usize) -> What {
        What::Section(self.cuts + query)
    }

    /// The query that a section's rows are of, unless they are of a cut.
    pub(super) const fn query(&self, section: usize) -> Option<usize> {
        section.checked_sub(self.cuts)
    }

    /// Columns in which rows that belong together are alike.
    pub(super) fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// A note.
    pub(super) fn note(&self, what: What, at: i64, count: i64) -> Result<RecordBatch> {
        self.batch(what, Int64Array::from(vec![at]), Int64Array::from(vec![count]), None)
    }

    /// Rows of one sort, in the stage's schema.
    pub(super) fn rows(&self, what: What, at: Int64Array, rows: &RecordBatch) -> Result<RecordBatch> {
        self.batch(what, at, Int64Array::from(vec![0; rows.num_rows()]), Some(rows))
    }

    /// As [`Layout::rows`] or [`Layout::note`], for what comes of a stage with another layout.
    pub(super) fn batch(
        &self,
        what: What,
        at: Int64Array,
        count: Int64Array,
        rows: Option<&RecordBatch>,
    ) -> Result<RecordBatch> {
        let len = at.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.push(Arc::new(Int32Array::from_value(what.code(), len)));
        columns.push(Arc::new(at));
        columns.push(Arc::new(count));
        for (number, (_, range)) in self.sections.iter().enumerate() {
            match rows.filter(|_| what == What::Section(number)) {
                Some(rows) => columns.extend_from_slice(rows.columns()),
                None => columns.extend(
                    self.schema.fields()[range.clone()].iter().map(|field| new_null_array(field.data_type(), len)),
                ),
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The rows of a batch as they were before [`Layout::rows`], if they are of a section.
    pub(super) fn section(&self, parcel: &Parcel) -> Result<Option<RecordBatch>> {
        let What::Section(section) = parcel.what else { return Ok(None) };
        let (schema, range) = self
            .sections
            .get(section)
            .ok_or_else(|| Error::internal("a stage sent rows that the job does not have"))?;
        Ok(Some(RecordBatch::try_new(Arc::clone(schema), parcel.batch.columns()[range.clone()].to_vec())?))
    }
}

/// The rows of a batch by their sort, each sort in the order of the batch. Notes come last: what they speak of stands
/// before them.
pub(super) fn sorts(batch: &RecordBatch) -> Result<Vec<Parcel>> {
    let codes = batch.column(WHAT).as_primitive::<Int32Type>();
    let mut present: Vec<i32> = codes.values().to_vec();
    present.sort_unstable();
    present.dedup();
    let of = |code| {
        Ok(Parcel {
            what: What::of(code)?,
            batch: filter_record_batch(batch, &eq(codes, &Int32Array::new_scalar(code))?)?,
        })
    };
    present.into_iter().rev().map(of).collect()
}
