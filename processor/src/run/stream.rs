//! A job over a topic: the epoch loop. Read, aggregate, advance the watermark, close windows, commit.
//!
//! An epoch is what one read returned; the watermark that decides what is late moves between epochs only. Results,
//! late rows, offsets and the control record are one transaction. With `debug` nothing is written or committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use event::layout::{JOBS_TOPIC, NOSTR_EVENT_TOPIC, late_topic};
use event::{Clock, Event, EventBatchBuilder, EventTime, Limits, Origin as RowOrigin};
use object_store::ObjectStore;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{Log, Offsets, Reader, Record, StoredRecord, Writer};

use super::checkpoint::{Control, Snapshots, control_record, create_jobs_topic, read_control};
use super::late::{late_line, late_record, late_windows};
use super::{Range, ordered};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::plan::{Assembly, PanePlan};
use crate::sink::{create_topics, output_records};
use crate::state::Panes;
use crate::stream::watermark::Watermarks;

/// How long an epoch waits for its first record.
const EPOCH_WAIT: Duration = Duration::from_millis(200);
/// Least time between two commits that carry results.
const COMMIT_WITH_RESULTS: Duration = Duration::from_millis(500);
/// Longest time between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the ends of the partitions are asked for.
const ENDS_INTERVAL: Duration = Duration::from_secs(1);

/// Where a job starts that has no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record still there.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record received at or after an instant.
    At(EventTime),
}

/// How a stream job runs.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Topic to read; [`NOSTR_EVENT_TOPIC`] by default.
    pub raw_topic: String,
    /// Where to start without a checkpoint; [`Start::Earliest`] by default.
    pub start: Start,
    /// Only rows with an event time from this on.
    pub from: Option<EventTime>,
    /// Only rows with an event time before this.
    pub until: Option<EventTime>,
    /// Stop when what was there at the start is read, and close all windows.
    pub until_latest: bool,
    /// Begin anew, whatever the checkpoint says.
    pub restart: bool,
    /// Write and commit nothing.
    pub debug: bool,
    /// Topic for the results; none gives them to the observer only.
    pub output_topic: Option<String>,
    /// Where snapshots lie; needed unless `debug`.
    pub checkpoint: Option<(Arc<dyn ObjectStore>, Path)>,
    /// Records of one epoch at most; what is late is decided once an epoch. 4,096 by default.
    pub epoch_records_max: usize,
    /// A partition that is caught up and has been quiet for so long no longer holds the watermark back; one minute.
    pub idle_timeout: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            raw_topic: NOSTR_EVENT_TOPIC.to_owned(),
            start: Start::Earliest,
            from: None,
            until: None,
            until_latest: false,
            restart: false,
            debug: false,
            output_topic: None,
            checkpoint: None,
            epoch_records_max: 4_096,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// How far a stream has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamProgress {
    /// Epochs so far.
    pub epoch: u64,
    /// Records read so far.
    pub rows_in: u64,
    /// Rows of closed windows so far.
    pub rows_out: u64,
    /// (Row, window) pairs that came too late, so far.
    pub late: u64,
    /// Records that hold no event, so far.
    pub unreadable: u64,
    /// No row older than this is expected.
    pub watermark: Option<EventTime>,
    /// The partition that holds the watermark back.
    pub held_by: Option<i32>,
    /// Records between the job and the ends of the partitions.
    pub lag: u64,
    /// Rows and bytes of open panes.
    pub state: (usize, usize),
}

/// What a stream did, from this start to its end.
pub type StreamSummary = StreamProgress;

/// Is told what a stream does, as it happens.
pub trait StreamObserver: Send {
    /// Rows of closed windows, by ascending window end.
    ///
    /// # Errors
    /// Stops the job with what it says.
    fn rows(&mut self, rows: &RecordBatch) -> Result<()>;

    /// A (row, window) pair that came too late, as one JSON line.
    ///
    /// # Errors
    /// Stops the job with what it says.
    fn late(&mut self, line: &str) -> Result<()>;

    /// The end of an epoch.
    fn progress(&mut self, progress: &StreamProgress);
}

/// Runs `job` over a topic until `shutdown`, or to the topic's end.
///
/// # Errors
/// `Config` when the topic does not exist or the job had finished, `Checkpoint` when the state is another plan's,
/// `Fenced` when another copy of the job took over, `Unavailable`, `Data`.
pub async fn stream(
    job: &Job,
    log: Arc<dyn Log>,
    clock: Clock,
    settings: StreamSettings,
    observer: &mut dyn StreamObserver,
    shutdown: CancellationToken,
) -> Result<StreamSummary> {
    let mut run = Run::start(job, log, clock, settings).await?;
    while !shutdown.is_cancelled() {
        let records = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            records = run.reader.read(run.settings.epoch_records_max, EPOCH_WAIT) => records?,
        };
        run.epoch(&records, observer).await?;
        if run.at_end() {
            run.finish(observer).await?;
            return Ok(run.progress);
        }
    }
    run.commit(false).await?;
    Ok(run.progress)
}

/// What a transaction of the job writes to, and where its snapshots lie.
struct Commits {
    id: String,
    writer: Box<dyn Writer>,
    snapshots: Snapshots,
    last_snapshot: Option<String>,
    epoch: u64,
    late_before: u64,
    at: Instant,
}

/// One run of a job.
struct Run<'a> {
    job: &'a Job,
    log: Arc<dyn Log>,
    clock: Clock,
    settings: StreamSettings,
    pane_plan: PanePlan,
    assembly: Assembly,
    panes: Panes,
    marks: Watermarks,
    reader: Box<dyn Reader>,
    commits: Option<Commits>,
    results: Vec<Record>,
    late: Vec<Record>,
    /// Ends of the partitions, and when they were asked for.
    ends: HashMap<i32, i64>,
    ends_at: Instant,
    /// Ends at the start, with `until_latest`.
    stop_at: Option<HashMap<i32, i64>>,
    /// When a partition last gave a record.
    heard: HashMap<i32, Instant>,
    started: Instant,
    progress: StreamProgress,
}

impl<'a> Run<'a> {
    async fn start(job: &'a Job, log: Arc<dyn Log>, clock: Clock, settings: StreamSettings) -> Result<Self> {
        let ranges = log.ranges(&settings.raw_topic).await.map_err(|error| {
            let missing = error.kind() == topic::ErrorKind::NotFound;
            let error = Error::from(error);
            if missing {
                error.with_hint("fill it with `tidegate ingest`, or name another with --raw-events-kafka-topic")
            } else {
                error
            }
        })?;
        let mut control = None;
        let mut commits = None;
        if !settings.debug {
            let (found, opened) = open_commits(job, log.as_ref(), &settings).await?;
            control = found;
            commits = Some(opened);
        }
        let assembly = job.plan.assembly().await?;
        let mut panes = Panes::new(job.plan.cut.spec, &assembly);
        let mut marks = Watermarks::new(job.delay().micros(), ranges.iter().map(|range| range.partition));
        let mut from = start_offsets(log.as_ref(), &settings, &ranges).await?;
        if let (Some(control), Some(commits)) = (&control, &mut commits) {
            panes.restore(&commits.snapshots.read(control).await?, control.watermark)?;
            marks.restore(control.watermark, control.partitions.iter().map(|(partition, _, mark)| (*partition, *mark)));
            for (partition, offset, _) in &control.partitions {
                from.retain(|(other, _)| other != partition);
                from.push((*partition, *offset));
            }
            commits.take_up(control);
        }
        let ends: HashMap<i32, i64> = ranges.iter().map(|range| (range.partition, range.end)).collect();
        let now = Instant::now();
        Ok(Self {
            reader: log.reader(&settings.raw_topic, from).await?,
            stop_at: settings.until_latest.then(|| ends.clone()),
            pane_plan: job.plan.pane_plan().await?,
            job,
            log,
            clock,
            settings,
            assembly,
            panes,
            marks,
            commits,
            ends,
            results: Vec::new(),
            late: Vec::new(),
            ends_at: now,
            heard: HashMap::new(),
            started: now,
            progress: StreamProgress::default(),
        })
    }

    /// Takes one read in, moves the watermark, closes what it has reached, and commits when it is time.
    async fn epoch(&mut self, records: &[StoredRecord], observer: &mut dyn StreamObserver) -> Result<()> {
        if !records.is_empty() {
            let rows = self.decode(records)?;
            let kept = self.admit(&rows, records, observer)?;
            for state in self.pane_plan.partial.run_batches(vec![kept]).await? {
                self.panes.add(&state)?;
            }
            let now = Instant::now();
            self.heard.extend(records.iter().map(|record| (record.partition, now)));
        }
        self.refresh_ends().await?;
        let before = self.marks.current();
        let idle = self.idle();
        let watermark = self.marks.advance(|partition| idle.contains(&partition));
        if watermark > before {
            self.close(watermark, observer).await?;
        }
        self.note_progress(&idle);
        observer.progress(&self.progress);
        let since = self.commits.as_ref().map_or(Duration::ZERO, |commits| commits.at.elapsed());
        let results = !self.results.is_empty() || !self.late.is_empty();
        if since >= COMMIT_INTERVAL || (results && since >= COMMIT_WITH_RESULTS) {
            self.commit(false).await?;
        }
        Ok(())
    }

    /// Closes all windows and marks the job finished.
    async fn finish(&mut self, observer: &mut dyn StreamObserver) -> Result<()> {
        self.close(None, observer).await?;
        self.note_progress(&[]);
        observer.progress(&self.progress);
        self.commit(true).await
    }

    /// Records to rows; a record that holds no event is counted.
    fn decode(&mut self, records: &[StoredRecord]) -> Result<Rows> {
        let mut builder = EventBatchBuilder::new();
        let mut sources = Vec::with_capacity(records.len());
        let limits = Limits::default();
        for (at, record) in records.iter().enumerate() {
            let raw = record.value.as_deref().unwrap_or_default();
            match Event::parse(raw, &limits) {
                Ok(event) => {
                    let origin = RowOrigin {
                        relay: record.header(event::layout::HEADER_RELAY),
                        received_at_ms: Some(record.timestamp_ms),
                        phase: record.header(event::layout::HEADER_PHASE),
                        partition: record.partition,
                        offset: record.offset,
                    };
                    builder.append(&event, &origin, raw);
                    sources.push(at);
                }
                Err(rejection) => {
                    self.progress.unreadable += 1;
                    tracing::warn!(
                        partition = record.partition,
                        offset = record.offset,
                        reason = rejection.reason.as_str(),
                        "a record of the raw topic holds no event"
                    );
                }
            }
        }
        self.progress.rows_in += records.len() as u64;
        let batch = builder.finish().project(self.pane_plan.rows.columns())?;
        Ok(Rows { batch, sources })
    }

    /// Decides every row against the frozen watermark: late for some windows, for all of them, or for none.
    fn admit(
        &mut self,
        rows: &Rows,
        records: &[StoredRecord],
        observer: &mut dyn StreamObserver,
    ) -> Result<RecordBatch> {
        let spec = self.job.plan.cut.spec;
        let reader = self.pane_plan.rows.clone();
        let wanted = reader.filter(&rows.batch)?;
        let watermark = self.marks.current();
        let range = Range::new(self.settings.from, self.settings.until);
        let mut keep = Vec::with_capacity(rows.sources.len());
        for (row, (source, time)) in rows.sources.iter().zip(reader.times(&rows.batch).values()).enumerate() {
            let record = &records[*source];
            self.marks.observe(record.partition, *time, record.timestamp_ms.saturating_mul(1_000));
            let wanted = range.contains(*time) && wanted.as_ref().is_none_or(|mask| mask.value(row));
            if wanted {
                for start in late_windows(spec, *time, watermark) {
                    self.note_late(start, watermark.unwrap_or(*time), record, observer)?;
                }
            }
            keep.push(wanted && watermark.is_none_or(|watermark| spec.last_end(spec.pane_of(*time)) > watermark));
        }
        let batch = reader.wanted(&rows.batch)?;
        Ok(filter_record_batch(&batch, &BooleanArray::from(keep))?)
    }

    fn note_late(
        &mut self,
        start: i64,
        watermark: i64,
        record: &StoredRecord,
        observer: &mut dyn StreamObserver,
    ) -> Result<()> {
        let raw = record.value.as_deref().unwrap_or_default();
        let event = Event::parse(raw, &Limits::default())
            .map_err(|rejection| Error::internal(format!("a row that was read is no event: {}", rejection.detail)))?;
        let line = late_line(self.job.name(), self.job.plan.cut.spec, start, watermark, record, &event);
        self.progress.late += 1;
        if self.writes_topic() {
            self.late.push(late_record(&line, self.job.name(), &event.id.to_string(), self.clock.now_ms()));
        }
        observer.late(&line)
    }

    fn writes_topic(&self) -> bool {
        self.settings.output_topic.is_some() && self.commits.is_some()
    }

    /// Emits the windows that `watermark` has reached.
    async fn close(&mut self, watermark: Option<i64>, observer: &mut dyn StreamObserver) -> Result<()> {
        let (job, now_ms, to_topic) = (self.job, self.clock.now_ms(), self.writes_topic());
        let (results, progress) = (&mut self.results, &mut self.progress);
        let mut emit = |rows: RecordBatch| {
            let rows = ordered(job, rows)?;
            progress.rows_out += rows.num_rows() as u64;
            if to_topic {
                results.extend(output_records(job, &rows, now_ms)?);
            }
            observer.rows(&rows)
        };
        self.panes.close(watermark, &mut self.assembly, &mut emit).await
    }

    /// Snapshot, then one transaction: results, late rows, control record, offsets.
    async fn commit(&mut self, finished: bool) -> Result<()> {
        let Some(commits) = &mut self.commits else { return Ok(()) };
        let positions = self.reader.positions();
        let epoch = commits.epoch + 1;
        let snapshot = commits.snapshots.write(epoch, &self.panes.snapshot()?).await?;
        let marks: HashMap<i32, Option<i64>> = self.marks.marks().collect();
        let (object, sha256) = snapshot.unzip();
        let control = Control {
            version: 1,
            fingerprint: self.job.plan.fingerprint(),
            epoch,
            watermark: self.marks.current(),
            partitions: positions.iter().map(|(p, offset)| (*p, *offset, marks.get(p).copied().flatten())).collect(),
            snapshot: object,
            sha256,
            finished,
            late: commits.late_before + self.progress.late,
        };
        let writer = &mut commits.writer;
        writer.begin().await?;
        if let Some(topic) = &self.settings.output_topic {
            writer.send(topic, std::mem::take(&mut self.results)).await?;
            writer.send(&late_topic(topic), std::mem::take(&mut self.late)).await?;
        }
        writer.send(JOBS_TOPIC, vec![control_record(&commits.id, &control, self.clock.now_ms())?]).await?;
        writer.send_offsets(&commits.id, &self.settings.raw_topic, &positions).await?;
        writer.commit().await?;
        if let Some(old) = std::mem::replace(&mut commits.last_snapshot, control.snapshot)
            && commits.last_snapshot.as_ref() != Some(&old)
        {
            commits.snapshots.forget(&old).await;
        }
        commits.epoch = epoch;
        commits.at = Instant::now();
        Ok(())
    }

    async fn refresh_ends(&mut self) -> Result<()> {
        if self.ends_at.elapsed() >= ENDS_INTERVAL {
            let ranges = self.log.ranges(&self.settings.raw_topic).await?;
            self.ends = ranges.iter().map(|range| (range.partition, range.end)).collect();
            self.ends_at = Instant::now();
        }
        Ok(())
    }

    /// Partitions that are caught up and have been quiet for the idle time-out.
    fn idle(&self) -> Vec<i32> {
        let quiet = |partition: i32| {
            self.heard.get(&partition).unwrap_or(&self.started).elapsed() >= self.settings.idle_timeout
        };
        let caught_up = |partition: i32, offset: i64| self.ends.get(&partition).is_none_or(|end| offset >= *end);
        let positions = self.reader.positions().into_iter();
        positions.filter(|(p, offset)| caught_up(*p, *offset) && quiet(*p)).map(|(p, _)| p).collect()
    }

    /// Whether everything that was there at the start has been read, with `until_latest`.
    fn at_end(&self) -> bool {
        let Some(stop_at) = &self.stop_at else { return false };
        self.reader.positions().iter().all(|(partition, offset)| stop_at.get(partition).is_none_or(|end| offset >= end))
    }

    fn note_progress(&mut self, idle: &[i32]) {
        let lag = self
            .reader
            .positions()
            .iter()
            .map(|(p, offset)| (self.ends.get(p).unwrap_or(offset) - offset).max(0))
            .sum::<i64>();
        let progress = &mut self.progress;
        progress.epoch += 1;
        progress.watermark = self.marks.current().and_then(EventTime::from_micros);
        progress.held_by = self.marks.held_by(|partition| idle.contains(&partition));
        progress.lag = u64::try_from(lag).unwrap_or(0);
        progress.state = self.panes.size();
    }
}

/// Rows decoded from records, and which record each came from.
struct Rows {
    batch: RecordBatch,
    sources: Vec<usize>,
}

impl Commits {
    fn take_up(&mut self, control: &Control) {
        self.epoch = control.epoch;
        self.late_before = control.late;
        self.last_snapshot.clone_from(&control.snapshot);
    }
}

/// Fences older copies of the job, and reads where the last one left off.
async fn open_commits(job: &Job, log: &dyn Log, settings: &StreamSettings) -> Result<(Option<Control>, Commits)> {
    let (store, prefix) = settings
        .checkpoint
        .clone()
        .ok_or_else(|| Error::new(ErrorKind::Config, "a stream that commits needs a place for its checkpoint"))?;
    let id = job_id(job, settings, &prefix);
    create_jobs_topic(log).await?;
    if let Some(output) = &settings.output_topic {
        create_topics(log, output).await?;
    }
    let writer = log.writer(Some(&id)).await?;
    let control = if settings.restart { None } else { read_control(log, &id).await? };
    if let Some(control) = &control {
        check_control(job, &id, control)?;
    }
    let snapshots = Snapshots { store, prefix: prefix.join(id.as_str()) };
    let commits = Commits { id, writer, snapshots, last_snapshot: None, epoch: 0, late_before: 0, at: Instant::now() };
    Ok((control, commits))
}

/// One job is one name over one topic and range with one window, one output and one checkpoint.
fn job_id(job: &Job, settings: &StreamSettings, prefix: &Path) -> String {
    let (size, slide) = job.window();
    let output = settings.output_topic.as_deref().unwrap_or_default();
    let rest = format!("{}\n{:?}\n{:?}\n{output}\n{prefix}", settings.raw_topic, settings.from, settings.until);
    format!("tidegate.{}.{size}.{slide}.{}", job.name(), hex::encode(&Sha256::digest(rest)[..4]))
}

fn check_control(job: &Job, id: &str, control: &Control) -> Result<()> {
    if control.finished {
        return Err(Error::new(ErrorKind::Config, format!("job `{id}` has finished: it closed all its windows"))
            .with_hint("begin anew with --restart, or look without committing with --debug"));
    }
    if control.fingerprint != job.plan.fingerprint() {
        return Err(Error::new(
            ErrorKind::Checkpoint,
            format!("checkpoint of job `{id}` holds the state of another query"),
        )
        .with_hint(
            "what stands below the window has changed; begin anew with --restart, or name another --checkpoint-dir",
        ));
    }
    Ok(())
}

async fn start_offsets(log: &dyn Log, settings: &StreamSettings, ranges: &[topic::OffsetRange]) -> Result<Offsets> {
    Ok(match settings.start {
        Start::Earliest => ranges.iter().map(|range| (range.partition, range.start)).collect(),
        Start::Latest => ranges.iter().map(|range| (range.partition, range.end)).collect(),
        Start::At(time) => log.offsets_at(&settings.raw_topic, time.micros().div_euclid(1_000)).await?,
    })
}
