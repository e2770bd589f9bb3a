//! A job over a range of the lake: read every object that may hold a row of the range, close windows on the way, done.
//!
//! Objects are read in the order of their least event time, several at once; a window closes when no object that is
//! still unread can hold a row of it, so that a year's range does not hold a year's state.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use event::EventTime;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::engine::{Engine, Intake, Range, Taken, select_leaf};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::lake::{LakeObject, LakeTable, Needed};
use crate::plan::cut::Kind;

/// Bytes of rows that are aggregated in one go.
const BYTES_AT_ONCE: usize = 32 * 1024 * 1024;

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

impl BatchSettings {
    /// Event times in microseconds.
    fn bounds(&self) -> std::ops::Range<Option<i64>> {
        self.from.map(EventTime::micros)..self.until.map(EventTime::micros)
    }

    /// The objects that may hold a row of the range, and how many were left out.
    pub(crate) async fn objects(&self, lake: &LakeTable) -> Result<(Vec<LakeObject>, usize)> {
        Ok(LakeTable::prune(lake.objects().await?, &self.bounds()))
    }
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

/// Objects that are still to be read, with their numbers.
pub(crate) type Queue = Arc<Mutex<VecDeque<(usize, LakeObject)>>>;

/// What a reader made of an object: all of it at the end; parts before.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) taken: Taken,
    /// The object's number.
    pub(crate) object: usize,
    pub(crate) ended: bool,
    /// Rows that it is made of.
    pub(crate) rows: u64,
}

/// Takes objects off a queue until it is empty; there are several at once.
#[derive(Debug)]
pub(crate) struct ObjectReader {
    pub(crate) intake: Intake,
    /// Columns that are read.
    pub(crate) columns: Vec<usize>,
    pub(crate) lake: LakeTable,
    pub(crate) queue: Queue,
    /// How many may compute at once.
    pub(crate) turns: Arc<Semaphore>,
}

/// Runs `job` over the lake; `on_rows` gets the rows of each output, by its number, by ascending window end.
///
/// # Errors
/// `Unavailable` when the lake cannot be read, `Data` when an object is not what was written, or what `on_rows` says.
pub async fn batch(
    job: &Job,
    lake: LakeTable,
    settings: BatchSettings,
    progress: Arc<BatchProgress>,
    on_rows: &mut (dyn FnMut(usize, RecordBatch) -> Result<()> + Send),
) -> Result<BatchSummary> {
    let range = Range::new(settings.from, settings.until);
    let (objects, skipped) = settings.objects(&lake).await?;
    let lake = lake.needing(Needed { event_time: settings.bounds(), ..Needed::default() });
    progress.objects_total.store(objects.len() as u64, Ordering::Relaxed);
    progress.objects_skipped.store(skipped as u64, Ordering::Relaxed);
    let mut rows_out = 0;
    let mut emit = |output: usize, rows: RecordBatch| {
        rows_out += rows.num_rows() as u64;
        on_rows(output, rows)
    };
    bounded(job, &lake, &objects, range, &progress, &mut emit).await?;
    if job.plan.queries.iter().any(|query| query.kind != Kind::Bounded) {
        aggregate(job, &lake, objects, range, &settings, &progress, &mut emit).await?;
    }
    Ok(BatchSummary {
        objects: progress.objects_done.load(Ordering::Relaxed),
        skipped: skipped as u64,
        rows_in: progress.rows.load(Ordering::Relaxed),
        rows_out,
    })
}

/// The queries that need all rows at once, each in a run of its own.
async fn bounded(
    job: &Job,
    lake: &LakeTable,
    objects: &[LakeObject],
    range: Range,
    progress: &Arc<BatchProgress>,
    emit: &mut (dyn FnMut(usize, RecordBatch) -> Result<()> + Send),
) -> Result<()> {
    for (number, _) in job.plan.queries.iter().enumerate().filter(|(_, query)| query.kind == Kind::Bounded) {
        let (mut plan, readers) = job.plan.upper(number).await?;
        let mut fills = Vec::with_capacity(readers.len());
        for reader in readers {
            let (table, reader) = reader.ok_or_else(|| Error::internal("a query over all rows reads no table"))?;
            let read = &job.plan.tables[table];
            let (lake, columns, time_at) = (lake.clone(), read.columns.clone(), read.time_at);
            let progress = Arc::clone(progress);
            let rows = stream::iter(objects.to_vec()).map(move |object| lake.read(&object, &columns)).flatten();
            let wanted = rows.map(move |rows| {
                let rows = rows?;
                progress.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                Ok::<_, DataFusionError>(select_leaf(&reader, &rows, time_at, range)?)
            });
            fills.push(wanted.boxed());
        }
        let mut rows = plan.start(fills)?;
        while let Some(rows) = rows.try_next().await? {
            if rows.num_rows() > 0 {
                emit(number, rows)?;
            }
        }
        progress.objects_done.store(objects.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// The queries over windows, and those that go row by row, in one pass.
async fn aggregate(
    job: &Job,
    lake: &LakeTable,
    objects: Vec<LakeObject>,
    range: Range,
    settings: &BatchSettings,
    progress: &Arc<BatchProgress>,
    emit: &mut (dyn FnMut(usize, RecordBatch) -> Result<()> + Send),
) -> Result<()> {
    progress.objects_done.store(0, Ordering::Relaxed);
    let least: Vec<i64> = objects.iter().map(|object| object.event_time.map_or(i64::MIN, |(least, _)| least)).collect();
    let queue: Queue = Arc::new(Mutex::new(objects.into_iter().enumerate().collect()));
    let mut engine = Engine::new(job, range, Vec::new(), []).await?;
    let threads = settings.threads.max(1);
    let turns = Arc::new(Semaphore::new(threads));
    let (send, mut receive) = mpsc::channel::<Done>(2 * threads);
    let mut workers = JoinSet::new();
    for _ in 0..threads {
        let reader = ObjectReader {
            intake: engine.worker().await?,
            columns: job.plan.tables[0].columns.clone(),
            lake: lake.clone(),
            queue: Arc::clone(&queue),
            turns: Arc::clone(&turns),
        };
        workers.spawn(reader.run(send.clone()));
    }
    drop(send);
    let mut unread = Frontier::new(least);
    while let Some(done) = receive.recv().await {
        progress.rows.fetch_add(done.rows, Ordering::Relaxed);
        engine.add(done.taken, emit)?;
        engine.shed().await?;
        if done.ended {
            progress.objects_done.fetch_add(1, Ordering::Relaxed);
            if let Some(frontier) = unread.done(done.object) {
                engine.close(frontier, emit).await?;
            }
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| Error::internal("a worker of the batch ended early").with_source(error))??;
    }
    engine.finish(emit).await
}

/// The least event time that may still come: that of the first object, in order, that is not done.
#[derive(Debug)]
pub(super) struct Frontier {
    least: Vec<i64>,
    done: Vec<bool>,
    at: usize,
}

impl Frontier {
    pub(super) fn new(least: Vec<i64>) -> Self {
        Self { done: vec![false; least.len()], least, at: 0 }
    }

    /// Marks an object; the new frontier when it moved and is not the end.
    pub(super) fn done(&mut self, object: usize) -> Option<i64> {
        self.done[object] = true;
        let before = self.at;
        while self.done.get(self.at) == Some(&true) {
            self.at += 1;
        }
        if self.at == before { None } else { self.least.get(self.at).copied() }
    }
}

impl ObjectReader {
    /// Sends what it makes of the objects.
    pub(crate) async fn run(mut self, send: mpsc::Sender<Done>) -> Result<()> {
        while let Some((object, lies)) = self.next() {
            let mut rows = self.lake.read(&lies, &self.columns);
            let mut ended = false;
            while !ended {
                // While it waits for who takes what it has made, another one computes.
                let turn = self.turns.acquire().await;
                let turn = turn.map_err(|error| Error::internal("readers have no turns").with_source(error))?;
                let (mut held, mut bytes, mut count) = (Vec::new(), 0, 0);
                while bytes < BYTES_AT_ONCE {
                    let Some(batch) = rows.try_next().await? else {
                        ended = true;
                        break;
                    };
                    count += batch.num_rows() as u64;
                    bytes += batch.get_array_memory_size();
                    held.push(batch);
                }
                let taken = self.intake.take(0, &held, None).await?;
                drop(turn);
                if send.send(Done { taken, object, ended, rows: count }).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<(usize, LakeObject)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
