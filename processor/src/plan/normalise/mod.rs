//! From what a person writes to what DataFusion can plan, on the syntax tree.
//!
//! SELECT by SELECT, innermost first: the table functions `TUMBLE` and `HOP` and `LATERAL VIEW` become derived tables,
//! `explode` becomes `unnest`, Spark's shorthand for a window becomes the call it stands for, and a named window is
//! put where QUALIFY uses it. What a SELECT says is never carried into another. Nothing else is touched; whether a
//! window may stand where it does is decided on the plan.

mod build;
mod clauses;
mod explode;
mod lateral;
mod shorthand;
mod table_function;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, NamedWindowDefinition, NamedWindowExpr, ObjectNamePart, OrderBy, Query, Select, SetExpr,
    Statement, TableFactor, VisitMut, VisitorMut, WindowType,
};

use crate::error::{Error, Result};
use clauses::each_expr;

/// Windows that other engines have and this one does not.
const UNSUPPORTED_WINDOWS: &[&str] = &["session_window", "session", "cumulate"];

/// Rewrites `statement`; `slide` is the slide of every `window(time, size)` without one.
pub(crate) fn normalise(statement: &mut Statement, slide: Option<&str>) -> Result<()> {
    let mut pass = Pass { slide };
    match statement.visit(&mut pass) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Pass<'a> {
    slide: Option<&'a str>,
}

impl VisitorMut for Pass<'_> {
    type Break = Box<Error>;

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(table_function::lower(factor))
    }

    // After what is inside, so that nothing written here is read again.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        flow(self.body(&mut query.body, &mut query.order_by))
    }
}

impl Pass<'_> {
    fn body(&self, body: &mut SetExpr, order: &mut Option<OrderBy>) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select, order),
            // The ORDER BY of a UNION names columns of its output, so it is none of either side's.
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, &mut None)?;
                self.body(right, &mut None)
            }
            _ => Ok(()),
        }
    }

    fn select(&self, select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
        refuse_unsupported(select, order)?;
        lateral::lower(select, order)?;
        explode::lower(select, order)?;
        shorthand::expand(select, order, self.slide)?;
        inline_named_windows(select, order)
    }
}

fn refuse_unsupported(select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
    each_expr(select, order, &mut |expr| match expr {
        Expr::Function(function) => match UNSUPPORTED_WINDOWS.iter().find(|name| is_call(function, name)) {
            Some(name) => Err(unsupported_window(name)),
            None => Ok(()),
        },
        _ => Ok(()),
    })
}

fn unsupported_window(name: &str) -> Error {
    Error::job(format!("`{name}` windows are not supported")).with_hint("use window(time, size[, slide[, start]])")
}

/// `… OVER w` with `WINDOW w AS (…)`: DataFusion 55.2 looks in the select list only.
fn inline_named_windows(select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
    let named = select.named_window.clone();
    each_expr(select, order, &mut |expr| {
        if let Expr::Function(Function { over: Some(over), .. }) = expr
            && let WindowType::NamedWindow(name) = over
            && let Some(NamedWindowDefinition(_, NamedWindowExpr::WindowSpec(spec))) =
                named.iter().find(|definition| same(&definition.0, name))
        {
            *over = WindowType::WindowSpec(spec.clone());
        }
        Ok(())
    })
}

/// Whether `function` is a plain call of `name`, in any letter case.
fn is_call(function: &Function, name: &str) -> bool {
    function.over.is_none()
        && matches!(function.name.0.as_slice(), [ObjectNamePart::Identifier(ident)] if ident.value.eq_ignore_ascii_case(name))
}

/// Whether two names mean one thing: DataFusion takes a name without quotes in lower case.
fn same(left: &Ident, right: &Ident) -> bool {
    let meant = |name: &Ident| match name.quote_style {
        None => name.value.to_ascii_lowercase(),
        Some(_) => name.value.clone(),
    };
    meant(left) == meant(right)
}

fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}
