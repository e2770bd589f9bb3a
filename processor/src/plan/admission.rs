//! Which aggregates a windowed job may use: a state per pane has to merge to the same answer whatever the order of
//! rows, panes and partitions.

use std::fmt::Write as _;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};
use crate::plan::approx::{self, APPROX_COUNT_DISTINCT};

/// How far an aggregate's answer can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exactness {
    /// The same bits, whatever the order.
    Exact,
    /// Over integers and decimals exact; over floating point numbers the last digits depend on the order of merging.
    ExactOverIntegers,
    /// Equal up to rounding.
    Tolerance,
    /// An estimate, the same whatever the order.
    Estimate,
}

/// The aggregates that are admitted, by name; DISTINCT of each is exact by way of its keys.
pub(crate) const ADMITTED: &[(&str, Exactness)] = &[
    ("count", Exactness::Exact),
    ("min", Exactness::Exact),
    ("max", Exactness::Exact),
    ("bool_and", Exactness::Exact),
    ("bool_or", Exactness::Exact),
    ("bit_and", Exactness::Exact),
    ("bit_or", Exactness::Exact),
    ("bit_xor", Exactness::Exact),
    ("regr_count", Exactness::Exact),
    ("sum", Exactness::ExactOverIntegers),
    ("avg", Exactness::ExactOverIntegers),
    ("corr", Exactness::Tolerance),
    ("covar_pop", Exactness::Tolerance),
    ("covar_samp", Exactness::Tolerance),
    ("regr_avgx", Exactness::Tolerance),
    ("regr_avgy", Exactness::Tolerance),
    ("regr_intercept", Exactness::Tolerance),
    ("regr_r2", Exactness::Tolerance),
    ("regr_slope", Exactness::Tolerance),
    ("regr_sxx", Exactness::Tolerance),
    ("regr_sxy", Exactness::Tolerance),
    ("regr_syy", Exactness::Tolerance),
    ("stddev", Exactness::Tolerance),
    ("stddev_pop", Exactness::Tolerance),
    ("var", Exactness::Tolerance),
    ("var_pop", Exactness::Tolerance),
    (APPROX_COUNT_DISTINCT, Exactness::Estimate),
];

/// Exact, but the state holds every value: a window of a million rows is a million values.
pub(crate) const WHOLE: &[&str] = &["median", "percentile_cont", "array_agg"];

/// Why an aggregate that DataFusion has is refused.
fn why_refused(name: &str) -> (&'static str, &'static str) {
    match name {
        "first_value" | "last_value" | "nth_value" | "any_value" => (
            "depends on the order in which rows arrive",
            "use min(…), max(…), or QUALIFY row_number() … ORDER BY … = 1",
        ),
        "string_agg" => ("depends on the order in which rows arrive", "use array_to_string(array_agg(…), ', ')"),
        "approx_percentile_cont" | "approx_percentile_cont_with_weight" | "approx_median" => {
            ("merges to another estimate in another order", "use median(…) or percentile_cont(…)")
        }
        _ => ("is not known to merge over panes to one answer", "docs/semantics.md lists those that do"),
    }
}

/// Refuses an aggregate in the topmost node of `lower` that is not admitted.
pub(crate) fn check(lower: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Aggregate(aggregate) = lower else { return Ok(()) };
    for expr in &aggregate.aggr_expr {
        expr.apply(|part| {
            if let Expr::AggregateFunction(function) = part {
                let name = function.func.name();
                if !ADMITTED.iter().any(|(admitted, _)| *admitted == name) && !WHOLE.contains(&name) {
                    let (why, hint) = why_refused(name);
                    return Err(Error::job(format!("`{name}` {why}")).with_hint(hint).into());
                }
                if name == APPROX_COUNT_DISTINCT
                    && let Some(why) = approx::refused(&function.params.args)
                {
                    return Err(Error::job(why).with_hint("0.016 is what it is without").into());
                }
                if !function.params.order_by.is_empty() {
                    return Err(Error::job(format!("`{name}(… ORDER BY …)` cannot be merged over panes"))
                        .with_hint("leave ORDER BY out: array_agg comes sorted by its values")
                        .into());
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}

/// The names of the aggregates that are not exact, for `explain`.
pub(crate) fn describe(lower: &LogicalPlan) -> String {
    let LogicalPlan::Aggregate(aggregate) = lower else { return String::new() };
    let mut text = String::new();
    for expr in &aggregate.aggr_expr {
        let _ = expr.apply(|part| {
            if let Expr::AggregateFunction(function) = part {
                let name = function.func.name();
                let how = ADMITTED.iter().find(|(admitted, _)| *admitted == name).map(|(_, exactness)| exactness);
                let how = match how {
                    Some(Exactness::Exact) => return Ok(TreeNodeRecursion::Continue),
                    Some(Exactness::ExactOverIntegers) => "exact over integers and decimals",
                    Some(Exactness::Tolerance) => "equal up to rounding",
                    Some(Exactness::Estimate) => "an estimate",
                    None => "keeps every value",
                };
                let _ = writeln!(text, "{name}: {how}");
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
    text
}
