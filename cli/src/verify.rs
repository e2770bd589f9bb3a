//! `tidegate verify FILE|-`: one JSON line a verdict. In: JSON lines, plain, gzip or zstd. Nothing is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use event::verify::{check_future, verify};
use event::{Clock, Event, EventId, Limits, Rejection, Span};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::ingest::{MaxFuture, max_future};
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
    let mut input = open(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (clock, limits) = (Clock::system(), Limits::default());
    let (mut line, mut accepted) = (0, 0);
    let mut rejected: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut bytes = Vec::new();
    while !shutdown.is_cancelled() && next_line(&mut input, &limits, &mut bytes)? {
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
    let event = verify(Event::parse(bytes, limits)?)?;
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

/// Reads to the next line feed into `bytes`; of a line beyond the limit only as much as shows that it is too long.
fn next_line(input: &mut impl BufRead, limits: &Limits, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    let keep = limits.event_bytes_max as u64 + 2;
    if input.by_ref().take(keep).read_until(b'\n', bytes)? == 0 {
        return Ok(false);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 == keep {
        input.skip_until(b'\n')?;
    }
    Ok(true)
}

type Input = BufReader<Box<dyn Read>>;

fn open(path: &PathBuf) -> Result<Input, Failure> {
    let raw: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(|why| {
            Failure::new(Code::Unavailable, format!("could not open file `{}`: {why}", path.display()))
        })?;
        Box::new(file)
    };
    unpacked(raw)
        .map_err(|why| Failure::new(Code::Unavailable, format!("could not read file `{}`: {why}", path.display())))
}

/// Plain, gzip or zstd, told by the first bytes.
fn unpacked(raw: Box<dyn Read>) -> io::Result<Input> {
    let mut raw = BufReader::new(raw);
    let head = raw.fill_buf()?;
    let inner: Box<dyn Read> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(raw)?)
    } else {
        Box::new(raw)
    };
    Ok(BufReader::with_capacity(64 << 10, inner))
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;

    #[test]
    fn a_line_too_long_is_one_line_and_the_next_one_is_whole() {
        let limits = Limits { event_bytes_max: 4, tags_max: 1 };
        let mut input = &b"123456789\nab\n\nlast"[..];
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        while next_line(&mut input, &limits, &mut bytes).expect("memory is readable") {
            lines.push(String::from_utf8(bytes.clone()).expect("text"));
        }
        assert_eq!(lines, ["123456", "ab", "", "last"]);
        assert_eq!(judge(b"123456", &limits, 0, None).map_err(|r| r.reason), Err(Reason::TooLarge));
    }

    #[test]
    fn the_summary_counts_by_reason() {
        let rejected = BTreeMap::from([("bad_hex", 1), ("id_mismatch", 1_200)]);
        assert_eq!(
            summary(1_203, 2, &rejected),
            "1,203 lines: 2 accepted, 1,201 rejected (bad_hex 1, id_mismatch 1,200)"
        );
    }
}
