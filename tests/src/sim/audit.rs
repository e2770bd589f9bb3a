//! What a reader finds in the end, against what the oracle says: every row once, every late pair accounted for, and
//! the offsets at the end of the raw topic.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use event::layout::late_topic;
use serde_json::Value;
use topic::{Log, StoredRecord};

use super::input::RAW_TOPIC;
use super::log::SimLog;
use super::runner::{OUTPUT_TOPIC, expected, windows};
use crate::oracle::{Late, PlainEvent, instant};

/// What was found, for those who count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Values of the output topic, in their order.
    pub(super) output: Vec<String>,
    /// Late pairs.
    pub(super) late: usize,
}

/// Compares the topics of a job that has finished with the oracle. `punctual` says that nothing can have been late.
pub(super) async fn audit(log: &SimLog, job: usize, events: &[PlainEvent], punctual: bool) -> Result<Findings> {
    log.cluster.lock().broker.settle();
    let late = late_pairs(log, job, events).await?;
    ensure!(!punctual || late.is_empty(), "{} pairs are late where nothing can be: {late:?}", late.len());
    let records = read(log, OUTPUT_TOPIC).await?;
    let keys: BTreeSet<_> = records.iter().map(|record| &record.key).collect();
    let mut output = Vec::with_capacity(records.len());
    let mut ends = Vec::with_capacity(records.len());
    for record in &records {
        let row = json(record)?;
        ends.push(row["window_end"].as_str().context("a row has a window")?.to_owned());
        output.push(row.to_string());
    }
    compare(&output, expected(job, events, &late).iter().map(Value::to_string).collect())?;
    ensure!(keys.len() == records.len(), "{} records have {} keys", records.len(), keys.len());
    // Instants of one length compare as text; all of these have it.
    ensure!(ends.is_sorted(), "a window was written after a later one: {ends:?}");
    check_offsets(log).await?;
    Ok(Findings { output, late: late.len() })
}

fn compare(output: &[String], mut want: Vec<String>) -> Result<()> {
    let mut got = output.to_vec();
    got.sort();
    want.sort();
    if got == want {
        return Ok(());
    }
    let (surplus, missing) = (minus(&got, &want), minus(&want, &got));
    bail!("{} rows instead of {}; too many: {surplus:#?}; missing: {missing:#?}", got.len(), want.len())
}

/// What `all` has that `less` has not, each as often as it has it more.
fn minus(all: &[String], less: &[String]) -> Vec<String> {
    let mut left = all.to_vec();
    for row in less {
        if let Some(at) = left.iter().position(|other| other == row) {
            left.swap_remove(at);
        }
    }
    left
}

/// The late topic as pairs; each must be a row and a window of it, once.
async fn late_pairs(log: &SimLog, job: usize, events: &[PlainEvent]) -> Result<Late> {
    let mut late = Late::new();
    for record in read(log, &late_topic(OUTPUT_TOPIC)).await? {
        let line = json(&record)?;
        let event = events.iter().find(|event| line["id"] == event.id.as_str()).context("a late row was never sent")?;
        let start = windows(job).of(event.created_at).find(|start| line["window_start"] == instant(*start));
        let start = start.with_context(|| format!("a late row is of another window: {line}"))?;
        ensure!(late.insert((event.id.clone(), start)), "a pair is late twice: {line}");
    }
    Ok(late)
}

/// One group has offsets in the raw topic, and they are its ends.
async fn check_offsets(log: &SimLog) -> Result<()> {
    let ranges = log.ranges(RAW_TOPIC).await?;
    let ends: Vec<(i32, i64)> = ranges.iter().map(|range| (range.partition, range.end)).collect();
    let groups = log.cluster.lock().broker.groups().clone();
    ensure!(groups.len() == 1, "offsets of other groups than the job's: {groups:?}");
    for ((group, topic), offsets) in groups {
        let offsets: Vec<(i32, i64)> = offsets.into_iter().collect();
        ensure!(topic == RAW_TOPIC && offsets == ends, "group `{group}` stands at {offsets:?} of {ends:?}");
    }
    Ok(())
}

async fn read(log: &SimLog, topic: &str) -> Result<Vec<StoredRecord>> {
    let ranges = log.ranges(topic).await?;
    let mut reader = log.reader(topic, ranges.iter().map(|range| (range.partition, range.start)).collect()).await?;
    let mut records = Vec::new();
    loop {
        let more = reader.read(1_000, Duration::ZERO).await?;
        if more.is_empty() {
            return Ok(records);
        }
        records.extend(more);
    }
}

fn json(record: &StoredRecord) -> Result<Value> {
    serde_json::from_slice(record.value.as_deref().unwrap_or_default()).context("a record holds JSON")
}
