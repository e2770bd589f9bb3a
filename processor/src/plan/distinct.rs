//! Exact distinct aggregates without a set per group: `count(DISTINCT x)` becomes an inner aggregate that has `x` among
//! its keys and an outer one that counts them.
//!
//! DataFusion's own accumulator keeps a hash set per group, each with kilobytes to start with; a key among others costs
//! a row. With one distinct expression, functions beside it are computed inside and merged outside. With several, each
//! has an inner aggregate of its own, the plain functions have one too, and the outer one runs over their union.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::{count, first_value, max, min, sum};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, col, lit,
};

use crate::error::{Error, Result};
use crate::plan::window::bare;

/// Column of a distinct expression's values.
const DISTINCT: &str = "__distinct";
/// Column that says which inner aggregate a row comes from: 0 is that of the plain functions.
pub(super) const BRANCH: &str = "__branch";

/// `true` when some function of the aggregate is distinct.
pub(crate) fn has_distinct(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| function(expr).is_some_and(|function| function.params.distinct))
}

fn function(expr: &Expr) -> Option<&AggregateFunction> {
    match bare(expr) {
        Expr::AggregateFunction(function) => Some(function),
        _ => None,
    }
}

/// Rewrites an aggregate with distinct functions into aggregates without; the schema stays.
pub(crate) fn lower_distinct(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let mut functions = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in &aggregate.aggr_expr {
        functions.push(function(expr).ok_or_else(|| Error::internal("an aggregate holds what is no function"))?);
    }
    let mut arguments: Vec<Expr> = Vec::new();
    for function in functions.iter().filter(|function| function.params.distinct) {
        let [argument] = function.params.args.as_slice() else {
            return Err(Error::job(format!("{}(DISTINCT …) takes one expression", function.func.name())));
        };
        if !function.params.order_by.is_empty() {
            return Err(Error::job(format!("{}(DISTINCT … ORDER BY …) is not supported", function.func.name()))
                .with_hint("aggregate an inner SELECT that groups by the expression too"));
        }
        if !arguments.contains(argument) {
            arguments.push(argument.clone());
        }
    }
    let outer = match arguments.as_slice() {
        [one] if functions.iter().all(|function| merges(function)) => lower_one(aggregate, &functions, one)?,
        several => lower_several(aggregate, &functions, several)?,
    };
    restore(outer, aggregate)
}

/// Gives the columns of `built` the names of the aggregate's, to which the plans above refer.
fn restore(built: LogicalPlanBuilder, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let computed = built.schema().columns();
    let keys = aggregate.group_expr.len();
    let columns =
        computed.into_iter().zip(aggregate.schema.iter()).enumerate().map(|(at, (column, (qualifier, field)))| {
            let merged = Expr::Column(column);
            let is_count = at >= keys && !field.is_nullable();
            let value = if is_count {
                datafusion::functions::core::expr_fn::coalesce(vec![merged, lit(0_i64)])
            } else {
                merged
            };
            value.alias_qualified(qualifier.cloned(), field.name())
        });
    let columns: Vec<Expr> = columns.collect();
    Ok(built.project(columns)?.build()?)
}

/// Whether `function` can be computed inside and merged outside, or is the distinct count itself.
fn merges(function: &AggregateFunction) -> bool {
    let name = function.func.name();
    match function.params.distinct {
        true => name == "count",
        false => function.params.order_by.is_empty() && ["count", "sum", "min", "max"].contains(&name),
    }
}

/// One inner aggregate and an outer one over it.
fn lower_one(aggregate: &Aggregate, functions: &[&AggregateFunction], counted: &Expr) -> Result<LogicalPlanBuilder> {
    let mut inner_keys = aggregate.group_expr.clone();
    inner_keys.push(counted.clone().alias(DISTINCT));
    let mut inner: Vec<Expr> = Vec::new();
    let mut outer: Vec<Expr> = Vec::new();
    for (at, function) in functions.iter().enumerate() {
        let name = format!("__a{at}");
        outer.push(merge(function, &name, &mut inner)?.alias(&name));
    }
    let builder = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).aggregate(inner_keys, inner)?;
    let keys: Vec<Expr> =
        builder.schema().columns().into_iter().take(aggregate.group_expr.len()).map(Expr::Column).collect();
    Ok(builder.aggregate(keys, outer)?)
}

/// An inner aggregate for the plain functions and one for each distinct expression, and an outer one over their union,
/// in which `__branch` says where a row comes from.
fn lower_several(
    aggregate: &Aggregate,
    functions: &[&AggregateFunction],
    arguments: &[Expr],
) -> Result<LogicalPlanBuilder> {
    let keys = aggregate.group_expr.len();
    // Columns of the union after the keys and the branch: name, the branch that has it, and what it is there.
    let mut columns: Vec<(String, usize, Expr)> = Vec::new();
    let mut outer: Vec<Expr> = Vec::new();
    for (at, argument) in arguments.iter().enumerate() {
        columns.push((format!("{DISTINCT}{at}"), at + 1, argument.clone()));
    }
    for (at, function) in functions.iter().enumerate() {
        let AggregateFunctionParams { distinct, filter, .. } = &function.params;
        let name = format!("__a{at}");
        let merged = if *distinct {
            let branch = arguments.iter().position(|other| *other == function.params.args[0]).unwrap_or_default() + 1;
            let mut wanted = col(BRANCH).eq(branch_of(branch));
            if let Some(filter) = filter {
                columns.push((name.clone(), branch, count(lit(1_i64)).filter((**filter).clone()).build()?));
                wanted = wanted.and(col(name.as_str()).gt(lit(0_i64)));
            }
            function.func.call(vec![col(format!("{DISTINCT}{}", branch - 1))]).filter(wanted).build()?
        } else {
            columns.push((name.clone(), 0, Expr::AggregateFunction((*function).clone())));
            // There is one row of this branch a group.
            first_value(col(name.as_str()), Vec::new()).filter(col(BRANCH).eq(branch_of(0))).build()?
        };
        outer.push(merged.alias(format!("__out{at}")));
    }
    let mut union: Option<LogicalPlanBuilder> = None;
    for branch in 0..=arguments.len() {
        let mine = |(_, of, _): &&(String, usize, Expr)| *of == branch;
        if branch == 0 && !columns.iter().any(|column| mine(&column)) {
            continue;
        }
        let mut groups = aggregate.group_expr.clone();
        groups.extend((branch > 0).then(|| columns[branch - 1].2.clone().alias(&columns[branch - 1].0)));
        let computed = columns.iter().filter(mine).skip(usize::from(branch > 0));
        let computed: Vec<Expr> = computed.map(|(name, _, expr)| expr.clone().alias(name)).collect();
        let built = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).aggregate(groups, computed)?;
        let mut row: Vec<Expr> = built.schema().columns().into_iter().take(keys).map(Expr::Column).collect();
        row.push(branch_of(branch).alias(BRANCH));
        for (name, of, expr) in &columns {
            let kind = expr.get_type(aggregate.input.schema())?;
            let value = if *of == branch { col(name.as_str()) } else { lit(ScalarValue::try_from(&kind)?) };
            row.push(value.alias(name));
        }
        let built = built.project(row)?;
        union = Some(match union {
            None => built,
            Some(before) => before.union(built.build()?)?,
        });
    }
    let union = union.ok_or_else(|| Error::internal("there is no distinct function to lower"))?;
    let groups: Vec<Expr> = union.schema().columns().into_iter().take(keys).map(Expr::Column).collect();
    Ok(union.aggregate(groups, outer)?)
}

fn branch_of(branch: usize) -> Expr {
    lit(i64::try_from(branch).unwrap_or(i64::MAX))
}

/// Adds what the inner aggregate has to compute to `inner`; returns the outer expression over it.
fn merge(function: &AggregateFunction, name: &str, inner: &mut Vec<Expr>) -> Result<Expr> {
    let AggregateFunctionParams { distinct, filter, .. } = &function.params;
    if *distinct {
        let counted = col(DISTINCT);
        let Some(filter) = filter else { return Ok(count(counted)) };
        inner.push(count(lit(1_i64)).filter((**filter).clone()).build()?.alias(name));
        return Ok(count(counted).filter(col(name).gt(lit(0_i64))).build()?);
    }
    inner.push(Expr::AggregateFunction(function.clone()).alias(name));
    match function.func.name() {
        "count" | "sum" => Ok(sum(col(name))),
        "min" => Ok(min(col(name))),
        "max" => Ok(max(col(name))),
        other => Err(Error::internal(format!("`{other}` does not merge"))),
    }
}
