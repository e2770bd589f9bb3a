//! The lander: raw topic in, lake objects out, every record in exactly one object.
//!
//! An object's name is a function of topic, partition, start offset and the hour in which its first row was received,
//! and it is put only if the name is free. Where it ends may vary (rows, bytes, age, the end of the hour): the footer
//! says it. Whoever finds a name taken reads the end from there and goes on at it, so that a crash, a replay or a
//! second lander can neither lose nor repeat a row. The lake is its own offset store; nothing is committed elsewhere.
//!
//! Left to others: verification (the topic holds what was verified), and reading the lake.

mod object;
mod resume;
mod roller;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event::EventTime;
use event::layout::{LakeFormat, LakeKey, NOSTR_EVENT_TOPIC};
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutPayload};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{OffsetRange, Reader, StoredRecord};

use crate::error::{Error, ErrorKind, Result};
use crate::{Backoff, Components};
use object::{Finished, OpenObject};
use resume::{Landed, Shelf};
use roller::Roller;

/// Records taken from the topic at once.
const READ_RECORDS: usize = 4 * 1024;
/// How long a read waits for its first record; bounds how late an object's age is noticed.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Raw bytes in all open objects together; the largest is written out before this is passed.
const OPEN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Tries to reach the store while draining; a lander that follows the topic never gives up.
const DRAIN_TRIES: u32 = 8;

/// What is landed, and how large objects get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanderSettings {
    /// Topic to land; `nostr-event` by default.
    pub topic: String,
    /// Form of the objects; Parquet by default.
    pub format: LakeFormat,
    /// Rows of an object at most; 500,000 by default.
    pub rows_max: usize,
    /// Raw bytes of an object's rows at most; 64 MiB by default.
    pub bytes_max: usize,
    /// Age of an object's first row in this process at most; 60 seconds by default.
    pub age_max: Duration,
}

impl Default for LanderSettings {
    fn default() -> Self {
        Self {
            topic: NOSTR_EVENT_TOPIC.to_owned(),
            format: LakeFormat::Parquet,
            rows_max: 500_000,
            bytes_max: 64 * 1024 * 1024,
            age_max: Duration::from_secs(60),
        }
    }
}

/// Lands a topic. Follows it until `drain` fires, then reads up to the ends as of then, writes everything out, returns.
///
/// # Errors
/// `Config` when there is no such topic; `Data` when lake and topic do not fit together (retention has passed the
/// lander, or the topic was made anew); `Unavailable` when the store does not answer while draining.
pub async fn land(
    settings: LanderSettings,
    components: Components,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    drain: CancellationToken,
) -> Result<()> {
    let mut lander = Lander::start(settings, components, store, prefix, drain.clone()).await?;
    let mut stop_at: Option<Vec<OffsetRange>> = None;
    loop {
        if drain.is_cancelled() && stop_at.is_none() {
            stop_at = Some(lander.ranges().await?);
        }
        if stop_at.as_ref().is_some_and(|ends| lander.has_read(ends)) {
            return lander.write_all().await;
        }
        let records = tokio::select! {
            biased;
            () = drain.cancelled(), if stop_at.is_none() => continue,
            records = lander.reader.read(READ_RECORDS, READ_WAIT) => records.map_err(|error| lander.log_error(error))?,
        };
        for record in &records {
            lander.take(record).await?;
        }
        lander.write_due().await?;
        lander.reopen().await?;
    }
}

struct Lander {
    settings: LanderSettings,
    components: Components,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    drain: CancellationToken,
    roller: Roller,
    reader: Box<dyn Reader>,
    shelves: Vec<Shelf>,
}

impl Lander {
    async fn start(
        settings: LanderSettings,
        components: Components,
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        drain: CancellationToken,
    ) -> Result<Self> {
        let topic = &settings.topic;
        let log_error = |error| Error::of_log(format!("could not land topic `{topic}`"), error);
        let ranges = components.log.ranges(topic).await.map_err(log_error)?;
        let shelves = resume::shelves(store.as_ref(), &prefix, topic, &ranges).await?;
        let from = shelves.iter().map(|shelf| (shelf.partition, shelf.start)).collect();
        let reader = components.log.reader(topic, from).await.map_err(log_error)?;
        let roller = Roller { rows_max: settings.rows_max, bytes_max: settings.bytes_max, age_max: settings.age_max };
        Ok(Self { settings, components, store, prefix, drain, roller, reader, shelves })
    }

    fn log_error(&self, error: topic::Error) -> Error {
        Error::of_log(format!("could not land topic `{}`", self.settings.topic), error)
    }

    async fn ranges(&mut self) -> Result<Vec<OffsetRange>> {
        self.components.log.ranges(&self.settings.topic).await.map_err(|error| self.log_error(error))
    }

    fn has_read(&self, ends: &[OffsetRange]) -> bool {
        let positions = self.reader.positions();
        ends.iter().all(|end| positions.iter().any(|(partition, at)| *partition == end.partition && *at >= end.end))
    }

    /// Puts a record into its partition's object, closing the one before where an object may not go on.
    async fn take(&mut self, record: &StoredRecord) -> Result<()> {
        let Some(at) = self.shelves.iter().position(|shelf| shelf.partition == record.partition) else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("a record of partition {} was not asked for", record.partition),
            ));
        };
        let shelf = &mut self.shelves[at];
        // Another lander wrote this object; the reader has to be set to its end first.
        if shelf.stale || record.offset < shelf.start {
            return Ok(());
        }
        shelf.received_max = shelf.received_max.max(record.timestamp_ms);
        let hour = hour_of(shelf.received_max)?;
        let ends_here = shelf.open.as_ref().is_some_and(|open| open.ends_before(hour, record.offset));
        if ends_here && !self.write(at, record.offset).await? {
            return Ok(());
        }
        let format = self.settings.format;
        let shelf = &mut self.shelves[at];
        if shelf.open.is_none() {
            // A JSON object says by its name and its lines which offsets it holds; it cannot start at a hole.
            let start = if format == LakeFormat::JsonGz { record.offset } else { shelf.start };
            shelf.open = Some(OpenObject::try_new(format, start, hour)?);
        }
        let Some(open) = &mut shelf.open else { return Ok(()) };
        open.append(record, shelf.received_max)?;
        if self.roller.is_full(open.rows(), open.bytes()) {
            self.write(at, record.offset + 1).await?;
        }
        Ok(())
    }

    /// Writes out what has become old, and the largest objects while all together are too large.
    async fn write_due(&mut self) -> Result<()> {
        for at in 0..self.shelves.len() {
            let due =
                self.shelves[at].open.as_ref().is_some_and(|open| self.roller.is_old(open.opened_at, Instant::now()));
            if due {
                self.write_up_to_position(at).await?;
            }
        }
        let bytes = |shelf: &Shelf| shelf.open.as_ref().map_or(0, OpenObject::bytes);
        while self.shelves.iter().map(bytes).sum::<usize>() > OPEN_BYTES_MAX {
            let largest = (0..self.shelves.len()).max_by_key(|at| bytes(&self.shelves[*at]));
            let Some(largest) = largest else { break };
            self.write_up_to_position(largest).await?;
        }
        Ok(())
    }

    async fn write_all(&mut self) -> Result<()> {
        loop {
            for at in 0..self.shelves.len() {
                if self.shelves[at].open.is_some() {
                    self.write_up_to_position(at).await?;
                }
            }
            if !self.shelves.iter().any(|shelf| shelf.stale) {
                return Ok(());
            }
            // Another lander was faster; what it left over is still ours to land.
            let ends = self.ranges().await?;
            self.reopen().await?;
            while !self.has_read(&ends) {
                let records = self.reader.read(READ_RECORDS, READ_WAIT).await.map_err(|error| self.log_error(error))?;
                for record in &records {
                    self.take(record).await?;
                }
                self.reopen().await?;
            }
        }
    }

    async fn write_up_to_position(&mut self, at: usize) -> Result<()> {
        let partition = self.shelves[at].partition;
        let position = self.reader.positions().into_iter().find(|(other, _)| *other == partition);
        let end = position.map_or(self.shelves[at].start, |(_, position)| position);
        self.write(at, end).await.map(|_| ())
    }

    /// Writes a partition's open object, which covers up to `end`; `false` when another lander had written it and the
    /// partition has to be read anew from where that one ended.
    async fn write(&mut self, at: usize, end: i64) -> Result<bool> {
        let shelf = &mut self.shelves[at];
        let Some(open) = shelf.open.take() else { return Ok(true) };
        let finished = open.finish(&self.settings.topic, shelf.partition, end)?;
        let path = resume::object_path(
            &self.prefix,
            &LakeKey {
                topic: self.settings.topic.clone(),
                partition: shelf.partition,
                start: finished.start,
                hour: finished.hour,
                format: self.settings.format,
            },
        );
        match self.put(&path, &finished).await? {
            None => {
                self.note_landed(&finished);
                self.shelves[at].start = finished.end;
                Ok(true)
            }
            Some(theirs) => {
                tracing::info!(object = %path, end = theirs.end, "another lander wrote this object; going on at its end");
                let shelf = &mut self.shelves[at];
                shelf.start = theirs.end;
                shelf.received_max = theirs.received_max;
                shelf.stale = true;
                Ok(false)
            }
        }
    }

    fn note_landed(&self, finished: &Finished) {
        let counters = &self.components.counters;
        counters.landed_rows.fetch_add(finished.rows as u64, Ordering::Relaxed);
        counters.landed_objects.fetch_add(1, Ordering::Relaxed);
        counters.landed_bytes.fetch_add(finished.bytes.len() as u64, Ordering::Relaxed);
    }

    /// Puts an object if its name is free, trying again while the store does not answer; what is there when it is not
    /// free and not ours.
    async fn put(&mut self, path: &Path, finished: &Finished) -> Result<Option<Landed>> {
        let backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10) };
        let mut failures = 0;
        loop {
            let outcome = self.try_put(path, finished).await;
            let Err(error) = outcome else { return outcome };
            failures += 1;
            if error.kind() == ErrorKind::Data || (self.drain.is_cancelled() && failures >= DRAIN_TRIES) {
                return Err(error);
            }
            tracing::warn!(object = %path, failures, error = %error, "could not write a lake object; trying again");
            tokio::time::sleep(backoff.delay(failures, rand::random())).await;
        }
    }

    async fn try_put(&mut self, path: &Path, finished: &Finished) -> Result<Option<Landed>> {
        let payload = PutPayload::from(finished.bytes.clone());
        match self.store.put_opts(path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(None),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let theirs = resume::landed(self.store.as_ref(), path).await?;
                // The answer to an earlier try of ours may have been lost: then what lies there is ours.
                let ours =
                    theirs.end == finished.end && theirs.sha256.as_deref().is_none_or(|sha| sha == finished.sha256);
                Ok(if ours { None } else { Some(theirs) })
            }
            Err(error) => {
                Err(Error::new(ErrorKind::Unavailable, format!("could not write lake object `{path}`"))
                    .with_source(error))
            }
        }
    }

    /// Sets the reader to where other landers ended.
    async fn reopen(&mut self) -> Result<()> {
        if !self.shelves.iter().any(|shelf| shelf.stale) {
            return Ok(());
        }
        let mut from = self.reader.positions();
        for shelf in self.shelves.iter_mut().filter(|shelf| shelf.stale) {
            from.retain(|(partition, _)| *partition != shelf.partition);
            from.push((shelf.partition, shelf.start));
            shelf.stale = false;
        }
        let topic = &self.settings.topic;
        self.reader = self.components.log.reader(topic, from).await.map_err(|error| self.log_error(error))?;
        Ok(())
    }
}

/// The hour of a received time.
fn hour_of(received_ms: i64) -> Result<i64> {
    EventTime::from_millis(received_ms)
        .map(EventTime::hours)
        .ok_or_else(|| Error::new(ErrorKind::Data, format!("record time {received_ms} ms is beyond the calendar")))
}
