//! `tidegate verify FILE|-`: one JSON line a verdict. In: JSON lines, plain, gzip or zstd. Nothing is kept.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use ::ingest::event_in;
use event::verify::{check_future, verify};
use event::{Clock, Event, EventId, Limits, Rejection, Span};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::ingest::{MaxFuture, max_future};
use crate::input;
use crate::progress::{counted, grouped, note};

/// Says of every line whether it is a valid Nostr event, and why not.
///
/// One JSON object a line of input goes to standard output: line, id, verdict
/// (accept or reject), reason, detail. The exit code is 0 whenever the input could
/// be read, whatever the verdicts; the counts are on standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate verify events.jsonl.gz | grep '\"reject\"'
  nak req -k 1 -l 10 wss://nos.lol | tidegate verify -")]
pub(crate) struct Args {
    /// Events as JSON lines, plain, gzip or zstd; - is standard input
    file: PathBuf,

    /// Reject events dated further ahead of now than this, or off
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = max_future)]
    max_future: MaxFuture,
}

/// One line of output.
#[derive(Serialize)]
struct Verdict<'a> {
    line: u64,
    id: Option<String>,
    verdict: &'static str,
    reason: Option<&'static str>,
    detail: Option<&'a str>,
}

/// How long a signal waits for the line that is being judged; a read of standard input it does not wait for.
const GRACE: Duration = Duration::from_millis(500);

/// Verdicts on every line of the input.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let stop = shutdown.clone();
    let judged = tokio::task::spawn_blocking(move || judge_all(&args, &stop));
    tokio::select! {
        judged = judged => judged.unwrap_or_else(|_| Err(Failure::new(Code::Failed, "the verifier panicked"))),
        () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

fn judge_all(args: &Args, shutdown: &CancellationToken) -> Result<(), Failure> {
    let mut input = input::open(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (clock, limits) = (Clock::system(), Limits::default());
    let (mut line, mut accepted) = (0, 0);
    let mut rejected: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut bytes = Vec::new();
    while !shutdown.is_cancelled() && input::next_line(&mut input, &limits, &mut bytes)? {
        line += 1;
        match judge(&bytes, &limits, clock.now_ms(), args.max_future.0) {
            Ok(id) => {
                accepted += 1;
                print(
                    &mut out,
                    &Verdict { line, id: Some(id.to_string()), verdict: "accept", reason: None, detail: None },
                )?;
            }
            Err(rejection) => {
                let reason = rejection.reason.as_str();
                *rejected.entry(reason).or_default() += 1;
                let id = rejection.id.map(|id| id.to_string());
                print(
                    &mut out,
                    &Verdict { line, id, verdict: "reject", reason: Some(reason), detail: Some(&rejection.detail) },
                )?;
            }
        }
        // Whoever types into a pipe waits for the answer.
        if input.buffer().is_empty() {
            out.flush()?;
        }
    }
    out.flush()?;
    note(&summary(line, accepted, &rejected));
    Ok(())
}

fn judge(bytes: &[u8], limits: &Limits, now_ms: i64, max_future: Option<Span>) -> Result<EventId, Rejection> {
    let event = verify(Event::parse(event_in(bytes), limits)?)?;
    check_future(&event, now_ms, max_future)?;
    Ok(event.id)
}

fn print(out: &mut impl Write, verdict: &Verdict<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, verdict)?;
    out.write_all(b"\n")
}

fn summary(lines: u64, accepted: u64, rejected: &BTreeMap<&'static str, u64>) -> String {
    let mut text =
        format!("{}: {} accepted, {} rejected", counted(lines, "line"), grouped(accepted), grouped(lines - accepted));
    if !rejected.is_empty() {
        let reasons: Vec<String> =
            rejected.iter().map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
        text.push_str(&format!(" ({})", reasons.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_by_reason() {
        let rejected = BTreeMap::from([("bad_hex", 1), ("id_mismatch", 1_200)]);
        assert_eq!(
            summary(1_203, 2, &rejected),
            "1,203 lines: 2 accepted, 1,201 rejected (bad_hex 1, id_mismatch 1,200)"
        );
    }
}
