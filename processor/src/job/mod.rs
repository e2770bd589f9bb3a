//! A job: one `.sql` file, parsed, planned and checked, ready to run as a batch or as a stream.

mod parse;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use event::Span;
use event::schema::events_schema;

use crate::error::{Error, Result};
use crate::plan::JobPlan;
use crate::plan::functions::scalar_functions;
use crate::plan::locality::Origin;
use crate::plan::normalise::normalise;
use crate::plan::slot::SlotTable;
use parse::{Parsed, caret, parse};
use words::in_our_words;

/// Delay of the watermark where neither the command nor the job says otherwise.
pub const DEFAULT_DELAY: Span = Span::from_secs(600);
/// Window size where neither the command nor the job says otherwise.
const DEFAULT_WINDOW: &str = "1 hour";
/// The table of Nostr events.
const EVENTS: &str = "events";

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
    /// `${window}`; else the file's `SET job.window`, else one hour.
    pub window: Option<Span>,
    /// `${slide}`, and the slide of every `window(time, size)` without one; else tumbling.
    pub slide: Option<Span>,
    /// Delay of the watermark; else the file's `SET job.watermark`, else [`DEFAULT_DELAY`].
    pub delay: Option<Span>,
    /// Further `${name}`s.
    pub vars: Vec<(String, String)>,
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
    ]
}

/// A job, ready to run.
#[derive(Debug)]
pub struct Job {
    name: String,
    delay: Span,
    pub(crate) plan: JobPlan,
}

impl Job {
    /// Parses, plans and checks a job.
    ///
    /// # Errors
    /// `Job` with a hint, and a caret where the place is known, when the SQL cannot be run as a windowed job.
    pub async fn plan(source: &JobSource, options: &JobOptions) -> Result<Self> {
        let parsed = parse(source, options)?;
        let sql = parsed.sql.clone();
        Box::pin(Self::plan_parsed(parsed, source, options)).await.map_err(|error| place_caret(error, &sql))
    }

    async fn plan_parsed(parsed: Parsed, source: &JobSource, options: &JobOptions) -> Result<Self> {
        let context = session();
        let events = SlotTable { schema: events_schema(), filters: true };
        context.register_table(EVENTS, Arc::new(events))?;
        let slide = parsed.slide.as_deref();
        for (name, mut query) in parsed.views {
            normalise(&mut query, slide)?;
            let plan = plan_statement(&context.state(), query).await?;
            let view: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, None));
            context.register_table(name.as_str(), view)?;
        }
        let mut query = parsed.query;
        normalise(&mut query, slide)?;
        let plan = plan_statement(&context.state(), query).await?;
        let delay = options.delay.or(parsed.delay).unwrap_or(DEFAULT_DELAY);
        let name = parsed.name.unwrap_or_else(|| source.name.clone());
        Ok(Self { name, delay, plan: JobPlan::try_new(context.state(), plan)? })
    }

    /// Name: the file's, or what it says itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far the watermark trails the greatest time seen.
    #[must_use]
    pub const fn delay(&self) -> Span {
        self.delay
    }

    /// Size and slide of the windows.
    #[must_use]
    pub fn window(&self) -> (Span, Span) {
        (Span::from_micros(self.plan.cut.spec.size()), Span::from_micros(self.plan.cut.spec.slide()))
    }

    /// Columns of the output.
    #[must_use]
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.output)
    }

    /// The plan as text.
    #[must_use]
    pub fn explain(&self) -> String {
        format!("job {}: watermark delay {}\n{}", self.name, self.delay, self.plan.explain())
    }

    /// Positions of the output columns that make a row's key: its window and its group.
    pub(crate) fn key_columns(&self) -> Vec<usize> {
        let columns = self.plan.origins.iter().enumerate();
        columns.filter(|(_, origin)| **origin != Origin::Value).map(|(at, _)| at).collect()
    }

    /// Position of the output column that is the window's end or start.
    pub(crate) fn column_of(&self, wanted: Origin) -> Option<usize> {
        self.plan.origins.iter().position(|origin| *origin == wanted)
    }
}

/// A session in which every plan is of one partition: workers are ours, and order within a window is kept.
fn session() -> SessionContext {
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
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    let state = builder.with_optimizer_rules(rules).build();
    let context = SessionContext::new_with_state(state);
    for function in scalar_functions() {
        context.register_udf(function);
    }
    context
}

async fn plan_statement(state: &SessionState, statement: Statement) -> Result<datafusion::logical_expr::LogicalPlan> {
    state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await.map_err(job_error)
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
