//! `tidegate topic ls|read`: what topics there are, and the records of one as JSON lines.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use ::topic::{Log, OffsetRange, Offsets, StoredRecord};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use event::{Clock, EventTime};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::output::FormatArgs;
use crate::place::LogArgs;

/// Records asked for at once.
const READ_RECORDS: usize = 1_000;
/// How long one read waits; Ctrl-C does not wait for it.
const READ_WAIT: Duration = Duration::from_millis(250);

/// Shows topics and their records.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicCommand {
    Ls(LsArgs),
    Read(Box<ReadArgs>),
}

/// Lists topics: name, partitions, and the number of offsets they span.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate topic ls
  tidegate topic ls --kafka-brokers localhost:9092")]
struct LsArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// Prints the records of a topic, one JSON object a line, and follows it.
///
/// Each object has partition, offset, timestamp, key, headers and value. A value that is JSON is shown as it is, other
/// text as a string, other bytes as {"hex": "…"}.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate topic read nostr-event --until-latest --limit 10
  tidegate topic read nostr-event.rejected --from -1h
  tidegate topic read nostr-event --partition 0 --from 91 --to 95")]
struct ReadArgs {
    /// Topic to read
    topic: String,

    /// First record: earliest, latest, an offset, or a time as 2024-07-28 or -1h
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true, value_parser = position)]
    from: Position,

    /// Stop before this offset or time
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = position)]
    to: Option<Position>,

    /// Stop at what was the end when reading began
    #[arg(long)]
    until_latest: bool,

    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<i32>,

    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// A place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Earliest,
    Latest,
    Offset(i64),
    Time(EventTime),
}

fn position(text: &str) -> Result<Position, String> {
    match text.trim() {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Position::Offset).map_err(|_| format!("`{text}` is too large for an offset"))
        }
        other => crate::job::time(other).map(Position::Time).map_err(|_| {
            format!("`{text}` is neither earliest, latest, an offset, nor a time as 2024-07-28T12:00:00Z or -1h")
        }),
    }
}

/// Runs one of the topic commands.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Ls(args) => ls(&args).await,
        TopicCommand::Read(args) => read(&args, &shutdown).await,
    }
}

async fn ls(args: &LsArgs) -> Result<(), Failure> {
    let log = args.log.open(&Clock::system()).await?;
    let topics = log.topics().await?;
    let mut offsets = Vec::with_capacity(topics.len());
    for topic in &topics {
        offsets.push(log.ranges(&topic.name).await?.iter().map(|range| range.end - range.start).sum::<i64>());
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("topic", Arc::new(StringArray::from_iter_values(topics.iter().map(|topic| &topic.name)))),
        ("partitions", Arc::new(Int32Array::from_iter_values(topics.iter().map(|topic| topic.partitions)))),
        ("offsets", Arc::new(Int64Array::from(offsets))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut rows = args.format.printer(batch.schema())?;
    rows.write(&batch)?;
    Ok(rows.finish()?)
}

async fn read(args: &ReadArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let log = args.log.open(&Clock::system()).await?;
    let ranges = ranges(log.as_ref(), &args.topic, args.partition).await?;
    let from = offsets(log.as_ref(), &args.topic, &ranges, args.from).await?;
    let to = match (args.to, args.until_latest) {
        (Some(to), _) => Some(offsets(log.as_ref(), &args.topic, &ranges, to).await?),
        (None, true) => Some(ranges.iter().map(|range| (range.partition, range.end)).collect()),
        (None, false) => None,
    };
    let from: Offsets = match &to {
        Some(to) => from
            .into_iter()
            .filter(|(partition, offset)| end_of(to, *partition).is_some_and(|end| *offset < end))
            .collect(),
        None => from,
    };
    if from.is_empty() {
        return Ok(());
    }
    follow(&log, args, from, to, shutdown).await
}

async fn follow(
    log: &Arc<dyn Log>,
    args: &ReadArgs,
    from: Offsets,
    to: Option<Offsets>,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let mut reader = log.reader(&args.topic, from).await?;
    let mut out = BufWriter::new(io::stdout());
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let records = tokio::select! {
            records = reader.read(READ_RECORDS, READ_WAIT) => records?,
            () = shutdown.cancelled() => break,
        };
        for record in &records {
            let beyond =
                to.as_ref().and_then(|to| end_of(to, record.partition)).is_some_and(|end| record.offset >= end);
            if left == 0 || beyond {
                continue;
            }
            left -= 1;
            out.write_all(line(record).as_bytes())?;
        }
        out.flush()?;
        if to.as_ref().is_some_and(|to| {
            reader.positions().iter().all(|(partition, at)| end_of(to, *partition).is_none_or(|end| *at >= end))
        }) {
            break;
        }
    }
    Ok(out.flush()?)
}

async fn ranges(log: &dyn Log, topic: &str, partition: Option<i32>) -> Result<Vec<OffsetRange>, Failure> {
    let mut ranges = log.ranges(topic).await?;
    if let Some(wanted) = partition {
        let count = ranges.len();
        ranges.retain(|range| range.partition == wanted);
        if ranges.is_empty() {
            return Err(Failure::usage(format!("topic `{topic}` has no partition {wanted}"))
                .hint(format!("its partitions are 0 to {}", count.saturating_sub(1))));
        }
    }
    Ok(ranges)
}

/// The place in every partition, kept within what the partition holds.
async fn offsets(log: &dyn Log, topic: &str, ranges: &[OffsetRange], at: Position) -> Result<Offsets, Failure> {
    let within = |range: &OffsetRange, offset: i64| (range.partition, offset.clamp(range.start, range.end));
    Ok(match at {
        Position::Earliest => ranges.iter().map(|range| (range.partition, range.start)).collect(),
        Position::Latest => ranges.iter().map(|range| (range.partition, range.end)).collect(),
        Position::Offset(offset) => ranges.iter().map(|range| within(range, offset)).collect(),
        Position::Time(time) => {
            let found = log.offsets_at(topic, time.micros().div_euclid(1_000)).await?;
            ranges.iter().map(|range| within(range, end_of(&found, range.partition).unwrap_or(range.end))).collect()
        }
    })
}

fn end_of(offsets: &Offsets, partition: i32) -> Option<i64> {
    offsets.iter().find(|(one, _)| *one == partition).map(|(_, offset)| *offset)
}

/// A record as one line of JSON.
fn line(record: &StoredRecord) -> String {
    let timestamp =
        EventTime::from_millis(record.timestamp_ms).map_or_else(|| "null".to_owned(), |time| format!("\"{time}\""));
    let (partition, offset) = (record.partition, record.offset);
    let key = record.key.as_ref().map_or_else(|| "null".to_owned(), |key| text(key));
    let value =
        record.value.as_ref().map_or_else(|| "null".to_owned(), |value| json(value).unwrap_or_else(|| text(value)));
    let headers = headers(record);
    format!(
        "{{\"partition\":{partition},\"offset\":{offset},\"timestamp\":{timestamp},\"key\":{key},\"headers\":{headers},\"value\":{value}}}\n"
    )
}

/// Headers as an object; of a name that repeats, the last one, as most consumers see it.
fn headers(record: &StoredRecord) -> String {
    let mut members: Vec<String> = Vec::with_capacity(record.headers.len());
    for (at, header) in record.headers.iter().enumerate() {
        if record.headers[at + 1..].iter().all(|later| later.name != header.name) {
            members.push(format!("{}:{}", text(header.name.as_bytes()), text(&header.value)));
        }
    }
    format!("{{{}}}", members.join(","))
}

/// The value as it is, if any reader of JSON takes it (a lone surrogate, say, none does): a line feed can stand between
/// tokens only, where a blank does as well.
fn json(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<serde_json::Value>(bytes).ok()?;
    Some(std::str::from_utf8(bytes).ok()?.trim().replace(['\n', '\r'], " "))
}

/// A string, or the bytes in hex where they are no text.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes).map(serde_json::to_string) {
        Ok(Ok(text)) => text,
        _ => format!("{{\"hex\":\"{}\"}}", hex::encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use ::topic::Header;

    use super::*;

    fn record(value: &'static [u8]) -> StoredRecord {
        let header = |name: &str, value: &'static [u8]| Header { name: name.into(), value: value.into() };
        StoredRecord {
            partition: 1,
            offset: 91,
            timestamp_ms: 1_700_000_000_500,
            key: Some(b"ab\"".as_slice().into()),
            value: Some(value.into()),
            headers: vec![header("relay", b"first"), header("n", b"\xff"), header("relay", b"ws://x")],
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_it_holds() {
        let head = r#"{"partition":1,"offset":91,"timestamp":"2023-11-14T22:13:20.500Z","key":"ab\"","headers":{"n":{"hex":"ff"},"relay":"ws://x"},"value":"#;
        for (value, shown) in [
            (&b"{\"a\": 1,\n \"b\":9007199254740993}"[..], r#"{"a": 1,  "b":9007199254740993}"#),
            (b"not json", r#""not json""#),
            (br#"{"a":"\ud800"}"#, r#""{\"a\":\"\\ud800\"}""#),
            (b"\x00\xff", r#"{"hex":"00ff"}"#),
            (b"", r#""""#),
        ] {
            assert_eq!(line(&record(value)), format!("{head}{shown}}}\n"));
        }
        let tombstone = StoredRecord { key: None, value: None, headers: Vec::new(), ..record(b"") };
        assert!(line(&tombstone).contains(r#""key":null,"headers":{},"value":null"#));
    }

    #[test]
    fn places_are_words_offsets_or_times() {
        assert_eq!(position("earliest"), Ok(Position::Earliest));
        assert_eq!(position("91"), Ok(Position::Offset(91)));
        assert!(matches!(position("2024-07-28"), Ok(Position::Time(_))));
        assert!(matches!(position("-1h"), Ok(Position::Time(_))));
        assert!(position("yesterday").is_err_and(|why| why.contains("earliest")));
    }
}
