//! A case through the engine, variant by variant, and whether each gives what the case expects.
//!
//! Nothing here reads a clock: rows carry no received time, and the end of input closes what is open. Why a variant
//! disagrees comes back as text, ready to print.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::compare::{Row, differences};
use super::epochs::{Epoch, SHUFFLED_PARTITIONS, in_order, shuffled};
use super::read::{Case, CaseTable};
use super::run::Run;
use super::script::Script;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobSource};
use crate::table::TableSpec;

/// Most epochs of the stream; a restart plans anew and costs more.
const STREAM_EPOCHS_MAX: u32 = 2_000;
const RESTARTS_MAX: u32 = 30;

/// A way to run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// All rows at once.
    Batch,
    /// One partition a table, rows in the order of the file, epochs of a few rows; or as the case's script says.
    Stream,
    /// Three partitions a table, rows and epochs as a seed says.
    Shuffled,
    /// As the stream, and after every epoch only a snapshot is left of the engine.
    Restarted,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Batch, Self::Stream, Self::Shuffled, Self::Restarted];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::Stream => "stream",
            Self::Shuffled => "shuffled",
            Self::Restarted => "restarted",
        })
    }
}

/// What came of a case.
#[derive(Debug, Default)]
pub struct Report {
    /// What agrees, by name.
    pub agrees: Vec<String>,
    /// What does not.
    pub differs: Vec<Differs>,
    /// What was refused, and the case says that it may be.
    pub waits: Vec<Differs>,
}

/// A part of a case that did not come out as expected.
#[derive(Debug)]
pub struct Differs {
    /// Name of the variant, or of what else was tried.
    pub what: String,
    /// How it differs, in one or more lines.
    pub how: String,
}

/// Runs those of `variants` that the case asks for, and its refusals; `seed` says how rows are shuffled.
///
/// The error of a run is an answer like another and stands in the report.
pub async fn play(case: &Case, variants: &[Variant], seed: u64) -> Report {
    let mut report = Report::default();
    if !case.refused.is_empty() {
        let outcome = Box::pin(refusals(case)).await;
        report.add(format!("{} refusals", case.refused.len()), outcome);
    }
    let Some(source) = &case.job else { return report };
    let player = match Box::pin(plan(case, source)).await.and_then(|job| Player::new(case, job, seed)) {
        Ok(player) => player,
        Err(error) => {
            report.refused("plan", &error, case);
            return report;
        }
    };
    for variant in variants {
        let name = variant.to_string();
        match (variant, case.stream, player.job.can_stream()) {
            (Variant::Stream, false, refusal) if case.endless => {
                report.add("no stream".to_owned(), Ok(accepted(refusal, player.job.over_all_time())));
            }
            (Variant::Stream | Variant::Shuffled | Variant::Restarted, true, Err(error)) => {
                report.refused(&name, &error, case);
            }
            _ if player.asked(*variant) => report.add(name, Box::pin(player.differs(*variant)).await),
            _ => {}
        }
    }
    report
}

impl Report {
    fn add(&mut self, what: String, outcome: Result<Option<String>>) {
        match outcome {
            Ok(None) => self.agrees.push(what),
            Ok(Some(how)) => self.differs.push(Differs { what, how }),
            Err(error) => self.differs.push(Differs { what, how: told(&error) }),
        }
    }

    /// A refusal that the case allows for is none of its failures; any other error is.
    fn refused(&mut self, what: &str, error: &Error, case: &Case) {
        let what = what.to_owned();
        match &case.may_wait {
            Some(why) if error.kind() == ErrorKind::Job => {
                self.waits.push(Differs { what, how: format!("{why}: {error}") });
            }
            _ => self.differs.push(Differs { what, how: told(error) }),
        }
    }
}

async fn plan(case: &Case, source: &JobSource) -> Result<Job> {
    let tables: Vec<TableSpec> = case.tables.iter().map(|table| table.spec.clone()).collect();
    Job::plan_over(source, &case.options, &tables).await
}

/// Statements that were planned although they must not be.
async fn refusals(case: &Case) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    for refused in &case.refused {
        let source = JobSource { name: case.name.clone(), sql: refused.sql.clone(), path: None };
        match plan(case, &source).await {
            Ok(_) => wrong.push(format!("{}: planned, and should be refused: {}", refused.why, refused.sql)),
            Err(error) if error.kind() == ErrorKind::Job => {}
            Err(error) => wrong.push(format!("{}: refused for another reason: {}", refused.why, told(&error))),
        }
    }
    Ok(joined(wrong))
}

/// What is wrong with the refusal of a stream that has to be refused.
///
/// A job over all time is refused when a stream without end starts, and not by its plan.
fn accepted(refusal: Result<()>, over_all_time: bool) -> Option<String> {
    match refusal {
        Ok(()) if over_all_time => None,
        Ok(()) => Some("the case has no window, and the job is taken as a stream".to_owned()),
        Err(error) if error.hint().is_none() => Some(format!("refused as a stream without a hint: {}", told(&error))),
        Err(_) => None,
    }
}

/// A planned case.
struct Player<'a> {
    case: &'a Case,
    job: Job,
    seed: u64,
    /// The tables that the job reads, in its order.
    tables: Vec<&'a CaseTable>,
}

impl<'a> Player<'a> {
    fn new(case: &'a Case, job: Job, seed: u64) -> Result<Self> {
        let mut tables = Vec::new();
        for spec in job.tables() {
            let table = case.tables.iter().find(|table| table.spec.name == spec.name);
            tables.push(table.ok_or_else(|| {
                Error::internal(format!("the job reads table `{}`, which its case has not", spec.name))
            })?);
        }
        Ok(Self { case, job, seed, tables })
    }

    /// Whether the case says what the variant must give.
    fn asked(&self, variant: Variant) -> bool {
        match variant {
            Variant::Batch => self.case.batch && self.case.expected.is_some(),
            Variant::Stream | Variant::Restarted => self.case.stream,
            // The rows of a script are late by their order, which a shuffle does not keep.
            Variant::Shuffled => self.case.stream && self.case.expected.is_some(),
        }
    }

    /// How `variant` differs from the case; none when it agrees.
    async fn differs(&self, variant: Variant) -> Result<Option<String>> {
        let lengths = self.tables.iter().map(|table| u32::try_from(table.rows.num_rows()));
        let lengths: Vec<u32> = lengths.collect::<std::result::Result<_, _>>().map_err(|why| {
            Error::new(ErrorKind::Config, "the input of a case has more rows than a case can have").with_source(why)
        })?;
        let restarted = variant == Variant::Restarted;
        match variant {
            Variant::Batch => self.batch().await,
            Variant::Shuffled => {
                let differs = self.stream(&shuffled(&lengths, self.seed), restarted).await?;
                Ok(differs.map(|text| format!("with seed {}\n{text}", self.seed)))
            }
            Variant::Stream | Variant::Restarted => {
                let mut found = Vec::new();
                if let Some(script) = &self.case.script {
                    found.extend(self.follow(script, restarted).await?);
                }
                if self.case.script.as_ref().is_none_or(|script| script.nothing_late) {
                    let epochs_max = if restarted { RESTARTS_MAX } else { STREAM_EPOCHS_MAX };
                    found.extend(self.stream(&in_order(&lengths, epochs_max), restarted).await?);
                }
                Ok(joined(found))
            }
        }
    }

    async fn batch(&self) -> Result<Option<String>> {
        let mut run = Run::start(&self.job, self.delays(), 1).await?;
        for (at, table) in self.tables.iter().enumerate() {
            run.rows(at, 0, &table.rows).await?;
        }
        run.finish().await?;
        run.bounded(&self.tables.iter().map(|table| &table.rows).collect::<Vec<_>>()).await?;
        self.judge(&run)
    }

    /// Hands `epochs` over; the end of input closes what is left.
    async fn stream(&self, epochs: &[Epoch], restarted: bool) -> Result<Option<String>> {
        let greatest = epochs.iter().flat_map(|epoch| &epoch.parts).map(|part| part.partition).max();
        let partitions = if greatest.unwrap_or(0) > 0 { SHUFFLED_PARTITIONS } else { 1 };
        let mut run = Run::start(&self.job, self.delays(), partitions).await?;
        let mut drained = BTreeSet::new();
        for epoch in epochs {
            for part in &epoch.parts {
                let rows = take_record_batch(&self.tables[part.table].rows, &UInt32Array::from(part.rows.clone()))?;
                run.rows(part.table, part.partition, &rows).await?;
            }
            drained.extend(&epoch.drained);
            run.end_epoch(&drained).await?;
            if restarted {
                run.restart().await?;
            }
        }
        run.finish().await?;
        self.judge(&run)
    }

    /// Follows a script; with `restarted` starting again before each step, and not only where it says so.
    async fn follow(&self, script: &Script, restarted: bool) -> Result<Option<String>> {
        let mut run = Run::start(&self.job, self.script_delays(script), 1).await?;
        let mut done = Vec::with_capacity(script.steps.len());
        for (at, step) in script.steps.iter().enumerate() {
            if (restarted && at > 0) || step.restart_before {
                run.restart().await?;
            }
            for (table, rows) in &step.rows {
                let name = &self.case.tables[*table].spec.name;
                if let Some(table) = self.tables.iter().position(|table| table.spec.name == *name) {
                    run.rows(table, 0, rows).await?;
                }
            }
            run.end_epoch(&BTreeSet::new()).await?;
            done.push(Done { rows: run.take_only(), watermark: run.watermark(), late: run.take_late() });
        }
        run.finish().await?;
        self.judge_script(script, &done, &run.take_only())
    }

    /// Delays with which no row is late: what the case says, or else the longest step back in its input.
    fn delays(&self) -> Vec<i64> {
        let delay = |table: &&CaseTable| table.delay.map_or_else(|| longest_step_back(table), event::Span::micros);
        self.tables.iter().map(delay).collect()
    }

    fn script_delays(&self, script: &Script) -> Vec<i64> {
        let delay = |table: &&CaseTable| {
            let said = script.delays.get(&table.spec.name).copied().or(table.script_delay).or(table.delay);
            said.unwrap_or_else(|| self.job.delay()).micros()
        };
        self.tables.iter().map(delay).collect()
    }

    /// A run whose every row was in time against the rows that the case expects.
    fn judge(&self, run: &Run<'_>) -> Result<Option<String>> {
        let mut wrong = Vec::new();
        if let (late, partly) = run.late()
            && late + partly > 0
        {
            wrong.push(format!("{late} rows came too late, {partly} more for some of their windows, and none should"));
        }
        let expected = self.case.expected.as_deref().unwrap_or_default();
        let alone = self.job.outputs().len() == 1;
        for (output, rows) in self.job.outputs().iter().zip(run.outputs()) {
            let found = expected.iter().find(|one| one.output == output.name || (alone && one.output.is_none()));
            let name = output.name.as_deref().unwrap_or("");
            let text = match found {
                Some(found) => differences(&output.schema, &found.rows, rows, self.case.tolerance)?,
                None => Some(format!("there is no expected.{name}.jsonl for this output")),
            };
            wrong.extend(text.map(|text| if alone { text } else { format!("output `{name}`\n{text}") }));
        }
        for one in expected.iter().filter_map(|expected| expected.output.as_deref()) {
            if !self.job.outputs().iter().any(|output| output.name.as_deref() == Some(one)) {
                wrong.push(format!("the job has no output `{one}`, for which there is expected.{one}.jsonl"));
            }
        }
        Ok(joined(wrong))
    }

    fn judge_script(&self, script: &Script, done: &[Done], end: &[RecordBatch]) -> Result<Option<String>> {
        let mut wrong = Vec::new();
        for (at, (step, found)) in script.steps.iter().zip(done).enumerate() {
            let number = at + 1;
            let emitted: Vec<RecordBatch> = match (step.so_far, script.lagging) {
                (true, _) => done[..=at].iter().flat_map(|done| done.rows.clone()).collect(),
                (false, false) => found.rows.clone(),
                (false, true) => at.checked_sub(1).map(|before| done[before].rows.clone()).unwrap_or_default(),
            };
            wrong.extend(self.unlike(&step.emit, &emitted)?.map(|text| format!("step {number}\n{text}")));
            if let Some(expected) = step.watermark
                && expected.map(event::EventTime::micros) != found.watermark
            {
                let (found, expected) = (time(found.watermark), time(expected.map(event::EventTime::micros)));
                wrong.push(format!("step {number}: the watermark is {found}, expected {expected}"));
            }
            if let Some(expected) = step.late
                && expected != found.late
            {
                let (found, expected) = (said(found.late), said(expected));
                wrong.push(format!("step {number}: {found}, expected {expected}"));
            }
        }
        if let Some(expected) = &script.end {
            let left = done.last().filter(|_| script.lagging).map(|done| done.rows.clone());
            let emitted: Vec<RecordBatch> = left.into_iter().flatten().chain(end.iter().cloned()).collect();
            wrong.extend(self.unlike(expected, &emitted)?.map(|text| format!("end of input\n{text}")));
        }
        Ok(joined(wrong))
    }

    fn unlike(&self, expected: &[Row], rows: &[RecordBatch]) -> Result<Option<String>> {
        match self.job.outputs() {
            [output] => differences(&output.schema, expected, rows, self.case.tolerance),
            outputs => {
                Err(Error::new(ErrorKind::Config, format!("a script needs one output, the job has {}", outputs.len()))
                    .with_hint("make a case of each output, or leave the script out"))
            }
        }
    }
}

/// What a step of a script did.
struct Done {
    rows: Vec<RecordBatch>,
    watermark: Option<i64>,
    late: (usize, usize),
}

/// How far, in microseconds, the event time of a table steps back below the greatest before it.
fn longest_step_back(table: &CaseTable) -> i64 {
    let column = table.spec.event_time.as_ref().and_then(|name| table.rows.column_by_name(name));
    let Some(times) = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>()) else { return 0 };
    let (mut greatest, mut longest) = (i64::MIN, 0);
    for time in times.iter().flatten() {
        longest = longest.max(greatest.saturating_sub(time));
        greatest = greatest.max(time);
    }
    longest
}

fn time(micros: Option<i64>) -> String {
    let time = micros.map(|micros| event::EventTime::from_micros(micros).map_or(micros.to_string(), |t| t.to_string()));
    time.unwrap_or_else(|| "unset".to_owned())
}

fn said((late, partly): (usize, usize)) -> String {
    format!("{late} late and {partly} partly late rows")
}

fn joined(lines: Vec<String>) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// An error as a person reads it: the chain of its causes, the place, the hint.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = StdError::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let caret = error.caret().map(|caret| format!("\n{caret}")).unwrap_or_default();
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("error: {text}{caret}{hint}")
}
