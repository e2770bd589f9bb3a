//! Reads the embedded log: what is there at once, and woken by the topic's bell when something is added.
//!
//! Positions move only when records are handed over, so a read that is cancelled loses nothing. Partitions take
//! turns in going first, so that none is starved by a fuller one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::EmbeddedLog;
use super::store::Topic;
use crate::{Offsets, Reader, Result, StoredRecord};

/// A read ends once it holds this much, however many records were asked for.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct EmbeddedReader {
    log: EmbeddedLog,
    topic: Arc<Topic>,
    changed: watch::Receiver<()>,
    positions: Offsets,
    /// Index into `positions` of the partition that goes first.
    first: usize,
}

impl EmbeddedReader {
    pub(super) fn new(log: EmbeddedLog, topic: Arc<Topic>, mut from: Offsets) -> Self {
        from.sort_unstable();
        let changed = topic.changed();
        Self { log, topic, changed, positions: from, first: 0 }
    }

    /// Partitions that hold something to read, each with its range, the one whose turn it is first.
    fn pending(&self) -> Vec<(i32, std::ops::Range<i64>)> {
        let ends = self.log.shared.store.ends(&self.topic);
        let (before, from_first) = self.positions.split_at(self.first.min(self.positions.len()));
        let by_turn = from_first.iter().chain(before);
        let ranges = by_turn.filter_map(|(partition, position)| {
            let end = ends.get(usize::try_from(*partition).ok()?)?;
            (position < end).then_some((*partition, *position..*end))
        });
        ranges.collect()
    }
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>> {
        let deadline = Instant::now() + max_wait;
        let pending = loop {
            // Seen before looking: what is added after the look rings again.
            self.changed.borrow_and_update();
            let pending = self.pending();
            if !pending.is_empty() {
                break pending;
            }
            match timeout_at(deadline, self.changed.changed()).await {
                Ok(Ok(())) => {}
                // The bell is held by the topic, which this reader holds: it cannot be gone.
                Ok(Err(_)) | Err(_) => return Ok(Vec::new()),
            }
        };
        let topic = Arc::clone(&self.topic);
        let read = self.log.blocking(move |shared| {
            let (mut records, mut bytes) = (Vec::new(), 0);
            for (partition, range) in pending {
                if records.len() >= max_records || bytes >= READ_BYTES_MAX {
                    break;
                }
                let (count_left, bytes_left) = (max_records - records.len(), READ_BYTES_MAX - bytes);
                let (more, more_bytes) = shared.store.read_records(&topic, partition, range, count_left, bytes_left)?;
                bytes += more_bytes;
                records.extend(more);
            }
            Ok(records)
        });
        let records = read.await?;
        for (partition, position) in &mut self.positions {
            let last = records.iter().rev().find(|record| record.partition == *partition);
            if let Some(last) = last {
                *position = last.offset + 1;
            }
        }
        self.first = (self.first + 1) % self.positions.len().max(1);
        Ok(records)
    }

    fn positions(&self) -> Offsets {
        self.positions.clone()
    }
}
