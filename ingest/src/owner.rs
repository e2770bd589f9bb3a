//! Who ingests into a raw topic: one process, or one group of them. The record that says so lies in the coverage topic,
//! and is written under the raw topic's transactional id alone, so that of two who take over one is the last.
//!
//! A lone process publishes under that id. The members of a group publish under ids of the intake's partitions; who
//! takes over from them fences each of these, after it has written the record: a member that opens a partition later
//! reads the record after it has fenced, and so finds out.

use std::time::Duration;

use event::layout::{coverage_topic, intake_topic};
use event::{Clock, EventTime};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use topic::{Log, Record, Writer};

use crate::error::{Error, ErrorKind, Result};

/// Key, in the coverage topic, of the record that says who ingests.
const OWNER_KEY: &str = "owner";
/// Members that start together may fence each other so often; each time one of them has written the record.
const ATTEMPTS_MAX: u32 = 20;
/// How long a record that cannot be read is waited for: longer than Kafka leaves a transaction open.
const READ_WITHIN: Duration = Duration::from_secs(90);
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Ids that are fenced at the same time.
const FENCED_AT_ONCE: usize = 16;

/// Who ingests into a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Host and process, for people; of a group the one that began.
    place: String,
    /// When it began, RFC 3339.
    since: String,
    /// It has ended in good order, and the topic is free.
    #[serde(default)]
    pub(crate) ended: bool,
    /// Name of the group, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// A group was here before, and what it has handed in is not known to be settled.
    #[serde(default)]
    pub(crate) leftover: bool,
}

impl Owner {
    /// This process, from now on.
    pub(crate) fn here(clock: &Clock, group: Option<String>) -> Self {
        let since = EventTime::from_millis(clock.now_ms()).map(|now| now.to_string()).unwrap_or_default();
        Self { place: event::place(), since, ended: false, group, leftover: false }
    }

    /// Who ingests, or did last; none where nobody did, or a later version of us.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read.
    pub(crate) async fn read(log: &dyn Log, raw_topic: &str) -> Result<Option<Self>> {
        let topic = coverage_topic(raw_topic);
        let record = log.last_by_key(&topic, OWNER_KEY.as_bytes()).await;
        let record = record.map_err(|source| Error::of_log(format!("could not read topic `{topic}`"), source))?;
        Ok(record.and_then(|record| serde_json::from_slice(record.value.as_deref()?).ok()))
    }

    /// The same; what a member that was killed had open hides the record until somebody takes over from it, or Kafka ends
    /// it after a minute, and that is waited for.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read for longer.
    pub(crate) async fn await_read(log: &dyn Log, raw_topic: &str) -> Result<Option<Self>> {
        let deadline = Instant::now() + READ_WITHIN;
        loop {
            match Self::read(log, raw_topic).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                    tracing::warn!(topic = raw_topic, %error, "who ingests is not known yet");
                    sleep(READ_PAUSE).await;
                }
                read => return read,
            }
        }
    }

    /// The record of the coverage topic.
    pub(crate) fn record(&self) -> Record {
        let value = serde_json::to_vec(self).expect("text always has a JSON form");
        Record { key: Some(OWNER_KEY.into()), value: Some(value.into()), ..Record::default() }
    }

    /// The same, after this one.
    pub(crate) fn after(self, before: Option<&Self>) -> Self {
        Self { leftover: before.is_some_and(|before| before.group.is_some() || before.leftover), ..self }
    }

    /// When it began, RFC 3339.
    pub(crate) fn since(&self) -> &str {
        &self.since
    }

    /// Whether it is the same process or group, whatever else is known of it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.place, &self.since, &self.group) == (&other.place, &other.since, &other.group)
    }

    /// For people.
    pub(crate) fn who(&self) -> String {
        match &self.group {
            Some(group) => format!("group `{group}`, which {} began at {}", self.place, self.since),
            None => format!("{}, which began at {}", self.place, self.since),
        }
    }

    /// Why a topic that is wanted free is not.
    pub(crate) fn refusal(&self, raw_topic: &str) -> Error {
        let message = match &self.group {
            Some(group) => format!(
                "group `{group}` ingests into topic `{raw_topic}` since {}, or did: end its members first, then take over from it with --take-over",
                self.since
            ),
            None => format!(
                "{} ingests into topic `{raw_topic}` since {}, or did and was cut off: end it first, or take over from it with --take-over",
                self.place, self.since
            ),
        };
        Error::new(ErrorKind::Fenced, message)
    }
}

/// Transactional id of the raw topic.
pub(crate) fn topic_id(raw_topic: &str) -> String {
    format!("tidegate.ingest.{raw_topic}")
}

/// Transactional id under which frames of the relays of a partition are handed in.
pub(crate) fn collect_id(raw_topic: &str, partition: i32) -> String {
    format!("tidegate.collect.{raw_topic}.{partition}")
}

/// Transactional id under which a partition of the intake is settled.
pub(crate) fn settle_id(raw_topic: &str, partition: i32) -> String {
    format!("tidegate.settle.{raw_topic}.{partition}")
}

/// Kafka's name of the group; one for all groups of a raw topic, so that each goes on where the last one was.
pub(crate) fn group_id(raw_topic: &str) -> String {
    format!("tidegate.ingest.{raw_topic}")
}

/// Fences every older writer of an id and ends what it had open.
///
/// # Errors
/// `Unavailable` when the log cannot be reached, `Fenced` when another one was faster.
pub(crate) async fn fence(log: &dyn Log, raw_topic: &str, id: &str) -> Result<Box<dyn Writer>> {
    let opened = log.writer(Some(id)).await;
    opened.map_err(|source| Error::of_log(format!("could not open a writer for topic `{raw_topic}`"), source))
}

/// Fences all members of whatever group there was, and ends what they had open.
///
/// # Errors
/// `Unavailable` when the log cannot be reached.
pub(crate) async fn fence_members(log: &dyn Log, raw_topic: &str) -> Result<()> {
    let intake = intake_topic(raw_topic);
    let partitions = match log.ranges(&intake).await {
        Ok(ranges) => ranges,
        Err(error) if error.kind() == topic::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::of_log(format!("could not look up topic `{intake}`"), error)),
    };
    let partitions = partitions.iter().map(|range| range.partition);
    let ids = partitions.flat_map(|at| [collect_id(raw_topic, at), settle_id(raw_topic, at)]).collect::<Vec<_>>();
    // Each takes half a second, most of which is waiting.
    let fenced = ids.into_iter().map(|id| async move { fence(log, raw_topic, &id).await.map(drop) });
    stream::iter(fenced.collect::<Vec<_>>()).buffer_unordered(FENCED_AT_ONCE).try_collect().await
}

/// Has the record say that `group` ingests: whoever did before cannot any more, a lone process at once, the members of
/// another group at their next write. Where it says so already nothing is done.
///
/// # Errors
/// `Unavailable` when the log cannot be reached, `Fenced` when others took over again and again meanwhile.
pub(crate) async fn take_for_group(log: &dyn Log, raw_topic: &str, group: &str, clock: &Clock) -> Result<()> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let before = Owner::await_read(log, raw_topic).await?;
        if before.as_ref().is_some_and(|owner| owner.group.as_deref() == Some(group)) {
            return Ok(());
        }
        match write(log, raw_topic, &Owner::here(clock, Some(group.to_owned()))).await {
            Ok(()) if before.is_some_and(|before| before.group.is_some()) => {
                return fence_members(log, raw_topic).await;
            }
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Fenced, format!("topic `{raw_topic}` was taken over"))))
}

/// Writes the record, fencing whoever wrote it before.
async fn write(log: &dyn Log, raw_topic: &str, owner: &Owner) -> Result<()> {
    let mut writer = fence(log, raw_topic, &topic_id(raw_topic)).await?;
    let topic = coverage_topic(raw_topic);
    let written = async {
        writer.begin().await?;
        writer.send(&topic, vec![owner.record()]).await?;
        writer.commit().await
    };
    written.await.map_err(|source| Error::of_log(format!("could not write to topic `{topic}`"), source))
}

/// Demands that `group` ingests; asked after a partition was fenced, so that a later owner would have fenced it again.
///
/// # Errors
/// `Fenced`, saying who took over.
pub(crate) async fn demand_group(log: &dyn Log, raw_topic: &str, group: &str) -> Result<()> {
    let message = match Owner::read(log, raw_topic).await? {
        Some(owner) if owner.group.as_deref() == Some(group) => return Ok(()),
        Some(owner) => format!("ingest into topic `{raw_topic}` was taken over by {}", owner.who()),
        None => format!("nothing says any more that group `{group}` ingests into topic `{raw_topic}`"),
    };
    Err(Error::new(ErrorKind::Fenced, message))
}

#[cfg(test)]
mod tests {
    use topic::{EmbeddedLog, TopicSpec};

    use super::*;

    #[tokio::test]
    async fn a_group_is_asked_for_by_name_and_a_lone_process_ends_it() {
        let (dir, clock) = (tempfile::TempDir::new().expect("a directory"), Clock::mock(1_795_219_200_000));
        let log = EmbeddedLog::open(dir.path(), clock.clone()).expect("a log");
        let spec = TopicSpec { name: coverage_topic("raw"), partitions: 1, config: Vec::new() };
        log.create_topic(&spec).await.expect("created");
        let mut lone = fence(&log, "raw", &topic_id("raw")).await.expect("a writer");
        take_for_group(&log, "raw", "porch", &clock).await.expect("the group has it");
        assert!(lone.begin().await.is_err(), "whoever was alone is fenced");
        clock.set(1_795_219_201_000);
        take_for_group(&log, "raw", "porch", &clock).await.expect("the group has it");
        let owner = Owner::read(&log, "raw").await.expect("read").expect("an owner");
        assert_eq!(owner, Owner { since: "2026-11-21T00:00:00Z".to_owned(), ..owner.clone() }, "written once");
        demand_group(&log, "raw", "porch").await.expect("it is the group's");
        let other = demand_group(&log, "raw", "garden").await.expect_err("it is another's");
        assert!(other.to_string().contains("by group `porch`"), "{other}");

        let alone = Owner::here(&clock, None).after(Some(&owner));
        write(&log, "raw", &alone).await.expect("written");
        let ended = demand_group(&log, "raw", "porch").await.expect_err("it is taken over");
        assert_eq!(ended.kind(), ErrorKind::Fenced);
    }

    #[test]
    fn what_a_group_has_left_is_remembered_until_it_is_settled() {
        let clock = Clock::mock(1_795_219_200_000);
        let (alone, group) = (Owner::here(&clock, None), Owner::here(&clock, Some("porch".to_owned())));
        assert!(!alone.clone().after(None).leftover && !alone.clone().after(Some(&alone)).leftover);
        let first = alone.clone().after(Some(&group));
        let second = alone.clone().after(Some(&first));
        assert!(first.leftover && second.leftover);
        let settled = Owner { leftover: false, ..second };
        assert!(!alone.after(Some(&settled)).leftover);
    }
}
