//! `explode(list)` in a select list: one row an element, none where the list is empty or NULL. `explode_outer(list)`
//! keeps a row with NULL for those.
//!
//! They are DataFusion's `unnest` and `unnest_outer`. As in Spark a SELECT has one generator at most, and it stands in
//! no other expression.

use datafusion::sql::sqlparser::ast::{Expr, Function, GroupByExpr, Ident, OrderBy, Select, SelectItem};

use super::build::{arguments, function};
use super::clauses::{each_expr, each_expr_in};
use super::is_call;
use crate::error::{Error, Result};

/// What Spark calls a generated column without an alias.
const COLUMN: &str = "col";

/// A call of `explode` or `explode_outer`.
pub(super) struct Generator {
    list: Expr,
    outer: bool,
}

impl Generator {
    /// Reads a call; none when `expr` is something else.
    pub(super) fn of(expr: &Expr) -> Result<Option<Self>> {
        let Expr::Function(function) = expr else { return Ok(None) };
        let outer = is_call(function, "explode_outer");
        if !outer && !is_call(function, "explode") {
            return Ok(None);
        }
        match arguments(function).as_deref() {
            Some([list]) => Ok(Some(Self { list: (*list).clone(), outer })),
            _ => Err(Error::job(format!("`{}` takes one list", name_of(function)))
                .with_hint("write explode(tag_values(tags, 't')), for example")),
        }
    }

    /// The same, keeping a row with NULL for an empty list and for NULL when `outer`.
    pub(super) fn or_outer(self, outer: bool) -> Self {
        Self { outer: self.outer || outer, ..self }
    }

    /// The expression that makes the rows.
    pub(super) fn rows(&self) -> Expr {
        let name = if self.outer { "unnest_outer" } else { "unnest" };
        function(name, vec![self.list.clone()])
    }

    /// The name of the generated column where the text has none.
    pub(super) fn column() -> Ident {
        Ident::new(COLUMN)
    }
}

/// Lowers the generator of a SELECT, if it has one.
pub(super) fn lower(select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
    // DataFusion 55.2 unnests below a GROUP BY without the rows for NULL.
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let mut generators = 0;
    for item in &mut select.projection {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, Generator::column()),
            SelectItem::ExprWithAlias { expr, alias } => (expr, alias.clone()),
            _ => continue,
        };
        if let Some(generator) = Generator::of(expr)? {
            if generator.outer && grouped {
                return Err(Error::job("`explode_outer` stands in a SELECT with GROUP BY")
                    .with_hint("explode in a subquery, and group what it gives"));
            }
            generators += 1;
            *item = SelectItem::ExprWithAlias { expr: generator.rows(), alias };
        }
    }
    refuse_others(select, order)?;
    if generators > 1 {
        return Err(Error::job("a SELECT calls `explode` more than once").with_hint(
            "explode one list a SELECT: put the first into a subquery, or use LATERAL VIEW explode(…) v AS c",
        ));
    }
    Ok(())
}

/// Whatever generator is left stands where none may.
fn refuse_others(select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
    let hint = "give it a name in a subquery: SELECT lower(item) FROM (SELECT explode(list) AS item FROM …)";
    let within = |place: &'static str| {
        move |expr: &mut Expr| match expr {
            Expr::Function(function) if is_call(function, "explode") || is_call(function, "explode_outer") => {
                Err(Error::job(format!("`{}` stands {place}", name_of(function))).with_hint(hint))
            }
            _ => Ok(()),
        }
    };
    each_expr_in(&mut select.projection, &mut within("within another expression"))?;
    each_expr(select, order, &mut within("outside the select list"))
}

fn name_of(function: &Function) -> String {
    function.name.to_string().to_ascii_lowercase()
}
