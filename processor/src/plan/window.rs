//! Windows in a plan: where a `window(…)` is called, what its lengths are, and which columns come from one.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::expr::{Exists, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Subquery, lit};
use event::Span;

use crate::error::{Error, Result};
use crate::plan::functions::{WINDOW, WINDOW_TIME, window_call_of, window_time};
use crate::stream::window::WindowSpec;

/// The `window(…)` that `expr` is, seen through aliases.
pub(crate) fn window_call(expr: &Expr) -> Option<&ScalarFunction> {
    match bare(expr) {
        Expr::ScalarFunction(call) if call.func.name() == WINDOW => Some(call),
        _ => None,
    }
}

/// The expression without its aliases.
pub(crate) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

/// `true` when `expr` calls `window(…)` anywhere.
pub(crate) fn calls_window(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::ScalarFunction(call) if call.func.name() == WINDOW))).unwrap_or(false)
}

/// Position of the window among the group expressions.
pub(crate) fn window_at(aggregate: &Aggregate) -> Option<usize> {
    aggregate.group_expr.iter().position(|expr| window_call(expr).is_some())
}

/// The time and the lengths of a call; without lengths it is one window over all time.
pub(crate) fn window_arguments(call: &ScalarFunction) -> Result<(Expr, Option<WindowSpec>)> {
    let (time, lengths) = call.args.split_first().ok_or_else(|| Error::job("`window` takes a time first"))?;
    let lengths = lengths.iter().map(length).collect::<Result<Vec<i64>>>()?;
    let size = *lengths.first().ok_or_else(|| Error::job("`window` takes a size"))?;
    if lengths.contains(&Span::ALL_TIME.micros()) {
        return match lengths.as_slice() {
            [_] => Ok((time.clone(), None)),
            _ => Err(Error::job("a window over all time has no slide and no start")
                .with_hint("leave the slide out, or give the window a length")),
        };
    }
    let slide = lengths.get(1).copied().unwrap_or(size);
    let origin = lengths.get(2).copied().unwrap_or(0);
    let spec =
        WindowSpec::try_new(size, slide, origin).map_err(|(message, hint)| Error::job(message).with_hint(hint))?;
    Ok((time.clone(), Some(spec)))
}

/// A length in microseconds: text, an interval without months, or an integer, which is microseconds as in Spark.
fn length(expr: &Expr) -> Result<i64> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => signed(text),
        Expr::Literal(ScalarValue::Int64(Some(micros)), _) => Ok(*micros),
        Expr::Literal(ScalarValue::Int32(Some(micros)), _) => Ok(i64::from(*micros)),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
            Ok(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000)
        }
        Expr::Literal(ScalarValue::IntervalMonthDayNano(_), _) => {
            Err(Error::job("a window of months has no fixed length").with_hint("use days, such as '30 days'"))
        }
        Expr::Cast(cast) => length(&cast.expr),
        Expr::Negative(inner) => Ok(-length(inner)?),
        other => Err(Error::job(format!("`window` takes constant lengths, not `{other}`")).with_hint("use '1 hour'")),
    }
}

/// A start offset may be negative; a span is not.
fn signed(text: &str) -> Result<i64> {
    let trimmed = text.trim();
    match trimmed.strip_prefix('-') {
        Some(rest) => Span::parse(rest).map(|span| -span.micros()).map_err(Error::job),
        None => Span::parse_window(trimmed).map(Span::micros).map_err(Error::job),
    }
}

/// What a column is of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Start,
    End,
    Time,
}

/// An aggregate over rows that carry the window as columns (`HOP(…)`, or `SELECT window(…) AS w … GROUP BY w`) is one
/// that groups by the window itself: the rows below need not be multiplied. None when the columns are used otherwise.
pub(crate) fn group_by_call(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let parts: Vec<Option<(Part, ScalarFunction)>> =
        aggregate.group_expr.iter().map(|expr| part_of(expr, &aggregate.input)).collect();
    let mut calls = parts.iter().flatten().map(|(_, call)| call);
    let Some(call) = calls.next().cloned() else { return Ok(None) };
    let determined = parts.iter().flatten().any(|(part, _)| *part != Part::Time);
    if !determined || calls.any(|other| *other != call) {
        return Ok(None);
    }
    let others = aggregate.group_expr.iter().zip(&parts).filter(|(_, part)| part.is_none()).map(|(expr, _)| expr);
    if others.chain(&aggregate.aggr_expr).any(|expr| uses_window(expr, &aggregate.input)) {
        return Ok(None);
    }
    let Some(input) = without_window(&aggregate.input, &call)? else { return Ok(None) };
    // Below, the window's columns now hold the time itself.
    let first = parts.iter().position(|part| matches!(part, Some((part, _)) if *part != Part::Time));
    let first = first.ok_or_else(|| Error::internal("a window without a column"))?;
    let time = match &parts[first] {
        Some((Part::Whole, _)) => get_field(bare(&aggregate.group_expr[first]).clone(), "start"),
        _ => bare(&aggregate.group_expr[first]).clone(),
    };
    let mut groups = vec![window_call_of(time, &call.args[1..])];
    groups.extend(aggregate.group_expr.iter().zip(&parts).filter(|(_, part)| part.is_none()).map(|(e, _)| e.clone()));
    let built = LogicalPlanBuilder::from(input).aggregate(groups, aggregate.aggr_expr.clone())?;
    let columns = built.schema().columns();
    let window = Expr::Column(columns[0].clone());
    let mut rest = columns.into_iter().skip(1).map(Expr::Column);
    let restored = aggregate.schema.iter().enumerate().map(|(at, (qualifier, field))| {
        let value = match parts.get(at) {
            Some(Some((Part::Whole, _))) => window.clone(),
            Some(Some((Part::Start, _))) => get_field(window.clone(), "start"),
            Some(Some((Part::End, _))) => get_field(window.clone(), "end"),
            Some(Some((Part::Time, _))) => window_time(window.clone()),
            _ => rest.next().unwrap_or_else(|| lit(ScalarValue::Null)),
        };
        value.alias_qualified(qualifier.cloned(), field.name())
    });
    let restored: Vec<Expr> = restored.collect();
    Ok(Some(built.project(restored)?.build()?))
}

/// What part of which window a column below is, where a projection below computed it.
fn part_of(expr: &Expr, plan: &LogicalPlan) -> Option<(Part, ScalarFunction)> {
    match expr {
        Expr::Alias(alias) => part_of(&alias.expr, plan),
        Expr::Column(column) => part_of_column(column, plan),
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.as_slice()) {
            (WINDOW_TIME, [of]) => match part_of(of, plan)? {
                (Part::Whole, call) => Some((Part::Time, call)),
                _ => None,
            },
            ("get_field", [of, Expr::Literal(ScalarValue::Utf8(Some(field)), _)]) => match part_of(of, plan)? {
                (Part::Whole, call) if field == "start" => Some((Part::Start, call)),
                (Part::Whole, call) if field == "end" => Some((Part::End, call)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn part_of_column(column: &Column, plan: &LogicalPlan) -> Option<(Part, ScalarFunction)> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let at = projection.schema.maybe_index_of_column(column)?;
            match window_call(&projection.expr[at]) {
                Some(call) => Some((Part::Whole, call.clone())),
                None => part_of(&projection.expr[at], &projection.input),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let at = alias.schema.maybe_index_of_column(column)?;
            let (qualifier, field) = alias.input.schema().qualified_field(at);
            part_of_column(&(qualifier, field).into(), &alias.input)
        }
        LogicalPlan::Filter(filter) => part_of_column(column, &filter.input),
        _ => None,
    }
}

fn uses_window(expr: &Expr, plan: &LogicalPlan) -> bool {
    expr.column_refs().into_iter().any(|column| part_of_column(column, plan).is_some())
}

/// The plan below, in which the window's projection hands the time through; none when a filter or an expression
/// there looks at the window.
fn without_window(plan: &LogicalPlan, call: &ScalarFunction) -> Result<Option<LogicalPlan>> {
    let mut used = false;
    let changed = plan.clone().transform_up(|node| match node {
        LogicalPlan::Filter(filter) => {
            used |= uses_window(&filter.predicate, &filter.input);
            Ok(Transformed::no(LogicalPlan::Filter(filter)))
        }
        LogicalPlan::Projection(projection) => {
            let mut exprs = Vec::with_capacity(projection.expr.len());
            let mut replaced = false;
            for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
                if window_call(expr) == Some(call) {
                    replaced = true;
                    let time = call.args[0].clone();
                    let pair = named_struct(vec![lit("start"), time.clone(), lit("end"), time]);
                    exprs.push(pair.alias_qualified(qualifier.cloned(), field.name()));
                } else {
                    used |= part_of(expr, &projection.input).is_none() && uses_window(expr, &projection.input);
                    exprs.push(expr.clone());
                }
            }
            if !replaced {
                return Ok(Transformed::no(LogicalPlan::Projection(projection)));
            }
            let rebuilt = LogicalPlanBuilder::from(projection.input).project(exprs)?.build()?;
            Ok(Transformed::yes(rebuilt))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((!used && changed.transformed).then_some(changed.data))
}

/// Compares windows by their bounds: DataFusion joins on plain columns better than on structs.
pub(crate) fn compare_by_bounds(plan: LogicalPlan) -> Result<LogicalPlan> {
    use datafusion::logical_expr::{BinaryExpr, ExprSchemable, Operator};
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let mut schema = node.schema().as_ref().clone();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        node.map_expressions(|expr| {
            expr.transform_up(|part| {
                let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &part else {
                    return Ok(Transformed::no(part));
                };
                let kind = |side: &Expr| match side {
                    Expr::OuterReferenceColumn(field, _) => Some(field.data_type().clone()),
                    other => other.get_type(&schema).ok(),
                };
                let windows = [left, right].into_iter().all(|side| kind(side).is_some_and(|kind| is_window(&kind)));
                if !windows || !matches!(op, Operator::Eq | Operator::IsNotDistinctFrom) {
                    return Ok(Transformed::no(part));
                }
                let bound = |name: &str| {
                    let sides = (get_field((**left).clone(), name), get_field((**right).clone(), name));
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(sides.0), *op, Box::new(sides.1)))
                };
                Ok(Transformed::yes(bound("start").and(bound("end"))))
            })
        })
    })?;
    Ok(rewritten.data)
}

/// `x NOT IN (SELECT y …)` that looks at the outer row, as `NOT EXISTS`: DataFusion 55.2 runs the former with one join
/// key only. A NULL on either side keeps the row out, as it does in SQL.
pub(crate) fn not_in_as_not_exists(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        let mut changed = false;
        let mut parts = Vec::new();
        for part in split_conjunction_owned(filter.predicate.clone()) {
            match part {
                Expr::InSubquery(test) if test.negated && !test.subquery.outer_ref_columns.is_empty() => {
                    changed = true;
                    let outer = test.expr.transform_up(|part| {
                        Ok(match part {
                            Expr::Column(column) => {
                                let (_, field) = filter.input.schema().qualified_field_from_column(&column)?;
                                Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column))
                            }
                            other => Transformed::no(other),
                        })
                    })?;
                    let outer = outer.data;
                    let inner = LogicalPlanBuilder::from(test.subquery.subquery.as_ref().clone());
                    let value = Expr::Column(inner.schema().columns()[0].clone());
                    let found = value.clone().eq(outer.clone()).or(value.is_null()).or(outer.clone().is_null());
                    let mut outer_ref_columns = test.subquery.outer_ref_columns.clone();
                    outer_ref_columns.push(outer);
                    parts.push(Expr::Exists(Exists {
                        subquery: Subquery {
                            subquery: Arc::new(inner.filter(found)?.build()?),
                            outer_ref_columns,
                            spans: test.subquery.spans,
                        },
                        negated: true,
                    }));
                }
                other => parts.push(other),
            }
        }
        if !changed {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let predicate = conjunction(parts).unwrap_or_else(|| lit(true));
        Ok(Transformed::yes(LogicalPlanBuilder::from(filter.input).filter(predicate)?.build()?))
    })?;
    Ok(rewritten.data)
}

/// The Arrow type of a window column.
pub(crate) fn is_window(data_type: &arrow::datatypes::DataType) -> bool {
    matches!(data_type, arrow::datatypes::DataType::Struct(fields)
        if *fields == crate::plan::functions::window_fields())
}

/// The first value of the `named_struct` that a column is, and the plan it is computed over.
pub(crate) fn struct_time(plan: &LogicalPlan, expr: &Expr) -> Option<(Arc<LogicalPlan>, Expr)> {
    match expr {
        Expr::Alias(alias) => struct_time(plan, &alias.expr),
        Expr::Column(column) => match plan {
            LogicalPlan::Projection(projection) => {
                let at = projection.schema.maybe_index_of_column(column)?;
                match bare(&projection.expr[at]) {
                    Expr::ScalarFunction(call) if call.func.name() == "named_struct" => {
                        Some((Arc::clone(&projection.input), call.args.get(1)?.clone()))
                    }
                    other => struct_time(&projection.input, other),
                }
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let at = alias.schema.maybe_index_of_column(column)?;
                let (qualifier, field) = alias.input.schema().qualified_field(at);
                struct_time(&alias.input, &Expr::Column((qualifier, field).into()))
            }
            LogicalPlan::Filter(filter) => struct_time(&filter.input, expr),
            _ => None,
        },
        _ => None,
    }
}
