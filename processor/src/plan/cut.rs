//! Cuts a query's plan at its windows.
//!
//! ```text
//!            upper    any SQL over closed windows, as long as it means the same per window as over all
//!   ──────── cut      GROUP BY window(…), keys: panes, merged when the watermark says so
//!            lower    rows of the source: filter, projection, explode, union; runs per micro-batch
//! ```
//!
//! In comes an analysed plan; out goes the upper half, and the cuts are added to those of the job: equal cuts of
//! several queries are one. A cut may stand above another: its rows are then those of the closed windows below. What
//! cannot be cut is refused with a hint.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::functions_nested::expr_fn::array_sort;
use datafusion::logical_expr::{
    Aggregate, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, ScalarUDF, cast, col, lit,
};

use crate::error::{Error, Result};
use crate::plan::admission;
use crate::plan::distinct::{has_distinct, lower_distinct};
use crate::plan::functions::{Pane, time_type, window_fields};
use crate::plan::grouping::expand_grouping_sets;
use crate::plan::locality::{Origin, Traced, origin_of, trace};
use crate::plan::slot::SlotTable;
use crate::plan::window::{
    bare, calls_window, compare_by_bounds, group_by_call, not_in_as_not_exists, struct_time, window_arguments,
    window_at, window_call,
};
use crate::stream::window::WindowSpec;
use crate::table::TableSpec;

/// How the tables that stand for closed windows are called, before their number.
pub(crate) const CLOSED: &str = "__closed_";
/// Name of the group column that holds a pane's start.
pub(crate) const PANE: &str = "__pane";

/// Where state is kept: rows below, closed windows above.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// The windows; none is one window over all time.
    pub(crate) spec: Option<WindowSpec>,
    /// Rows with their pane first, or an aggregate by pane and keys.
    pub(crate) lower: LogicalPlan,
    /// Whether the state is partial aggregates; else it is the rows themselves.
    pub(crate) aggregates: bool,
    /// Position of the window among the columns of the closed table.
    pub(crate) window_at: Option<usize>,
    /// Number of key columns, the window among them; they come first.
    pub(crate) keys: usize,
    /// Columns `c0, c1, …` of the closed table.
    pub(crate) closed: SchemaRef,
    /// Cuts whose closed windows are this one's rows; none reads tables.
    pub(crate) above: Vec<usize>,
}

impl Cut {
    /// The name of the table of closed windows of cut `number`.
    pub(crate) fn closed_name(number: usize) -> String {
        format!("{CLOSED}{number}")
    }

    /// Which cut's table of closed windows `table` is.
    pub(crate) fn of_closed(table: &str) -> Option<usize> {
        table.strip_prefix(CLOSED)?.parse().ok()
    }
}

/// What a query is, once it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads closed windows.
    Windowed,
    /// Aggregates over all time.
    AllTime,
    /// Row by row.
    Stateless,
    /// Needs all rows at once.
    Bounded,
}

/// Cuts `plan`, adding to `cuts` what it needs and does not find there.
pub(crate) fn cut(plan: LogicalPlan, tables: &[TableSpec], cuts: &mut Vec<Cut>) -> Result<(Kind, LogicalPlan)> {
    let plan = compare_by_bounds(not_in_as_not_exists(plan)?)?;
    let windowed = exists(&plan, node_calls_window);
    if windowed {
        let grouped = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Aggregate(aggregate) => changed(node.clone(), rewrite_windowed(aggregate)),
            _ => Ok(Transformed::no(node)),
        })?;
        let distinct = grouped.data.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Aggregate(aggregate) if window_at(aggregate).is_some() && has_distinct(aggregate) => {
                Ok(Transformed::yes(lower_distinct(aggregate)?))
            }
            _ => Ok(Transformed::no(node)),
        })?;
        let upper = distinct.data.transform_up_with_subqueries(|node| cut_node(node, tables, cuts))?.data;
        if exists(&upper, node_calls_window) {
            return Err(Error::job("`window` stands where no window can be")
                .with_hint("call window(…) in GROUP BY, or as a column of the select list"));
        }
        if let Some(table) = raw_table(&upper) {
            return Err(Error::job(format!("table `{table}` is read beside windows, without one"))
                .with_hint("group its rows by window(…) too, and join on the windows' ends"));
        }
        return Ok((kind_of(&upper, cuts)?, upper));
    }
    if refused_below(&plan, tables)?.is_none() {
        return Ok((Kind::Stateless, plan));
    }
    cut_all_time(plan, tables, cuts)
}

/// Whether the windows that a query reads close as time goes on, or there is one over all time.
fn kind_of(upper: &LogicalPlan, cuts: &[Cut]) -> Result<Kind> {
    let mut kinds = Vec::new();
    exists(upper, |node| {
        if let LogicalPlan::TableScan(scan) = node {
            let cut = Cut::of_closed(scan.table_name.table()).and_then(|number| cuts.get(number));
            kinds.extend(cut.map(|cut| if cut.spec.is_some() { Kind::Windowed } else { Kind::AllTime }));
        }
        false
    });
    match (kinds.contains(&Kind::Windowed), kinds.contains(&Kind::AllTime)) {
        (true, true) => Err(Error::job("a query is over windows and over all time at once")
            .with_hint("make two of it: INSERT INTO … SELECT … for each")),
        (false, true) => Ok(Kind::AllTime),
        _ => Ok(Kind::Windowed),
    }
}

/// An aggregate over all time, where every table is aggregated row by row; else the query needs all rows at once.
fn cut_all_time(plan: LogicalPlan, tables: &[TableSpec], cuts: &mut Vec<Cut>) -> Result<(Kind, LogicalPlan)> {
    let before = cuts.len();
    let lowest = |aggregate: &Aggregate| refused_below(&aggregate.input, tables).is_ok_and(|refused| refused.is_none());
    let lowered = plan.clone().transform_up_with_subqueries(|node| match &node {
        LogicalPlan::Aggregate(aggregate) if lowest(aggregate) => {
            if let Some(union) = expand_grouping_sets(aggregate)? {
                return Ok(Transformed::yes(union));
            }
            if has_distinct(aggregate) {
                return Ok(Transformed::yes(lower_distinct(aggregate)?));
            }
            Ok(Transformed::no(node))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    let upper = lowered.data.transform_up_with_subqueries(|node| match &node {
        // One row for no rows at all is beyond what groups can say; a constant key is not the same.
        LogicalPlan::Aggregate(aggregate) if lowest(aggregate) && !aggregate.group_expr.is_empty() => {
            let lower = LogicalPlanBuilder::from(with_pane(&aggregate.input, lit(0_i64))?)
                .aggregate(pane_and_keys(&aggregate.group_expr, None), aggregate.aggr_expr.clone())?
                .build()?;
            let cut = Cut {
                spec: None,
                lower,
                aggregates: true,
                window_at: None,
                keys: aggregate.group_expr.len(),
                closed: closed_schema(aggregate.schema.as_arrow()),
                above: Vec::new(),
            };
            let number = add(cuts, cut);
            Ok(Transformed::yes(closed_scan(&cuts[number], number, aggregate.schema.iter())?))
        }
        _ => Ok(Transformed::no(node)),
    });
    match upper {
        Ok(upper) if raw_table(&upper.data).is_none() && admitted(&cuts[before..]).is_ok() => {
            Ok((Kind::AllTime, upper.data))
        }
        _ => {
            cuts.truncate(before);
            Ok((Kind::Bounded, plan))
        }
    }
}

fn admitted(cuts: &[Cut]) -> Result<()> {
    cuts.iter().try_for_each(|cut| admission::check(&cut.lower))
}

fn changed(node: LogicalPlan, rewritten: Result<Option<LogicalPlan>>) -> DfResult<Transformed<LogicalPlan>> {
    Ok(match rewritten? {
        Some(plan) => Transformed::yes(plan),
        None => Transformed::no(node),
    })
}

/// Grouping sets with a window as a union; a window that is a column as the call it comes from.
fn rewrite_windowed(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    if aggregate.group_expr.iter().any(calls_window)
        && let Some(union) = expand_grouping_sets(aggregate)?
    {
        return Ok(Some(union));
    }
    if window_at(aggregate).is_some() {
        return Ok(None);
    }
    group_by_call(aggregate)
}

fn node_calls_window(node: &LogicalPlan) -> bool {
    let mut calls = false;
    let _ = node.apply_expressions(|expr| {
        calls |= calls_window(expr);
        Ok(TreeNodeRecursion::Continue)
    });
    calls
}

fn exists(plan: &LogicalPlan, mut test: impl FnMut(&LogicalPlan) -> bool) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        found |= test(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// The first table that is read without a window.
fn raw_table(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    exists(plan, |node| match node {
        LogicalPlan::TableScan(scan) if Cut::of_closed(scan.table_name.table()).is_none() => {
            found = Some(scan.table_name.table().to_owned());
            true
        }
        _ => false,
    });
    found
}

/// Replaces a windowed aggregate, or a projection that computes a window, by the scan of its closed windows.
fn cut_node(node: LogicalPlan, tables: &[TableSpec], cuts: &mut Vec<Cut>) -> DfResult<Transformed<LogicalPlan>> {
    match &node {
        LogicalPlan::Aggregate(aggregate) => match window_at(aggregate) {
            Some(at) => Ok(Transformed::yes(cut_aggregate(aggregate, at, tables, cuts)?)),
            None => Ok(Transformed::no(node)),
        },
        LogicalPlan::Projection(projection) if projection.expr.iter().any(calls_window) => {
            Ok(Transformed::yes(cut_rows(projection, tables, cuts)?))
        }
        _ => Ok(Transformed::no(node)),
    }
}

fn cut_aggregate(aggregate: &Aggregate, at: usize, tables: &[TableSpec], cuts: &mut Vec<Cut>) -> Result<LogicalPlan> {
    let call = window_call(&aggregate.group_expr[at]).ok_or_else(|| Error::internal("a window is no call"))?;
    let (time, spec) = window_arguments(call)?;
    let above = check_time(&aggregate.input, &time, tables, cuts)?;
    let pane = match spec {
        Some(spec) => ScalarUDF::new_from_impl(Pane::new(spec)).call(vec![cast(time.clone(), time_type())]),
        None => lit(0_i64),
    };
    let input = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).filter(time.is_not_null())?.build()?;
    let lower = LogicalPlanBuilder::from(with_pane(&input, pane)?)
        .aggregate(pane_and_keys(&aggregate.group_expr, Some(at)), aggregate.aggr_expr.clone())?
        .build()?;
    admission::check(&lower)?;
    let cut = Cut {
        spec,
        lower,
        aggregates: true,
        window_at: Some(at),
        keys: aggregate.group_expr.len(),
        closed: closed_schema(aggregate.schema.as_arrow()),
        above,
    };
    let number = add(cuts, cut);
    sorted_lists(closed_scan(&cuts[number], number, aggregate.schema.iter())?, aggregate)
}

/// `array_agg` gathers in the order of arrival; sorted, it is a function of the rows alone.
fn sorted_lists(scan: LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let gathers = |at: usize| {
        at.checked_sub(aggregate.group_expr.len()).is_some_and(|at| match bare(&aggregate.aggr_expr[at]) {
            Expr::AggregateFunction(function) => function.func.name() == "array_agg",
            _ => false,
        })
    };
    let columns = scan.schema().columns();
    if !(0..columns.len()).any(gathers) {
        return Ok(scan);
    }
    let sorted =
        columns.into_iter().zip(aggregate.schema.iter()).enumerate().map(|(at, (column, (qualifier, field)))| {
            let column = Expr::Column(column);
            match gathers(at) {
                true => {
                    array_sort(column, lit("ASC"), lit("NULLS FIRST")).alias_qualified(qualifier.cloned(), field.name())
                }
                false => column,
            }
        });
    let sorted: Vec<Expr> = sorted.collect();
    Ok(LogicalPlanBuilder::from(scan).project(sorted)?.build()?)
}

/// The rows with their pane as a column. As a group expression the optimizer would take it away where it is constant
/// or follows from another key.
fn with_pane(input: &LogicalPlan, pane: Expr) -> Result<LogicalPlan> {
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = std::iter::once(pane.alias(PANE)).chain(columns).collect();
    Ok(LogicalPlanBuilder::from(input.clone()).project(columns)?.build()?)
}

fn pane_and_keys(groups: &[Expr], window_at: Option<usize>) -> Vec<Expr> {
    let keys = groups.iter().enumerate().filter(|(at, _)| Some(*at) != window_at).map(|(_, key)| key.clone());
    std::iter::once(col(PANE)).chain(keys).collect()
}

/// A window among the columns of a SELECT: rows are kept until their windows close, and come once for each.
fn cut_rows(projection: &Projection, tables: &[TableSpec], cuts: &mut Vec<Cut>) -> Result<LogicalPlan> {
    let mut calls = Vec::new();
    for expr in &projection.expr {
        expr.apply(|part| {
            if let Expr::ScalarFunction(_) = part
                && let Some(call) = window_call(part)
                && !calls.contains(call)
            {
                calls.push(call.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let [call] = calls.as_slice() else {
        return Err(Error::job("a SELECT calls `window` with different arguments").with_hint("use one window a SELECT"));
    };
    let (time, spec) = window_arguments(call)?;
    let Some(spec) = spec else {
        return Err(Error::job("rows cannot be kept for all time").with_hint("group them by window(…)"));
    };
    let above = check_time(&projection.input, &time, tables, cuts)?;
    let input = projection.input.schema();
    let mut used: Vec<usize> = Vec::new();
    for column in projection.expr.iter().flat_map(Expr::column_refs) {
        used.extend(input.maybe_index_of_column(column));
    }
    used.sort_unstable();
    used.dedup();
    let pane = ScalarUDF::new_from_impl(Pane::new(spec)).call(vec![cast(time.clone(), time_type())]);
    let columns = used.iter().map(|at| Expr::Column(input.qualified_field(*at).into()));
    let row: Vec<Expr> = std::iter::once(pane.alias(PANE)).chain(columns).collect();
    let lower =
        LogicalPlanBuilder::from(Arc::clone(&projection.input)).filter(time.is_not_null())?.project(row)?.build()?;
    let mut fields = vec![Field::new_struct("window", window_fields(), true)];
    fields.extend(used.iter().map(|at| input.field(*at).as_ref().clone()));
    let cut = Cut {
        spec: Some(spec),
        lower,
        aggregates: false,
        window_at: Some(0),
        keys: used.len() + 1,
        closed: closed_schema(&Schema::new(fields)),
        above,
    };
    let number = add(cuts, cut);
    let qualified = used.iter().map(|at| input.qualified_field(*at));
    let window = Field::new_struct(WINDOW_COLUMN, window_fields(), true);
    let scan = closed_scan(&cuts[number], number, std::iter::once((None, &Arc::new(window))).chain(qualified))?;
    let exprs = projection.expr.iter().zip(projection.schema.iter()).map(|(expr, (qualifier, field))| {
        let replaced = expr.clone().transform_up(|part| {
            Ok(if window_call(&part) == Some(call) && matches!(part, Expr::ScalarFunction(_)) {
                Transformed::yes(col(WINDOW_COLUMN))
            } else {
                Transformed::no(part)
            })
        })?;
        Ok(match replaced.data {
            Expr::Alias(alias) => Expr::Alias(alias),
            other => other.alias_qualified(qualifier.cloned(), field.name()),
        })
    });
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    Ok(LogicalPlanBuilder::from(scan).project(exprs)?.build()?)
}

/// The window among the columns of a row cut, before it gets the name that the SELECT gives it.
const WINDOW_COLUMN: &str = "__window";

/// Adds a cut unless there is one that keeps the same state; its number.
fn add(cuts: &mut Vec<Cut>, cut: Cut) -> usize {
    let same = |other: &Cut| {
        other.spec == cut.spec && other.window_at == cut.window_at && other.keys == cut.keys && other.lower == cut.lower
    };
    if let Some(number) = cuts.iter().position(same) {
        return number;
    }
    cuts.push(cut);
    cuts.len() - 1
}

/// Columns `c0, c1, …` with the types of `schema`.
fn closed_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().enumerate();
    let fields: Vec<Field> =
        fields.map(|(at, f)| Field::new(format!("c{at}"), f.data_type().clone(), f.is_nullable())).collect();
    Arc::new(Schema::new(fields))
}

/// The scan that takes a cut's place, under the names that were there.
fn closed_scan<'a>(
    cut: &Cut,
    number: usize,
    names: impl Iterator<Item = (Option<&'a datafusion::common::TableReference>, &'a Arc<Field>)>,
) -> Result<LogicalPlan> {
    let name = Cut::closed_name(number);
    let table = SlotTable { name: name.as_str().into(), schema: Arc::clone(&cut.closed), filters: false };
    let scan = LogicalPlanBuilder::scan(name.as_str(), provider_as_source(Arc::new(table)), None)?;
    let names = names
        .enumerate()
        .map(|(at, (qualifier, field))| col(format!("{name}.c{at}")).alias_qualified(qualifier.cloned(), field.name()));
    let names: Vec<Expr> = names.collect();
    Ok(scan.project(names)?.build()?)
}

/// Checks what stands below a window and that the window is over its source's event time; the cuts whose closed
/// windows it reads, if any.
fn check_time(input: &LogicalPlan, time: &Expr, tables: &[TableSpec], cuts: &[Cut]) -> Result<Vec<usize>> {
    let mut above = Vec::new();
    exists(input, |node| {
        if let LogicalPlan::TableScan(scan) = node {
            above.extend(Cut::of_closed(scan.table_name.table()));
        }
        false
    });
    above.sort_unstable();
    above.dedup();
    if above.is_empty() {
        if let Some(refused) = refused_below(input, tables)? {
            return Err(refused);
        }
        return check_event_time(input, time, tables).map(|()| above);
    }
    if let Some(table) = raw_table(input) {
        return Err(Error::job(format!("a window over closed windows reads table `{table}` too"))
            .with_hint("group the table's rows by a window of their own, and join on the windows' ends"));
    }
    let traced: Traced = trace(input, cuts)?;
    match origin_of(time, input, &traced) {
        Origin::End | Origin::Time => Ok(above),
        _ => Err(Error::job(format!("a window over closed windows is over `{time}`"))
            .with_hint("use window_time(window) of the inner SELECT: the last instant of the closed window")),
    }
}

fn check_event_time(input: &LogicalPlan, time: &Expr, tables: &[TableSpec]) -> Result<()> {
    let mut sources = Vec::new();
    source_columns(input, time, &mut sources);
    for table in tables_read(input) {
        let spec = tables.iter().find(|spec| spec.name == table);
        let wanted = spec.and_then(|spec| spec.event_time.as_deref());
        let Some(wanted) = wanted else {
            return Err(Error::job(format!("table `{table}` has no event time")));
        };
        let found = sources.iter().find(|(of, _)| *of == table);
        if found.is_none_or(|(_, column)| column != wanted) {
            return Err(Error::job(format!("window is over `{time}`, which is not the event time of `{table}`"))
                .with_hint(format!("use window({wanted}, …): lateness and watermarks are decided by that column")));
        }
    }
    Ok(())
}

/// Names of the tables that a plan reads.
fn tables_read(plan: &LogicalPlan) -> Vec<String> {
    let mut names = Vec::new();
    exists(plan, |node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.push(scan.table_name.table().to_owned());
        }
        false
    });
    names.sort();
    names.dedup();
    names
}

/// What cannot run row by row; none when all of `plan` can.
fn refused_below(plan: &LogicalPlan, tables: &[TableSpec]) -> Result<Option<Error>> {
    let mut scans = 0;
    let mut refused: Option<Error> = None;
    plan.apply_with_subqueries(|node| {
        let what = match node {
            LogicalPlan::TableScan(scan) if tables.iter().any(|table| table.name == scan.table_name.table()) => {
                scans += 1;
                None
            }
            LogicalPlan::Join(join) if is_lookup(join) => None,
            LogicalPlan::Values(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_) => None,
            LogicalPlan::Aggregate(_) => Some("an aggregate without a window"),
            LogicalPlan::Join(_) => Some("a join that is no look-up in constant rows"),
            LogicalPlan::Window(_) => Some("a window function"),
            LogicalPlan::Sort(_) => Some("ORDER BY"),
            LogicalPlan::Limit(_) => Some("LIMIT"),
            LogicalPlan::Distinct(_) => Some("DISTINCT"),
            LogicalPlan::Subquery(_) => Some("a subquery"),
            _ => Some("an operator"),
        };
        refused = what.map(|what| {
            Error::job(format!("{what} stands below GROUP BY window(…)"))
                .with_hint("below the window rows are taken one by one: use WHERE, expressions and explode there")
        });
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(match refused {
        None if scans == 0 => Some(Error::job("the job reads no table").with_hint("read `events`")),
        refused => refused,
    })
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
    exists(plan, |node| matches!(node, LogicalPlan::TableScan(_)))
}

/// The tables' columns that `expr` is, seen through projections and unions; none where it is computed.
fn source_columns(plan: &LogicalPlan, expr: &Expr, found: &mut Vec<(String, String)>) {
    let column = match expr {
        Expr::Alias(alias) => return source_columns(plan, &alias.expr, found),
        Expr::Cast(inner) if inner.field.data_type() == &time_type() => {
            return source_columns(plan, &inner.expr, found);
        }
        // What a window's column became when the aggregate took the window over.
        Expr::ScalarFunction(call) if call.func.name() == "get_field" => match struct_time(plan, &call.args[0]) {
            Some((input, time)) => return source_columns(&input, &time, found),
            None => return,
        },
        Expr::Column(column) => column,
        _ => return,
    };
    match plan {
        LogicalPlan::TableScan(scan) => found.push((scan.table_name.table().to_owned(), column.name.clone())),
        LogicalPlan::Projection(projection) => {
            if let Some(at) = projection.schema.maybe_index_of_column(column) {
                source_columns(&projection.input, &projection.expr[at], found);
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            if let Some(at) = alias.schema.maybe_index_of_column(column) {
                let (qualifier, field) = alias.input.schema().qualified_field(at);
                source_columns(&alias.input, &Expr::Column((qualifier, field).into()), found);
            }
        }
        LogicalPlan::Union(union) => {
            if let Some(at) = union.schema.maybe_index_of_column(column) {
                for input in &union.inputs {
                    let (qualifier, field) = input.schema().qualified_field(at);
                    source_columns(input, &Expr::Column((qualifier, field).into()), found);
                }
            }
        }
        LogicalPlan::Filter(filter) => source_columns(&filter.input, expr, found),
        LogicalPlan::Unnest(unnest) => source_columns(&unnest.input, expr, found),
        LogicalPlan::Join(join) => {
            let side = if join.left.schema().has_column(column) { &join.left } else { &join.right };
            source_columns(side, expr, found);
        }
        _ => {}
    }
}
