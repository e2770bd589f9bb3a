//! The loop: records of the raw topic in; documents, lists and the offsets that they speak of out, in one transaction.
//!
//! The transactional id and the group are named after the relay topic, so that it has one owner: a second process takes
//! over, and this one ends. When the log is away, everything is opened and read back anew: what was not committed is
//! read again.

use std::sync::Arc;
use std::time::Duration;

use event::layout::relay_lists_topic;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use topic::{Log, OffsetRange, Offsets, Reader, TopicSpec, Writer, reached};

use crate::Components;
use crate::directory::counters::DirectoryCounters;
use crate::directory::errands::{Errands, Wanted};
use crate::directory::place::GeoDatabase;
use crate::directory::state::{Directory, Rules};
use crate::directory::{DirectorySettings, newest_by_key};
use crate::error::{Error, ErrorKind, Result};
use crate::nip11::Asker;
use crate::relay::Backoff;
use crate::settings::USER_AGENT;

/// Records taken from the raw topic at once.
const READ_RECORDS: usize = 4_096;
/// How long a read waits for its first record.
const READ_WAIT: Duration = Duration::from_millis(200);
/// How long the first record that is not committed waits for others: a relay that many name is then written once.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked for partitions that were added to the raw topic.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

/// Follows the raw topic and keeps the documents of the relay topic. Runs until `stop` fires or, with `until_latest`,
/// until what is in the raw topic now is in the documents and what was to be fetched was tried.
///
/// `database` places relays that no monitor places. Counters grow with each commit.
///
/// # Errors
/// `Config` when there is no raw topic, `Fenced` when another process took over, `Data` when raw topic and committed
/// offsets do not fit together, `Unavailable` when the log does not answer at the start or at the end. In between it is
/// waited for.
pub async fn follow(
    settings: DirectorySettings,
    components: Components,
    database: Option<Arc<GeoDatabase>>,
    counters: Arc<DirectoryCounters>,
    stop: CancellationToken,
) -> Result<()> {
    let wanted = Wanted {
        documents: if settings.nip11 { Some(Asker::new(USER_AGENT, settings.allow_local)?) } else { None },
        addresses: settings.resolve && database.is_some(),
        allow_local: settings.allow_local,
        at_once: settings.errands_max,
    };
    let desk = Desk { settings, components, database, counters, stop };
    // Nothing is left behind where there is nothing to follow.
    desk.raw_ranges().await?;
    desk.create_topics().await?;
    let (mut failures, mut opened) = (0, false);
    loop {
        let outcome = match Follower::open(&desk, wanted.clone()).await {
            Ok(mut follower) => {
                opened = true;
                let outcome = follower.run().await;
                failures = if follower.commits > 0 { 0 } else { failures };
                outcome
            }
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Unavailable && opened && !desk.stop.is_cancelled() => {
                failures += 1;
                tracing::warn!(%error, failures, "the log is away, will read back and go on");
                sleep(BACKOFF.delay(failures, rand::random())).await;
            }
            outcome => return outcome,
        }
    }
}

/// What a run works with.
struct Desk {
    settings: DirectorySettings,
    components: Components,
    database: Option<Arc<GeoDatabase>>,
    counters: Arc<DirectoryCounters>,
    stop: CancellationToken,
}

impl Desk {
    fn log(&self) -> &dyn Log {
        self.components.log.as_ref()
    }

    fn now(&self) -> i64 {
        self.components.clock.now_ms().div_euclid(1_000)
    }

    /// Of the consumer group and of the writer.
    fn group(&self) -> String {
        format!("tidegate.relays.{}", self.settings.relay_topic)
    }

    async fn create_topics(&self) -> Result<()> {
        let relay_topic = &self.settings.relay_topic;
        for name in [relay_topic.clone(), relay_lists_topic(relay_topic)] {
            let config = [("cleanup.policy", "compact"), ("retention.ms", "-1")];
            let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            let created = self.log().create_topic(&TopicSpec { name: name.clone(), partitions: 1, config }).await;
            let created =
                created.map_err(|source| Error::of_log(format!("could not create topic `{name}`"), source))?;
            if created {
                tracing::info!(topic = name, "topic created");
            }
        }
        Ok(())
    }

    async fn raw_ranges(&self) -> Result<Vec<OffsetRange>> {
        let topic = &self.settings.raw_topic;
        let ranges = self.log().ranges(topic).await;
        ranges.map_err(|source| Error::of_log(format!("could not follow topic `{topic}`"), source))
    }

    async fn read_from(&self, from: Offsets) -> Result<Box<dyn Reader>> {
        let topic = &self.settings.raw_topic;
        let reader = self.log().reader(topic, from).await;
        reader.map_err(|source| Error::of_log(format!("could not follow topic `{topic}`"), source))
    }
}

/// One go at it, from reading back to the end or to an error.
struct Follower<'a> {
    desk: &'a Desk,
    writer: Box<dyn Writer>,
    reader: Box<dyn Reader>,
    directory: Directory,
    errands: Errands,
    /// Where the raw topic ended at the start.
    ends: Vec<OffsetRange>,
    /// When the first record was read that is not committed.
    waiting_since: Option<Instant>,
    looked_at: Instant,
    commits: u64,
}

impl<'a> Follower<'a> {
    async fn open(desk: &'a Desk, wanted: Wanted) -> Result<Self> {
        let (group, relay_topic) = (desk.group(), &desk.settings.relay_topic);
        // First: what a process before us had open is ended, so that what the topics hold then is all there is.
        let writer = desk.log().writer(Some(&group)).await;
        let failed = |source| Error::of_log(format!("could not open a writer for topic `{relay_topic}`"), source);
        let writer = writer.map_err(failed)?;
        let rules = Rules {
            allow_local: desk.settings.allow_local,
            relays_max: desk.settings.relays_max,
            lists_max: desk.settings.lists_max,
            database: desk.database.clone(),
        };
        let documents = newest_by_key(desk.log(), relay_topic).await?;
        let lists = newest_by_key(desk.log(), &relay_lists_topic(relay_topic)).await?;
        let directory = Directory::restore(rules, &documents, &lists);
        tracing::info!(topic = relay_topic, relays = documents.len(), lists = lists.len(), "documents read back");
        let ends = desk.raw_ranges().await?;
        let reader = desk.read_from(positions(desk, &ends).await?).await?;
        let (waiting_since, looked_at) = (None, Instant::now());
        let errands = Errands::new(wanted);
        Ok(Self { desk, writer, reader, directory, errands, ends, waiting_since, looked_at, commits: 0 })
    }

    async fn run(&mut self) -> Result<()> {
        let stop = self.desk.stop.clone();
        // A database of another day may have moved relays.
        if self.directory.has_changed() {
            self.waiting_since = Some(Instant::now());
        }
        loop {
            let caught_up = self.desk.settings.until_latest && self.has_read_all();
            self.errands.start(&self.directory, self.desk.now(), caught_up);
            if stop.is_cancelled() || caught_up && self.errands.idle() {
                return self.commit().await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                done = self.errands.next() => {
                    self.errands.enter(done, &mut self.directory, self.desk.now());
                    self.waiting_since.get_or_insert_with(Instant::now);
                }
                records = self.reader.read(READ_RECORDS, READ_WAIT), if !caught_up => {
                    let topic = &self.desk.settings.raw_topic;
                    let failed = |source| Error::of_log(format!("could not follow topic `{topic}`"), source);
                    let records = records.map_err(failed)?;
                    records.iter().for_each(|record| self.directory.take(record));
                    if !records.is_empty() {
                        self.waiting_since.get_or_insert_with(Instant::now);
                    }
                }
            }
            if self.waiting_since.is_some_and(|since| since.elapsed() >= COMMIT_EVERY) {
                self.commit().await?;
            }
            if self.looked_at.elapsed() >= PARTITIONS_EVERY {
                self.adopt_partitions().await?;
            }
        }
    }

    fn has_read_all(&self) -> bool {
        reached(&self.reader.positions(), &self.ends)
    }

    /// Makes what was read so far visible, with where reading goes on.
    async fn commit(&mut self) -> Result<()> {
        if self.waiting_since.take().is_none() {
            return Ok(());
        }
        let topic = &self.desk.settings.relay_topic;
        let (documents, lists, counts) = self.directory.take_changed();
        let (group, offsets) = (self.desk.group(), self.reader.positions());
        let outcome = async {
            self.writer.begin().await?;
            for (topic, records) in [(topic.clone(), documents), (relay_lists_topic(topic), lists)] {
                if !records.is_empty() {
                    self.writer.send(&topic, records).await?;
                }
            }
            self.writer.send_offsets(&group, &self.desk.settings.raw_topic, &offsets).await?;
            self.writer.commit().await
        };
        match outcome.await {
            Ok(()) => {
                self.desk.counters.add(counts);
                self.commits += 1;
                Ok(())
            }
            Err(source) if source.kind() == topic::ErrorKind::Fenced => {
                let message = format!("topic `{topic}` was taken over by another process");
                Err(Error::new(ErrorKind::Fenced, message).with_source(source))
            }
            Err(source) => Err(Error::of_log(format!("could not write to topic `{topic}`"), source)),
        }
    }

    /// Reads partitions that were added to the raw topic from their beginning.
    async fn adopt_partitions(&mut self) -> Result<()> {
        self.looked_at = Instant::now();
        let ranges = self.desk.raw_ranges().await?;
        let mut from = self.reader.positions();
        let known = from.len();
        let added = ranges.iter().filter(|range| from.iter().all(|(partition, _)| *partition != range.partition));
        let added: Offsets = added.map(|range| (range.partition, range.start)).collect();
        from.extend(added);
        if from.len() > known {
            tracing::info!(topic = self.desk.settings.raw_topic, partitions = from.len(), "partitions were added");
            self.reader = self.desk.read_from(from).await?;
        }
        Ok(())
    }
}

/// Where each partition of the raw topic is read from: where it was left, or its beginning.
async fn positions(desk: &Desk, ranges: &[OffsetRange]) -> Result<Offsets> {
    let topic = &desk.settings.raw_topic;
    let committed = desk.log().committed(&desk.group(), topic).await;
    let failed = |source| Error::of_log(format!("could not read the offsets of topic `{topic}`"), source);
    let committed = committed.map_err(failed)?;
    let position = |range: &OffsetRange| {
        let left = committed.iter().find(|(partition, _)| *partition == range.partition).map(|(_, offset)| *offset);
        if let Some(left) = left.filter(|left| *left < range.start) {
            let lost = range.start - left;
            tracing::warn!(topic, range.partition, lost, "records were deleted before they were read");
        }
        (range.partition, left.map_or(range.start, |left| left.max(range.start)))
    };
    Ok(ranges.iter().map(position).collect())
}
