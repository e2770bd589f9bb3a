//! Cuts a job's plan at its windowed aggregate.
//!
//! ```text
//!            upper    any SQL over closed windows, as long as it means the same per window as over all
//!   ──────── cut      GROUP BY window(…), keys: panes, merged when the watermark says so
//!            lower    rows of the source: filter, projection, explode; runs per micro-batch
//! ```
//!
//! In comes an analysed plan; out go the two halves and the window. What cannot be cut is refused with a hint.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, ScalarUDF, cast, col,
};
use datafusion::scalar::ScalarValue;
use event::Span;

use crate::error::{Error, Result};
use crate::plan::distinct::{has_distinct, lower_distinct};
use crate::plan::functions::{Pane, time_type};
use crate::plan::slot::SlotTable;
use crate::stream::window::WindowSpec;

/// Name of the table that stands for the closed windows in the upper plan.
pub(crate) const CLOSED: &str = "__closed";
/// Name of the group column that holds a pane's start.
pub(crate) const PANE: &str = "__pane";

/// A plan, cut.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) spec: WindowSpec,
    /// Aggregate by pane and keys over the rows of the source.
    pub(crate) lower: LogicalPlan,
    /// Reads [`CLOSED`].
    pub(crate) upper: LogicalPlan,
    /// Position of the window among the columns of [`CLOSED`].
    pub(crate) window_at: usize,
    /// Number of group columns, the window among them; they come first.
    pub(crate) groups: usize,
    /// Columns of [`CLOSED`].
    pub(crate) closed: SchemaRef,
}

/// Cuts `plan` at its one windowed aggregate; `event_time` is the column of the source that windows may be over.
pub(crate) fn cut(plan: LogicalPlan, event_time: &str) -> Result<Cut> {
    let lowered = plan.transform_up(|node| match &node {
        LogicalPlan::Aggregate(aggregate) if window_at(aggregate).is_some() && has_distinct(aggregate) => {
            Ok(Transformed::yes(lower_distinct(aggregate)?))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    let mut found: Vec<Aggregate> = Vec::new();
    let upper = lowered.data.transform_up(|node| match &node {
        LogicalPlan::Aggregate(aggregate) if window_at(aggregate).is_some() => {
            found.push(aggregate.clone());
            Ok(Transformed::yes(closed_scan(aggregate).map_err(DataFusionError::from)?))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    let aggregate = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Error::job("the job has no GROUP BY window(…)")
                .with_hint("group by window(created_at, '1 hour'), or run it once with `tidegate sql`"));
        }
        _ => {
            return Err(Error::job("the job has more than one windowed aggregate")
                .with_hint("one GROUP BY window(…) a job; compute further figures in its select list"));
        }
    };
    let window_at = window_at(aggregate).expect("found by it");
    let (time, spec) = window_arguments(&aggregate.group_expr[window_at])?;
    check_lower(&aggregate.input)?;
    if source_column(&aggregate.input, &time).as_deref() != Some(event_time) {
        return Err(Error::job(format!("window is over `{time}`, which is not the event time of the source"))
            .with_hint(format!("use window({event_time}, …): lateness and watermarks are decided by that column")));
    }
    Ok(Cut {
        spec,
        lower: lower(aggregate, window_at, &time, spec)?,
        upper: upper.data,
        window_at,
        groups: aggregate.group_expr.len(),
        closed: closed_schema(aggregate),
    })
}

fn window_call(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::Alias(alias) => window_call(&alias.expr),
        Expr::ScalarFunction(call) if call.func.name() == "window" => Some(call),
        _ => None,
    }
}

fn window_at(aggregate: &Aggregate) -> Option<usize> {
    aggregate.group_expr.iter().position(|expr| window_call(expr).is_some())
}

fn window_arguments(expr: &Expr) -> Result<(Expr, WindowSpec)> {
    let call = window_call(expr).ok_or_else(|| Error::internal("a window is no call"))?;
    let (time, lengths) = call.args.split_first().ok_or_else(|| Error::job("`window` takes a time first"))?;
    let lengths = lengths.iter().map(length).collect::<Result<Vec<i64>>>()?;
    let size = *lengths.first().ok_or_else(|| Error::job("`window` takes a size"))?;
    let slide = lengths.get(1).copied().unwrap_or(size);
    let origin = lengths.get(2).copied().unwrap_or(0);
    let spec =
        WindowSpec::try_new(size, slide, origin).map_err(|(message, hint)| Error::job(message).with_hint(hint))?;
    Ok((time.clone(), spec))
}

fn length(expr: &Expr) -> Result<i64> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            Span::parse(text).map(Span::micros).map_err(Error::job)
        }
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
            Ok(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000)
        }
        Expr::Literal(ScalarValue::IntervalMonthDayNano(_), _) => {
            Err(Error::job("a window of months has no fixed length").with_hint("use days, such as '30 days'"))
        }
        Expr::Cast(cast) => length(&cast.expr),
        other => Err(Error::job(format!("`window` takes constant lengths, not `{other}`")).with_hint("use '1 hour'")),
    }
}

/// Columns `c0, c1, …` with the types of the aggregate's own.
fn closed_schema(aggregate: &Aggregate) -> SchemaRef {
    let fields = aggregate.schema.fields().iter().enumerate();
    Arc::new(Schema::new(
        fields.map(|(at, f)| Field::new(format!("c{at}"), f.data_type().clone(), f.is_nullable())).collect::<Vec<_>>(),
    ))
}

/// The scan that takes the aggregate's place, under the aggregate's own names.
fn closed_scan(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let table = SlotTable { schema: closed_schema(aggregate), filters: false };
    let scan = LogicalPlanBuilder::scan(CLOSED, provider_as_source(Arc::new(table)), None)?;
    let names = aggregate.schema.iter().enumerate().map(|(at, (qualifier, field))| {
        col(format!("{CLOSED}.c{at}")).alias_qualified(qualifier.cloned(), field.name())
    });
    let names: Vec<Expr> = names.collect();
    Ok(scan.project(names)?.build()?)
}

fn lower(aggregate: &Aggregate, window_at: usize, time: &Expr, spec: WindowSpec) -> Result<LogicalPlan> {
    let pane = ScalarUDF::new_from_impl(Pane::new(spec));
    let mut groups = vec![pane.call(vec![cast(time.clone(), time_type())]).alias(PANE)];
    groups
        .extend(aggregate.group_expr.iter().enumerate().filter(|(at, _)| *at != window_at).map(|(_, key)| key.clone()));
    let input = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).filter(time.clone().is_not_null())?;
    Ok(input.aggregate(groups, aggregate.aggr_expr.clone())?.build()?)
}

/// Refuses what cannot run row by row below the window.
fn check_lower(plan: &LogicalPlan) -> Result<()> {
    let mut scans = 0;
    let mut refused: Option<Error> = None;
    plan.apply(|node| {
        let what = match node {
            LogicalPlan::TableScan(_) => {
                scans += 1;
                None
            }
            LogicalPlan::Join(join) if is_lookup(join) => None,
            LogicalPlan::Values(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_) => None,
            LogicalPlan::Aggregate(_) => Some("an aggregate without a window"),
            LogicalPlan::Join(_) => Some("a join that is no look-up in constant rows"),
            LogicalPlan::Window(_) => Some("a window function"),
            LogicalPlan::Sort(_) => Some("ORDER BY"),
            LogicalPlan::Limit(_) => Some("LIMIT"),
            LogicalPlan::Distinct(_) => Some("DISTINCT"),
            LogicalPlan::Union(_) => Some("UNION"),
            _ => Some("an operator"),
        };
        refused = what.map(|what| {
            Error::job(format!("{what} stands below GROUP BY window(…)"))
                .with_hint("below the window rows are taken one by one: use WHERE, expressions and explode there")
        });
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(error) => Err(error),
        None if scans == 1 => Ok(()),
        None => Err(Error::job(format!("the window reads {scans} tables")).with_hint("read `events` once")),
    }
}

/// An inner join with constant rows (`VALUES`), or one that keeps every row of the other side: row by row.
fn is_lookup(join: &Join) -> bool {
    let (left, right) = (reads_table(&join.left), reads_table(&join.right));
    match join.join_type {
        JoinType::Inner => left != right,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => left && !right,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => right && !left,
        _ => false,
    }
}

fn reads_table(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_)))).unwrap_or(true)
}

/// The source's column that `expr` is, seen through projections; none when it is computed.
fn source_column(plan: &LogicalPlan, expr: &Expr) -> Option<String> {
    let column = match expr {
        Expr::Alias(alias) => return source_column(plan, &alias.expr),
        Expr::Column(column) => column,
        _ => return None,
    };
    match plan {
        LogicalPlan::TableScan(_) => Some(column.name.clone()),
        LogicalPlan::Projection(projection) => {
            let at = projection.schema.maybe_index_of_column(column)?;
            source_column(&projection.input, &projection.expr[at])
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let at = alias.schema.maybe_index_of_column(column)?;
            let (qualifier, field) = alias.input.schema().qualified_field(at);
            source_column(&alias.input, &Expr::Column((qualifier, field).into()))
        }
        LogicalPlan::Filter(filter) => source_column(&filter.input, expr),
        LogicalPlan::Unnest(unnest) => source_column(&unnest.input, expr),
        LogicalPlan::Join(join) => {
            let side = if join.left.schema().has_column(column) { &join.left } else { &join.right };
            source_column(side, expr)
        }
        _ => None,
    }
}

/// The Arrow type of a window column.
pub(crate) fn is_window(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(fields) if *fields == crate::plan::functions::window_fields())
}
