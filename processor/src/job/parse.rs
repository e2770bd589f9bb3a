//! The text of a job file to its statements: settings, views and the query.
//!
//! `SET job.name = 'value';` stands on a line of its own and is read before `${…}` are put in, since it gives their
//! defaults. What is left is parsed in Spark's dialect.

use datafusion::sql::sqlparser::ast::{Insert, Statement};
use datafusion::sql::sqlparser::parser::Parser;
use event::Span;

use super::words::syntax;
use super::{DEFAULT_WINDOW, JobOptions, JobSource};
use crate::error::{Error, Result};
use crate::plan::dialect::JobDialect;

/// A job file, taken apart.
pub(super) struct Parsed {
    pub(super) name: Option<String>,
    pub(super) slide: Option<String>,
    pub(super) delay: Option<Span>,
    /// Length of `${window}` and of the slide.
    pub(super) window: (Span, Span),
    pub(super) views: Vec<(String, Statement)>,
    /// Queries, each with what it is inserted into.
    pub(super) queries: Vec<(Option<String>, Statement)>,
    /// The text that was parsed, for carets.
    pub(super) sql: String,
}

#[derive(Default)]
struct Settings {
    name: Option<String>,
    window: Option<String>,
    slide: Option<String>,
    watermark: Option<Span>,
    /// What `${…}` stand for where the command says nothing.
    vars: Vec<(String, String)>,
}

/// Takes a job file apart.
pub(super) fn parse(source: &JobSource, options: &JobOptions) -> Result<Parsed> {
    let (settings, text) = settings(&source.sql)?;
    let window = options.window.map_or_else(
        || settings.window.clone().unwrap_or_else(|| DEFAULT_WINDOW.to_owned()),
        |window| window.to_string(),
    );
    let length = |text: &str| Span::parse_window(text).map_err(Error::job);
    let size = length(&window)?;
    let slide = match (options.slide, size == Span::ALL_TIME) {
        (Some(_), true) => {
            return Err(Error::job("a window over all time has no slide").with_hint("leave --slide-duration out"));
        }
        // The slide of the file is that of its windows with a length.
        (None, true) => None,
        (slide, false) => slide.map(|slide| slide.to_string()).or(settings.slide),
    };
    let lengths = (size, slide.as_deref().map_or(Ok(size), length)?);
    let mut vars = settings.vars;
    vars.push(("window_name".to_owned(), size.words().replace(' ', "_")));
    vars.push(("window".to_owned(), window.clone()));
    vars.push(("slide".to_owned(), slide.clone().unwrap_or(window)));
    vars.extend(options.vars.iter().cloned());
    let sql = substitute(&text, &vars)?;
    let statements = Parser::new(&JobDialect::default())
        .try_with_sql(&sql)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| syntax_error(&error.to_string(), &sql))?;
    let mut views = Vec::new();
    let mut queries = Vec::new();
    for statement in statements {
        match statement {
            Statement::CreateView(view) => views.push((view.name.to_string(), Statement::Query(view.query))),
            Statement::Query(_) => queries.push((None, statement)),
            Statement::Insert(insert) => queries.push(inserted(insert)?),
            other => return Err(refused(&other)),
        }
    }
    if queries.is_empty() {
        return Err(Error::job("the job has no query").with_hint("end the file with a SELECT … GROUP BY window(…)"));
    }
    let unnamed = queries.iter().filter(|(name, _)| name.is_none()).count();
    if queries.len() > 1 && unnamed > 1 {
        return Err(Error::job("the job has more than one SELECT that goes nowhere")
            .with_hint("write INSERT INTO <topic> before each; what only helps another may be a view"));
    }
    let names: Vec<&String> = queries.iter().filter_map(|(name, _)| name.as_ref()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::job(format!("the job inserts into `{name}` twice"))
            .with_hint("put the two SELECTs together with UNION ALL"));
    }
    Ok(Parsed { name: settings.name, slide, delay: settings.watermark, window: lengths, views, queries, sql })
}

/// The query of an INSERT and the name of what it goes to.
fn inserted(insert: Insert) -> Result<(Option<String>, Statement)> {
    let text = insert.table.to_string();
    let name = text.trim_matches('`').to_owned();
    if !insert.columns.is_empty() {
        return Err(Error::job(format!("INSERT INTO `{name}` names columns"))
            .with_hint("name them in the SELECT: its columns are the record's"));
    }
    match insert.source {
        Some(query) => Ok((Some(name), Statement::Query(query))),
        None => Err(Error::job(format!("INSERT INTO `{name}` has no SELECT"))),
    }
}

fn refused(statement: &Statement) -> Error {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let error = Error::job(format!("a job file cannot hold `{} …`", words.join(" ")));
    error.with_hint("a job is SET job.…, CREATE VIEW, and SELECTs, each of which may be inserted INTO a topic")
}

/// Reads the `SET job.…` lines and blanks them, so that places in the rest stay.
fn settings(sql: &str) -> Result<(Settings, String)> {
    let mut settings = Settings::default();
    let mut rest = String::with_capacity(sql.len());
    for line in sql.split_inclusive('\n') {
        let trimmed = line.trim();
        let is_set = trimmed.len() > 8 && trimmed.is_char_boundary(8) && trimmed[..8].eq_ignore_ascii_case("set job.");
        if !is_set {
            rest.push_str(line);
            continue;
        }
        rest.push('\n');
        let text = trimmed.split("--").next().unwrap_or(trimmed).trim().trim_end_matches(';');
        let (name, value) = text[8..].split_once('=').ok_or_else(|| {
            Error::job(format!("`{text}` has no value")).with_hint("write SET job.watermark = '10 minutes';")
        })?;
        let value = value.trim().trim_matches('\'').to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "name" => settings.name = Some(value),
            "window" => settings.window = Some(value),
            "slide" => settings.slide = Some(value),
            "watermark" => settings.watermark = Some(Span::parse(&value).map_err(Error::job)?),
            other if other.strip_prefix("var.").is_some_and(|var| !var.is_empty()) => {
                settings.vars.push((name.trim()["var.".len()..].to_owned(), value));
            }
            other => {
                return Err(Error::job(format!("there is no setting `job.{other}`"))
                    .with_hint("the settings are job.name, job.window, job.slide, job.watermark and job.var.NAME"));
            }
        }
    }
    Ok((settings, rest))
}

/// Puts the values of `${name}` in.
fn substitute(text: &str, vars: &[(String, String)]) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        let end = tail.find('}').ok_or_else(|| Error::job("a `${` has no `}`"))?;
        let name = &tail[..end];
        let (_, value) = vars.iter().rev().find(|(var, _)| var == name).ok_or_else(|| {
            Error::job(format!("the variable `{name}` has no value")).with_hint(format!("give it with --var {name}=…"))
        })?;
        out.push_str(value);
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn syntax_error(message: &str, sql: &str) -> Error {
    let words = syntax(message.trim_start_matches("sql parser error: "));
    let error = Error::job(words.message);
    match words.place {
        Some((line, column)) => error.with_caret(caret(sql, line, column)),
        None => error,
    }
}

/// The line of `sql` with a caret below the column; both count from one.
pub(super) fn caret(sql: &str, line: u64, column: u64) -> Option<String> {
    let text = sql.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let number = line.to_string();
    let before = " ".repeat(usize::try_from(column.saturating_sub(1)).ok()?);
    Some(format!("{number} | {text}\n{} | {before}^", " ".repeat(number.len())))
}
