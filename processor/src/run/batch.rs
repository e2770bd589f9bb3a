//! A job over a range of the lake: read every object that may hold a row of the range, close windows on the way, done.
//!
//! Objects are read in the order of their least event time, several at once; a window closes when no object that is
//! still unread can hold a row of it, so that a year's range does not hold a year's state.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch};
use datafusion::error::DataFusionError;
use event::EventTime;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Range, ordered};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::lake::{LakeObject, LakeTable};
use crate::plan::{PanePlan, RowReader};
use crate::state::Panes;

/// What of the lake a batch reads, and with how many workers.
#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// First event time of the range; none is the beginning.
    pub from: Option<EventTime>,
    /// Event time after the range's last; none is the end.
    pub until: Option<EventTime>,
    /// Objects read at once, at least one.
    pub threads: usize,
}

/// How far a batch has come; read it from another task.
#[derive(Debug, Default)]
pub struct BatchProgress {
    /// Objects to be read.
    pub objects_total: AtomicU64,
    /// Objects read.
    pub objects_done: AtomicU64,
    /// Objects that provably hold no row of the range.
    pub objects_skipped: AtomicU64,
    /// Rows read.
    pub rows: AtomicU64,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSummary {
    /// Objects read.
    pub objects: u64,
    /// Objects that provably hold no row of the range.
    pub skipped: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows of output.
    pub rows_out: u64,
}

type Queue = Arc<Mutex<VecDeque<(usize, LakeObject)>>>;
type Done = (usize, Vec<RecordBatch>);

/// Runs `job` over the lake; `on_rows` gets the output by ascending window end.
///
/// # Errors
/// `Unavailable` when the lake cannot be read, `Data` when an object is not what was written, or what `on_rows` says.
pub async fn batch(
    job: &Job,
    lake: LakeTable,
    settings: BatchSettings,
    progress: Arc<BatchProgress>,
    on_rows: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
) -> Result<BatchSummary> {
    let bounds = settings.from.map(EventTime::micros)..settings.until.map(EventTime::micros);
    let range = Range::new(settings.from, settings.until);
    let (objects, skipped) = LakeTable::prune(lake.objects().await?, &bounds);
    progress.objects_total.store(objects.len() as u64, Ordering::Relaxed);
    progress.objects_skipped.store(skipped as u64, Ordering::Relaxed);
    let least: Vec<i64> = objects.iter().map(|object| object.event_time.map_or(i64::MIN, |(least, _)| least)).collect();
    let queue: Queue = Arc::new(Mutex::new(objects.into_iter().enumerate().collect()));

    let mut assembly = job.plan.assembly().await?;
    let mut panes = Panes::new(job.plan.cut.spec, &assembly);
    let mut rows_out = 0;
    let mut emit = |rows: RecordBatch| {
        rows_out += rows.num_rows() as u64;
        on_rows(ordered(job, rows)?)
    };
    let (send, mut receive) = mpsc::channel::<Done>(2 * settings.threads.max(1));
    let mut workers = JoinSet::new();
    for _ in 0..settings.threads.max(1) {
        let (lake, queue, send) = (lake.clone(), Arc::clone(&queue), send.clone());
        workers.spawn(work(job.plan.pane_plan().await?, lake, queue, range, Arc::clone(&progress), send));
    }
    drop(send);
    let mut unread = Frontier::new(least);
    while let Some((at, states)) = receive.recv().await {
        states.iter().try_for_each(|state| panes.add(state))?;
        if let Some(frontier) = unread.done(at) {
            panes.close(Some(frontier), &mut assembly, &mut emit).await?;
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| Error::internal("a worker of the batch ended early").with_source(error))??;
    }
    panes.close(None, &mut assembly, &mut emit).await?;
    Ok(BatchSummary {
        objects: progress.objects_done.load(Ordering::Relaxed),
        skipped: skipped as u64,
        rows_in: progress.rows.load(Ordering::Relaxed),
        rows_out,
    })
}

/// The least event time that may still come: that of the first object, in order, that is not done.
struct Frontier {
    least: Vec<i64>,
    done: Vec<bool>,
    at: usize,
}

impl Frontier {
    fn new(least: Vec<i64>) -> Self {
        Self { done: vec![false; least.len()], least, at: 0 }
    }

    /// Marks an object; the new frontier when it moved and is not the end.
    fn done(&mut self, object: usize) -> Option<i64> {
        self.done[object] = true;
        let before = self.at;
        while self.done.get(self.at) == Some(&true) {
            self.at += 1;
        }
        if self.at == before { None } else { self.least.get(self.at).copied() }
    }
}

/// Takes objects off the queue until it is empty; sends each one's state.
async fn work(
    mut plan: PanePlan,
    lake: LakeTable,
    queue: Queue,
    range: Range,
    progress: Arc<BatchProgress>,
    send: mpsc::Sender<Done>,
) -> Result<()> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((at, object)) = next() {
        let rows = lake.read(&object, plan.rows.columns());
        let (reader, counted) = (plan.rows.clone(), Arc::clone(&progress));
        let rows = rows.map_err(DataFusionError::from).map(move |batch| {
            let batch = batch?;
            counted.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            Ok(in_range(&reader, &batch, range)?)
        });
        let states = plan.partial.run(rows).await?;
        progress.objects_done.fetch_add(1, Ordering::Relaxed);
        if send.send((at, states)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The rows of the range that pass the job's filter, with the columns that the plan wants.
fn in_range(reader: &RowReader, rows: &RecordBatch, range: Range) -> Result<RecordBatch> {
    let times = reader.times(rows);
    let mut mask: Option<BooleanArray> = reader.filter(rows)?;
    if !times.values().iter().all(|time| range.contains(*time)) {
        let ranged: BooleanArray = times.values().iter().map(|time| Some(range.contains(*time))).collect();
        mask = Some(match mask {
            Some(mask) => and(&mask, &ranged)?,
            None => ranged,
        });
    }
    let wanted = reader.wanted(rows)?;
    match mask {
        Some(mask) if mask.true_count() < mask.len() => Ok(filter_record_batch(&wanted, &mask)?),
        _ => Ok(wanted),
    }
}
