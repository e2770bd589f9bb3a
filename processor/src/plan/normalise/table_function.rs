//! The window table functions of Flink and RisingWave, as derived tables over `window(…)`.
//!
//! `TUMBLE(table, time, size[, offset])` and `HOP(table, time, slide, size[, offset])`, with or without `TABLE(…)`
//! around them, the table as `t` or `TABLE t`, the time as `ts` or `DESCRIPTOR(ts)`, by place or by name. The result
//! has the table's columns and `window_start`, `window_end` and `window_time`. Lengths are handed through as they are
//! written.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, SelectItem, TableFactor,
    WildcardAdditionalOptions,
};

use super::build::{aliased, arguments, derived, except, function, star, subquery, table, table_alias};
use super::lateral::last_part;
use super::{UNSUPPORTED_WINDOWS, is_call, unsupported_window};
use crate::error::{Error, Result};
use crate::plan::dialect::TABLE;

/// The window of a row, between the two SELECTs.
const WINDOW: &str = "__w";

/// Lowers `factor` if it is one of these functions.
pub(super) fn lower(factor: &mut TableFactor) -> Result<()> {
    let lowered = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => {
            Call::of(name, &args.args)?.map(|call| (call, alias.take()))
        }
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => Call::of(&function.name, &list.args)?.map(|call| (call, alias.take())),
            _ => None,
        },
        _ => None,
    };
    let Some((call, alias)) = lowered else { return Ok(()) };
    let alias = alias.or_else(|| call.table_name().map(table_alias));
    let windowed = derived(vec![star(), aliased(call.window(), WINDOW)], call.data, None);
    *factor = derived(columns(), windowed, alias);
    Ok(())
}

/// One of the functions, by what it takes.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Names of the arguments in their order; the last may be left out.
    arguments: &'static [&'static str],
    usage: &'static str,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "TUMBLE",
        arguments: &["DATA", "TIMECOL", "SIZE", "OFFSET"],
        usage: "TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), size[, offset]))",
    },
    Shape {
        name: "HOP",
        arguments: &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
        usage: "TABLE(HOP(TABLE t, DESCRIPTOR(time), slide, size[, offset]))",
    },
];

impl Shape {
    fn error(self, what: &str) -> Error {
        Error::job(format!("`{}` {what}", self.name)).with_hint(format!("write {}", self.usage))
    }

    /// Puts the arguments in their order.
    fn places(self, args: &[FunctionArg]) -> Result<Vec<Option<&Expr>>> {
        let mut places: Vec<Option<&Expr>> = vec![None; self.arguments.len()];
        for (at, arg) in args.iter().enumerate() {
            let (at, arg) = match arg {
                FunctionArg::Unnamed(arg) => (Some(at), arg),
                FunctionArg::Named { name, arg, .. } => {
                    let at = self.arguments.iter().position(|known| name.value.eq_ignore_ascii_case(known));
                    (Some(at.ok_or_else(|| self.error(&format!("has no argument `{}`", name.value)))?), arg)
                }
                FunctionArg::ExprNamed { arg, .. } => (None, arg),
            };
            let FunctionArgExpr::Expr(expr) = arg else {
                return Err(self.error("takes a table, a column and lengths"));
            };
            match at.and_then(|at| places.get_mut(at)) {
                None => return Err(self.error(&format!("has {} arguments", args.len()))),
                Some(Some(_)) => return Err(self.error("is given one argument twice")),
                Some(place) => *place = Some(expr),
            }
        }
        // Of what has to be there, all up to the offset.
        let missing = places.iter().zip(self.arguments).rev().skip(1).rev().find(|(place, _)| place.is_none());
        match missing {
            Some((_, name)) => Err(self.error(&format!("has no {}", name.to_ascii_lowercase()))),
            None => Ok(places),
        }
    }
}

/// A call, read.
struct Call {
    data: TableFactor,
    time: Expr,
    size: Expr,
    slide: Expr,
    offset: Option<Expr>,
}

impl Call {
    /// Reads a call; none when `name` is another function.
    fn of(name: &ObjectName, args: &[FunctionArg]) -> Result<Option<Self>> {
        let [_] = name.0.as_slice() else { return Ok(None) };
        let Some(name) = last_part(name) else { return Ok(None) };
        if let Some(known) = UNSUPPORTED_WINDOWS.iter().find(|known| name.value.eq_ignore_ascii_case(known)) {
            return Err(unsupported_window(&known.to_ascii_uppercase()));
        }
        let Some(shape) = SHAPES.into_iter().find(|shape| name.value.eq_ignore_ascii_case(shape.name)) else {
            return Ok(None);
        };
        let places = shape.places(args)?;
        let (data, time, slide, size, offset) = match places.as_slice() {
            [Some(data), Some(time), Some(size), offset] => (data, time, size, size, offset),
            [Some(data), Some(time), Some(slide), Some(size), offset] => (data, time, slide, size, offset),
            _ => return Err(shape.error("takes other arguments")),
        };
        let marked = matches!(data, Expr::Prefixed { .. });
        Ok(Some(Self {
            data: data_of(shape, data)?,
            time: time_of(shape, time, marked)?,
            // A slide is always given: without one the call would take the job's.
            slide: (*slide).clone(),
            size: (*size).clone(),
            offset: offset.cloned(),
        }))
    }

    fn table_name(&self) -> Option<Ident> {
        super::lateral::table_name(&self.data)
    }

    fn window(&self) -> Expr {
        let mut args = vec![self.time.clone(), self.size.clone(), self.slide.clone()];
        args.extend(self.offset.clone());
        function("window", args)
    }
}

/// The columns of the result: the table's and the window's.
fn columns() -> Vec<SelectItem> {
    let window = Ident::new(WINDOW);
    let field = |name: &str| Expr::CompoundIdentifier(vec![window.clone(), Ident::new(name)]);
    let options = WildcardAdditionalOptions { opt_except: except(vec![window.clone()]), ..Default::default() };
    vec![
        SelectItem::Wildcard(options),
        aliased(field("start"), "window_start"),
        aliased(field("end"), "window_end"),
        aliased(function("window_time", vec![Expr::Identifier(window.clone())]), "window_time"),
    ]
}

fn data_of(shape: Shape, data: &Expr) -> Result<TableFactor> {
    match data {
        Expr::Prefixed { prefix, value } if prefix.value == TABLE => data_of(shape, value),
        Expr::Identifier(name) => Ok(table(vec![name.clone()])),
        Expr::CompoundIdentifier(parts) => Ok(table(parts.clone())),
        Expr::Subquery(query) => Ok(subquery(query.clone(), None)),
        other => Err(shape.error(&format!("takes a table first, not `{other}`"))),
    }
}

/// The column of times; with the `TABLE` mark of Flink the `DESCRIPTOR` has to be there too.
fn time_of(shape: Shape, time: &Expr, marked: bool) -> Result<Expr> {
    match time {
        Expr::Function(function) if is_call(function, "descriptor") => descriptor(shape, function),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) if !marked => Ok(time.clone()),
        other if marked => Err(shape.error(&format!("takes DESCRIPTOR({other}) after TABLE, not `{other}`"))),
        other => Err(shape.error(&format!("takes a column of times second, not `{other}`"))),
    }
}

fn descriptor(shape: Shape, function: &Function) -> Result<Expr> {
    match arguments(function).as_deref() {
        Some([column @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))]) => Ok((*column).clone()),
        _ => Err(shape.error("takes a DESCRIPTOR of one column")),
    }
}
