//! `tidegate lake ls`: what a topic's lake consists of, by hour or object by object; and what was removed from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use event::EventTime;
use event::manifest::Removal;
use processor::lake::{LakeObject, LakeRange, LakeTable};

use super::TopicArgs;
use crate::error::Failure;
use crate::job::time;
use crate::output::FormatArgs;
use crate::progress::{counted, note};

/// Lists what lies in the lake: hours of receipt, rows, bytes, offsets and event times.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate lake ls
  tidegate lake ls --objects --from -1d --format csv
  tidegate lake ls --removed --lake s3://raw-data")]
pub(super) struct LsArgs {
    /// Only what may hold events from this time on, as 2024-07-28T12:00:00Z or -1d
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    from: Option<EventTime>,

    /// Only what may hold events from before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<EventTime>,

    /// One line an object, instead of one for all of an hour
    #[arg(long)]
    objects: bool,

    /// What was removed by age instead of what is there
    #[arg(long, conflicts_with_all = ["from", "until", "objects"])]
    removed: bool,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Lake")]
    topic: TopicArgs,
}

/// Prints the listing.
pub(super) async fn run(args: &LsArgs) -> Result<(), Failure> {
    let lake = args.topic.table()?;
    let batch = if args.removed { removed(&lake.manifest().await?.removed)? } else { present(args, &lake).await? };
    let mut rows = args.format.printer(batch.schema())?;
    rows.write(&batch)?;
    Ok(rows.finish()?)
}

async fn present(args: &LsArgs, lake: &LakeTable) -> Result<RecordBatch, Failure> {
    let snapshot = lake.snapshot().await?;
    let version = if snapshot.version == 0 {
        "there is no manifest: nothing was compacted or removed yet".to_owned()
    } else {
        format!("manifest version {}", snapshot.version)
    };
    let bounds = args.from.map(EventTime::micros)..args.until.map(EventTime::micros);
    let (objects, left_out) = LakeTable::prune(snapshot.objects, &bounds);
    note(&version);
    if left_out > 0 {
        note(&format!("{} left out, which provably hold no row of the range", counted(left_out as u64, "object")));
    }
    // The object's name keeps lines apart where each is to have its own.
    let mut lines: BTreeMap<(i64, i64, bool, &str, String), Line> = BTreeMap::new();
    for object in &objects {
        let (first, last) = object.hours;
        let name = if args.objects { object.path.to_string() } else { String::new() };
        let key = (first, last, !object.compacted, object.format.extension(), name);
        lines.entry(key).or_default().add(object);
    }
    let (keys, lines): (Vec<_>, Vec<Line>) = lines.into_iter().unzip();
    let hour = |hours: Vec<i64>| times(hours.into_iter().map(|hour| Some(hour * MICROS_PER_HOUR)));
    let texts = |texts: Vec<String>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let names = ["min", "max"].map(|end| format!("{}_{end}", lake.table().event_time()));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("hour", hour(keys.iter().map(|key| key.0).collect())),
        ("until", hour(keys.iter().map(|key| key.1 + 1).collect())),
        ("state", texts(keys.iter().map(|key| if key.2 { "raw" } else { "compacted" }.to_owned()).collect())),
        ("form", texts(keys.iter().map(|key| key.3.to_owned()).collect())),
        ("objects", Arc::new(UInt64Array::from_iter_values(lines.iter().map(|line| line.objects)))),
        ("rows", Arc::new(UInt64Array::from_iter(lines.iter().map(|line| line.rows)))),
        ("bytes", Arc::new(UInt64Array::from_iter_values(lines.iter().map(|line| line.bytes)))),
        (&names[0], times(lines.iter().map(|line| line.event_time.map(|(least, _)| least)))),
        (&names[1], times(lines.iter().map(|line| line.event_time.map(|(_, most)| most)))),
        ("offsets", texts(lines.iter().map(|line| offsets(&line.ranges)).collect())),
    ];
    if args.objects {
        columns.push(("object", texts(keys.iter().map(|key| key.4.clone()).collect())));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The log of deletions.
fn removed(entries: &[Removal]) -> Result<RecordBatch, Failure> {
    let ranges = |entry: &Removal| {
        let range = entry.ranges.iter().map(|range| LakeRange {
            partition: range.partition,
            start: range.start,
            end: Some(range.end),
        });
        offsets(&range.collect::<Vec<_>>())
    };
    let columns: [(&str, ArrayRef); 7] = [
        ("removed_at", times(entries.iter().map(|entry| Some(entry.at_ms * 1_000)))),
        ("received_before", times(entries.iter().map(|entry| Some(entry.before_hour * MICROS_PER_HOUR)))),
        ("files", Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| entry.files.len() as i64)))),
        ("raw_objects", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.raw_objects)))),
        ("rows", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.rows)))),
        ("bytes", Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.bytes)))),
        ("offsets", Arc::new(StringArray::from_iter_values(entries.iter().map(ranges)))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

const MICROS_PER_HOUR: i64 = 3_600_000_000;

fn times(micros: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// What stands in one line.
#[derive(Default)]
struct Line {
    objects: u64,
    rows: Option<u64>,
    /// An object that does not say how many rows it has makes the sum unknown.
    rows_unknown: bool,
    bytes: u64,
    event_time: Option<(i64, i64)>,
    ranges: Vec<LakeRange>,
}

impl Line {
    fn add(&mut self, object: &LakeObject) {
        self.objects += 1;
        self.bytes += object.size;
        self.rows_unknown |= object.rows.is_none();
        self.rows = object.rows.filter(|_| !self.rows_unknown).map(|rows| rows + self.rows.unwrap_or(0));
        if let Some((least, most)) = object.event_time {
            let widened = |(a, b): (i64, i64)| (a.min(least), b.max(most));
            self.event_time = Some(self.event_time.map_or((least, most), widened));
        }
        self.ranges.extend(&object.ranges);
    }
}

/// `0:0-100 1:5-20`: partition, first offset, offset after the last; neighbours are put together.
fn offsets(ranges: &[LakeRange]) -> String {
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| (range.partition, range.start));
    let mut joined: Vec<LakeRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut().filter(|last| last.partition == range.partition && last.end == Some(range.start)) {
            Some(last) => last.end = range.end,
            None => joined.push(range),
        }
    }
    let text = |range: &LakeRange| {
        let end = range.end.map_or_else(|| "?".to_owned(), |end| end.to_string());
        format!("{}:{}-{end}", range.partition, range.start)
    };
    joined.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_neighbours_are_put_together() {
        let range = |partition, start, end| LakeRange { partition, start, end };
        let ranges = [range(1, 5, Some(9)), range(0, 10, Some(20)), range(0, 0, Some(10)), range(1, 9, None)];
        assert_eq!(offsets(&ranges), "0:0-20 1:5-?");
        assert_eq!(offsets(&[range(0, 0, Some(3)), range(0, 4, Some(5))]), "0:0-3 0:4-5");
    }
}
