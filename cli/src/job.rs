//! Options that every job command shares: which job, how long its windows, what replaces its variables.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use event::{Clock, EventTime, Span};
use processor::{Job, JobOptions, JobSource, Memory, built_in_jobs};

use crate::error::Failure;
use crate::place::key_value;

/// A job and what its file leaves open.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// A built-in job (activity, dvm, hashtags, kinds, reactions, relays; of the market global, collections, all,
    /// market_totals, collection_totals, top_collections, top_assets) or a path ending in .sql
    pub(crate) job: String,

    /// Length of a window, as '1 hour', 90s or PT1H30M, or 'all time' [default: what the job file says]
    #[arg(value_parser = Span::parse_window)]
    pub(crate) window: Option<Span>,

    /// Time between the starts of two windows [default: the window's length]
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    pub(crate) slide_duration: Option<Span>,

    /// How far a stream's watermark trails the newest event [default: 10 minutes]
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    pub(crate) watermark_duration: Option<Span>,

    /// A value for ${NAME} in the job file; repeatable
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) vars: Vec<(String, String)>,

    /// How much memory the job may use, as 512MiB or 4GiB; beyond it, state goes to files
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "2GiB")]
    pub(crate) memory: Memory,
}

impl JobArgs {
    /// Reads and plans the job.
    pub(crate) async fn plan(&self) -> Result<Job, Failure> {
        let options = JobOptions {
            window: self.window,
            slide: self.slide_duration,
            delay: self.watermark_duration,
            vars: self.vars.clone(),
            memory: self.memory,
        };
        plan(&self.job, &options).await
    }
}

/// A size in bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|_| format!("`{text}` is no size; write 512MiB or 4GiB"))?;
    Ok(size.as_u64())
}

/// The memory of a job.
pub(crate) fn memory(text: &str) -> Result<Memory, String> {
    let bytes = usize::try_from(size(text)?).unwrap_or(usize::MAX);
    Memory::new(bytes).ok_or_else(|| "a job needs at least 32MiB".to_owned())
}

/// Reads and plans the job that `job` names.
pub(crate) async fn plan(job: &str, options: &JobOptions) -> Result<Job, Failure> {
    // DataFusion's planner makes for a large future.
    Ok(Box::pin(Job::plan(&source(job)?, options)).await?)
}

/// An instant on the command line: naive is UTC, `-7d` counts from now.
pub(crate) fn time(text: &str) -> Result<EventTime, String> {
    let now = EventTime::from_millis(Clock::system().now_ms()).ok_or("the system's clock is out of range")?;
    EventTime::parse(text, now)
}

/// Finds a job by its name, or by its path.
fn source(job: &str) -> Result<JobSource, Failure> {
    if Path::new(job).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
        return from_file(PathBuf::from(job));
    }
    match built_in_jobs().iter().find(|(name, _)| *name == job) {
        Some((name, sql)) => Ok(JobSource { name: (*name).to_owned(), sql: (*sql).to_owned(), path: None }),
        None => Err(unknown(job)),
    }
}

fn from_file(path: PathBuf) -> Result<JobSource, Failure> {
    let sql = std::fs::read_to_string(&path)
        .map_err(|why| Failure::usage(format!("could not read job file `{}`: {why}", path.display())))?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(JobSource { name, sql, path: Some(path) })
}

fn unknown(job: &str) -> Failure {
    let names: Vec<&str> = built_in_jobs().iter().map(|(name, _)| *name).collect();
    let nearest = names.iter().map(|name| (distance(name, job), *name)).min();
    let guess = match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 3 => format!("did you mean `{name}`? "),
        _ => String::new(),
    };
    Failure::usage(format!("there is no job `{job}`"))
        .hint(format!("{guess}built in are {}; a path to a job file ends in .sql", names.join(", ")))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_edits() {
        for (a, b, edits) in
            [("kinds", "kinds", 0), ("kinds", "kind", 1), ("kinds", "kidns", 2), ("", "abc", 3), ("abc", "", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
