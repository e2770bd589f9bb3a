//! A job over a topic: the epoch loop. Read, aggregate, advance the watermark, close windows, commit.
//!
//! An epoch is what one read returned; the watermark that decides what is late moves between epochs only. Results,
//! late rows, offsets and the control record are one transaction. With `debug` nothing is written or committed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use event::layout::late_topic;
use event::{Clock, EventId, EventTime};
use object_store::path::Path;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{Log, OffsetRange, Offsets, StoredRecord};

use super::commit::{Commits, Outbox, State};
use super::handover::Handover;
use super::late::{late_id, late_line, late_record};
use super::out::{Out, push};
use super::progress::{PartitionProgress, StreamProgress};
use super::settings::{OutputMode, Start, StreamSettings, check_settings};
use super::source::{Rows, Source, decode_all};
use crate::engine::{Engine, Part, Range, cut_bit};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::sink::{Updates, create_topics, warn_of_keys};

/// Late rows that a progress record shows.
const LATE_SAMPLE: usize = 4;

/// What a stream did, from this start to its end.
pub type StreamSummary = StreamProgress;

/// Is told what a stream does, as it happens.
pub trait StreamObserver: Send {
    /// Rows of an output, by its number: of closed windows, by ascending window end; with an output mode other than
    /// append, of open ones too, and then the last column says which are final.
    ///
    /// # Errors
    /// Stops the job with what it says.
    fn rows(&mut self, output: usize, rows: &RecordBatch) -> Result<()>;

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
    check_settings(job, &settings)?;
    let mut run = Box::pin(Run::start(job, log, clock, settings, shutdown.clone())).await?;
    while run.handover.is_some() && !shutdown.is_cancelled() {
        Box::pin(run.lake_object(observer)).await?;
    }
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let records = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            records = run.source.read(run.settings.epoch_records_max, run.settings.pace.epoch_wait) => records?,
        };
        run.progress.durations.read_ms = ms(started);
        Box::pin(run.epoch(records.into(), observer)).await?;
        if run.at_end() {
            Box::pin(run.finish(observer)).await?;
            return Ok(run.progress);
        }
    }
    Box::pin(run.commit(false, observer)).await?;
    Ok(run.progress)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

/// One run of a job.
struct Run<'a> {
    job: &'a Job,
    clock: Clock,
    settings: StreamSettings,
    engine: Engine<'a>,
    source: Source,
    commits: Option<Commits>,
    /// Topic of each output, where it has one and anything is written.
    topics: Vec<Option<String>>,
    /// The cuts that each output rests on, a bit each.
    cuts: Vec<u64>,
    outbox: Outbox,
    outbox_bytes: usize,
    updates: Updates,
    /// When open windows were last looked at.
    looked: Instant,
    aligned: Instant,
    drift: i64,
    /// The lake, until it is taken in.
    handover: Option<Handover>,
    /// Ends at the start, with `until_latest`.
    stop_at: Option<HashMap<i32, i64>>,
    late_before: u64,
    progress: StreamProgress,
}

impl<'a> Run<'a> {
    async fn start(
        job: &'a Job,
        log: Arc<dyn Log>,
        clock: Clock,
        settings: StreamSettings,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let ranges = log.ranges(&settings.raw_topic).await.map_err(|error| {
            let missing = error.kind() == topic::ErrorKind::NotFound;
            let error = Error::from(error);
            if missing {
                error.with_hint("fill it with `tidegate ingest`, or name another with --raw-events-kafka-topic")
            } else {
                error
            }
        })?;
        let named = job.outputs().iter().map(|output| output.name.clone().or_else(|| settings.output_topic.clone()));
        let topics: Vec<Option<String>> = named.map(|name| name.filter(|_| !settings.debug)).collect();
        let range = Range::new(settings.from, settings.until);
        let partitions = ranges.iter().map(|range| (0, range.partition));
        let mut engine = Engine::new(job, range, vec![job.delay().micros()], partitions).await?;
        if settings.output_mode != OutputMode::Append {
            engine.keep_touched();
        }
        let mut from = Vec::new();
        let mut handover = None;
        let mut resumed = false;
        let mut commits = None;
        if !settings.debug {
            engine.keep_fresh();
            warn_of_keys(job, &topics);
            for topic in topics.iter().flatten() {
                create_topics(log.as_ref(), topic).await?;
            }
            let place = settings.checkpoint.clone().ok_or_else(|| {
                Error::new(ErrorKind::Config, "a stream that commits needs a place for its checkpoint")
            })?;
            let id = job_id(job, &settings, &topics, &place.1);
            let opened = Commits::open(job, Arc::clone(&log), clock.clone(), id, place, &settings, shutdown).await?;
            resumed = opened.1;
            commits = Some(opened.0);
        }
        if let Some(commits) = commits.as_mut().filter(|_| resumed) {
            let control = commits.control.clone();
            let marks = control.partitions.iter().map(|(partition, _, mark)| ((0, *partition), *mark));
            engine.restore(control.watermark, control.closed_until, marks);
            for (cut, state) in commits.restore(job).await? {
                engine.restore_state(cut, &state)?;
            }
            from = control.partitions.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
            if let Some(position) = &control.lake {
                let lake = settings.lake.clone().ok_or_else(|| {
                    Error::new(ErrorKind::Config, "the job was stopped while it read the lake")
                        .with_hint("name the lake again with --start lake, or begin anew with --restart")
                })?;
                handover = Some(Handover::resume(lake, &from, position).await?);
            }
        } else if settings.start == Start::Lake
            && let Some(lake) = settings.lake.clone()
        {
            let begun = Handover::begin(lake, &ranges).await?;
            from = begun.offsets().clone();
            handover = Some(begun);
        }
        start_offsets(log.as_ref(), &settings, &ranges, resumed, &mut from).await?;
        let ends: HashMap<i32, i64> = ranges.iter().map(|range| (range.partition, range.end)).collect();
        let source = Source::open(log, &settings.raw_topic, from, ends.clone(), settings.pace.ends).await?;
        let now = Instant::now();
        let bits = |query: usize| job.plan.cuts_of(query).into_iter().map(cut_bit).fold(0, |all, bit| all | bit);
        let cuts = (0..topics.len()).map(bits).collect();
        let mut run = Self {
            stop_at: settings.until_latest.then_some(ends),
            late_before: commits.as_ref().map_or(0, |commits| commits.control.late),
            drift: settings.max_drift.map_or_else(|| job.drift(), event::Span::micros),
            progress: StreamProgress { name: job.name().to_owned(), ..StreamProgress::default() },
            job,
            clock,
            settings,
            engine,
            source,
            commits,
            topics,
            cuts,
            outbox: Vec::new(),
            outbox_bytes: 0,
            updates: Updates::default(),
            looked: now,
            aligned: now,
            handover,
        };
        run.claim(resumed).await?;
        Ok(run)
    }

    /// Puts this run's name into the control record of a job that begins; one that goes on has it there.
    async fn claim(&mut self, resumed: bool) -> Result<()> {
        let partitions = self.partitions();
        let lake = self.handover.as_ref().map(Handover::position);
        let Some(commits) = &mut self.commits else { return Ok(()) };
        self.progress.id.clone_from(&commits.id);
        self.progress.run_id.clone_from(&commits.control.owner.run);
        if resumed {
            return Ok(());
        }
        commits.control.partitions = partitions;
        commits.control.lake = lake;
        commits.claim(None).await
    }

    /// Partition, next offset, and mark.
    fn partitions(&self) -> Vec<(i32, i64, Option<i64>)> {
        let marks: HashMap<i32, Option<i64>> =
            self.engine.marks().marks().map(|((_, partition), mark)| (partition, mark)).collect();
        let positions = self.source.positions().into_iter();
        positions.map(|(p, offset)| (p, offset, marks.get(&p).copied().flatten())).collect()
    }

    /// Takes one read in, moves the watermark, closes what it has reached, and commits when it is time.
    async fn epoch(&mut self, records: Arc<[StoredRecord]>, observer: &mut dyn StreamObserver) -> Result<()> {
        let before = std::mem::take(&mut self.progress.partitions);
        let started = Instant::now();
        if !records.is_empty() {
            self.take(&records, observer).await?;
        }
        for partition in self.source.refresh().await? {
            tracing::info!(partition, "a partition was added; it is read from its start");
            self.engine.add_source((0, partition));
        }
        self.progress.durations.add_ms = ms(started);
        let closing = Instant::now();
        let idle = self.source.idle(self.settings.idle_timeout);
        let mut out = Out::new(self.job, &self.settings, &self.topics, self.clock.now_ms(), observer);
        out.updates = Some(&mut self.updates);
        let mut emit = |output: usize, rows: RecordBatch| out.rows(output, rows, true);
        self.engine.end_epoch(|(_, partition)| idle.contains(&partition), &mut emit).await?;
        out.into_outbox(&mut self.outbox, &mut self.outbox_bytes, &mut self.progress.rows_out);
        self.align().await?;
        self.progress.durations.close_ms = ms(closing);
        let committing = Instant::now();
        let since = self.commits.as_ref().map_or(Duration::ZERO, |commits| commits.at.elapsed());
        let results = !self.outbox.is_empty();
        if self.settings.output_mode != OutputMode::Append && self.looked.elapsed() >= self.settings.pace.results {
            self.look(observer).await?;
        }
        let committed =
            self.full() || since >= self.settings.pace.commit || (results && since >= self.settings.pace.results);
        if committed {
            self.commit(false, observer).await?;
        }
        self.progress.durations.commit_ms = if committed { ms(committing) } else { 0.0 };
        self.note_progress(records.len() as u64, &idle, &before);
        observer.progress(&self.progress);
        Ok(())
    }

    /// Records to rows to panes; what came too late goes to the late topic.
    async fn take(&mut self, records: &Arc<[StoredRecord]>, observer: &mut dyn StreamObserver) -> Result<()> {
        // A job may read other tables than the topic's.
        let Some(table) = self.job.plan.tables.first() else { return Ok(()) };
        let decoded = decode_all(self.job.table(), records, &table.columns, self.settings.threads).await?;
        self.progress.unreadable += decoded.iter().map(|rows| rows.unreadable).sum::<u64>();
        self.progress.rows_in += records.len() as u64;
        let parts: Vec<Part<'_>> = decoded.iter().map(Rows::part).collect();
        let now_ms = self.clock.now_ms();
        let mut out = Out::new(self.job, &self.settings, &self.topics, now_ms, observer);
        let late = self.engine.parts(0, &parts, &mut |output, rows| out.rows(output, rows, true)).await?;
        out.into_outbox(&mut self.outbox, &mut self.outbox_bytes, &mut self.progress.rows_out);
        let origins: Vec<(usize, Option<EventId>)> = decoded.into_iter().flat_map(|rows| rows.origins).collect();
        let mut dropped = HashSet::new();
        for late in &late {
            let (at, id) = origins[late.row];
            let record = &records[at];
            let id = late_id(record, id);
            let line = late_line(self.job.name(), late, record, &id);
            self.progress.late += 1;
            if late.for_all && dropped.insert(late.row) {
                self.progress.late_rows += 1;
            }
            let wanted = self.topics.iter().zip(&self.cuts).filter(|(_, cuts)| *cuts & late.cuts != 0);
            for topic in wanted.filter_map(|(topic, _)| topic.as_ref()) {
                let record = late_record(&line, self.job.name(), &id, now_ms);
                self.outbox_bytes += line.len();
                push(&mut self.outbox, &late_topic(topic), vec![record]);
            }
            observer.late(&line)?;
            if self.progress.late_sample.len() == LATE_SAMPLE {
                self.progress.late_sample.remove(0);
            }
            self.progress.late_sample.push(line);
        }
        Ok(())
    }

    /// Takes one object of the lake in.
    async fn lake_object(&mut self, observer: &mut dyn StreamObserver) -> Result<()> {
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let mut out = Out::new(self.job, &self.settings, &self.topics, now_ms, observer);
        let mut emit = |output: usize, rows: RecordBatch| out.rows(output, rows, true);
        let rows_in = handover.next(self.job, &mut self.engine, &mut emit).await?;
        let left = handover.left();
        if left == 0 {
            self.handover = None;
        }
        out.into_outbox(&mut self.outbox, &mut self.outbox_bytes, &mut self.progress.rows_out);
        self.progress.rows_in += rows_in;
        self.progress.lake_objects_left = left;
        let due = self.commits.as_ref().is_some_and(|commits| commits.at.elapsed() >= self.settings.pace.commit);
        if left == 0 || due || self.full() {
            self.commit(false, observer).await?;
        }
        self.note_progress(rows_in, &HashSet::new(), &[]);
        observer.progress(&self.progress);
        Ok(())
    }

    /// Closes all windows and marks the job finished.
    async fn finish(&mut self, observer: &mut dyn StreamObserver) -> Result<()> {
        let mut out = Out::new(self.job, &self.settings, &self.topics, self.clock.now_ms(), observer);
        out.updates = Some(&mut self.updates);
        self.engine.finish(&mut |output, rows| out.rows(output, rows, true)).await?;
        out.into_outbox(&mut self.outbox, &mut self.outbox_bytes, &mut self.progress.rows_out);
        self.note_progress(0, &HashSet::new(), &[]);
        observer.progress(&self.progress);
        self.commit(true, observer).await
    }

    /// Emits what is in open windows and has changed.
    async fn look(&mut self, observer: &mut dyn StreamObserver) -> Result<()> {
        self.looked = Instant::now();
        let all = self.settings.output_mode == OutputMode::Complete;
        let mut out = Out::new(self.job, &self.settings, &self.topics, self.clock.now_ms(), observer);
        out.updates = Some(&mut self.updates);
        self.engine.changed(all, &mut |output, rows| out.rows(output, rows, false)).await?;
        out.into_outbox(&mut self.outbox, &mut self.outbox_bytes, &mut self.progress.rows_out);
        Ok(())
    }

    /// Lets no partition run far ahead of one that still has rows to give: its own would only fill panes that cannot
    /// close.
    async fn align(&mut self) -> Result<()> {
        if self.aligned.elapsed() < self.settings.pace.align {
            return Ok(());
        }
        self.aligned = Instant::now();
        let done = self.source.caught_up();
        let ahead = self.engine.marks().ahead(self.drift, |(_, partition)| done.contains(&partition));
        let ahead: Vec<i32> = ahead.into_iter().map(|(_, partition)| partition).collect();
        self.source.hold_back(&ahead).await
    }

    /// Snapshot, then one transaction: results, late rows, control record, offsets.
    async fn commit(&mut self, finished: bool, observer: &mut dyn StreamObserver) -> Result<()> {
        if self.settings.output_mode == OutputMode::Update && !finished && self.commits.is_some() {
            self.look(observer).await?;
        }
        let partitions = self.partitions();
        let lake = self.handover.as_ref().map(Handover::position);
        let Some(commits) = &mut self.commits else { return Ok(()) };
        let positions: Offsets = partitions.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
        let state = match commits.wants_whole(self.engine.size().rows + self.engine.spilled_rows()) {
            true => State::Whole(self.engine.whole().await?),
            false => State::Fresh(self.engine.fresh().await?),
        };
        let mut control = commits.control.clone();
        control.watermark = self.engine.watermark();
        control.closed_until = self.engine.closed_until();
        control.partitions = partitions;
        control.finished = finished;
        control.late = self.late_before + self.progress.late;
        let offsets = lake.is_none().then_some((self.settings.raw_topic.as_str(), &positions));
        control.lake = lake;
        commits.commit(control, state, &self.outbox, offsets).await?;
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.progress.commits = commits.control.epoch;
        Ok(())
    }

    /// Whether what waits for a commit has come to its share of the memory.
    fn full(&self) -> bool {
        let memory = self.job.memory();
        self.outbox_bytes >= memory.results() || self.engine.fresh_bytes() >= memory.fresh()
    }

    /// Whether everything that was there at the start has been read, with `until_latest`.
    fn at_end(&self) -> bool {
        let Some(stop_at) = &self.stop_at else { return false };
        self.source.positions().iter().all(|(partition, offset)| stop_at.get(partition).is_none_or(|end| offset >= end))
    }

    fn note_progress(&mut self, rows: u64, idle: &HashSet<i32>, before: &[PartitionProgress]) {
        let partitions = self.partitions();
        let progress = &mut self.progress;
        progress.epoch += 1;
        progress.epoch_rows_in = rows;
        progress.timestamp = EventTime::from_millis(self.clock.now_ms());
        progress.watermark = self.engine.watermark().and_then(EventTime::from_micros);
        let held_by = self.engine.marks().held_by(|(_, partition)| idle.contains(&partition));
        progress.held_by = held_by.map(|(_, partition)| partition);
        progress.lag = self.source.lag();
        let size = self.engine.size();
        progress.state = (size.rows, size.bytes);
        progress.panes = self.engine.panes();
        progress.spilled_rows = self.engine.spilled_rows();
        let started: HashMap<i32, i64> = before.iter().map(|p| (p.partition, p.end_offset)).collect();
        let partition = |(partition, offset, mark): (i32, i64, Option<i64>)| PartitionProgress {
            partition,
            start_offset: started.get(&partition).copied().unwrap_or(offset),
            end_offset: offset,
            latest_offset: self.source.end(partition).unwrap_or(offset).max(offset),
            mark: mark.and_then(EventTime::from_micros),
            idle: idle.contains(&partition),
            paused: self.source.is_paused(partition),
        };
        progress.partitions = partitions.into_iter().map(partition).collect();
    }
}

/// One job is one name over one topic and range with one window, one output and one checkpoint.
pub(super) fn job_id(job: &Job, settings: &StreamSettings, topics: &[Option<String>], prefix: &Path) -> String {
    let (size, slide) = job.window();
    let output: Vec<&str> = topics.iter().map(|topic| topic.as_deref().unwrap_or_default()).collect();
    let rest =
        format!("{}\n{:?}\n{:?}\n{}\n{prefix}", settings.raw_topic, settings.from, settings.until, output.join(","));
    let (size, slide) = (size.micros(), slide.micros());
    format!("tidegate.{}.{size}.{slide}.{}", job.name(), hex::encode(&Sha256::digest(rest)[..4]))
}

/// Adds to `from` where each partition starts that it does not name: where the settings say, or, for one that was
/// added since the checkpoint, at its first record.
async fn start_offsets(
    log: &dyn Log,
    settings: &StreamSettings,
    ranges: &[OffsetRange],
    resumed: bool,
    from: &mut Offsets,
) -> Result<()> {
    let starts: Offsets = match settings.start {
        Start::Latest if !resumed => ranges.iter().map(|range| (range.partition, range.end)).collect(),
        Start::At(time) if !resumed => log.offsets_at(&settings.raw_topic, time.micros().div_euclid(1_000)).await?,
        _ => ranges.iter().map(|range| (range.partition, range.start)).collect(),
    };
    let known: HashSet<i32> = from.iter().map(|(partition, _)| *partition).collect();
    from.extend(starts.into_iter().filter(|(partition, _)| !known.contains(partition)));
    Ok(())
}
