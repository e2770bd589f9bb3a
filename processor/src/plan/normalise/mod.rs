//! From what a person writes to what DataFusion can plan, on the syntax tree.
//!
//! Within one SELECT that calls `window(…)`, the names `window`, `window.start` and `window.end` mean that call and
//! its fields, as in Spark; a call without a slide takes the job's; `explode` becomes `unnest` without its row for
//! NULL. Nothing else is touched.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr,
    Ident, ObjectName, ObjectNamePart, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, Value, VisitMut,
    VisitorMut, visit_expressions_mut,
};

use crate::error::{Error, Result};

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

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let Query { body, order_by, .. } = query;
        if let SetExpr::Select(select) = body.as_mut() {
            let mut order: Vec<&mut Expr> = match order_by.as_mut().map(|order| &mut order.kind) {
                Some(OrderByKind::Expressions(by)) => by.iter_mut().map(|by| &mut by.expr).collect(),
                _ => Vec::new(),
            };
            if let Err(error) = self.select(select, &mut order) {
                return ControlFlow::Break(Box::new(error));
            }
        }
        ControlFlow::Continue(())
    }
}

impl Pass<'_> {
    fn select(&self, select: &mut Select, order: &mut [&mut Expr]) -> Result<()> {
        explode(select);
        let mut calls: Vec<Expr> = Vec::new();
        if let GroupByExpr::Expressions(by, _) = &mut select.group_by {
            self.collect(by, &mut calls);
        }
        self.collect(&mut select.projection, &mut calls);
        let call = match calls.as_slice() {
            [] => return Ok(()),
            [call] => call.clone(),
            _ => {
                return Err(Error::job("a SELECT calls `window` with different arguments")
                    .with_hint("use one window a SELECT, and join two SELECTs on window.end"));
            }
        };
        for item in &mut select.projection {
            name_item(item);
        }
        let mut replace = |expr: &mut Expr| replace_names(expr, &call);
        let _: ControlFlow<()> = visit_expressions_mut(&mut select.projection, &mut replace);
        let _: ControlFlow<()> = visit_expressions_mut(&mut select.group_by, &mut replace);
        let _: ControlFlow<()> = visit_expressions_mut(&mut select.having, &mut replace);
        let _: ControlFlow<()> = visit_expressions_mut(&mut select.qualify, &mut replace);
        let _: ControlFlow<()> = visit_expressions_mut(&mut select.named_window, &mut replace);
        for expr in order {
            let _: ControlFlow<()> = visit_expressions_mut(*expr, &mut replace);
        }
        Ok(())
    }

    /// Gathers the distinct `window(…)` calls, giving each the job's slide where it has none.
    fn collect(&self, within: &mut impl VisitMut, calls: &mut Vec<Expr>) {
        let _: ControlFlow<()> = visit_expressions_mut(within, |expr| {
            if let Expr::Function(function) = expr
                && is_call(function, "window")
            {
                if let (FunctionArguments::List(list), Some(slide)) = (&mut function.args, self.slide)
                    && list.args.len() == 2
                {
                    list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(slide))));
                }
                if !calls.contains(expr) {
                    calls.push(expr.clone());
                }
            }
            ControlFlow::Continue(())
        });
    }
}

fn is_call(function: &Function, name: &str) -> bool {
    function.over.is_none()
        && matches!(function.name.0.as_slice(), [ObjectNamePart::Identifier(ident)] if ident.value.eq_ignore_ascii_case(name))
}

/// `SELECT window` and `SELECT window.end` are columns called `window` and `end`.
fn name_item(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let alias = match expr {
        Expr::Identifier(ident) if ident.value.eq_ignore_ascii_case("window") => "window",
        Expr::CompoundIdentifier(parts) => match window_field(parts) {
            Some(field) => field,
            None => return,
        },
        Expr::Function(function) if is_call(function, "window") => "window",
        _ => return,
    };
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(alias) };
}

fn window_field(parts: &[Ident]) -> Option<&'static str> {
    match parts {
        [window, field] if window.value.eq_ignore_ascii_case("window") => {
            match field.value.to_ascii_lowercase().as_str() {
                "start" => Some("start"),
                "end" => Some("end"),
                _ => None,
            }
        }
        _ => None,
    }
}

fn replace_names(expr: &mut Expr, call: &Expr) -> ControlFlow<()> {
    match expr {
        Expr::Identifier(ident) if ident.value.eq_ignore_ascii_case("window") => *expr = call.clone(),
        Expr::CompoundIdentifier(parts) => {
            if let Some(field) = window_field(parts) {
                *expr = function("get_field", vec![call.clone(), text(field)]);
            }
        }
        _ => {}
    }
    ControlFlow::Continue(())
}

/// `explode(x)` in the select list: one row an element, none for NULL (DataFusion's unnest would keep a row for NULL).
fn explode(select: &mut Select) {
    let mut lists: Vec<Expr> = Vec::new();
    let _: ControlFlow<()> = visit_expressions_mut(&mut select.projection, |expr| {
        if let Expr::Function(function) = expr
            && is_call(function, "explode")
        {
            function.name = ObjectName::from(vec![Ident::new("unnest")]);
            if let FunctionArguments::List(list) = &function.args
                && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))] = list.args.as_slice()
            {
                lists.push(list.clone());
            }
        }
        ControlFlow::Continue(())
    });
    for list in lists {
        let known = Expr::IsNotNull(Box::new(list));
        select.selection = Some(match select.selection.take() {
            None => known,
            Some(filter) => Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(filter))),
                op: BinaryOperator::And,
                right: Box::new(known),
            },
        });
    }
}

fn text(value: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.to_owned()).into())
}

fn function(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
