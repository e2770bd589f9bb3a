//! The plans that run: rows to panes, panes to closed windows, closed windows to output.
//!
//! DataFusion plans an aggregate once; it is taken apart into its partial, merging and final stages, which then run
//! at different times over slots. A worker has instances of its own.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StructArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::error::{Error, Result};
use crate::plan::cut::Cut;
use crate::plan::functions::{time_type, window_fields};
use crate::plan::slot::{Leaf, SlotExec, SlotPlan};
use crate::state::END_OF_TIME;

/// What is needed to build every stage of one aggregate, and the projections above it, innermost first.
struct Aggregation {
    groups: PhysicalGroupBy,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    input: Arc<dyn ExecutionPlan>,
    input_schema: SchemaRef,
    layers: Vec<Arc<dyn ExecutionPlan>>,
}

impl Aggregation {
    async fn plan(state: &SessionState, cut: &Cut) -> Result<Self> {
        let mut plan = state.create_physical_plan(&cut.lower).await?;
        let mut layers = Vec::new();
        loop {
            if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
                let bottom = match aggregate.mode() {
                    AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => aggregate,
                    _ => partial_below(aggregate)?,
                };
                layers.reverse();
                return Ok(Self {
                    groups: bottom.group_expr().clone(),
                    functions: bottom.aggr_expr().to_vec(),
                    filters: bottom.filter_expr().to_vec(),
                    input: Arc::clone(bottom.input()),
                    input_schema: bottom.input_schema(),
                    layers,
                });
            }
            let child = match plan.children().as_slice() {
                [child] => Arc::clone(child),
                _ => return Err(Error::internal("the plan below the window has no aggregate")),
            };
            if plan.is::<ProjectionExec>() {
                layers.push(plan);
            }
            plan = child;
        }
    }

    fn partial(&self) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(AggregateExec::try_new(
            AggregateMode::Partial,
            self.groups.clone(),
            self.functions.clone(),
            self.filters.clone(),
            Arc::clone(&self.input),
            Arc::clone(&self.input_schema),
        )?))
    }

    fn over_state(&self, partial: &Arc<dyn ExecutionPlan>, mode: AggregateMode) -> Result<Arc<dyn ExecutionPlan>> {
        // Building the partial stage may rewrite the functions; all stages have to use the same ones.
        let built = partial.downcast_ref::<AggregateExec>().ok_or_else(|| Error::internal("no partial aggregate"))?;
        Ok(Arc::new(AggregateExec::try_new(
            mode,
            self.groups.as_final(),
            built.aggr_expr().to_vec(),
            vec![None; self.functions.len()],
            Arc::new(state_slot(partial.schema())),
            Arc::clone(&self.input_schema),
        )?))
    }

    fn finish(&self, partial: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut finish = self.over_state(partial, AggregateMode::Final)?;
        for layer in &self.layers {
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            finish = Arc::clone(layer).replace_children(vec![finish], options)?;
        }
        Ok(finish)
    }
}

/// The partial aggregate that a final one stands on, with what brings its partitions together in between.
fn partial_below(aggregate: &AggregateExec) -> Result<&AggregateExec> {
    let mut below = aggregate.input();
    loop {
        if let Some(partial) = below.downcast_ref::<AggregateExec>() {
            return Ok(partial);
        }
        below = match below.children().as_slice() {
            [child] => child,
            _ => return Err(Error::internal("a final aggregate stands on no partial one")),
        };
    }
}

fn state_slot(schema: SchemaRef) -> SlotExec {
    let columns = (0..schema.fields().len()).collect();
    SlotExec::new("state".into(), schema, columns, Vec::new())
}

/// Rows to partial aggregates by pane, or rows with their pane.
pub(crate) async fn partial_plan(state: &SessionState, cut: &Cut) -> Result<SlotPlan> {
    let plan = match cut.aggregates {
        true => Aggregation::plan(state, cut).await?.partial()?,
        false => state.create_physical_plan(&cut.lower).await?,
    };
    Ok(SlotPlan::new(plan, state.task_ctx()))
}

/// Panes to closed windows.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// State to state, equal groups merged, and merged state to values; none where the state is the rows themselves.
    stages: Option<(SlotPlan, SlotPlan)>,
    /// Columns of the state; the pane's start comes first.
    pub(crate) state: SchemaRef,
    /// Columns after it that make a group; none where the state is the rows themselves.
    pub(crate) groups: usize,
    closed: SchemaRef,
    window_at: Option<usize>,
    /// Length of a window in microseconds; none over all time, where a window has no bounds.
    size: Option<i64>,
}

impl Assembly {
    pub(crate) async fn plan(session: &SessionState, cut: &Cut) -> Result<Self> {
        let context = session.task_ctx();
        let (stages, state, groups) = match cut.aggregates {
            true => {
                let parts = Aggregation::plan(session, cut).await?;
                let groups = parts.groups.expr().len().saturating_sub(1);
                let partial = parts.partial()?;
                let reduce = parts.over_state(&partial, AggregateMode::PartialReduce)?;
                let finish = parts.finish(&partial)?;
                let stages = (SlotPlan::new(reduce, Arc::clone(&context)), SlotPlan::new(finish, context));
                (Some(stages), partial.schema(), groups)
            }
            false => (None, session.create_physical_plan(&cut.lower).await?.schema(), 0),
        };
        let size = cut.spec.map(|spec| spec.size());
        Ok(Self { stages, state, groups, closed: Arc::clone(&cut.closed), window_at: cut.window_at, size })
    }

    /// Merges equal groups of equal panes.
    pub(crate) async fn reduce(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        match &mut self.stages {
            Some((reduce, _)) => Ok(reduce.run_batches(vec![state]).await?),
            None => Ok(state),
        }
    }

    /// Merges and evaluates state rows whose pane column holds the start of their window: rows of the closed table.
    pub(crate) async fn close(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let merged = self.finish(state).await?;
        merged.iter().filter(|batch| batch.num_rows() > 0).map(|batch| self.closed_rows(batch)).collect()
    }

    /// As [`Assembly::close`], each batch with the ends of its rows' windows, microseconds since 1970.
    pub(crate) async fn close_by_end(&mut self, state: Vec<RecordBatch>) -> Result<Vec<(Int64Array, RecordBatch)>> {
        let merged = self.finish(state).await?;
        let with_ends = merged.iter().filter(|batch| batch.num_rows() > 0).map(|batch| {
            let starts = batch.column(0).as_primitive::<Int64Type>();
            let ends = self.size.map_or_else(
                || Int64Array::from_value(END_OF_TIME, starts.len()),
                |size| starts.unary(|start| start + size),
            );
            Ok((ends, self.closed_rows(batch)?))
        });
        with_ends.collect()
    }

    async fn finish(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        match &mut self.stages {
            Some((_, finish)) => Ok(finish.run_batches(vec![state]).await?),
            None => Ok(state),
        }
    }

    /// Puts the window in its place and takes the pane column away.
    fn closed_rows(&self, merged: &RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = merged.columns()[1..].to_vec();
        if let Some(at) = self.window_at {
            let starts = merged.column(0).as_primitive::<Int64Type>();
            let time = |add: i64| -> Result<ArrayRef> {
                let times: TimestampMicrosecondArray = starts.unary(|start| start + add);
                Ok(arrow::compute::cast(&times, &time_type())?)
            };
            let bounds = match self.size {
                Some(size) => vec![time(0)?, time(size)?],
                None => vec![new_null_array(&time_type(), merged.num_rows()); 2],
            };
            let window = StructArray::try_new(window_fields(), bounds, None)?;
            columns.insert(at, Arc::new(window));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.closed), columns)?)
    }
}

/// Which rows of a table a leaf wants, and which columns of them.
#[derive(Clone, Debug)]
pub(crate) struct LeafReader {
    wanted: Vec<usize>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl LeafReader {
    /// For rows that hold the columns of the table at `columns`, ascending.
    pub(crate) fn try_new(state: &SessionState, leaf: &Leaf, table: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let position = |column: &usize| {
            let found = columns.iter().position(|other| other == column);
            found.ok_or_else(|| Error::internal("a column is wanted that is not read"))
        };
        let schema = table.project(columns)?;
        let filter = conjunction(leaf.filters.iter().cloned())
            .map(|filter| state.create_physical_expr(unnormalize_col(filter), &DFSchema::try_from(schema)?));
        Ok(Self { wanted: leaf.projection.iter().map(position).collect::<Result<_>>()?, filter: filter.transpose()? })
    }

    /// Which rows pass the leaf's filters; none when it has none.
    pub(crate) fn filter(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
        let mask = mask.as_boolean();
        // A comparison with NULL is NULL, and keeps no row.
        Ok(Some(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }))
    }

    /// The columns that the leaf wants.
    pub(crate) fn wanted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&self.wanted)?)
    }
}

/// The rows of a leaf over closed windows: whole batches of the closed table, with the columns it wants.
pub(crate) fn closed_for(leaf: &Leaf, closed: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    closed.iter().map(|batch| Ok(batch.project(&leaf.projection)?)).collect()
}
