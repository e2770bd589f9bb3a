//! `tidegate test DIR…`: jobs against the rows that they must give, without a broker or a lake.

use std::any::Any;
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use futures::FutureExt;
use processor::case::{Case, Differs, Report, Variant, find_cases, play};
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::progress::counted;

/// Runs cases: folders with a job, its input and the rows that it must give.
///
/// Each case is run as batch, as stream, as stream with its rows shuffled over
/// three partitions, and as stream that is restarted after every epoch. All
/// have to give the same rows. No clock is read: time is that of the rows, and
/// the end of the input closes every window.
///
/// A case is a folder with job.sql, input.jsonl and expected.jsonl, one JSON
/// object a line. Rows of table `events` are whole Nostr events; tables of
/// other columns, delays and modes stand in case.toml, watermarks and late rows
/// step by step in steps.json: docs/testing-jobs.md.
///
/// Rows that were expected and did not come are printed with -, rows that came
/// and were not expected with +. The exit code is 0 only if all cases agree.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  tidegate test my-case
  tidegate test cases --variant batch --variant stream
  tidegate test cases/hourly --variant shuffled --seed 17"
)]
pub(crate) struct Args {
    /// Cases, or folders of cases
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,

    /// Run only this variant; repeatable [default: all that a case asks for]
    #[arg(long, value_enum, value_name = "VARIANT")]
    variant: Vec<Choice>,

    /// How rows are shuffled; the same seed shuffles in the same way
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A variant as the command line names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    Batch,
    Stream,
    Shuffled,
    Restarted,
}

impl From<Choice> for Variant {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Batch => Self::Batch,
            Choice::Stream => Self::Stream,
            Choice::Shuffled => Self::Shuffled,
            Choice::Restarted => Self::Restarted,
        }
    }
}

/// Runs the cases one after the other.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let variants: Vec<Variant> = match args.variant.as_slice() {
        [] => Variant::ALL.to_vec(),
        chosen => chosen.iter().copied().map(Variant::from).collect(),
    };
    let mut cases = Vec::new();
    for dir in &args.dirs {
        cases.extend(find_cases(dir)?);
    }
    let mut count = Count::default();
    for (name, dir) in cases {
        let report = tokio::select! {
            report = Box::pin(outcome(&dir, &variants, args.seed)) => report,
            () = shutdown.cancelled() => return Err(Failure::interrupted()),
        };
        write!(io::stdout().lock(), "{}", count.line(&name, &report))?;
    }
    writeln!(io::stdout().lock(), "{}", count.summary())?;
    match count.fails {
        0 => Ok(()),
        fails => Err(Failure::new(Code::Failed, format!("{} of {} did not pass", fails, counted(count.all(), "case")))),
    }
}

/// A case that cannot be read, or that a defect of ours ends, is one that fails: the others are run nevertheless.
async fn outcome(dir: &Path, variants: &[Variant], seed: u64) -> Report {
    let failed = |how| Report { differs: vec![Differs { what: "case".to_owned(), how }], ..Report::default() };
    match Case::read(dir) {
        Ok(case) => match AssertUnwindSafe(play(&case, variants, seed)).catch_unwind().await {
            Ok(report) => report,
            Err(panic) => failed(format!("error: panicked: {}", words(panic.as_ref()))),
        },
        Err(error) => failed(Failure::from(error).text()),
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[derive(Debug, Default)]
struct Count {
    ok: u64,
    fails: u64,
    waits: u64,
    idle: u64,
}

impl Count {
    const fn all(&self) -> u64 {
        self.ok + self.fails + self.waits + self.idle
    }

    /// What is printed of a case, with its line end.
    fn line(&mut self, name: &str, report: &Report) -> String {
        let agrees = report.agrees.join(" ");
        let (word, said) = match (report.differs.as_slice(), report.waits.as_slice()) {
            ([], []) if report.agrees.is_empty() => {
                self.idle += 1;
                ("--", "none of these variants is asked for".to_owned())
            }
            ([], []) => {
                self.ok += 1;
                ("ok", agrees)
            }
            ([], waits) => {
                self.waits += 1;
                (
                    "--",
                    waits
                        .iter()
                        .map(|wait| format!("{} waits: {}", wait.what, wait.how))
                        .collect::<Vec<_>>()
                        .join("; "),
                )
            }
            (differs, _) => {
                self.fails += 1;
                ("FAIL", differs.iter().map(|differs| differs.what.as_str()).collect::<Vec<_>>().join(" "))
            }
        };
        let mut text = format!("{word:<5} {name}  {said}\n");
        for differs in &report.differs {
            text.push_str(&format!("  {}\n", differs.what));
            for line in differs.how.lines() {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }

    fn summary(&self) -> String {
        let mut text = format!("{}: {} ok", counted(self.all(), "case"), self.ok);
        for (count, word) in [(self.fails, "FAIL"), (self.waits, "wait"), (self.idle, "not run")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_a_line_and_what_differs_stands_below_it() {
        let differs = |what: &str, how: &str| Differs { what: what.to_owned(), how: how.to_owned() };
        let agrees = || vec!["batch".to_owned(), "stream".to_owned()];
        let mut count = Count::default();
        let line = count.line("a", &Report { agrees: agrees(), ..Report::default() });
        assert_eq!(line, "ok    a  batch stream\n");
        let report = Report { agrees: agrees(), differs: vec![differs("shuffled", "- {}\n+ {}")], waits: Vec::new() };
        assert_eq!(count.line("b", &report), "FAIL  b  shuffled\n  shuffled\n    - {}\n    + {}\n");
        let report = Report { agrees: agrees(), waits: vec![differs("plan", "why")], differs: Vec::new() };
        assert_eq!(count.line("c", &report), "--    c  plan waits: why\n");
        assert_eq!(count.line("d", &Report::default()), "--    d  none of these variants is asked for\n");
        assert_eq!(count.summary(), "4 cases: 1 ok, 1 FAIL, 1 wait, 1 not run");
    }
}
