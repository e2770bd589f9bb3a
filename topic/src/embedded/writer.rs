//! Writes to the embedded log: records wait in memory and become one atomic batch at commit or flush.
//!
//! What is handed to the disk is taken out of the writer only once its turn to write has come, so that a call that is
//! cancelled while it waits leaves all of it for the next one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::store::{Batch, GroupOffset, Placed};
use super::{EmbeddedLog, joined};
use crate::name::{Turns, check_record, no_topic};
use crate::transaction::Transaction;
use crate::{Error, ErrorKind, Record, Result, Writer};

/// Outside transactions more than this is written out without waiting for a flush.
const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A transaction is one batch, held in memory: there must be an end.
const TRANSACTION_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What a record costs in memory beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

pub(super) struct EmbeddedWriter {
    log: EmbeddedLog,
    fence: Option<(String, u64)>,
    transaction: Transaction,
    pending: Batch,
    pending_bytes: usize,
    turns: Turns,
}

impl EmbeddedWriter {
    pub(super) fn new(log: EmbeddedLog, fence: Option<(String, u64)>) -> Self {
        let transaction = Transaction::new(fence.is_some());
        Self { log, fence, transaction, pending: Batch::default(), pending_bytes: 0, turns: Turns::default() }
    }

    fn check_fence(&self) -> Result<()> {
        match &self.fence {
            Some((id, epoch)) => self.log.shared.store.check_fence(id, *epoch),
            None => Ok(()),
        }
    }

    /// Makes what is pending durable and visible.
    async fn write_out(&mut self) -> Result<()> {
        let turn = Arc::clone(&self.log.shared.writing).lock_owned().await;
        let mut batch = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        batch.fence.clone_from(&self.fence);
        let shared = Arc::clone(&self.log.shared);
        let task = spawn_blocking(move || {
            let done = shared.store.commit(&batch);
            drop(turn);
            done
        });
        joined(task.await)
    }

    fn clear(&mut self) {
        self.pending = Batch::default();
        self.pending_bytes = 0;
    }
}

#[async_trait]
impl Writer for EmbeddedWriter {
    async fn begin(&mut self) -> Result<()> {
        self.check_fence()?;
        self.transaction.begin()?;
        self.clear();
        Ok(())
    }

    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        self.transaction.check_send()?;
        self.check_fence()?;
        let found = self.log.shared.store.topic(topic).ok_or_else(|| no_topic(topic))?;
        for record in records {
            let bytes = check_record(topic, &record)? + RECORD_OVERHEAD_BYTES;
            let partition = self.turns.partition_of(topic, &record, found.partitions)?;
            let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.log.shared.clock.now_ms());
            let within = self.fence.is_some();
            if within && self.pending_bytes + bytes > TRANSACTION_BYTES_MAX {
                let message = format!("a transaction of the embedded log holds at most {TRANSACTION_BYTES_MAX} bytes");
                return Err(Error::new(ErrorKind::Data, message));
            }
            let topic = Arc::clone(&found);
            self.pending.records.push(Placed { topic, partition, timestamp_ms, record });
            self.pending_bytes += bytes;
            if !within && self.pending_bytes > PENDING_BYTES_MAX {
                self.write_out().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.fence.is_some() || self.pending.records.is_empty() {
            // Within a transaction nothing is written before commit. Otherwise a flush that was cancelled may still
            // be writing: once the turn to write has come, it has ended.
            let _turn: tokio::sync::MutexGuard<'_, ()> = Mutex::lock(&self.log.shared.writing).await;
            return self.check_fence();
        }
        self.write_out().await
    }

    async fn send_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        self.transaction.check_open("send offsets")?;
        self.check_fence()?;
        if self.log.shared.store.topic(topic).is_none() {
            return Err(no_topic(topic));
        }
        self.pending.offsets.extend(offsets.iter().map(|(partition, offset)| GroupOffset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition: *partition,
            offset: *offset,
        }));
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        self.transaction.begin_commit()?;
        let done = self.write_out().await;
        self.transaction.end_commit(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.transaction.check_open("abort")?;
        self.clear();
        self.transaction.end();
        self.check_fence()
    }
}
