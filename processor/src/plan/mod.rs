//! From a job's query to the plans that run: analysed, cut at the window, planned physically.
//!
//! [`JobPlan`] makes as many instances of the physical plans as there are workers; each has a slot of its own.

pub(crate) mod cut;
pub(crate) mod dialect;
mod distinct;
pub(crate) mod functions;
pub(crate) mod locality;
pub(crate) mod normalise;
pub(crate) mod slot;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use event::Span;
use event::schema::{CREATED_AT, events_schema};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use cut::{Cut, cut};
use functions::{time_type, window_fields};
use locality::{Origin, origins};
use slot::{SlotExec, SlotPlan, find_slots};

/// Functions whose state merges to the same answer whatever the order of rows and panes.
const ADMITTED: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
    "approx_distinct",
];
const NOT_DETERMINISTIC: &[&str] = &["now", "current_date", "current_time", "today", "random", "uuid"];

/// A job's query, cut and checked.
#[derive(Debug)]
pub(crate) struct JobPlan {
    state: SessionState,
    pub(crate) cut: Cut,
    /// What each output column is.
    pub(crate) origins: Vec<Origin>,
    /// Columns of the output.
    pub(crate) output: SchemaRef,
}

impl JobPlan {
    /// Analyses and cuts `plan`.
    pub(crate) fn try_new(state: SessionState, plan: LogicalPlan) -> Result<Self> {
        let analysed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        check_deterministic(&analysed)?;
        let output = Arc::new(analysed.schema().as_arrow().clone());
        let mut cut = cut(analysed, CREATED_AT)?;
        check_admitted(&cut.lower)?;
        let origins = origins(&cut.upper, cut.groups)?;
        cut.lower = state.optimize(&cut.lower)?;
        cut.upper = state.optimize(&cut.upper)?;
        Ok(Self { state, cut, origins, output })
    }

    /// What the state of one run must share with another to be used by it.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!(
            "{:?}\n{}\n{}",
            self.cut.spec,
            self.cut.lower.display_indent_schema(),
            datafusion::DATAFUSION_VERSION
        ));
        hex::encode(&hash.finalize()[..16])
    }

    /// The plan as text: what runs per closed window, per pane and per row.
    pub(crate) fn explain(&self) -> String {
        let spec = self.cut.spec;
        let span = Span::from_micros;
        let mut text = format!(
            "window: size {}, slide {}, panes of {}, {} panes a window\n",
            span(spec.size()),
            span(spec.slide()),
            span(spec.pane_width()),
            spec.size() / spec.pane_width()
        );
        for (title, plan) in [("per closed window", &self.cut.upper), ("per row, into panes", &self.cut.lower)] {
            let _ = writeln!(text, "{title}:");
            for line in plan.display_indent().to_string().lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }

    /// An instance of the plan from rows to panes.
    pub(crate) async fn pane_plan(&self) -> Result<PanePlan> {
        let (parts, _) = self.aggregation().await?;
        let mut slots = Vec::new();
        find_slots(&parts.input, &mut slots);
        let [leaf] = slots.as_slice() else {
            return Err(Error::internal("the plan below the window has no single source"));
        };
        let rows =
            RowReader::try_new(&self.state, leaf.downcast_ref::<SlotExec>().expect("find_slots returns slots only"))?;
        Ok(PanePlan { rows, partial: SlotPlan::try_new(parts.partial()?, self.state.task_ctx())? })
    }

    /// An instance of the plans from panes to output rows.
    pub(crate) async fn assembly(&self) -> Result<Assembly> {
        let (parts, layers) = self.aggregation().await?;
        let partial = parts.partial()?;
        let context = self.state.task_ctx();
        let reduce = parts.over_state(&partial, AggregateMode::PartialReduce)?;
        let mut finish = parts.over_state(&partial, AggregateMode::Final)?;
        for layer in layers {
            finish =
                layer.replace_children(vec![finish], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        }
        let upper = self.state.create_physical_plan(&self.cut.upper).await?;
        Ok(Assembly {
            reduce: SlotPlan::try_new(reduce, Arc::clone(&context))?,
            finish: SlotPlan::try_new(finish, Arc::clone(&context))?,
            upper: SlotPlan::try_new(upper, context)?,
            closed: Arc::clone(&self.cut.closed),
            window_at: self.cut.window_at,
            size: self.cut.spec.size(),
        })
    }

    /// The aggregate of the lower plan and the projections above it, innermost first.
    async fn aggregation(&self) -> Result<(Aggregation, Vec<Arc<dyn ExecutionPlan>>)> {
        let mut plan = self.state.create_physical_plan(&self.cut.lower).await?;
        let mut layers = Vec::new();
        loop {
            if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
                let bottom = match aggregate.mode() {
                    AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => aggregate,
                    _ => aggregate
                        .input()
                        .downcast_ref::<AggregateExec>()
                        .ok_or_else(|| Error::internal("a final aggregate stands on no partial one"))?,
                };
                layers.reverse();
                return Ok((Aggregation::of(bottom), layers));
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
}

/// What is needed to build every stage of one aggregate.
struct Aggregation {
    groups: PhysicalGroupBy,
    functions: Vec<Arc<datafusion::physical_expr::aggregate::AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    input: Arc<dyn ExecutionPlan>,
    input_schema: SchemaRef,
}

impl Aggregation {
    fn of(aggregate: &AggregateExec) -> Self {
        Self {
            groups: aggregate.group_expr().clone(),
            functions: aggregate.aggr_expr().to_vec(),
            filters: aggregate.filter_expr().to_vec(),
            input: Arc::clone(aggregate.input()),
            input_schema: aggregate.input_schema(),
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
        let state = partial.schema();
        let columns = (0..state.fields().len()).collect();
        Ok(Arc::new(AggregateExec::try_new(
            mode,
            self.groups.as_final(),
            built.aggr_expr().to_vec(),
            vec![None; self.functions.len()],
            Arc::new(SlotExec::new(state, columns, Vec::new())),
            Arc::clone(&self.input_schema),
        )?))
    }
}

/// Rows of the source to partial aggregates by pane.
#[derive(Debug)]
pub(crate) struct PanePlan {
    /// How to read the rows that `partial` wants.
    pub(crate) rows: RowReader,
    /// Rows to state.
    pub(crate) partial: SlotPlan,
}

/// Which columns of the events table a job reads, and which rows it wants.
#[derive(Clone, Debug)]
pub(crate) struct RowReader {
    columns: Vec<usize>,
    wanted: Vec<usize>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    time_at: usize,
}

impl RowReader {
    fn try_new(state: &SessionState, leaf: &SlotExec) -> Result<Self> {
        let table = events_schema();
        let mut columns = leaf.projection.clone();
        columns.push(table.index_of(CREATED_AT)?);
        let filter = conjunction(leaf.filters.iter().cloned());
        for column in filter.iter().flat_map(Expr::column_refs) {
            columns.push(table.index_of(&column.name)?);
        }
        columns.sort_unstable();
        columns.dedup();
        let position = |column: &usize| columns.iter().position(|other| other == column).expect("pushed above");
        let schema = table.project(&columns)?;
        let filter = filter.map(|filter| {
            let unqualified = datafusion::logical_expr::expr_rewriter::unnormalize_col(filter);
            state.create_physical_expr(unqualified, &DFSchema::try_from(schema)?)
        });
        Ok(Self {
            wanted: leaf.projection.iter().map(position).collect(),
            time_at: position(&table.index_of(CREATED_AT)?),
            filter: filter.transpose()?,
            columns,
        })
    }

    /// Columns of the events table to be read, ascending.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Event times of rows read with [`RowReader::columns`].
    pub(crate) fn times<'a>(&self, rows: &'a RecordBatch) -> &'a TimestampMicrosecondArray {
        rows.column(self.time_at).as_primitive()
    }

    /// Which rows pass the job's filter; none when it has none.
    pub(crate) fn filter(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
        let mask = mask.as_boolean();
        // A comparison with NULL is NULL, and keeps no row.
        Ok(Some(if mask.null_count() > 0 { arrow::compute::prep_null_mask_filter(mask) } else { mask.clone() }))
    }

    /// The columns that the plan wants of rows read with [`RowReader::columns`].
    pub(crate) fn wanted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&self.wanted)?)
    }
}

/// Panes to output rows.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// State to state, equal groups merged.
    pub(crate) reduce: SlotPlan,
    finish: SlotPlan,
    upper: SlotPlan,
    closed: SchemaRef,
    window_at: usize,
    size: i64,
}

impl Assembly {
    /// Merges and evaluates state rows whose pane column holds the start of their window, and runs the upper plan.
    pub(crate) async fn close(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let merged = self.finish.run_batches(state).await?;
        let closed = merged.iter().map(|batch| self.closed_rows(batch)).collect::<Result<Vec<_>>>()?;
        // The upper plan may want fewer columns of the closed windows than there are.
        let wanted = Arc::clone(self.upper.input_schema());
        let wanted: Vec<usize> =
            wanted.fields().iter().map(|f| self.closed.index_of(f.name())).collect::<std::result::Result<_, _>>()?;
        let closed = closed.iter().map(|batch| batch.project(&wanted)).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(self.upper.run_batches(closed).await?)
    }

    /// Puts the window in the place of the pane column.
    fn closed_rows(&self, merged: &RecordBatch) -> Result<RecordBatch> {
        let starts = merged.column(0).as_primitive::<Int64Type>();
        let time = |add: i64| -> Result<ArrayRef> {
            let times: TimestampMicrosecondArray = starts.unary(|start| start + add);
            Ok(arrow::compute::cast(&times, &time_type())?)
        };
        let window = StructArray::try_new(window_fields(), vec![time(0)?, time(self.size)?], None)?;
        let mut columns: Vec<ArrayRef> = merged.columns()[1..].to_vec();
        columns.insert(self.window_at, Arc::new(window));
        Ok(RecordBatch::try_new(Arc::clone(&self.closed), columns)?)
    }
}

fn check_deterministic(plan: &LogicalPlan) -> Result<()> {
    let mut refused: Option<String> = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    let name = call.func.name();
                    if NOT_DETERMINISTIC.contains(&name) || part.is_volatile_node() {
                        refused = Some(name.to_owned());
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match refused {
        None => Ok(()),
        Some(name) => Err(Error::job(format!("`{name}` gives another answer at every run"))
            .with_hint("use the event's own columns, or a ${variable} given with --var")),
    }
}

fn check_admitted(lower: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Aggregate(aggregate) = lower else { return Ok(()) };
    for expr in &aggregate.aggr_expr {
        expr.apply(|part| {
            if let Expr::AggregateFunction(function) = part {
                let name = function.func.name();
                if !ADMITTED.contains(&name) {
                    let error = Error::job(format!("`{name}` cannot be merged over panes to one answer"))
                        .with_hint(format!("use one of {}", ADMITTED.join(", ")));
                    return Err(error.into());
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}
