//! `FROM t LATERAL VIEW [OUTER] explode(list) v AS c`: the table with one column more, as a derived table that keeps
//! the table's name.
//!
//! So `c`, `t.a` and `a` mean what they did, and `v.c` is written `t.c`. Several views nest, the first innermost, and
//! each may use the columns of those before it. The views follow one table: over a join no single name would do.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, LateralView, ObjectName, ObjectNamePart, OrderBy, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableAlias, TableFactor, TableWithJoins,
};

use super::build::{aliased, derived, except, star, table_alias};
use super::clauses::{each_expr, each_expr_in};
use super::explode::Generator;
use super::same;
use crate::error::{Error, Result};

/// Lowers the lateral views of a SELECT.
pub(super) fn lower(select: &mut Select, order: &mut Option<OrderBy>) -> Result<()> {
    let views = std::mem::take(&mut select.lateral_views);
    let Some(last) = views.last() else { return Ok(()) };
    let [TableWithJoins { relation, joins }] = select.from.as_mut_slice() else { return Err(not_one_table()) };
    if !joins.is_empty() {
        return Err(not_one_table());
    }
    let Some(name) = table_name(relation).or_else(|| last_part(&last.lateral_view_name)) else {
        return Err(not_one_table());
    };
    let mut columns = Columns { table: name, views: Vec::new() };
    for view in views {
        columns.add(relation, view)?;
    }
    select.projection =
        std::mem::take(&mut select.projection).into_iter().flat_map(|item| columns.expand(item)).collect();
    each_expr(select, order, &mut |expr| columns.rename(expr))
}

/// The name by which a table of FROM is known: its alias, or the last part of its name.
pub(super) fn table_name(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::Derived { alias: Some(TableAlias { name, .. }), .. } => Some(name.clone()),
        TableFactor::Table { name, .. } => last_part(name),
        _ => None,
    }
}

/// The last part of a name with dots.
pub(super) fn last_part(name: &ObjectName) -> Option<Ident> {
    name.0.last().and_then(ObjectNamePart::as_ident).cloned()
}

fn not_one_table() -> Error {
    Error::job("a LATERAL VIEW follows one table")
        .with_hint("put the join into a subquery with a name: FROM (SELECT … FROM a JOIN b ON …) AS t LATERAL VIEW …")
}

/// The columns that views have added to a table.
struct Columns {
    table: Ident,
    /// Name of the view and of its column.
    views: Vec<(Ident, Ident)>,
}

impl Columns {
    /// Wraps `relation` so that it has the column of one more view.
    fn add(&mut self, relation: &mut TableFactor, view: LateralView) -> Result<()> {
        let LateralView { lateral_view: mut call, lateral_view_name, lateral_col_alias, outer } = view;
        each_expr_in(&mut call, &mut |expr| self.rename(expr))?;
        let generator = Generator::of(&call)?.ok_or_else(|| {
            Error::job(format!("a LATERAL VIEW cannot be made of `{call}`"))
                .with_hint("write LATERAL VIEW explode(list) v AS c")
        })?;
        let generator = generator.or_outer(outer);
        let column = match lateral_col_alias.as_slice() {
            [] => Generator::column(),
            [column] => column.clone(),
            _ => {
                return Err(Error::job(format!("the LATERAL VIEW `{lateral_view_name}` names more than one column"))
                    .with_hint("explode of a list gives one column: LATERAL VIEW explode(list) v AS c"));
            }
        };
        if self.views.iter().any(|(_, other)| same(other, &column)) {
            return Err(Error::job(format!("two LATERAL VIEWs call their column `{}`", column.value))
                .with_hint("name each: LATERAL VIEW explode(list) v AS c"));
        }
        let items = vec![star(), aliased(generator.rows(), column.clone())];
        let inner = std::mem::replace(relation, super::build::table(Vec::new()));
        *relation = derived(items, inner, Some(table_alias(self.table.clone())));
        if let Some(name) = last_part(&lateral_view_name) {
            self.views.push((name, column));
        }
        Ok(())
    }

    /// `v.c` becomes `t.c`.
    fn rename(&self, expr: &mut Expr) -> Result<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [view, column, ..] = parts.as_mut_slice()
            && self.views.iter().any(|(v, c)| same(v, view) && same(c, column))
        {
            // The place stays, so that a caret finds what was written.
            *view = Ident { span: view.span, ..self.table.clone() };
        }
        Ok(())
    }

    /// `v.*` becomes the view's column, and `t.*` the table's own columns.
    fn expand(&self, item: SelectItem) -> Vec<SelectItem> {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), mut options) = item else {
            return vec![item];
        };
        let Some(part) = last_part(&name) else {
            return vec![SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)];
        };
        let of_view = self.views.iter().filter(|(view, _)| same(view, &part));
        let of_view: Vec<SelectItem> = of_view
            .map(|(_, c)| SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![self.table.clone(), c.clone()])))
            .collect();
        if !of_view.is_empty() {
            return of_view;
        }
        if same(&part, &self.table) {
            let mut left_out: Vec<Ident> = self.views.iter().map(|(_, column)| column.clone()).collect();
            if let Some(others) = options.opt_except.take() {
                left_out.push(others.first_element);
                left_out.extend(others.additional_elements);
            }
            options.opt_except = except(left_out);
        }
        vec![SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)]
    }
}
