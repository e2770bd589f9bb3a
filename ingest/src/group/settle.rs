//! The owner of a partition of the intake: frames in, events to the raw topic and refusals to the rejected one, each
//! once, with how far the intake is settled in the same transaction.

use std::sync::Arc;
use std::time::Duration;

use event::layout::intake_topic;
use futures::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{Log, Reader, StoredRecord, Tail};

use super::frame;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::add;
use crate::owner::group_id;
use crate::parcel::{Outgoing, Parcel};
use crate::publish::{PARCEL_RECORDS_MAX, Publisher};
use crate::verifier::Verifier;

/// Frames that a thread judges at once, at least.
const FRAMES_MIN: usize = 64;
/// How soon a read ends in which nothing comes.
const WAIT: Duration = Duration::from_millis(500);
/// How long it takes at most until frames that led to nothing count as settled.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// How long what has been handed in is settled when the member is told to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A partition of the intake that is this member's.
pub(super) struct Settler {
    pub(super) log: Arc<dyn Log>,
    pub(super) intake: String,
    pub(super) partition: i32,
    pub(super) publisher: Publisher,
    pub(super) reader: Box<dyn Reader>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) threads: usize,
}

impl Settler {
    /// Settles until `end`; with `drain`, then on to what was handed in by then.
    ///
    /// # Errors
    /// `Fenced` when another process has the partition, `Unavailable` when the log fails.
    pub(super) async fn run(mut self, end: &CancellationToken, drain: impl Fn() -> bool) -> Result<()> {
        let topic = self.intake.clone();
        let failed = |source| Error::of_log(format!("could not read topic `{topic}`"), source);
        let mut told = (self.next(), Instant::now());
        loop {
            let records = tokio::select! {
                biased;
                () = end.cancelled() => break,
                records = self.reader.read(PARCEL_RECORDS_MAX, WAIT) => records.map_err(failed)?,
            };
            told = self.settle(records, told, TELL_WITHIN).await?;
        }
        if drain() {
            let ranges = self.log.ranges(&self.intake).await.map_err(failed)?;
            let last = ranges.iter().find(|range| range.partition == self.partition).map_or(0, |range| range.end);
            let deadline = Instant::now() + DRAIN_MAX;
            while self.next() < last && Instant::now() < deadline {
                let records = self.reader.read(PARCEL_RECORDS_MAX, WAIT).await;
                let records = records.map_err(failed)?;
                told = self.settle(records, told, TELL_WITHIN).await?;
            }
        }
        self.settle(Vec::new(), told, Duration::ZERO).await.map(drop)
    }

    /// The next frame's offset.
    fn next(&self) -> i64 {
        self.reader.positions().iter().map(|(_, next)| *next).next().unwrap_or_default()
    }

    /// Settles frames; `told` is the offset that was written last, and when.
    async fn settle(
        &mut self,
        records: Vec<StoredRecord>,
        told: (i64, Instant),
        within: Duration,
    ) -> Result<(i64, Instant)> {
        let next = self.next();
        let judged = judge(Arc::clone(&self.verifier), self.threads, records).await?;
        let mut parcel = self.publisher.pack(judged);
        if parcel.is_empty() && (next == told.0 || told.1.elapsed() < within) {
            return Ok(told);
        }
        parcel.offsets = vec![(self.partition, next)];
        self.publisher.deliver(parcel).await?;
        Ok((next, Instant::now()))
    }
}

/// Judges frames on some threads at once; what becomes of them, in order.
async fn judge(verifier: Arc<Verifier>, threads: usize, records: Vec<StoredRecord>) -> Result<Vec<Outgoing>> {
    let share = records.len().div_ceil(threads.max(1)).max(FRAMES_MIN);
    let mut records = records.into_iter();
    let shares = std::iter::from_fn(|| Some(records.by_ref().take(share).collect::<Vec<_>>()));
    let judged = shares.take_while(|share| !share.is_empty()).map(|share| {
        let verifier = Arc::clone(&verifier);
        let settle = move |record| verifier.settle(frame::input(record));
        spawn_blocking(move || share.into_iter().filter_map(settle).collect::<Vec<_>>())
    });
    let mut judged = stream::iter(judged.collect::<Vec<_>>()).buffered(threads.max(1));
    let mut outgoing = Vec::new();
    while let Some(share) = judged.next().await {
        let panicked = |panic| Error::new(ErrorKind::Internal, "a verifier panicked").with_source(panic);
        outgoing.extend(share.map_err(panicked)?);
    }
    Ok(outgoing)
}

/// Settles what a group has handed in and not settled, since the ledger counts it as here. Its members are fenced.
///
/// # Errors
/// `Unavailable` when the log fails.
pub(crate) async fn settle_leftover(
    log: &dyn Log,
    raw_topic: &str,
    verifier: Arc<Verifier>,
    threads: usize,
    publisher: &mut Publisher,
) -> Result<()> {
    let topic = intake_topic(raw_topic);
    let failed = |source| Error::of_log(format!("could not read topic `{topic}`"), source);
    let from = match log.committed(&group_id(raw_topic), &topic).await {
        Ok(from) => from,
        Err(error) if error.kind() == topic::ErrorKind::NotFound => return publisher.leftover_is_settled().await,
        Err(error) => return Err(failed(error)),
    };
    let (mut tail, mut count) = (Tail::since(log, &topic, &from).await.map_err(failed)?, 0);
    while let Some(records) = tail.next().await.map_err(failed)? {
        count += records.len();
        add(&verifier.counters.received, records.len() as u64);
        let judged = judge(Arc::clone(&verifier), threads, records).await?;
        let parcel = publisher.pack(judged);
        publisher.deliver(Parcel { offsets: tail.positions(), ..parcel }).await?;
    }
    tracing::info!(topic, frames = count, "what a group had handed in is settled");
    publisher.leftover_is_settled().await
}
