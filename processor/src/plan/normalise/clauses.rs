//! Walks the expressions of one SELECT without stepping into another's: not into subqueries, and not into FROM.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, OrderBy, Query, Select, VisitMut, VisitorMut};

use super::is_call;
use crate::error::{Error, Result};

/// Gives `change` every expression of a SELECT and of the ORDER BY over it, innermost first.
pub(super) fn each_expr(
    select: &mut Select,
    order: &mut Option<OrderBy>,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    each_expr_in(&mut select.projection, change)?;
    each_expr_in(&mut select.named_window, change)?;
    each_filter(select, order, change)
}

/// Like [`each_expr`], but for the clauses beside the select list and the named windows.
pub(super) fn each_filter(
    select: &mut Select,
    order: &mut Option<OrderBy>,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    each_expr_in(&mut select.distinct, change)?;
    each_expr_in(&mut select.selection, change)?;
    each_expr_in(&mut select.group_by, change)?;
    each_expr_in(&mut select.having, change)?;
    each_expr_in(&mut select.qualify, change)?;
    each_expr_in(order, change)
}

/// Gives `change` every expression below `within`, innermost first.
pub(super) fn each_expr_in(within: &mut impl VisitMut, change: &mut dyn FnMut(&mut Expr) -> Result<()>) -> Result<()> {
    walk(within, false, change)
}

/// Like [`each_expr_in`], but not for the arguments of `window(…)`.
pub(super) fn each_expr_outside_windows(
    within: &mut impl VisitMut,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    walk(within, true, change)
}

fn walk(
    within: &mut impl VisitMut,
    windows_closed: bool,
    change: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    match within.visit(&mut Walk { depth: 0, windows_closed, change }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Walk<'a> {
    /// How many subqueries and closed calls we are inside of.
    depth: usize,
    windows_closed: bool,
    change: &'a mut dyn FnMut(&mut Expr) -> Result<()>,
}

impl Walk<'_> {
    fn closed(&self, expr: &Expr) -> bool {
        self.windows_closed && matches!(expr, Expr::Function(function) if is_call(function, "window"))
    }
}

impl VisitorMut for Walk<'_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.depth += usize::from(self.closed(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.depth -= usize::from(self.closed(expr));
        if self.depth == 0 { super::flow((self.change)(expr)) } else { ControlFlow::Continue(()) }
    }
}
