//! Follows a topic that all members write, so that each knows what the topic holds: the ids of events, the hashes of
//! refused input. Whoever takes a partition over waits until this has come past all that was written by then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use topic::{Log, Offsets, StoredRecord};

use crate::error::{Error, ErrorKind, Result};
use crate::relay::Backoff;

/// Records read at once.
const RECORDS: usize = 10_000;
/// How soon a read ends in which nothing comes.
const WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether the topic has got more partitions.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long it may take to come past what is written; a transaction whose writer is gone is ended within it.
const PASS_MAX: Duration = Duration::from_secs(60);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

/// What is done with each record.
type Each = dyn Fn(&StoredRecord) + Send + Sync;

/// A topic that is followed, for whoever has to wait for it.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    reached: watch::Receiver<Offsets>,
}

/// The task that follows.
pub(super) struct Follower {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    each: Box<Each>,
    reached: watch::Sender<Offsets>,
}

/// Follows `topic`, and does `each` with its records.
pub(super) fn followed(
    log: &Arc<dyn Log>,
    topic: &str,
    each: impl Fn(&StoredRecord) + Send + Sync + 'static,
) -> (Followed, Follower) {
    let (reached, heard) = watch::channel(Offsets::new());
    let (log, topic): (_, Arc<str>) = (Arc::clone(log), topic.into());
    let followed = Followed { log: Arc::clone(&log), topic: Arc::clone(&topic), reached: heard };
    (followed, Follower { log, topic, each: Box::new(each), reached })
}

impl Followed {
    /// Waits until everything that can have been committed by now has been seen.
    ///
    /// # Errors
    /// `Unavailable` when it takes too long.
    pub(super) async fn pass(&self) -> Result<()> {
        let passed = timeout(PASS_MAX, self.pass_whenever()).await;
        let late = || format!("topic `{}` could not be read to what was written {PASS_MAX:?} ago", self.topic);
        passed.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, late())))
    }

    /// The same, however long it takes.
    pub(super) async fn pass_whenever(&self) -> Result<()> {
        let failed = |source| Error::of_log(format!("could not look up the ends of topic `{}`", self.topic), source);
        let ends = self.log.written(&self.topic).await.map_err(failed)?;
        let mut reached = self.reached.clone();
        let passed = reached.wait_for(|reached| {
            let at = |partition| reached.iter().find(|(other, _)| *other == partition).map_or(0, |(_, next)| *next);
            ends.iter().all(|range| range.start == range.end || at(range.partition) >= range.end)
        });
        let over = |_| Error::new(ErrorKind::Unavailable, format!("topic `{}` is not followed any more", self.topic));
        passed.await.map(drop).map_err(over)
    }
}

impl Follower {
    /// Follows about the `last` newest records and all that come, for ever, waiting for a log that is away.
    pub(super) async fn run(self, last: u64) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let Err(error) = self.follow(last).await else { continue };
            failures = if begun.elapsed() > BACKOFF.max { 1 } else { failures + 1 };
            tracing::warn!(topic = &*self.topic, failures, %error, "reading is begun anew");
            sleep(BACKOFF.delay(failures, rand::random())).await;
        }
    }

    /// Goes on from where it has come, until something is wrong or there are more partitions.
    async fn follow(&self, last: u64) -> topic::Result<()> {
        let from = self.from(last).await?;
        let mut reader = self.log.reader(&self.topic, from.clone()).await?;
        self.reached.send_replace(from.clone());
        let mut looked = Instant::now();
        loop {
            let records = reader.read(RECORDS, WAIT).await?;
            records.iter().for_each(&self.each);
            self.reached.send_replace(reader.positions());
            if records.is_empty() && looked.elapsed() >= LOOK_EVERY {
                if self.log.ranges(&self.topic).await?.len() != from.len() {
                    return Ok(());
                }
                looked = Instant::now();
            }
        }
    }

    /// Where to go on: of what retention has taken meanwhile, from the first that is there.
    async fn from(&self, last: u64) -> topic::Result<Offsets> {
        let ranges = self.log.ranges(&self.topic).await?;
        let share = last.div_ceil(u64::try_from(ranges.len()).unwrap_or(1).max(1));
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        let reached = self.reached.borrow().clone();
        let from = ranges.iter().map(|range| {
            let at = reached.iter().find(|(partition, _)| *partition == range.partition).map(|(_, next)| *next);
            (range.partition, at.unwrap_or(range.end.saturating_sub(share)).clamp(range.start, range.end))
        });
        Ok(from.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use event::Clock;
    use tokio::task::JoinSet;
    use topic::{EmbeddedLog, Record, TopicSpec};

    use super::*;

    async fn write(log: &dyn Log, numbers: std::ops::Range<u32>) {
        let record = |number: u32| Record { key: Some(number.to_string().into()), ..Record::default() };
        let mut writer = log.writer(None).await.expect("a writer");
        writer.send("raw", numbers.map(record).collect()).await.expect("sent");
        writer.flush().await.expect("durable");
    }

    #[tokio::test]
    async fn whoever_waits_has_seen_all_that_was_written_by_then() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path(), Clock::system()).expect("a log"));
        let spec = TopicSpec { name: "raw".to_owned(), partitions: 3, config: Vec::new() };
        log.create_topic(&spec).await.expect("created");
        write(log.as_ref(), 0..100).await;
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let seen_too = Arc::clone(&seen);
        let (followed, follower) = followed(&log, "raw", move |record| {
            seen_too.lock().unwrap_or_else(PoisonError::into_inner).insert(record.key.clone());
        });
        let waited = timeout(Duration::from_millis(50), followed.pass()).await;
        assert!(waited.is_err(), "nobody follows, so that nothing has been seen");
        let mut following = JoinSet::new();
        following.spawn(follower.run(1_000));
        for (from, to) in [(100, 101), (101, 150), (150, 900)] {
            write(log.as_ref(), from..to).await;
            followed.pass().await.expect("all is seen");
            assert_eq!(seen.lock().unwrap_or_else(PoisonError::into_inner).len(), to as usize);
        }
    }
}
