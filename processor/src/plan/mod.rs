//! From a job's queries to the plans that run: analysed, cut at their windows, planned physically.
//!
//! [`JobPlan`] makes as many instances of the physical plans as there are workers; each has slots of its own.

pub(crate) mod admission;
pub(crate) mod approx;
pub(crate) mod cut;
pub(crate) mod dialect;
mod distinct;
pub(crate) mod functions;
mod grouping;
pub(crate) mod locality;
pub(crate) mod normalise;
pub(crate) mod physical;
mod sketch;
pub(crate) mod slot;
mod window;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use event::Span;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::table::TableSpec;
use cut::{Cut, Kind, cut};
use locality::{Origin, trace};
use physical::{Assembly, LeafReader, partial_plan};
use slot::{Leaf, SlotPlan};

const NOT_DETERMINISTIC: &[&str] = &["now", "current_date", "current_time", "today", "random", "uuid"];

/// A table as a job reads it.
#[derive(Debug)]
pub(crate) struct ReadTable {
    pub(crate) spec: TableSpec,
    /// Columns that are read, ascending; the event time is among them.
    pub(crate) columns: Vec<usize>,
    /// Position of the event time among the columns read.
    pub(crate) time_at: Option<usize>,
}

/// One query of a job.
#[derive(Debug)]
pub(crate) struct Query {
    /// What it is written to, where the job says so.
    pub(crate) name: Option<String>,
    pub(crate) kind: Kind,
    /// Reads closed windows, or tables where there are none.
    pub(crate) plan: LogicalPlan,
    /// What each output column is.
    pub(crate) origins: Vec<Origin>,
    /// Columns of the output.
    pub(crate) schema: SchemaRef,
    /// The query itself says in which order its rows come.
    pub(crate) sorted: bool,
    /// Something in the query depends on the order of rows that it does not order itself: ties of a rank, for example.
    pub(crate) breaks_ties: bool,
}

/// A job's queries, cut and checked.
#[derive(Debug)]
pub(crate) struct JobPlan {
    session: SessionState,
    pub(crate) tables: Vec<ReadTable>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) queries: Vec<Query>,
    /// Bytes of a row of state, by cut, as far as the types say.
    state_bytes: Vec<usize>,
}

impl JobPlan {
    /// Analyses and cuts the queries, each with the name of what it is written to.
    pub(crate) async fn try_new(
        session: SessionState,
        tables: &[TableSpec],
        plans: Vec<(Option<String>, LogicalPlan)>,
    ) -> Result<Self> {
        let mut cuts = Vec::new();
        let mut queries = Vec::with_capacity(plans.len());
        for (name, plan) in plans {
            let analysed = session.analyzer().execute_and_check(plan, session.config_options(), |_, _| {})?;
            check_deterministic(&analysed)?;
            let schema = Arc::new(analysed.schema().as_arrow().clone());
            let (kind, plan) = cut(analysed, tables, &mut cuts)?;
            let plan = session.optimize(&plan)?;
            let origins = match kind {
                Kind::Windowed => trace(&plan, &cuts)?.columns,
                // One window holds everything, so nothing can reach over several.
                Kind::AllTime => trace(&plan, &cuts)
                    .map_or_else(|_| vec![Origin::Key; schema.fields().len()], |traced| traced.columns),
                Kind::Stateless | Kind::Bounded => vec![Origin::Value; schema.fields().len()],
            };
            let sorted = plan.exists(|node| Ok(matches!(node, LogicalPlan::Sort(_))))?;
            let breaks_ties = plan.exists(|node| {
                Ok(match node {
                    LogicalPlan::Window(_) | LogicalPlan::Limit(_) => true,
                    LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().any(takes_order),
                    _ => false,
                })
            })?;
            queries.push(Query { name, kind, plan, origins, schema, sorted, breaks_ties });
        }
        for cut in &mut cuts {
            cut.lower = session.optimize(&cut.lower)?;
        }
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut state_bytes = Vec::with_capacity(cuts.len());
        for cut in &cuts {
            let plan = partial_plan(&session, cut).await?;
            leaves.extend_from_slice(plan.leaves());
            state_bytes.push(plan.schema().fields().iter().map(|field| width(field.data_type())).sum());
        }
        for query in &queries {
            let plan = session.create_physical_plan(&query.plan).await?;
            leaves.extend_from_slice(SlotPlan::new(plan, session.task_ctx()).leaves());
        }
        let tables = read_tables(tables, &leaves)?;
        if tables.is_empty() {
            return Err(Error::job("the job reads no table").with_hint("select from `events`"));
        }
        let mut asked = queries.iter().filter(|query| query.kind != Kind::Bounded);
        asked.try_for_each(|query| check_reads(&query.plan))?;
        Ok(Self { session, tables, cuts, queries, state_bytes })
    }

    /// What the state of every cut must share with that of another run to be used by it: a hash, and the text hashed.
    pub(crate) fn fingerprints(&self) -> Vec<(String, String)> {
        self.cuts
            .iter()
            .map(|cut| {
                let spec = match cut.spec {
                    Some(spec) => format!("window of {} every {} from {}", spec.size(), spec.slide(), spec.origin()),
                    None => "all time".to_owned(),
                };
                // Where the window stands among the keys is not in the plan below, but tells two cuts apart.
                let place = cut.window_at.map(|at| format!(", key {at}")).unwrap_or_default();
                let text = format!(
                    "{spec}{place}\n{}\nDataFusion {}",
                    cut.lower.display_indent_schema(),
                    datafusion::DATAFUSION_VERSION
                );
                (hex::encode(&Sha256::digest(&text)[..16]), text)
            })
            .collect()
    }

    /// The plan as text: what runs per closed window, per pane and per row.
    pub(crate) fn explain(&self) -> String {
        let mut text = String::new();
        let span = Span::from_micros;
        for (number, cut) in self.cuts.iter().enumerate() {
            let _ = match cut.spec {
                Some(spec) => writeln!(
                    text,
                    "cut {number}: size {}, slide {}, panes of {}, {} panes a window",
                    span(spec.size()),
                    span(spec.slide()),
                    span(spec.pane_width()),
                    spec.size() / spec.pane_width()
                ),
                None => writeln!(text, "cut {number}: all time, one pane"),
            };
            let panes = cut.spec.map_or(1, |spec| spec.size() / spec.pane_width());
            let bytes = self.state_bytes[number];
            let _ = writeln!(
                text,
                "  state: about {bytes} bytes a group and pane, {} bytes a group that is in every pane of a window",
                i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(panes)
            );
            for line in admission::describe(&cut.lower).lines() {
                let _ = writeln!(text, "  {line}");
            }
            let per = if cut.above.is_empty() { "per row" } else { "per closed window below" };
            indent(&mut text, &format!("{per}, into panes"), &cut.lower);
        }
        for query in &self.queries {
            let to = query.name.as_ref().map(|name| format!(" into {name}")).unwrap_or_default();
            let title = match query.kind {
                Kind::Windowed => "per closed window",
                Kind::AllTime => "over all time",
                Kind::Stateless => "per row",
                Kind::Bounded => "over all rows at once (batch only)",
            };
            indent(&mut text, &format!("{title}{to}"), &query.plan);
        }
        text
    }

    /// The cuts that a query rests on, those below others among them.
    pub(crate) fn cuts_of(&self, query: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<usize> = Vec::new();
        let _ = self.queries[query].plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                open.extend(Cut::of_closed(scan.table_name.table()));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        while let Some(cut) = open.pop() {
            if found.insert(cut) {
                open.extend(&self.cuts[cut].above);
            }
        }
        found
    }

    /// An instance of the plan from rows to the panes of a cut, and its readers of tables.
    pub(crate) async fn partial(&self, number: usize) -> Result<(SlotPlan, Vec<Option<(usize, LeafReader)>>)> {
        let plan = partial_plan(&self.session, &self.cuts[number]).await?;
        let readers = self.readers(&plan)?;
        Ok((plan, readers))
    }

    /// An instance of the plan from panes to closed windows.
    pub(crate) async fn assembly(&self, number: usize) -> Result<Assembly> {
        Assembly::plan(&self.session, &self.cuts[number]).await
    }

    /// An instance of a query's plan, and its readers of tables.
    pub(crate) async fn upper(&self, number: usize) -> Result<(SlotPlan, Vec<Option<(usize, LeafReader)>>)> {
        let plan = self.session.create_physical_plan(&self.queries[number].plan).await?;
        let plan = SlotPlan::new(plan, self.session.task_ctx());
        let readers = self.readers(&plan)?;
        Ok((plan, readers))
    }

    /// For every leaf that reads a table, which one and how.
    fn readers(&self, plan: &SlotPlan) -> Result<Vec<Option<(usize, LeafReader)>>> {
        let reader = |leaf: &Leaf| {
            let Some(at) = self.tables.iter().position(|table| *table.spec.name == *leaf.table) else {
                return Ok(None);
            };
            let table = &self.tables[at];
            LeafReader::try_new(&self.session, leaf, &table.spec.schema, &table.columns)
                .map(|reader| Some((at, reader)))
        };
        plan.leaves().iter().map(reader).collect()
    }
}

/// The tables that the plans read, with the columns that any of them wants.
fn read_tables(tables: &[TableSpec], leaves: &[Leaf]) -> Result<Vec<ReadTable>> {
    let mut read = Vec::new();
    for spec in tables {
        let mine: Vec<&Leaf> = leaves.iter().filter(|leaf| *leaf.table == *spec.name).collect();
        if mine.is_empty() {
            continue;
        }
        let mut columns: Vec<usize> = mine.iter().flat_map(|leaf| leaf.projection.iter().copied()).collect();
        for column in mine.iter().flat_map(|leaf| &leaf.filters).flat_map(Expr::column_refs) {
            columns.push(spec.schema.index_of(&column.name)?);
        }
        let time = spec.event_time.as_ref().map(|name| spec.schema.index_of(name)).transpose()?;
        columns.extend(time);
        columns.sort_unstable();
        columns.dedup();
        let time_at = time.and_then(|time| columns.iter().position(|column| *column == time));
        read.push(ReadTable { spec: spec.clone(), columns, time_at });
    }
    Ok(read)
}

/// Bytes of a value: those of its type, or a guess of 32 where it varies.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(bytes) => usize::try_from(*bytes).unwrap_or(32),
        DataType::Boolean => 1,
        other => other.primitive_width().unwrap_or(32),
    }
}

/// Whether an aggregate depends on the order of its rows. That over the branches of distinct aggregates has one row a
/// group.
fn takes_order(aggregate: &Expr) -> bool {
    let by_order = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];
    let one_row = aggregate.column_refs().iter().any(|column| column.name == distinct::BRANCH);
    let takes = aggregate.exists(|part| {
        Ok(matches!(part, Expr::AggregateFunction(function) if by_order.contains(&function.func.name())))
    });
    !one_row && takes.unwrap_or(true)
}

fn indent(text: &mut String, title: &str, plan: &LogicalPlan) {
    let _ = writeln!(text, "{title}:");
    for line in plan.display_indent().to_string().lines() {
        let _ = writeln!(text, "  {line}");
    }
}

/// A query is asked when there are rows for it, so one whose conditions leave constant rows alone would never answer.
fn check_reads(plan: &LogicalPlan) -> Result<()> {
    if matches!(plan, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row)
        || plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_))))?
    {
        return Ok(());
    }
    Err(Error::job("a query gives the same rows whatever its tables hold").with_hint(
        "it reads no table, or its conditions leave none of a table's rows: look at its WHERE and at its outer joins",
    ))
}

fn check_deterministic(plan: &LogicalPlan) -> Result<()> {
    let mut refused: Option<String> = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    let name = call.func.name();
                    if NOT_DETERMINISTIC.contains(&name) || part.is_volatile_node() {
                        refused = Some(name.to_owned());
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match refused {
        None => Ok(()),
        Some(name) => Err(Error::job(format!("`{name}` gives another answer at every run"))
            .with_hint("use the event's own columns, or a ${variable} given with --var")),
    }
}
