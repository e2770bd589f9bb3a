//! `ingest file`: every line is accounted for, in its order.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use event::{Clock, EventId, Span};
use ingest::{CountersSnapshot, ErrorKind, FileSettings, IntakeSettings, event_in};
use tokio_util::sync::CancellationToken;

use crate::harness::{Lab, REJECTED, TOPIC, assert_balanced, assert_same, reasons, shared, signed, sorted, value};

async fn land(lab: &Lab, settings: FileSettings) -> (CountersSnapshot, ingest::Result<()>) {
    let components = lab.components();
    let counters = Arc::clone(&components.counters);
    let result = ingest::file(settings, components, CancellationToken::new()).await;
    (counters.snapshot(), result)
}

fn settings(path: PathBuf, max_future: Option<Span>) -> FileSettings {
    let intake = IntakeSettings { partitions: 1, max_future, ..IntakeSettings::default() };
    FileSettings { path, intake, ..FileSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_out_in_their_order_each_id_once() {
    let lab = Lab::new();
    let events = signed(21, 2_000);
    let lines: Vec<String> = events.iter().chain(&events[..500]).cloned().collect();
    let path = lab.file(&lines);
    let (counters, result) = land(&lab, settings(path.clone(), None)).await;
    result.expect("a run");
    let records = lab.records(TOPIC).await;
    assert_same(&records.iter().map(value).collect::<Vec<_>>(), &events);
    assert_eq!((counters.received, counters.published, counters.copies), (2_500, 2_000, 500));
    let record = &records[0];
    assert_eq!((record.header("source"), record.header("phase")), (Some("file"), Some("backfill")));
    assert_eq!(record.header("relay"), path.to_str());
    let (again, result) = land(&lab, settings(path, None)).await;
    result.expect("a second run");
    assert_eq!((again.published, again.copies), (0, 2_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_line_is_one_record() {
    let lab = Lab::new();
    let good = signed(22, 1);
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(40_000));
    let lines = ["junk", "junk", "", "[\"EVENT\",\"a\",{}]", &long, &good[0]].map(str::to_owned);
    let settings = FileSettings { line_bytes_max: 20_000, ..settings(lab.file(&lines), None) };
    let (counters, result) = land(&lab, settings.clone()).await;
    result.expect("a run");
    let wanted =
        [("malformed_json", 2), ("missing_field", 1), ("too_large", 1)].map(|(code, count)| (code.to_owned(), count));
    assert_eq!(reasons(&counters), BTreeMap::from(wanted));
    assert_eq!(lab.rejected().await, reasons(&counters));
    assert_eq!((counters.received, counters.published), (5, 1));
    assert_balanced(&counters);
    let records = lab.records(REJECTED).await;
    let large = records.iter().find(|record| record.header("reason") == Some("too_large")).expect("a record");
    assert_eq!(large.header("full_len"), Some(long.len().to_string().as_str()));
    // The same file again: the topics hold all of it.
    let (again, result) = land(&lab, settings).await;
    result.expect("a second run");
    assert_eq!((again.received, again.published, again.copies, again.rejected_again), (5, 0, 1, 4));
    assert_eq!(lab.records(REJECTED).await.len(), records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_out_of_arrays_and_frames() {
    let events = signed(24, 300);
    let compact = format!("[{}]", events.join(","));
    let pretty = format!("[\n  {}\n]\n", events.join(",\n  "));
    let arrays = format!("[{}]\n[]\n[{}]", events[..150].join(","), events[150..].join(" , "));
    let frames: String = events
        .iter()
        .enumerate()
        .map(|(at, event)| match at % 3 {
            0 => format!("[\"EVENT\",{event}]\n"),
            1 => format!("[ \"EVENT\" , \"sub\\\"1\" , {event} ]\n"),
            _ => format!("{event}\n"),
        })
        .collect();
    for text in [compact, pretty, arrays, frames] {
        let lab = Lab::new();
        let zstd = lab.dir.path().join("events");
        std::fs::write(&zstd, zstd::encode_all(text.as_bytes(), 1).expect("zstd")).expect("a file");
        let (counters, result) = land(&lab, settings(zstd, None)).await;
        result.expect("a run");
        assert_eq!(counters.received, 300, "{}", &text[..80]);
        assert_same(&lab.records(TOPIC).await.iter().map(value).collect::<Vec<_>>(), &events);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_array_is_named_after_what_came_is_landed() {
    let lab = Lab::new();
    let events = signed(25, 40);
    let text = format!("[{}", events.join(","));
    let path = lab.dir.path().join("torn.json");
    std::fs::write(&path, &text[..text.len() - 10]).expect("a file");
    let (counters, result) = land(&lab, settings(path, None)).await;
    let error = result.expect_err("a torn file");
    assert_eq!(error.kind(), ErrorKind::Data);
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("it ends inside a JSON array"));
    assert_eq!(counters.published, 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invalid_set_gets_the_expected_verdicts() {
    let (Some(path), Some(table)) = (shared("invalid.jsonl"), shared("invalid.tsv")) else { return };
    let lab = Lab::new();
    let (counters, result) = land(&lab, settings(path.clone(), None)).await;
    result.expect("a run");
    let text = std::fs::read(&path).expect("lines");
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let table = std::fs::read_to_string(table).expect("a table");
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (row, line) in table.lines().skip(1).zip(&lines) {
        let row: Vec<&str> = row.split('\t').collect();
        match row[1] {
            // Decided: a date that no microsecond timestamp holds is out of range.
            "accept" if !row[4].starts_with("created_at 2^53") => {
                accepted.push(EventId::scan(line).expect("an id").to_string().into_bytes())
            }
            // Decided: an event is read out of its frame.
            _ if row[4].starts_with("a relay frame") => {
                accepted.push(EventId::scan(event_in(line)).expect("an id").to_string().into_bytes())
            }
            _ => refused.push(line.to_vec()),
        }
    }
    assert_eq!(counters.received as usize, accepted.len() + refused.len());
    accepted.sort();
    accepted.dedup();
    let mut keys: Vec<_> =
        lab.records(TOPIC).await.into_iter().map(|record| record.key.expect("a key").to_vec()).collect();
    keys.sort();
    assert_same(&keys, &accepted);
    let mut values: Vec<_> =
        lab.records(REJECTED).await.into_iter().map(|record| record.value.expect("a value").to_vec()).collect();
    values.sort();
    refused.sort();
    assert_same(&values, &refused);
    assert_eq!(lab.rejected().await, reasons(&counters));
    assert_balanced(&counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_set_is_landed_byte_for_byte_and_dates_ahead_are_refused_by_default() {
    let Some(path) = shared("events.jsonl.gz") else { return };
    let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).expect("a file")));
    let lines: Vec<String> = text.expect("lines").lines().map(str::to_owned).collect();
    let lab = Lab::new();
    let (counters, result) = land(&lab, settings(path.clone(), None)).await;
    result.expect("a run");
    assert_eq!(counters.published as usize, lines.len());
    assert_same(&lab.values().await, &sorted(&lines));
    // 2026-01-01: what is dated after it is ahead of its time.
    let lab = Lab { clock: Clock::mock(1_767_225_600_000), ..Lab::new() };
    let (counters, result) = land(&lab, settings(path, Some(Span::from_secs(900)))).await;
    result.expect("a run");
    let at = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("json")["created_at"].as_i64();
    let ahead: Vec<String> = lines.iter().filter(|line| at(line) > Some(1_767_225_600 + 900)).cloned().collect();
    assert_eq!(counters.rejected_total() as usize, ahead.len());
    let mut refused: Vec<String> = lab.records(REJECTED).await.iter().map(value).collect();
    refused.sort();
    assert_same(&refused, &sorted(&ahead));
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_are_read_and_torn_ones_are_named_after_what_came_is_landed() {
    let lab = Lab::new();
    let events = signed(23, 3_000);
    let text: String = events.iter().map(|line| format!("{line}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("gzip");
    let gzip = gzip.finish().expect("gzip");
    let torn = lab.dir.path().join("torn.gz");
    std::fs::write(&torn, &gzip[..gzip.len() / 2]).expect("a file");
    let (counters, result) = land(&lab, settings(torn.clone(), None)).await;
    let error = result.expect_err("a torn file");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("torn.gz"), "{error}");
    assert!(counters.published > 500, "{counters:?}");
    let whole = lab.dir.path().join("whole.zst");
    std::fs::write(&whole, zstd::encode_all(text.as_bytes(), 1).expect("zstd")).expect("a file");
    land(&lab, settings(whole, None)).await.1.expect("a run");
    assert_same(&lab.values().await, &sorted(&events));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let lab = Lab::new();
    let error = land(&lab, settings(lab.dir.path().join("no-such.jsonl"), None)).await.1.expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no-such.jsonl"), "{error}");
}
