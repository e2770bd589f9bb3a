//! What a run knows when it begins: the newest ids of the raw topic, or an index that is brought up to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::EventId;
use tokio::task::spawn_blocking;
use topic::{Log, OffsetRange, StoredRecord, Tail};

use super::index::{Index, Mark};
use super::{Dedup, Prefix, prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::IntakeSettings;

impl Dedup {
    /// Reads back what is known of the topic. Whoever ingested before must not be able to write any more.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read, `Config` when there is no place for the index.
    pub(crate) async fn restore(&self, log: &dyn Log, settings: &IntakeSettings) -> Result<()> {
        let topic = &settings.topic;
        let Some(dir) = &settings.ids_dir else {
            let ids = self.replay(log, topic, settings.dedup_replay_max).await?;
            tracing::info!(topic, ids, "known ids read back");
            return Ok(());
        };
        let home = dir.join(topic);
        let index = blocking(move || Index::open(&home)).await?;
        let index = caught_up(log, topic, index).await?;
        self.index.set(Arc::new(index)).map_err(|_| Error::new(ErrorKind::Internal, "known ids were restored twice"))
    }
}

/// The index with every record of the topic in it; another one, if this one is not the topic's.
async fn caught_up(log: &dyn Log, topic: &str, mut index: Index) -> Result<Index> {
    let ranges = log.ranges(topic).await.map_err(|source| failed(topic, source))?;
    let (held, mark) = marked(index).await?;
    index = held;
    let mark = match fit(log, topic, &mark, &ranges).await? {
        Fit::Whole => mark,
        Fit::Gone(records) => {
            tracing::warn!(
                topic,
                records,
                "records were deleted from the topic before the index of known ids had them: should their events come once more, they are published once more"
            );
            mark
        }
        Fit::Other(why) => {
            tracing::warn!(topic, why, "the index of known ids is not that of this topic; it is made anew");
            index = blocking(move || index.anew()).await?;
            Mark::default()
        }
    };
    let (index, ids) = read_on(log, topic, index, &mark).await?;
    tracing::info!(topic, ids, "index of known ids brought up to the topic's end");
    Ok(index)
}

async fn marked(index: Index) -> Result<(Index, Mark)> {
    blocking(move || {
        let mark = index.mark();
        let mark = mark
            .map_err(|error| Error::new(ErrorKind::Data, "could not read the index of known ids").with_source(error))?;
        Ok((index, mark))
    })
    .await
}

/// What an index has to do with a topic.
enum Fit {
    Whole,
    /// So many offsets were deleted before they were read.
    Gone(i64),
    Other(String),
}

/// Compares offsets, and looks for the id that was added last: a topic that was made anew, or stands on another log, does
/// not have it where it should be.
async fn fit(log: &dyn Log, topic: &str, mark: &Mark, ranges: &[OffsetRange]) -> Result<Fit> {
    let applied = |partition: i32| mark.applied.iter().find(|(at, _)| *at == partition).map(|(_, offset)| *offset);
    for OffsetRange { partition, end, .. } in ranges {
        if let Some(applied) = applied(*partition).filter(|applied| applied > end) {
            let why = format!("partition {partition} ends at offset {end}, the index at {applied}");
            return Ok(Fit::Other(why));
        }
    }
    let gone = ranges.iter().map(|range| (range.start - applied(range.partition).unwrap_or(0)).max(0)).sum();
    let Some(last) = mark.last else {
        return Ok(if gone > 0 { Fit::Gone(gone) } else { Fit::Whole });
    };
    let mut tail = Tail::since(log, topic, &mark.applied).await.map_err(|source| failed(topic, source))?;
    while let Some(records) = tail.next().await.map_err(|source| failed(topic, source))? {
        if records.iter().any(|record| id_of(record) == Some(last)) {
            return Ok(if gone > 0 { Fit::Gone(gone) } else { Fit::Whole });
        }
    }
    Ok(if gone > 0 { Fit::Gone(gone) } else { Fit::Other("the topic does not hold what was added last".to_owned()) })
}

/// Adds what the topic holds from the mark on; returns how many ids that were.
async fn read_on(log: &dyn Log, topic: &str, mut index: Index, mark: &Mark) -> Result<(Index, u64)> {
    let mut tail = Tail::since(log, topic, &mark.applied).await.map_err(|source| failed(topic, source))?;
    let mut count = 0;
    while let Some(records) = tail.next().await.map_err(|source| failed(topic, source))? {
        let ids: Vec<Prefix> = records.iter().filter_map(id_of).collect();
        count += ids.len() as u64;
        // Not past the last record, so that the id that was added last lies at or after what is applied.
        let applied: BTreeMap<i32, i64> = records.iter().map(|record| (record.partition, record.offset)).collect();
        let applied: Vec<(i32, i64)> = applied.into_iter().collect();
        index = blocking(move || {
            let added = index.add(&ids, &applied);
            added.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "could not write the index of known ids").with_source(error)
            })?;
            Ok(index)
        })
        .await?;
    }
    Ok((index, count))
}

fn id_of(record: &StoredRecord) -> Option<Prefix> {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())?;
    EventId::from_hex(key).map(|id| prefix(&id.0))
}

fn failed(topic: &str, source: topic::Error) -> Error {
    Error::of_log(format!("could not read back the ids of topic `{topic}`"), source)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.map_err(|panic| {
        Error::new(ErrorKind::Internal, "a task on the index of known ids panicked").with_source(panic)
    })?
}
