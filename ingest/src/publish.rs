//! The way out: records to the raw topic and the rejected topic, in parcels; an id counts as known once the log has
//! acknowledged its parcel.
//!
//! One task owns the writer. A failed parcel ends the run: whether the log took a part of it is not known, and only
//! reading the topic back, as every start does, can tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use topic::Writer;

use crate::dedup::Dedup;
use crate::error::{Error, Result};
use crate::metrics::{Counters, add};
use crate::parcel::{Outgoing, Parcel};

/// Records of a parcel: an fsync or a round trip to the broker is shared by so many.
const PARCEL_RECORDS_MAX: usize = 1_000;
/// How long the first record of a parcel waits for others.
const LINGER: Duration = Duration::from_millis(25);

/// Owner of the log's writer.
pub(crate) struct Publisher {
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) topic: String,
    pub(crate) rejected_topic: String,
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) counters: Arc<Counters>,
}

impl Publisher {
    /// Publishes until the queue is closed and empty.
    ///
    /// # Errors
    /// What the log said to the first parcel it did not take.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Outgoing>) -> Result<()> {
        let mut waiting = Vec::with_capacity(PARCEL_RECORDS_MAX);
        while fill(&mut queue, &mut waiting).await {
            self.deliver(Parcel::of(waiting.drain(..))).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, parcel: Parcel) -> Result<()> {
        let Parcel { ids, events, reasons, rejected } = parcel;
        if let Err(error) = self.send(events, rejected).await {
            ids.iter().for_each(|id| self.dedup.release(id));
            return Err(error);
        }
        ids.iter().for_each(|id| self.dedup.confirm(id));
        add(&self.counters.published, ids.len() as u64);
        reasons.into_iter().for_each(|reason| self.counters.add_rejected(reason));
        Ok(())
    }

    async fn send(&mut self, events: Vec<topic::Record>, rejected: Vec<topic::Record>) -> Result<()> {
        for (topic, records) in [(&self.topic, events), (&self.rejected_topic, rejected)] {
            if !records.is_empty() {
                let failed = |source| Error::of_log(format!("could not write to topic `{topic}`"), source);
                self.writer.send(topic, records).await.map_err(failed)?;
            }
        }
        let failed = |source| Error::of_log(format!("topic `{}` did not acknowledge", self.topic), source);
        self.writer.flush().await.map_err(failed)
    }
}

/// Waits for a record, then for a full parcel or the linger time; `false` when the queue is closed and empty.
async fn fill(queue: &mut mpsc::Receiver<Outgoing>, waiting: &mut Vec<Outgoing>) -> bool {
    if queue.recv_many(waiting, PARCEL_RECORDS_MAX).await == 0 {
        return false;
    }
    let deadline = Instant::now() + LINGER;
    while waiting.len() < PARCEL_RECORDS_MAX {
        let room = PARCEL_RECORDS_MAX - waiting.len();
        match timeout_at(deadline, queue.recv_many(waiting, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    true
}
