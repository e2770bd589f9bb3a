//! The lander: raw topic in, lake objects out, every record in exactly one object.
//!
//! An object's name is a function of topic, partition, start offset and the hour in which its first row was received,
//! and it is put only if the name is free. Where it ends may vary (rows, bytes, age, the end of the hour): the footer
//! says it. Whoever finds a name taken reads the end from there and goes on at it, so that a crash, a replay or a
//! second lander can neither lose nor repeat a row. The lake is its own offset store; nothing is committed elsewhere.
//!
//! Two landers of one topic may run at once, as a restart and a paused process do, if both write the same form.
//!
//! Read in this order: `roller` (when an object is complete), `object` (what it holds), `writer` (its name is taken
//! once), `resume` (where landing goes on). Then what happens to objects later: `catalog` (listings and manifests),
//! `compact` (closed hours into large files), `expire` (retention by age), `sweep` (bytes that nobody needs go). Left
//! to others: verification (the topic holds what was verified), and reading the lake.

mod catalog;
mod compact;
mod expire;
mod object;
mod resume;
mod roller;
mod sweep;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event::layout::{LakeFormat, LakeKey, NOSTR_EVENT_TOPIC};
use event::{EventTime, Table};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{OffsetRange, Reader, StoredRecord, reached};

use crate::Components;
use crate::error::{Error, ErrorKind, Result};
pub use catalog::Catalog;
pub use compact::{CompactProgress, CompactSettings, compact};
pub use expire::expire;
use object::{Finished, OpenObject};
use resume::Shelf;
use roller::Roller;
pub use sweep::{Swept, sweep};
use writer::{BACKOFF, ObjectWriter, Outcome};

/// Records taken from the topic at once.
const READ_RECORDS: usize = 4 * 1024;
/// How long a read waits for its first record; bounds how late an object's age is noticed.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Raw bytes in all open objects together; the largest is written out before this is passed.
const OPEN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How often a lander that follows its topic looks for partitions that were added to it.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);

/// What is landed, and how large objects get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanderSettings {
    /// Topic to land; `nostr-event` by default.
    pub topic: String,
    /// Which table its records are rows of; none is what its name says. Default none.
    pub table: Option<Table>,
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
            table: None,
            format: LakeFormat::Parquet,
            rows_max: 500_000,
            bytes_max: 64 * 1024 * 1024,
            age_max: Duration::from_secs(60),
        }
    }
}

impl LanderSettings {
    /// Which table the topic's records are rows of.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table.unwrap_or_else(|| Table::of_topic(&self.topic))
    }
}

/// Lands a topic. Follows it until `drain` fires, then reads up to the ends as of then, writes everything out, returns.
///
/// # Errors
/// `Config` when there is no such topic, or the store cannot put conditionally; `Data` when lake and topic do not fit
/// together (retention has passed the lander, or the topic was made anew); `Unavailable` when log or store do not
/// answer at the start or while draining. In between it waits for them.
pub async fn land(
    settings: LanderSettings,
    components: Components,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    drain: CancellationToken,
) -> Result<()> {
    let mut lander = Lander::start(settings, components, store, prefix, drain.clone()).await?;
    let mut ends: Option<Vec<OffsetRange>> = None;
    loop {
        if drain.is_cancelled() && ends.is_none() {
            ends = Some(lander.adopt_partitions().await?);
        }
        if ends.as_ref().is_some_and(|ends| lander.has_read(ends)) {
            return lander.write_all().await;
        }
        let records = tokio::select! {
            biased;
            () = drain.cancelled(), if ends.is_none() => continue,
            records = lander.read() => records?,
        };
        lander.take_all(&records).await?;
        lander.write_due().await?;
        if ends.is_none() && lander.looked_at.elapsed() >= PARTITIONS_EVERY {
            lander.look_for_partitions().await?;
        }
    }
}

struct Lander {
    settings: LanderSettings,
    components: Components,
    writer: ObjectWriter,
    roller: Roller,
    reader: Box<dyn Reader>,
    shelves: Vec<Shelf>,
    /// When the topic's partitions were last looked at.
    looked_at: Instant,
    /// How often in a row the log did not answer.
    log_failures: u32,
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
        let catalog =
            Catalog { store, prefix, topic: topic.clone(), table: settings.table(), clock: components.clock.clone() };
        let shelves = resume::shelves(&catalog, components.log.as_ref(), &ranges).await?;
        let from = shelves.iter().map(|shelf| (shelf.partition, shelf.start)).collect();
        let reader = components.log.reader(topic, from).await.map_err(log_error)?;
        let roller = Roller { rows_max: settings.rows_max, bytes_max: settings.bytes_max, age_max: settings.age_max };
        let writer = ObjectWriter { catalog, drain };
        let looked_at = Instant::now();
        Ok(Self { settings, components, writer, roller, reader, shelves, looked_at, log_failures: 0 })
    }

    fn log_error(&self, error: topic::Error) -> Error {
        Error::of_log(format!("could not land topic `{}`", self.settings.topic), error)
    }

    /// Passes an error of the log on, unless it may pass by itself and nobody wants us to end: then waits a while.
    async fn bear(&mut self, error: topic::Error) -> Result<()> {
        if error.kind() != topic::ErrorKind::Unavailable || self.writer.drain.is_cancelled() {
            return Err(self.log_error(error));
        }
        self.log_failures += 1;
        let topic = &self.settings.topic;
        tracing::warn!(topic, failures = self.log_failures, %error, "could not read the topic to land; trying again");
        tokio::time::sleep(BACKOFF.delay(self.log_failures, rand::random())).await;
        Ok(())
    }

    async fn read(&mut self) -> Result<Vec<StoredRecord>> {
        match self.reader.read(READ_RECORDS, READ_WAIT).await {
            Ok(records) => {
                self.log_failures = 0;
                Ok(records)
            }
            Err(error) => self.bear(error).await.map(|()| Vec::new()),
        }
    }

    fn has_read(&self, ends: &[OffsetRange]) -> bool {
        reached(&self.reader.positions(), ends) && !self.shelves.iter().any(|shelf| shelf.stale)
    }

    async fn look_for_partitions(&mut self) -> Result<()> {
        self.looked_at = Instant::now();
        match self.adopt_partitions().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, "could not look for new partitions; trying again later");
                Ok(())
            }
            outcome => outcome.map(|_| ()),
        }
    }

    /// The ranges of all partitions; those that were added to the topic meanwhile are read from now on.
    async fn adopt_partitions(&mut self) -> Result<Vec<OffsetRange>> {
        let topic = &self.settings.topic;
        let ranges = self.components.log.ranges(topic).await.map_err(|error| self.log_error(error))?;
        let mut added = ranges.clone();
        // Not a closure with a name: kept across the awaits below, it would make the task unfit for another thread.
        added.retain(|range| !self.shelves.iter().any(|shelf| shelf.partition == range.partition));
        if !added.is_empty() {
            tracing::info!(topic, partitions = added.len(), "partitions were added to the topic");
            let shelves = resume::shelves(&self.writer.catalog, self.components.log.as_ref(), &added).await?;
            self.shelves.extend(shelves.into_iter().map(|shelf| Shelf { stale: true, ..shelf }));
            self.reopen().await?;
        }
        Ok(ranges)
    }

    async fn take_all(&mut self, records: &[StoredRecord]) -> Result<()> {
        for record in records {
            self.take(record).await?;
        }
        self.reopen().await
    }

    /// Puts a record into its partition's object, closing the one before where an object may not go on.
    async fn take(&mut self, record: &StoredRecord) -> Result<()> {
        let Some(at) = self.shelves.iter().position(|shelf| shelf.partition == record.partition) else {
            let message = format!("a record of partition {} was not asked for", record.partition);
            return Err(Error::new(ErrorKind::Internal, message));
        };
        let shelf = &mut self.shelves[at];
        // Another lander wrote this object; the reader has to be set to its end first.
        if shelf.stale || record.offset < shelf.start {
            return Ok(());
        }
        shelf.received_max = shelf.received_max.max(received_ms(record));
        let hour = hour_of(shelf.received_max)?;
        let ends_here = shelf.open.as_ref().is_some_and(|open| open.ends_before(hour, record.offset));
        if ends_here && !self.write(at, record.offset).await? {
            return Ok(());
        }
        let (table, format) = (self.settings.table(), self.settings.format);
        let shelf = &mut self.shelves[at];
        if shelf.open.is_none() {
            // A JSON object says by its name and its lines which offsets it holds; it cannot start at a hole.
            let start = if format == LakeFormat::JsonGz { record.offset } else { shelf.start };
            shelf.open = Some(OpenObject::try_new(table, format, start, hour)?);
        }
        let Some(open) = &mut shelf.open else { return Ok(()) };
        if let Some(rejection) = open.append(record, shelf.received_max)? {
            let (partition, offset, reason) = (record.partition, record.offset, rejection.reason.as_str());
            if std::mem::replace(&mut shelf.warned, true) {
                tracing::debug!(partition, offset, reason, "a record of the topic is no row of its table");
            } else {
                tracing::warn!(
                    partition,
                    offset,
                    reason,
                    "a record of the topic is no row of its table; more are not told"
                );
            }
        }
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
        self.reopen().await
    }

    /// Writes everything out and returns when nothing that was in the topic is left to land.
    async fn write_all(&mut self) -> Result<()> {
        loop {
            for at in 0..self.shelves.len() {
                self.write_up_to_position(at).await?;
            }
            if !self.shelves.iter().any(|shelf| shelf.stale) {
                return Ok(());
            }
            // Another lander was faster; what it left over is still ours to land.
            self.reopen().await?;
            let ends = self.adopt_partitions().await?;
            while !self.has_read(&ends) {
                let records = self.read().await?;
                self.take_all(&records).await?;
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
        let key = LakeKey {
            topic: self.settings.topic.clone(),
            partition: shelf.partition,
            start: finished.start,
            hour: finished.hour,
            format: self.settings.format,
        };
        let (known_at_ms, now_ms) = (shelf.known_at_ms, self.components.clock.now_ms());
        let outcome = self.writer.put(&key, &finished, known_at_ms).await?;
        // The lake was seen to end here no sooner than the put began.
        self.shelves[at].known_at_ms = now_ms;
        match outcome {
            Outcome::Written => {
                self.note_landed(&key, &finished);
                self.shelves[at].start = finished.end;
                Ok(true)
            }
            Outcome::Taken(theirs) => {
                tracing::info!(object = %key, end = theirs.end, "another lander wrote this object; going on at its end");
                let shelf = &mut self.shelves[at];
                shelf.start = theirs.end;
                shelf.received_max = theirs.received_max;
                shelf.stale = true;
                Ok(false)
            }
        }
    }

    fn note_landed(&self, key: &LakeKey, finished: &Finished) {
        tracing::debug!(object = %key, rows = finished.rows, end = finished.end, "wrote a lake object");
        let counters = &self.components.counters;
        counters.landed_rows.fetch_add(finished.rows as u64, Ordering::Relaxed);
        counters.landed_objects.fetch_add(1, Ordering::Relaxed);
        counters.landed_bytes.fetch_add(finished.bytes.len() as u64, Ordering::Relaxed);
    }

    /// Sets the reader to where other landers ended; until that is done, their partitions' records are passed over.
    async fn reopen(&mut self) -> Result<()> {
        if !self.shelves.iter().any(|shelf| shelf.stale) {
            return Ok(());
        }
        let mut from = self.reader.positions();
        for shelf in self.shelves.iter().filter(|shelf| shelf.stale) {
            from.retain(|(partition, _)| *partition != shelf.partition);
            from.push((shelf.partition, shelf.start));
        }
        match self.components.log.reader(&self.settings.topic, from).await {
            Ok(reader) => {
                self.reader = reader;
                self.shelves.iter_mut().for_each(|shelf| shelf.stale = false);
                Ok(())
            }
            Err(error) => self.bear(error).await,
        }
    }
}

/// When a record was received. A time that no folder's name can hold, which a foreign writer may have put there,
/// moves no folder.
fn received_ms(record: &StoredRecord) -> i64 {
    /// The last millisecond of the year 9999.
    const MAX: i64 = 253_402_300_799_999;
    if (0..=MAX).contains(&record.timestamp_ms) { record.timestamp_ms } else { 0 }
}

/// The hour of a received time.
fn hour_of(received_ms: i64) -> Result<i64> {
    EventTime::from_millis(received_ms)
        .map(EventTime::hours)
        .ok_or_else(|| Error::new(ErrorKind::Data, format!("received time {received_ms} ms is beyond the calendar")))
}
