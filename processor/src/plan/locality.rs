//! Checks that what stands above the windows means the same over one closing instant as over all, and follows what
//! each output column is.
//!
//! A stream runs the upper plan once for each window end, a batch over many at once; without this check the two could
//! answer differently.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};
use crate::plan::cut::Cut;
use crate::plan::functions::WINDOW_TIME;

/// What a column of the upper plan is. A start says which window only together with the size, which goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The window itself, of a size in microseconds.
    Window(i64),
    /// The window's start.
    Start(i64),
    /// The window's end.
    End,
    /// The window's last instant.
    Time,
    /// One of these, or NULL where an outer join found no partner: which, the join, and whether it is its right side.
    Maybe(Part, usize, bool),
    /// A group key.
    Key,
    /// Computed.
    Value,
}

/// What an [`Origin`] is besides NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// See [`Origin::Window`].
    Window(i64),
    /// See [`Origin::Start`].
    Start(i64),
    /// See [`Origin::End`].
    End,
    /// See [`Origin::Time`].
    Time,
}

impl Origin {
    /// What is certain about the instant, if anything is.
    const fn part(self) -> Option<Part> {
        match self {
            Self::Window(size) => Some(Part::Window(size)),
            Self::Start(size) => Some(Part::Start(size)),
            Self::End => Some(Part::End),
            Self::Time => Some(Part::Time),
            Self::Maybe(..) | Self::Key | Self::Value => None,
        }
    }

    const fn of(part: Part) -> Self {
        match part {
            Part::Window(size) => Self::Window(size),
            Part::Start(size) => Self::Start(size),
            Part::End => Self::End,
            Part::Time => Self::Time,
        }
    }

    /// Whether equal values mean equal closing instants.
    pub(crate) const fn is_local(self) -> bool {
        self.part().is_some()
    }
}

/// What is known of a plan's rows.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// What each column is.
    pub(crate) columns: Vec<Origin>,
    /// The rows are constant: they belong to every window.
    constant: bool,
}

impl Traced {
    const fn rows(columns: Vec<Origin>) -> Self {
        Self { columns, constant: false }
    }
}

/// Follows the columns of `plan`, whose leaves are closed windows.
///
/// # Errors
/// `Job` with a hint when an operator reaches over several windows.
pub(crate) fn trace(plan: &LogicalPlan, cuts: &[Cut]) -> Result<Traced> {
    check_subqueries(plan)?;
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(cut) = Cut::of_closed(scan.table_name.table()).and_then(|number| cuts.get(number)) else {
                return Err(Error::job(format!("table `{}` is read above the window", scan.table_name))
                    .with_hint("read it below GROUP BY window(…)"));
            };
            let size = cut.spec.map_or(0, |spec| spec.size());
            let all = (0..cut.closed.fields().len()).map(|at| match at {
                at if Some(at) == cut.window_at => Origin::Window(size),
                at if at < cut.keys => Origin::Key,
                _ => Origin::Value,
            });
            let all: Vec<Origin> = all.collect();
            let columns = match &scan.projection {
                Some(projection) => projection.iter().map(|at| all[*at]).collect(),
                None => all,
            };
            Ok(Traced::rows(columns))
        }
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            Ok(Traced { columns: vec![Origin::Key; plan.schema().fields().len()], constant: true })
        }
        LogicalPlan::Projection(projection) => {
            let input = trace(&projection.input, cuts)?;
            let columns = projection.expr.iter().map(|expr| origin_of(expr, &projection.input, &input)).collect();
            Ok(Traced { columns, constant: input.constant })
        }
        LogicalPlan::SubqueryAlias(alias) => trace(&alias.input, cuts),
        LogicalPlan::Filter(filter) => trace(&filter.input, cuts),
        LogicalPlan::Repartition(repartition) => trace(&repartition.input, cuts),
        LogicalPlan::Unnest(unnest) => {
            let input = trace(&unnest.input, cuts)?;
            let exploded: Vec<usize> = unnest
                .list_type_columns
                .iter()
                .map(|(at, _)| *at)
                .chain(unnest.struct_type_columns.iter().copied())
                .collect();
            let column = |at: &usize| if exploded.contains(at) { Origin::Value } else { input.columns[*at] };
            Ok(Traced::rows(unnest.dependency_indices.iter().map(column).collect()))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = trace(&aggregate.input, cuts)?;
            let keys: Vec<Origin> =
                aggregate.group_expr.iter().map(|expr| origin_of(expr, &aggregate.input, &input)).collect();
            if !input.constant && !keys.iter().any(|key| key.is_local()) {
                return Err(Error::job("an aggregate reaches over several windows")
                    .with_hint("a stream never sees all windows at once; add window to its GROUP BY"));
            }
            let keys = keys.into_iter().map(|key| if key == Origin::Value { Origin::Key } else { key });
            let values = aggregate.schema.fields().len().saturating_sub(aggregate.group_expr.len());
            let columns = keys.chain(std::iter::repeat_n(Origin::Value, values)).collect();
            Ok(Traced { columns, constant: input.constant })
        }
        LogicalPlan::Window(window) => {
            let mut input = trace(&window.input, cuts)?;
            for expr in &window.window_expr {
                check_window_function(expr, &window.input, &input)?;
            }
            input.columns.extend(window.window_expr.iter().map(|_| Origin::Value));
            Ok(input)
        }
        LogicalPlan::Distinct(distinct) => {
            let input = trace(distinct.input(), cuts)?;
            if input.constant || input.columns.iter().any(|column| column.is_local()) {
                return Ok(input);
            }
            Err(Error::job("DISTINCT reaches over several windows").with_hint("select window.start beside it"))
        }
        LogicalPlan::Join(join) => trace_join(join, cuts),
        LogicalPlan::Union(union) => {
            let sides = union.inputs.iter().map(|input| trace(input, cuts)).collect::<Result<Vec<_>>>()?;
            let constant = sides.iter().all(|side| side.constant);
            if !constant && sides.iter().any(|side| side.constant) {
                return Err(Error::job("a UNION with constant rows reaches over several windows")
                    .with_hint("a stream would give them once a window; join each window with them: JOIN (VALUES …)"));
            }
            let columns = sides
                .into_iter()
                .map(|side| side.columns)
                .reduce(|all, side| all.into_iter().zip(side).map(|(a, b)| either(a, b)).collect());
            Ok(Traced { columns: columns.ok_or_else(|| Error::internal("a union of nothing"))?, constant })
        }
        LogicalPlan::Sort(_) => Err(Error::job("ORDER BY reaches over several windows").with_hint(
            "leave it out: windows are emitted by their end; rank rows within one by row_number() OVER (PARTITION BY \
             window ORDER BY …)",
        )),
        LogicalPlan::Limit(_) => Err(Error::job("LIMIT reaches over several windows")
            .with_hint("use QUALIFY row_number() OVER (PARTITION BY window ORDER BY …) <= n")),
        other => Err(Error::job(format!("`{}` stands above GROUP BY window(…)", other.display())).with_hint(
            "use WHERE, HAVING, expressions, joins on the window, aggregates and window functions per window",
        )),
    }
}

/// A column that is one thing on one side of a union and another on the other.
fn either(a: Origin, b: Origin) -> Origin {
    match (a, b) {
        (a, b) if a == b => a,
        (Origin::Value, _) | (_, Origin::Value) => Origin::Value,
        _ => Origin::Key,
    }
}

/// A join keeps to one instant when it has an equality on both sides' windows; constant rows join with any.
fn trace_join(join: &Join, cuts: &[Cut]) -> Result<Traced> {
    let (left, right) = (trace(&join.left, cuts)?, trace(&join.right, cuts)?);
    let same_instant = |a: &Expr, b: &Expr| {
        let (a, b) = (origin_of(a, &join.left, &left), origin_of(b, &join.right, &right));
        a.part().is_some() && a.part() == b.part()
    };
    let mut local = join.on.iter().any(|(a, b)| same_instant(a, b));
    for part in join.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::IsNotDistinctFrom, right }) = part {
            local |= same_instant(left, right) || same_instant(right, left);
        }
    }
    let kept_alone = match join.join_type {
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left.constant,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right.constant,
        JoinType::Full => left.constant || right.constant,
        JoinType::Inner => false,
    };
    let look_up = (left.constant || right.constant) && (!kept_alone || (left.constant && right.constant));
    if !local && !look_up {
        return Err(Error::job("a join reaches over several windows")
            .with_hint("join on the window too: ON a.window = b.window, or a.window.end = b.window.end"));
    }
    let number = std::ptr::from_ref(join).addr();
    let outer = |columns: &[Origin], right: bool| -> Vec<Origin> {
        columns.iter().map(|column| column.part().map_or(*column, |part| Origin::Maybe(part, number, right))).collect()
    };
    let columns = match join.join_type {
        JoinType::Inner => [left.columns, right.columns].concat(),
        JoinType::Left => [left.columns.clone(), outer(&right.columns, true)].concat(),
        JoinType::Right => [outer(&left.columns, false), right.columns].concat(),
        JoinType::Full => [outer(&left.columns, false), outer(&right.columns, true)].concat(),
        JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
        JoinType::RightSemi | JoinType::RightAnti => right.columns,
        JoinType::LeftMark => [left.columns, vec![Origin::Value]].concat(),
        JoinType::RightMark => [right.columns, vec![Origin::Value]].concat(),
    };
    Ok(Traced { columns, constant: left.constant && right.constant })
}

/// What the optimizer left as a subquery cannot be checked.
fn check_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|part| {
            Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        false => Ok(()),
        true => Err(Error::job("a subquery reaches over several windows")
            .with_hint("compare its window with that of the outer query: WHERE inner.window = outer.window")),
    }
}

fn check_window_function(expr: &Expr, input: &LogicalPlan, traced: &Traced) -> Result<()> {
    match expr {
        Expr::Alias(alias) => check_window_function(&alias.expr, input, traced),
        Expr::WindowFunction(function) => {
            let WindowFunctionParams { partition_by, .. } = &function.params;
            if traced.constant || partition_by.iter().any(|expr| origin_of(expr, input, traced).is_local()) {
                return Ok(());
            }
            Err(Error::job(format!("{} OVER (…) reaches over several windows", function.fun.name()))
                .with_hint("add PARTITION BY window"))
        }
        _ => Ok(()),
    }
}

/// What `expr` over `input` is.
pub(crate) fn origin_of(expr: &Expr, input: &LogicalPlan, traced: &Traced) -> Origin {
    match expr {
        Expr::Alias(alias) => origin_of(&alias.expr, input, traced),
        Expr::Column(column) => {
            input.schema().maybe_index_of_column(column).map_or(Origin::Value, |at| traced.columns[at])
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let argument = || args.first().map_or(Origin::Value, |of| origin_of(of, input, traced));
            match (func.name(), args.as_slice()) {
                ("get_field", [_, Expr::Literal(ScalarValue::Utf8(Some(field)), _)]) => field_of(argument(), field),
                (WINDOW_TIME, [_]) => time_of(argument()),
                ("coalesce", args) => {
                    coalesce(&args.iter().map(|arg| origin_of(arg, input, traced)).collect::<Vec<_>>())
                }
                _ => computed(expr, input, traced),
            }
        }
        // The optimizer writes `coalesce` as a CASE.
        Expr::Case(case) if case.expr.is_none() => {
            let branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            let tested = case
                .when_then_expr
                .iter()
                .all(|(when, then)| matches!(when.as_ref(), Expr::IsNotNull(tested) if tested == then));
            match tested && case.else_expr.is_some() {
                true => coalesce(&branches.map(|expr| origin_of(expr, input, traced)).collect::<Vec<_>>()),
                false => computed(expr, input, traced),
            }
        }
        _ => computed(expr, input, traced),
    }
}

/// What is computed from windows and keys, or is constant, tells rows apart as they do.
fn computed(expr: &Expr, input: &LogicalPlan, traced: &Traced) -> Origin {
    let of_value = |column: &datafusion::common::Column| {
        let at = input.schema().maybe_index_of_column(column);
        at.is_none_or(|at| traced.columns[at] == Origin::Value)
    };
    if expr.column_refs().into_iter().any(of_value) { Origin::Value } else { Origin::Key }
}

fn field_of(window: Origin, field: &str) -> Origin {
    let part = |part: Part| match (part, field) {
        (Part::Window(size), "start") => Some(Part::Start(size)),
        (Part::Window(_), "end") => Some(Part::End),
        _ => None,
    };
    match window {
        Origin::Maybe(of, join, right) => part(of).map_or(Origin::Value, |part| Origin::Maybe(part, join, right)),
        other => other.part().and_then(part).map_or(Origin::Value, Origin::of),
    }
}

fn time_of(window: Origin) -> Origin {
    match window {
        Origin::Window(_) => Origin::Time,
        Origin::Maybe(Part::Window(_), join, right) => Origin::Maybe(Part::Time, join, right),
        _ => Origin::Value,
    }
}

/// The first that is not NULL: certain when both sides of one outer join are asked, or one is certain itself.
fn coalesce(of: &[Origin]) -> Origin {
    let part = |origin: &Origin| match origin {
        Origin::Maybe(part, ..) => Some(*part),
        other => other.part(),
    };
    let Some(first) = of.first().and_then(part) else {
        return if of.iter().all(|origin| *origin == Origin::Key) { Origin::Key } else { Origin::Value };
    };
    if of.iter().any(|origin| part(origin) != Some(first)) {
        return Origin::Value;
    }
    let both = of.iter().any(|a| match a {
        Origin::Maybe(_, join, false) => of.iter().any(|b| matches!(b, Origin::Maybe(_, other, true) if other == join)),
        _ => false,
    });
    if both || of.iter().any(|origin| origin.is_local()) { Origin::of(first) } else { of[0] }
}
