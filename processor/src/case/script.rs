//! A script of epochs with what each must emit: `steps.json`, or the `[[stream.step]]` of a `case.toml`, as one form.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use event::{EventTime, Span};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::compare::Row;
use super::read::{CaseTable, instant, span};
use super::rows::Record;
use crate::error::{Error, ErrorKind, Result};

/// Epochs in their order, and what a run that follows them must do.
#[derive(Debug)]
pub(super) struct Script {
    /// Delay of each table's watermark; a table without one has the job's.
    pub(super) delays: BTreeMap<String, Span>,
    /// Whether windows leave one epoch after the watermark has passed them.
    pub(super) lagging: bool,
    /// Whether no row of it is late, so that the rows that the case expects are those of its stream too.
    pub(super) nothing_late: bool,
    pub(super) steps: Vec<Step>,
    /// What the end of input must emit on top, where the case says so.
    pub(super) end: Option<Vec<Row>>,
}

/// One epoch.
#[derive(Debug)]
pub(super) struct Step {
    /// Rows by the place of their table in the case.
    pub(super) rows: Vec<(usize, RecordBatch)>,
    pub(super) restart_before: bool,
    /// Rows that the epoch must emit.
    pub(super) emit: Vec<Row>,
    /// Whether `emit` holds all rows since the first epoch.
    pub(super) so_far: bool,
    /// The watermark at the end of the epoch, which may be unset; none where the case does not say.
    pub(super) watermark: Option<Option<EventTime>>,
    /// Rows that came too late for all, and for some, of their windows, where the case says so.
    pub(super) late: Option<(usize, usize)>,
}

/// `steps.json` as it is written.
#[derive(Deserialize)]
struct StepsFile {
    #[serde(default)]
    output_mode: Option<String>,
    #[serde(default)]
    watermark_delay: BTreeMap<String, String>,
    #[serde(default = "yes")]
    empty_epoch_after_step: bool,
    steps: Vec<StepEntry>,
    #[serde(default)]
    end_of_input: Option<Vec<Row>>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct StepEntry {
    #[serde(default)]
    restart_before: bool,
    /// Texts and not values: the bytes of a Nostr event are a column.
    add: BTreeMap<String, Vec<Box<RawValue>>>,
    emit: Vec<Row>,
    #[serde(default, deserialize_with = "given")]
    watermark_after: Option<Option<String>>,
    #[serde(default)]
    late_rows: Option<usize>,
    #[serde(default)]
    partly_late_rows: Option<usize>,
}

/// Null is an answer, which a key that is absent is not.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads `steps.json`.
///
/// # Errors
/// `Config` when it is not of its form, or names a table that the case has not.
pub(super) fn steps(text: &str, tables: &[CaseTable]) -> Result<Script> {
    let file: StepsFile = serde_json::from_str(text).map_err(|why| {
        wrong("`steps.json` is not of its form")
            .with_source(why)
            .with_hint("an object with `steps`; each step has `add`, `emit` and `watermark_after`")
    })?;
    if let Some(mode) = file.output_mode.filter(|mode| mode != "append") {
        return Err(wrong(format!("`steps.json` asks for output mode `{mode}`"))
            .with_hint("a window is emitted once, when it is closed: mode `append`"));
    }
    let mut delays = BTreeMap::new();
    for (table, delay) in &file.watermark_delay {
        delays.insert(table.clone(), span(delay)?);
    }
    let steps = file.steps.into_iter().enumerate().map(|(at, entry)| step(entry, at + 1, tables));
    Ok(Script {
        delays,
        lagging: !file.empty_epoch_after_step,
        nothing_late: false,
        steps: steps.collect::<Result<_>>()?,
        end: file.end_of_input,
    })
}

fn step(entry: StepEntry, number: usize, tables: &[CaseTable]) -> Result<Step> {
    let mut rows = Vec::new();
    for (name, added) in &entry.add {
        let table = tables.iter().position(|table| table.spec.name == *name).ok_or_else(|| {
            let known: Vec<&str> = tables.iter().map(|table| table.spec.name.as_str()).collect();
            wrong(format!("step {number} of `steps.json` adds to table `{name}`, which the case has not"))
                .with_hint(format!("the tables are {}", known.join(", ")))
        })?;
        let place = |row: usize| format!("`steps.json`, step {number}, row {} of `{name}`", row + 1);
        let records = added.iter().enumerate().map(|(row, text)| Record { place: place(row), text: text.get() });
        rows.push((table, tables[table].read(&records.collect::<Vec<_>>())?));
    }
    let late = match (entry.late_rows, entry.partly_late_rows) {
        (None, None) => None,
        (late, partly) => Some((late.unwrap_or(0), partly.unwrap_or(0))),
    };
    let watermark = match entry.watermark_after {
        Some(Some(text)) => Some(Some(instant(&text)?)),
        Some(None) => Some(None),
        None => None,
    };
    Ok(Step { rows, restart_before: entry.restart_before, emit: entry.emit, so_far: false, watermark, late })
}

/// A step of `case.toml`: all that was emitted after so many rows of the only table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamStep {
    pub(super) after_input_rows: usize,
    pub(super) watermark_reached: String,
    pub(super) expected: String,
}

/// The script that `[[stream.step]]` describes; `expected` reads a file of rows.
///
/// # Errors
/// `Config` when the steps go backwards or beyond the input, or there is not exactly one table.
pub(super) fn stream_steps(
    entries: &[StreamStep],
    tables: &[CaseTable],
    expected: impl Fn(&str) -> Result<Vec<Row>>,
) -> Result<Script> {
    let [table] = tables else {
        return Err(wrong("`[[stream.step]]` needs a case of one table").with_hint("use steps.json"));
    };
    let mut steps = Vec::with_capacity(entries.len());
    let mut done = 0;
    for entry in entries {
        let end = entry.after_input_rows;
        if end < done || end > table.rows.num_rows() {
            return Err(wrong(format!("a `[[stream.step]]` ends after row {end} of {}", table.rows.num_rows()))
                .with_hint("steps stand in the order of the rows"));
        }
        steps.push(Step {
            rows: vec![(0, table.rows.slice(done, end - done))],
            restart_before: false,
            emit: expected(&entry.expected)?,
            so_far: true,
            watermark: Some(Some(instant(&entry.watermark_reached)?)),
            late: None,
        });
        done = end;
    }
    Ok(Script { delays: BTreeMap::new(), lagging: false, nothing_late: true, steps, end: None })
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
