//! Spark's shorthand: within one SELECT that calls `window(…)`, the names `window`, `window.start` and `window.end`
//! mean that call and its fields, and a call without a slide takes the job's.
//!
//! A column or a table that is itself called `window` keeps its name: what FROM or the select list says comes first.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderBy, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins,
};

use super::build::{aliased, argument, function, text};
use super::clauses::{each_expr, each_expr_outside_windows};
use super::{is_call, lateral};
use crate::error::{Error, Result};

const WINDOW: &str = "window";

/// Expands the shorthand in one SELECT and the ORDER BY over it.
pub(super) fn expand(select: &mut Select, order: &mut Option<OrderBy>, slide: Option<&str>) -> Result<()> {
    let Some(call) = the_call(select, order, slide)? else { return Ok(()) };
    let taken = from_has_column(select);
    let names = Names { call: &call, bare: !taken, fields: !taken && !from_has_table(select) };
    // An alias hides the shorthand where DataFusion looks at aliases, which is everywhere but in the select list.
    let behind_alias = Names { bare: names.bare && !alias_is_other(select), ..names };
    select.projection =
        std::mem::take(&mut select.projection).into_iter().flat_map(|item| names.named_items(item)).collect();
    each_expr_outside_windows(&mut select.projection, &mut |expr| names.replace(expr))?;
    each_expr_outside_windows(&mut select.named_window, &mut |expr| names.replace(expr))?;
    let mut replace = |expr: &mut Expr| behind_alias.replace(expr);
    each_expr_outside_windows(&mut select.distinct, &mut replace)?;
    each_expr_outside_windows(&mut select.group_by, &mut replace)?;
    each_expr_outside_windows(&mut select.having, &mut replace)?;
    each_expr_outside_windows(&mut select.qualify, &mut replace)?;
    each_expr_outside_windows(order, &mut replace)
}

/// The one `window(…)` that a SELECT calls, if any; each call gets `slide` where it has none.
fn the_call(select: &mut Select, order: &mut Option<OrderBy>, slide: Option<&str>) -> Result<Option<Expr>> {
    let mut calls: Vec<Expr> = Vec::new();
    each_expr(select, order, &mut |expr| {
        if let Expr::Function(function) = expr
            && is_call(function, WINDOW)
        {
            complete(function, slide);
            if !calls.contains(expr) {
                calls.push(expr.clone());
            }
        }
        Ok(())
    })?;
    match calls.as_slice() {
        [] => Ok(None),
        [call] => Ok(Some(call.clone())),
        _ => Err(Error::job("a SELECT calls `window` with different arguments")
            .with_hint("use one window a SELECT, and join two SELECTs on window.end")),
    }
}

fn complete(call: &mut Function, slide: Option<&str>) {
    // One spelling, so that two calls compare equal.
    call.name = ObjectName::from(vec![Ident::new(WINDOW)]);
    if let (FunctionArguments::List(list), Some(slide)) = (&mut call.args, slide)
        && list.args.len() == 2
    {
        list.args.push(argument(text(slide)));
    }
}

/// What the names stand for, and which of them do.
#[derive(Clone, Copy)]
struct Names<'a> {
    call: &'a Expr,
    /// `window`
    bare: bool,
    /// `window.start` and `window.end`
    fields: bool,
}

impl Names<'_> {
    fn replace(self, expr: &mut Expr) -> Result<()> {
        if self.is_bare(expr) {
            *expr = self.call.clone();
        } else if let Some(field) = self.field(expr) {
            *expr = self.get(field);
        }
        Ok(())
    }

    fn is_bare(self, expr: &Expr) -> bool {
        self.bare && matches!(expr, Expr::Identifier(ident) if is_window(ident))
    }

    fn field(self, expr: &Expr) -> Option<&'static str> {
        match expr {
            Expr::CompoundIdentifier(parts) if self.fields => match parts.as_slice() {
                [window, field] if is_window(window) => {
                    ["start", "end"].into_iter().find(|name| field.value.eq_ignore_ascii_case(name))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn get(self, field: &str) -> Expr {
        function("get_field", vec![self.call.clone(), text(field)])
    }

    /// `window` and `window.end` are columns called `window` and `end`, and `window.*` is both fields.
    fn named_items(self, item: SelectItem) -> Vec<SelectItem> {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let call = matches!(&expr, Expr::Function(function) if is_call(function, WINDOW));
                match self.field(&expr) {
                    Some(field) => vec![aliased(expr, field)],
                    None if call || self.is_bare(&expr) => vec![aliased(expr, WINDOW)],
                    None => vec![SelectItem::UnnamedExpr(expr)],
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(ref name), _)
                if self.fields
                    && matches!(name.0.as_slice(), [ObjectNamePart::Identifier(name)] if is_window(name)) =>
            {
                ["start", "end"].into_iter().map(|field| aliased(self.get(field), field)).collect()
            }
            other => vec![other],
        }
    }
}

fn is_window(name: &Ident) -> bool {
    name.value.eq_ignore_ascii_case(WINDOW)
}

/// Whether the select list gives the name `window` to something else than the window.
fn alias_is_other(select: &Select) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { expr: Expr::Identifier(name), alias } => is_window(alias) && !is_window(name),
        SelectItem::ExprWithAlias { expr: Expr::Function(function), alias } => {
            is_window(alias) && !is_call(function, WINDOW)
        }
        SelectItem::ExprWithAlias { alias, .. } => is_window(alias),
        _ => false,
    })
}

/// Whether a table of FROM is called `window`.
fn from_has_table(select: &Select) -> bool {
    factors(&select.from).any(|factor| lateral::table_name(factor).is_some_and(|name| is_window(&name)))
}

/// Whether a derived table of FROM has a column called `window`.
fn from_has_column(select: &Select) -> bool {
    factors(&select.from).any(|factor| match factor {
        TableFactor::Derived { subquery, .. } => has_column(subquery),
        _ => false,
    })
}

fn has_column(query: &Query) -> bool {
    let mut body = query.body.as_ref();
    // The first SELECT of a UNION names the columns of all.
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    match body {
        SetExpr::Query(query) => has_column(query),
        SetExpr::Select(select) => select.projection.iter().any(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => is_window(alias),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => is_window(name),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().is_some_and(is_window),
            SelectItem::Wildcard(_) => from_has_column(select),
            _ => false,
        }),
        _ => false,
    }
}

fn factors(from: &[TableWithJoins]) -> impl Iterator<Item = &TableFactor> {
    from.iter().flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)))
}
