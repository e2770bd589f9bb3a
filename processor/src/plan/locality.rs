//! Checks that what stands above the windows means the same over one window as over all, and follows what each output
//! column is.
//!
//! Without this, a batch (all windows at once) and a stream (one closing at a time) could answer differently.

use datafusion::logical_expr::expr::{ScalarFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};
use crate::plan::cut::{CLOSED, is_window};

/// What a column of the upper plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The window itself.
    Window,
    /// The window's start.
    Start,
    /// The window's end.
    End,
    /// A group key.
    Key,
    /// Computed.
    Value,
}

impl Origin {
    /// Whether equal values mean equal windows.
    const fn is_local(self) -> bool {
        matches!(self, Self::Window | Self::Start | Self::End)
    }
}

/// The origin of every output column of `plan`, whose leaf has `groups` group columns first.
pub(crate) fn origins(plan: &LogicalPlan, groups: usize) -> Result<Vec<Origin>> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == CLOSED => {
            Ok(scan.source.schema().fields().iter().enumerate().map(|(at, field)| match at {
                _ if at < groups && is_window(field.data_type()) => Origin::Window,
                _ if at < groups => Origin::Key,
                _ => Origin::Value,
            }).collect())
        }
        LogicalPlan::Projection(projection) => {
            let input = origins(&projection.input, groups)?;
            Ok(projection.expr.iter().map(|expr| origin(expr, &projection.input, &input)).collect())
        }
        LogicalPlan::SubqueryAlias(alias) => origins(&alias.input, groups),
        LogicalPlan::Filter(filter) => origins(&filter.input, groups),
        LogicalPlan::Aggregate(aggregate) => {
            let input = origins(&aggregate.input, groups)?;
            let keys: Vec<Origin> =
                aggregate.group_expr.iter().map(|expr| origin(expr, &aggregate.input, &input)).collect();
            if !keys.iter().any(|key| key.is_local()) {
                return Err(Error::job("an aggregate reaches over several windows")
                    .with_hint("a stream never sees all windows at once; add window to its GROUP BY"));
            }
            let keys = keys.into_iter().map(|key| if key == Origin::Value { Origin::Key } else { key });
            Ok(keys.chain(aggregate.aggr_expr.iter().map(|_| Origin::Value)).collect())
        }
        LogicalPlan::Window(window) => {
            let mut columns = origins(&window.input, groups)?;
            for expr in &window.window_expr {
                check_window_function(expr, &window.input, &columns)?;
            }
            columns.extend(window.window_expr.iter().map(|_| Origin::Value));
            Ok(columns)
        }
        LogicalPlan::Distinct(distinct) => {
            let input = origins(distinct.input(), groups)?;
            if input.iter().any(|column| column.is_local()) {
                return Ok(input);
            }
            Err(Error::job("DISTINCT reaches over several windows").with_hint("select window.start beside it"))
        }
        LogicalPlan::Sort(_) => Err(Error::job("ORDER BY reaches over several windows")
            .with_hint("leave it out: windows are emitted by their end; rank rows within one by row_number() OVER (PARTITION BY window ORDER BY …)")),
        LogicalPlan::Limit(_) => Err(Error::job("LIMIT reaches over several windows")
            .with_hint("use QUALIFY row_number() OVER (PARTITION BY window ORDER BY …) <= n")),
        LogicalPlan::TableScan(scan) => Err(Error::job(format!("table `{}` is read above the window", scan.table_name))
            .with_hint("read it below GROUP BY window(…)")),
        other => Err(Error::job(format!("{} stands above GROUP BY window(…)", name(other)))
            .with_hint("use WHERE, HAVING, expressions, aggregates and window functions per window there")),
    }
}

fn name(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::Union(_) => "UNION",
        LogicalPlan::Unnest(_) => "explode",
        _ => "an operator",
    }
}

fn check_window_function(expr: &Expr, input: &LogicalPlan, columns: &[Origin]) -> Result<()> {
    match expr {
        Expr::Alias(alias) => check_window_function(&alias.expr, input, columns),
        Expr::WindowFunction(function) => {
            let WindowFunctionParams { partition_by, .. } = &function.params;
            if partition_by.iter().any(|expr| origin(expr, input, columns).is_local()) {
                return Ok(());
            }
            Err(Error::job(format!("{} OVER (…) reaches over several windows", function.fun.name()))
                .with_hint("add PARTITION BY window"))
        }
        _ => Ok(()),
    }
}

fn origin(expr: &Expr, input: &LogicalPlan, columns: &[Origin]) -> Origin {
    match expr {
        Expr::Alias(alias) => origin(&alias.expr, input, columns),
        Expr::Column(column) => input.schema().maybe_index_of_column(column).map_or(Origin::Value, |at| columns[at]),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "get_field" => match args.as_slice() {
            [of, Expr::Literal(ScalarValue::Utf8(Some(field)), _)] if origin(of, input, columns) == Origin::Window => {
                if field == "start" {
                    Origin::Start
                } else {
                    Origin::End
                }
            }
            _ => Origin::Value,
        },
        _ => Origin::Value,
    }
}
