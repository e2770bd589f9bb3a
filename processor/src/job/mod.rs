//! A job: one `.sql` file, parsed, planned and checked, ready to run as a batch or as a stream.

mod parse;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use event::layout::{JOBS_TOPIC, late_topic};
use event::{Span, Table};

use crate::error::{Error, ErrorKind, Result};
use crate::memory::Memory;
use crate::plan::JobPlan;
use crate::plan::cut::Kind;
use crate::plan::functions::register_functions;
use crate::plan::locality::Origin;
use crate::plan::normalise::normalise;
use crate::plan::slot::SlotTable;
use crate::row::json_schema;
use crate::table::TableSpec;
use parse::{Parsed, caret, parse};
use words::{Words, in_our_words};

/// Delay of the watermark where neither the command nor the job says otherwise.
pub const DEFAULT_DELAY: Span = Span::from_secs(600);
/// Window size where neither the command nor the job says otherwise.
const DEFAULT_WINDOW: &str = "1 hour";

/// Where a job's text comes from.
#[derive(Clone, Debug)]
pub struct JobSource {
    /// Name of the job, unless the text says `SET job.name`.
    pub name: String,
    /// Text of the job file.
    pub sql: String,
    /// The file, when it is not built in.
    pub path: Option<PathBuf>,
}

/// What the command line says about a job.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// `${window}`, which may be [`Span::ALL_TIME`]; else the file's `SET job.window`, else one hour.
    pub window: Option<Span>,
    /// `${slide}`, and the slide of every `window(time, size)` without one; else tumbling.
    pub slide: Option<Span>,
    /// Delay of the watermark; else the file's `SET job.watermark`, else [`DEFAULT_DELAY`].
    pub delay: Option<Span>,
    /// Further `${name}`s.
    pub vars: Vec<(String, String)>,
    /// How much memory the job may use.
    pub memory: Memory,
}

/// Jobs built into the binary: name and text.
#[must_use]
pub fn built_in_jobs() -> &'static [(&'static str, &'static str)] {
    &[
        ("activity", include_str!("../../../jobs/activity.sql")),
        ("dvm", include_str!("../../../jobs/dvm.sql")),
        ("hashtags", include_str!("../../../jobs/hashtags.sql")),
        ("kinds", include_str!("../../../jobs/kinds.sql")),
        ("reactions", include_str!("../../../jobs/reactions.sql")),
        ("relays", include_str!("../../../jobs/relays.sql")),
        ("global", include_str!("../../../jobs/global.sql")),
        ("collections", include_str!("../../../jobs/collections.sql")),
        ("all", include_str!("../../../jobs/all.sql")),
        ("market_totals", include_str!("../../../jobs/market_totals.sql")),
        ("collection_totals", include_str!("../../../jobs/collection_totals.sql")),
        ("top_collections", include_str!("../../../jobs/top_collections.sql")),
        ("top_assets", include_str!("../../../jobs/top_assets.sql")),
    ]
}

/// A job, ready to run.
#[derive(Debug)]
pub struct Job {
    name: String,
    delay: Span,
    window: (Span, Span),
    memory: Memory,
    outputs: Vec<Output>,
    /// What it was made of.
    told: (JobSource, JobOptions),
    pub(crate) plan: JobPlan,
}

/// What one query of a job gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// The topic it is inserted into, where the job says so.
    pub name: Option<String>,
    /// Columns of its rows.
    pub schema: SchemaRef,
}

impl Job {
    /// Parses, plans and checks a job over one of the tables that topics hold.
    ///
    /// # Errors
    /// `Job` with a hint, and a caret where the place is known, when the SQL cannot be run.
    pub async fn plan(source: &JobSource, options: &JobOptions) -> Result<Self> {
        let job = Box::pin(Self::plan_over(source, options, &Table::ALL.map(TableSpec::of))).await?;
        let read: Vec<String> = job.tables().map(|table| format!("`{}`", table.name)).collect();
        match read.len() {
            ..=1 => Ok(job),
            _ => Err(Error::job(format!("the job reads {}, and a job reads one table", read.join(" and ")))
                .with_hint("make a job of each; `tidegate sql` joins tables over the lake")),
        }
    }

    /// Parses, plans and checks a job over any tables.
    ///
    /// # Errors
    /// As [`Job::plan`].
    pub async fn plan_over(source: &JobSource, options: &JobOptions, tables: &[TableSpec]) -> Result<Self> {
        let parsed = parse(source, options)?;
        let sql = parsed.sql.clone();
        let planned = Box::pin(Self::plan_parsed(parsed, source, options, tables)).await;
        planned.map_err(|error| place_caret(of_planning(error), &sql))
    }

    async fn plan_parsed(
        parsed: Parsed,
        source: &JobSource,
        options: &JobOptions,
        tables: &[TableSpec],
    ) -> Result<Self> {
        let context = session(options.memory)?;
        for table in tables {
            let (name, schema) = (table.name.as_str(), Arc::clone(&table.schema));
            context.register_table(name, Arc::new(SlotTable { name: name.into(), schema, filters: true }))?;
        }
        let slide = parsed.slide.as_deref();
        for (name, mut query) in parsed.views {
            normalise(&mut query, slide)?;
            let plan = plan_statement(&context.state(), query).await?;
            let view: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, None));
            context.register_table(name.as_str(), view)?;
        }
        let mut plans = Vec::with_capacity(parsed.queries.len());
        for (name, mut query) in parsed.queries {
            normalise(&mut query, slide)?;
            plans.push((name, plan_statement(&context.state(), query).await?));
        }
        let plan = JobPlan::try_new(context.state(), tables, plans).await?;
        let outputs = plan.queries.iter();
        let outputs =
            outputs.map(|query| Output { name: query.name.clone(), schema: Arc::clone(&query.schema) }).collect();
        Ok(Self {
            name: parsed.name.unwrap_or_else(|| source.name.clone()),
            delay: options.delay.or(parsed.delay).unwrap_or(DEFAULT_DELAY),
            window: parsed.window,
            memory: options.memory,
            outputs,
            told: (source.clone(), options.clone()),
            plan,
        })
    }

    /// Name: the file's, or what it says itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text it was planned from, and the options.
    pub(crate) const fn told(&self) -> &(JobSource, JobOptions) {
        &self.told
    }

    /// How far the watermark trails the greatest time seen.
    #[must_use]
    pub const fn delay(&self) -> Span {
        self.delay
    }

    /// `${window}` and `${slide}`.
    #[must_use]
    pub const fn window(&self) -> (Span, Span) {
        self.window
    }

    /// How much memory the job may use.
    #[must_use]
    pub const fn memory(&self) -> Memory {
        self.memory
    }

    /// What the job's queries give, in the order of the file.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The table that the job reads, of those that topics hold; of a job over other tables it says nothing.
    #[must_use]
    pub fn table(&self) -> Table {
        self.tables().find_map(|table| Table::named(&table.name)).unwrap_or_default()
    }

    /// The tables that the job reads.
    pub fn tables(&self) -> impl Iterator<Item = &TableSpec> {
        self.plan.tables.iter().map(|table| &table.spec)
    }

    /// Whether the job can run as a stream.
    ///
    /// # Errors
    /// `Job` with a hint when a query needs all rows at once.
    pub fn can_stream(&self) -> Result<()> {
        match self.plan.queries.iter().any(|query| query.kind == Kind::Bounded) {
            false => Ok(()),
            true => Err(Error::job("the job has no end to wait for: it needs all rows at once")
                .with_hint("group by window(…) and join, rank and sort within the window; or run it as a batch")),
        }
    }

    /// Whether some query aggregates over all time, so that only unfinished answers can be given before the end.
    #[must_use]
    pub fn over_all_time(&self) -> bool {
        self.plan.queries.iter().any(|query| query.kind == Kind::AllTime)
    }

    /// Whether a window is over the rows of other windows.
    pub(crate) fn chains_windows(&self) -> bool {
        self.plan.cuts.iter().any(|cut| !cut.above.is_empty())
    }

    /// How far a partition may be ahead of the others by default: the longest window and sixteen panes, microseconds.
    pub(crate) fn drift(&self) -> i64 {
        let specs = self.plan.cuts.iter().filter_map(|cut| cut.spec);
        specs.map(|spec| spec.size() + 16 * spec.pane_width()).max().unwrap_or(i64::MAX)
    }

    /// The plan as text; `topic` is where the output goes that is not inserted into anything.
    #[must_use]
    pub fn explain(&self, raw_topic: &str, topic: Option<&str>) -> String {
        let written: Vec<&str> = self.outputs.iter().filter_map(|output| output.name.as_deref().or(topic)).collect();
        let late: Vec<String> = written.iter().map(|topic| late_topic(topic)).collect();
        let list = |topics: &[&str]| if topics.is_empty() { "the console".to_owned() } else { topics.join(", ") };
        let late: Vec<&str> = late.iter().map(String::as_str).collect();
        format!(
            "job {}: watermark delay {}\nreads {raw_topic}; writes to {}; late rows to {}; progress in {JOBS_TOPIC}\n{}",
            self.name,
            self.delay,
            list(&written),
            if late.is_empty() { "--late-output".to_owned() } else { late.join(", ") },
            self.plan.explain()
        )
    }

    /// The JSON Schema of what the job writes: of its one output, or of any of several, each by its name.
    #[must_use]
    pub fn json_schema(&self) -> serde_json::Value {
        match self.outputs.as_slice() {
            [_] => json_schema(&self.written_schema(0), &self.name),
            several => {
                let name = |output: &Output| output.name.clone().unwrap_or_else(|| self.name.clone());
                let defined = several
                    .iter()
                    .enumerate()
                    .map(|(at, output)| (name(output), json_schema(&self.written_schema(at), &name(output))));
                let refs =
                    several.iter().map(|output| serde_json::json!({"$ref": format!("#/$defs/{}", name(output))}));
                serde_json::json!({
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "title": self.name,
                    "anyOf": refs.collect::<Vec<_>>(),
                    "$defs": defined.collect::<serde_json::Map<_, _>>(),
                })
            }
        }
    }

    /// The columns of an output; those that are a window's are never NULL, but over all time.
    pub(crate) fn written_schema(&self, output: usize) -> Schema {
        let query = &self.plan.queries[output];
        let bounded = query.kind == Kind::Windowed;
        let fields = query.schema.fields().iter().zip(&query.origins);
        let fields = fields.map(|(field, origin)| {
            field.as_ref().clone().with_nullable(field.is_nullable() && !(bounded && origin.is_local()))
        });
        Schema::new(fields.collect::<Vec<_>>())
    }

    /// Positions of the columns of an output that make a row's key: its window and its group.
    pub(crate) fn key_columns(&self, output: usize) -> Vec<usize> {
        let columns = self.plan.queries[output].origins.iter().enumerate();
        columns.filter(|(_, origin)| **origin != Origin::Value).map(|(at, _)| at).collect()
    }

    /// Whether rows of an output that belong to different windows differ in a column that says so.
    pub(crate) fn tells_windows_apart(&self, output: usize) -> bool {
        let query = &self.plan.queries[output];
        query.kind != Kind::Windowed || query.origins.iter().any(|origin| origin.is_local())
    }

    /// Position of the column of an output that is the window's end, or its start.
    pub(crate) fn end_column(&self, output: usize) -> Option<usize> {
        self.plan.queries[output].origins.iter().position(|origin| *origin == Origin::End)
    }

    /// Position of the column of an output that is the window's start.
    pub(crate) fn start_column(&self, output: usize) -> Option<usize> {
        self.plan.queries[output].origins.iter().position(|origin| matches!(origin, Origin::Start(_)))
    }
}

/// A session in which every plan is of one partition: workers are ours, and order within a window is kept.
fn session(memory: Memory) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(8 * 1024);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Above this ratio of groups to rows a partial aggregate passes rows through; state that is kept must not.
    options.execution.skip_partial_aggregation_probe_ratio_threshold = 1.0;
    // These two move field accesses towards the scan; over closed windows, where the window is a column with fields,
    // DataFusion 55.2 then ends up with one name twice.
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| !["extract_leaf_expressions", "push_down_leaf_projections"].contains(&rule.name()));
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory.operators(), 1.0).build_arc()?;
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let state = builder.with_optimizer_rules(rules).build();
    let mut context = SessionContext::new_with_state(state);
    register_functions(&mut context)?;
    Ok(context)
}

async fn plan_statement(state: &SessionState, statement: Statement) -> Result<datafusion::logical_expr::LogicalPlan> {
    state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await.map_err(job_error)
}

/// Planning reads no row: what DataFusion says then, in whatever sort of error, it says of the query.
fn of_planning(error: Error) -> Error {
    match std::error::Error::source(&error) {
        Some(said) if error.kind() == ErrorKind::Data => {
            let Words { message, hint, .. } = in_our_words(&said.to_string());
            match hint {
                Some(hint) => Error::job(message).with_hint(hint),
                None => Error::job(message),
            }
        }
        _ => error,
    }
}

/// An error of DataFusion's planner is one of the job's.
pub(crate) fn job_error(error: DataFusionError) -> Error {
    let place =
        error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| (span.start.line, span.start.column));
    let words = in_our_words(&error.strip_backtrace());
    let place = place.or(words.place);
    let help = || error.diagnostic().and_then(|diagnostic| diagnostic.helps.first()).map(|help| help.message.clone());
    let mut ours = Error::job(words.message);
    if let Some(hint) = words.hint.or_else(help) {
        ours = ours.with_hint(hint);
    }
    match place {
        Some((line, column)) => ours.with_caret(Some(format!("{line}:{column}"))),
        None => ours,
    }
}

/// Puts the line of SQL where a planner's error left its place.
pub(crate) fn place_caret(error: Error, sql: &str) -> Error {
    let place = error.caret().and_then(|place| {
        let (line, column) = place.split_once(':')?;
        caret(sql, line.parse().ok()?, column.parse().ok()?)
    });
    match place {
        Some(caret) => error.with_caret(Some(caret)),
        None => error,
    }
}
