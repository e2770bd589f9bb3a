//! Exact distinct counts without a set per group: `count(DISTINCT x)` becomes an inner aggregate that has `x` among
//! its keys and an outer one that counts them.
//!
//! DataFusion's own accumulator keeps a hash set per group, each with kilobytes to start with; a key among others costs
//! a row. Functions beside the distinct count are computed inside and merged outside.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::functions_aggregate::expr_fn::{count, max, min, sum};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, lit};

use crate::error::{Error, Result};

/// `true` when some function of the aggregate is distinct.
pub(crate) fn has_distinct(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| function(expr).is_some_and(|function| function.params.distinct))
}

fn function(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => function(&alias.expr),
        Expr::AggregateFunction(function) => Some(function),
        _ => None,
    }
}

/// Rewrites an aggregate with distinct counts over one expression into two without; the schema stays.
pub(crate) fn lower_distinct(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let counted = distinct_argument(aggregate)?;
    let mut inner_keys = aggregate.group_expr.clone();
    inner_keys.push(counted.clone().alias("__distinct"));
    let mut inner: Vec<Expr> = Vec::new();
    let mut outer: Vec<Expr> = Vec::new();
    for (at, expr) in aggregate.aggr_expr.iter().enumerate() {
        let function = function(expr).ok_or_else(|| Error::internal("an aggregate holds what is no function"))?;
        let name = format!("__a{at}");
        outer.push(merge(function, &name, &mut inner)?.alias(&name));
    }
    let builder = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).aggregate(inner_keys, inner)?;
    let keys: Vec<Expr> =
        builder.schema().columns().into_iter().take(aggregate.group_expr.len()).map(Expr::Column).collect();
    let builder = builder.aggregate(keys.clone(), outer)?;
    // The plans above refer to the fields of the aggregate as it was.
    let computed = builder.schema().columns();
    let columns =
        computed.into_iter().zip(aggregate.schema.iter()).enumerate().map(|(at, (column, (qualifier, field)))| {
            let merged = Expr::Column(column);
            let is_count = at >= keys.len() && !field.is_nullable();
            let value = if is_count {
                datafusion::functions::core::expr_fn::coalesce(vec![merged, lit(0_i64)])
            } else {
                merged
            };
            value.alias_qualified(qualifier.cloned(), field.name())
        });
    let columns: Vec<Expr> = columns.collect();
    Ok(builder.project(columns)?.build()?)
}

/// The one expression under DISTINCT.
fn distinct_argument(aggregate: &Aggregate) -> Result<Expr> {
    let mut found: Option<&Expr> = None;
    for function in aggregate.aggr_expr.iter().filter_map(function).filter(|function| function.params.distinct) {
        let name = function.func.name();
        let [argument] = function.params.args.as_slice() else {
            return Err(Error::job(format!("{name}(DISTINCT …) takes one expression")));
        };
        if name != "count" {
            return Err(Error::job(format!("{name}(DISTINCT …) is not supported"))
                .with_hint("aggregate an inner SELECT that groups by the expression too"));
        }
        if found.is_some_and(|other| other != argument) {
            return Err(Error::job("count(DISTINCT …) over two different expressions in one SELECT")
                .with_hint("count one expression a SELECT"));
        }
        found = Some(argument);
    }
    found.cloned().ok_or_else(|| Error::internal("there is no distinct count to lower"))
}

/// Adds what the inner aggregate has to compute to `inner`; returns the outer expression over it.
fn merge(function: &AggregateFunction, name: &str, inner: &mut Vec<Expr>) -> Result<Expr> {
    let AggregateFunctionParams { distinct, filter, order_by, .. } = &function.params;
    if *distinct {
        let counted = Expr::Column(Column::from_name("__distinct"));
        let Some(filter) = filter else { return Ok(count(counted)) };
        inner.push(count(lit(1_i64)).filter((**filter).clone()).build()?.alias(name));
        return Ok(count(counted).filter(Expr::Column(Column::from_name(name)).gt(lit(0_i64))).build()?);
    }
    if !order_by.is_empty() {
        return Err(Error::job(format!(
            "{}(… ORDER BY …) beside count(DISTINCT …) is not supported",
            function.func.name()
        )));
    }
    inner.push(Expr::AggregateFunction(function.clone()).alias(name));
    let partial = Expr::Column(Column::from_name(name));
    match function.func.name() {
        "count" | "sum" => Ok(sum(partial)),
        "min" => Ok(min(partial)),
        "max" => Ok(max(partial)),
        other => Err(Error::job(format!("{other}(…) beside count(DISTINCT …) is not supported"))
            .with_hint("compute it in a SELECT of its own")),
    }
}
