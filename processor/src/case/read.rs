//! A case: a folder with a job, its input and what it must give, read and checked as far as can be without planning.
//!
//! | file | what |
//! |---|---|
//! | `job.sql` | the job, or the file that `job` in `case.toml` names |
//! | `case.toml` | tables, modes, delays; without it the case is of `events` alone, in both modes |
//! | `input.jsonl`, `input.TABLE.jsonl` | rows of the only table, or of one of several |
//! | `expected.jsonl`, `expected.OUTPUT.jsonl` | rows of the only output, or of one of several, when nothing is late |
//! | `steps.json` | a script of epochs, see `script` |
//! | `refused.json` | statements that must be refused |
//!
//! `case.toml` has two forms side by side, `[[table]]` with a name and `[tables.NAME]`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use event::{EventTime, Span, Table};
use serde::Deserialize;

use super::compare::Row;
use super::rows::{self, Record};
use super::script::{self, Script, StreamStep};
use super::types;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobOptions, JobSource};
use crate::table::TableSpec;

/// The feature of cases for batch alone whose job has to be refused as a stream. Others are for batch alone because
/// rows of theirs would come too late.
const NO_WINDOW: &str = "no window";

/// A job with its input and what it must give.
#[derive(Debug)]
pub struct Case {
    pub(super) name: String,
    /// None in a case of refusals alone.
    pub(super) job: Option<JobSource>,
    pub(super) options: JobOptions,
    pub(super) tables: Vec<CaseTable>,
    pub(super) batch: bool,
    pub(super) stream: bool,
    /// Whether the job has to be refused as a stream: nothing in it ever ends.
    pub(super) endless: bool,
    /// Why a refusal of the job is no failure: words of `case.toml`.
    pub(super) may_wait: Option<String>,
    /// Relative, for floats.
    pub(super) tolerance: f64,
    /// What comes out when nothing is late; none where the case has a script only.
    pub(super) expected: Option<Vec<Expected>>,
    pub(super) script: Option<Script>,
    pub(super) refused: Vec<Refused>,
}

/// A table of a case.
#[derive(Debug)]
pub(super) struct CaseTable {
    pub(super) spec: TableSpec,
    /// All rows in the order of the file.
    pub(super) rows: RecordBatch,
    /// Delay of the watermark with which no row is late, where the case says one.
    pub(super) delay: Option<Span>,
    /// Delay in a script, where the table says one.
    pub(super) script_delay: Option<Span>,
    /// The table of topics whose whole records its rows are, if they are.
    whole: Option<Table>,
}

/// Rows that an output must hold.
#[derive(Debug)]
pub(super) struct Expected {
    /// Name of the output; none is the only one.
    pub(super) output: Option<String>,
    pub(super) rows: Vec<Row>,
}

/// A statement that planning must refuse.
#[derive(Debug, Deserialize)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) sql: String,
}

/// What of `case.toml` is read; the other keys of [`TOP_KEYS`] are for people.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CaseFile {
    job: Option<PathBuf>,
    window: Option<String>,
    slide: Option<String>,
    vars: BTreeMap<String, String>,
    modes: Option<Vec<String>>,
    status: Option<String>,
    optional: bool,
    requires: Vec<String>,
    features: Vec<String>,
    ordered: bool,
    float_tolerance: f64,
    table: Vec<TableEntry>,
    tables: BTreeMap<String, TableEntry>,
    batch: BatchEntry,
    stream: StreamEntry,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TableEntry {
    name: Option<String>,
    file: Option<PathBuf>,
    event_time: Option<String>,
    min_delay: Option<String>,
    watermark_delay: Option<String>,
    columns: Option<toml::Table>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BatchEntry {
    expected: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEntry {
    watermark: Option<String>,
    step: Vec<StreamStep>,
}

const TOP_KEYS: [&str; 23] = [
    "batch",
    "decimal_columns",
    "expected",
    "features",
    "float_tolerance",
    "job",
    "modes",
    "name",
    "notes",
    "optional",
    "ordered",
    "requires",
    "rows",
    "slide",
    "source",
    "source_columns",
    "status",
    "stream",
    "table",
    "tables",
    "vars",
    "verified",
    "window",
];
const TABLE_KEYS: [&str; 10] = [
    "columns",
    "event_time",
    "event_time_type",
    "file",
    "largest_step_back_seconds",
    "min_delay",
    "name",
    "rows",
    "rows_out_of_order",
    "watermark_delay",
];

impl Case {
    /// Reads the case in folder `dir`.
    ///
    /// # Errors
    /// `Config`, with the file and where possible the line, when a file is absent or not of its form.
    pub fn read(dir: &Path) -> Result<Self> {
        let folder = Folder { dir };
        let file = folder.case_file()?;
        if file.ordered {
            return Err(wrong("`ordered = true` in `case.toml`").with_hint("rows are compared in any order; use false"));
        }
        let (batch, stream) = modes(file.modes.as_deref())?;
        let tables = folder.tables(&file)?;
        let refused: Vec<Refused> = match folder.optional("refused.json")? {
            Some(text) => serde_json::from_str(&text).map_err(|why| {
                wrong("`refused.json` is not of its form")
                    .with_source(why)
                    .with_hint("a list of {\"why\": …, \"sql\": …}")
            })?,
            None => Vec::new(),
        };
        let job = folder.job(&file, !refused.is_empty())?;
        let expected = folder.expected(&file)?;
        let script = match folder.optional("steps.json")? {
            Some(text) => Some(script::steps(&text, &tables)?),
            None if file.stream.step.is_empty() => None,
            None => Some(script::stream_steps(&file.stream.step, &tables, |name| folder.objects(Path::new(name)))?),
        };
        if job.is_some() && expected.is_none() && (script.is_none() || batch) {
            return Err(wrong(format!("case `{}` does not say what its job must give", folder.name()))
                .with_hint("write the rows into expected.jsonl, one object a line"));
        }
        let options = JobOptions {
            window: file.window.as_deref().map(window).transpose()?,
            slide: file.slide.as_deref().map(span).transpose()?,
            vars: file.vars.clone().into_iter().collect(),
            ..JobOptions::default()
        };
        let (may_wait, tolerance) = (file.may_wait(), file.float_tolerance);
        let endless = !stream && file.features.iter().any(|feature| feature == NO_WINDOW);
        let name = folder.name();
        Ok(Self { name, job, options, tables, batch, stream, endless, may_wait, tolerance, expected, script, refused })
    }

    /// Name of its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl CaseFile {
    fn may_wait(&self) -> Option<String> {
        if let Some(status) = self.status.as_ref().filter(|status| *status == "later") {
            return Some(format!("status {status}"));
        }
        if self.optional {
            return Some("optional".to_owned());
        }
        (!self.requires.is_empty()).then(|| format!("requires {}", self.requires.join(", ")))
    }
}

impl CaseTable {
    /// Rows of this table from their texts.
    ///
    /// # Errors
    /// `Config` when one does not fit.
    pub(super) fn read(&self, records: &[Record<'_>]) -> Result<RecordBatch> {
        match self.whole {
            Some(table) => rows::whole(records, table),
            None => rows::rows(records, &self.spec.schema),
        }
    }
}

/// The folder of a case; paths in a case are relative to it.
struct Folder<'a> {
    dir: &'a Path,
}

impl Folder<'_> {
    fn name(&self) -> String {
        let name = self.dir.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.dir.display().to_string())
    }

    fn text(&self, file: &Path) -> Result<String> {
        fs::read_to_string(self.dir.join(file)).map_err(|why| {
            wrong(format!("could not read `{}` of case `{}`", file.display(), self.name())).with_source(why)
        })
    }

    fn optional(&self, file: &str) -> Result<Option<String>> {
        if self.dir.join(file).exists() { self.text(Path::new(file)).map(Some) } else { Ok(None) }
    }

    fn case_file(&self) -> Result<CaseFile> {
        let Some(text) = self.optional("case.toml")? else { return Ok(CaseFile::default()) };
        let refused = |why: toml::de::Error| {
            let line = why.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            wrong(format!("`case.toml`, line {line}: {}", why.message().trim()))
        };
        let whole: toml::Table = toml::from_str(&text).map_err(refused)?;
        known_keys(&whole, &TOP_KEYS, "`case.toml`")?;
        for entry in whole.get("table").and_then(toml::Value::as_array).into_iter().flatten() {
            known_keys_of(entry, "a `[[table]]` of `case.toml`")?;
        }
        for (name, entry) in whole.get("tables").and_then(toml::Value::as_table).into_iter().flatten() {
            known_keys_of(entry, &format!("`[tables.{name}]` of `case.toml`"))?;
        }
        toml::from_str(&text).map_err(refused)
    }

    fn job(&self, file: &CaseFile, only_refusals: bool) -> Result<Option<JobSource>> {
        let path = file.job.clone().unwrap_or_else(|| PathBuf::from("job.sql"));
        if only_refusals && file.job.is_none() && !self.dir.join(&path).exists() {
            return Ok(None);
        }
        let sql = self.text(&path)?;
        Ok(Some(JobSource { name: self.name(), sql, path: Some(self.dir.join(path)) }))
    }

    fn tables(&self, file: &CaseFile) -> Result<Vec<CaseTable>> {
        let mut entries: Vec<(String, &TableEntry)> = Vec::new();
        for entry in &file.table {
            let name = entry.name.clone().ok_or_else(|| wrong("a `[[table]]` of `case.toml` has no name"))?;
            entries.push((name, entry));
        }
        entries.extend(file.tables.iter().map(|(name, entry)| (name.clone(), entry)));
        let default = TableEntry::default();
        if entries.is_empty() {
            entries.push((Table::Events.name().to_owned(), &default));
        }
        let watermark = file.stream.watermark.as_deref().map(span).transpose()?;
        let alone = entries.len() == 1;
        let mut tables: Vec<CaseTable> = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if tables.iter().any(|table| table.spec.name == name) {
                return Err(wrong(format!("`case.toml` has table `{name}` twice")));
            }
            let mut table = self.table(&name, entry, alone)?;
            // Of two delays each of which is enough the larger is.
            table.delay = table.delay.max(watermark);
            tables.push(table);
        }
        Ok(tables)
    }

    fn table(&self, name: &str, entry: &TableEntry, alone: bool) -> Result<CaseTable> {
        let (schema, whole) = match (&entry.columns, Table::named(name)) {
            (Some(columns), _) => (types::schema(name, columns)?, None),
            (None, Some(table)) => (table.schema(), Some(table)),
            (None, None) => {
                return Err(wrong(format!("table `{name}` has no columns")).with_hint(
                    "columns = { name = \"type\", … }; only `events`, `sightings` and `market` have their own",
                ));
            }
        };
        let event_time = entry.event_time.clone().or_else(|| whole.map(|table| table.event_time().to_owned()));
        if let Some(column) = &event_time {
            match schema.field_with_name(column).map(|field| field.data_type()) {
                Ok(DataType::Timestamp(..)) => {}
                Ok(_) => return Err(wrong(format!("event time `{column}` of table `{name}` is no timestamp"))),
                Err(_) => return Err(wrong(format!("event time `{column}` of table `{name}` is none of its columns"))),
            }
        }
        let default = if alone { "input.jsonl".to_owned() } else { format!("input.{name}.jsonl") };
        let file = entry.file.clone().unwrap_or_else(|| PathBuf::from(default));
        let rows = RecordBatch::new_empty(std::sync::Arc::clone(&schema));
        let delay = entry.min_delay.as_deref().map(span).transpose()?;
        let script_delay = entry.watermark_delay.as_deref().map(span).transpose()?;
        let spec = TableSpec { name: name.to_owned(), schema, event_time };
        let mut table = CaseTable { spec, rows, delay, script_delay, whole };
        let text = self.text(&file)?;
        table.rows = table.read(&rows::lines(&file.display().to_string(), &text))?;
        Ok(table)
    }

    /// What comes out when nothing is late.
    fn expected(&self, file: &CaseFile) -> Result<Option<Vec<Expected>>> {
        let only = |rows| Some(vec![Expected { output: None, rows }]);
        if let Some(path) = &file.batch.expected {
            return self.objects(path).map(only);
        }
        if self.dir.join("expected.jsonl").exists() {
            return self.objects(Path::new("expected.jsonl")).map(only);
        }
        let mut found = Vec::new();
        let listed = fs::read_dir(self.dir)
            .map_err(|why| wrong(format!("could not list the folder of case `{}`", self.name())).with_source(why))?;
        for entry in listed {
            let name = entry.map_err(|why| wrong("could not list a folder").with_source(why))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if let Some(output) = name.strip_prefix("expected.").and_then(|rest| rest.strip_suffix(".jsonl")) {
                found.push(Expected { output: Some(output.to_owned()), rows: self.objects(Path::new(&name))? });
            }
        }
        found.sort_by(|a, b| a.output.cmp(&b.output));
        Ok((!found.is_empty()).then_some(found))
    }

    fn objects(&self, file: &Path) -> Result<Vec<Row>> {
        let text = self.text(file)?;
        rows::lines(&file.display().to_string(), &text).iter().map(rows::object).collect()
    }
}

/// The cases at or below `root`: their folders with a name each, which is the path below `root`; sorted.
///
/// A folder that holds a `case.toml` or a `job.sql` is a case, and none is looked for below it. Folders whose name
/// begins with `_` or `.` are passed over.
///
/// # Errors
/// `Config` when a folder cannot be listed, or there is no case.
pub fn find_cases(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        if ["case.toml", "job.sql"].iter().any(|file| dir.join(file).is_file()) {
            let below = dir.strip_prefix(root).unwrap_or(&dir).display().to_string();
            let name = if below.is_empty() { Folder { dir: &dir }.name() } else { below };
            found.push((name, dir));
            continue;
        }
        let unreadable = |why| wrong(format!("could not list folder `{}`", dir.display())).with_source(why);
        for entry in fs::read_dir(&dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
            if path.is_dir() && !hidden {
                open.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(wrong(format!("there is no case in folder `{}`", root.display()))
            .with_hint("a case is a folder with job.sql, input.jsonl, expected.jsonl and, where the table is not `events`, case.toml"));
    }
    found.sort();
    Ok(found)
}

fn modes(written: Option<&[String]>) -> Result<(bool, bool)> {
    let Some(modes) = written else { return Ok((true, true)) };
    if let Some(other) = modes.iter().find(|mode| !["batch", "stream"].contains(&mode.as_str())) {
        return Err(wrong(format!("`case.toml` has mode `{other}`")).with_hint("the modes are batch and stream"));
    }
    let has = |mode: &str| modes.iter().any(|written| written == mode);
    Ok((has("batch"), has("stream")))
}

fn known_keys(table: &toml::Table, known: &[&str], place: &str) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(wrong(format!("{place} has the key `{key}`, which says nothing"))
            .with_hint(format!("the keys are {}", known.join(", ")))),
        None => Ok(()),
    }
}

fn known_keys_of(entry: &toml::Value, place: &str) -> Result<()> {
    entry.as_table().map_or(Ok(()), |entry| known_keys(entry, &TABLE_KEYS, place))
}

/// A duration of a case.
pub(super) fn span(text: &str) -> Result<Span> {
    Span::parse(text).map_err(wrong)
}

fn window(text: &str) -> Result<Span> {
    Span::parse_window(text).map_err(wrong)
}

/// An instant of a case; never relative.
pub(super) fn instant(text: &str) -> Result<EventTime> {
    EventTime::parse(text, EventTime::MIN).map_err(wrong)
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
