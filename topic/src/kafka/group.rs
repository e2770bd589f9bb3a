//! A place in one of Kafka's consumer groups, for the sake of who holds which partition: nothing is read through it.
//!
//! librdkafka joins, sends heartbeats and rebalances; a thread polls it, and hears of changes. Partitions stay where
//! they are while members come and go, as far as numbers allow (cooperative-sticky): what a partition stands for is
//! costly to set up. A partition that is to move is given up only when its holder says so.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{self, error_of, kind_of, log_line};
use super::{KafkaLog, Shared};
use crate::group::Turn;
use crate::{Change, Error, ErrorKind, GroupSpec, Membership, Result};

/// How soon the polling thread notices that the group is to be left.
const POLL_MAX: Duration = Duration::from_millis(100);
/// How long a partition that is to move is waited for.
const TURN_MAX: Duration = Duration::from_secs(40);
/// How long the group waits for a member that does not answer to a rebalance, although it is alive.
const REBALANCE_MAX: Duration = Duration::from_secs(60);
/// Changes that wait to be heard of: a rebalance has two at most, and the next one waits for the last.
const CHANGES_MAX: usize = 16;

/// Hears what librdkafka decides.
struct Decisions {
    changes: mpsc::Sender<Result<Change>>,
    /// Nobody holds anything any more: there is nothing to be waited for.
    leaving: Arc<AtomicBool>,
}

/// A consumer that has joined its group, and reads nothing.
pub(super) struct Member {
    group: String,
    consumer: BaseConsumer<Decisions>,
}

impl ClientContext for Decisions {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka client");
    }
}

impl ConsumerContext for Decisions {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        if self.leaving.load(Ordering::Relaxed) || list.count() == 0 {
            return;
        }
        if consumer.assignment_lost() {
            return self.tell(Change::Lost(partitions(list)));
        }
        let (turn, end) = Turn::new();
        self.tell(Change::Given(partitions(list), turn));
        end.wait(TURN_MAX);
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => {
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(%error, "a partition that is held is read in vain");
                }
                self.tell(Change::Taken(partitions(list)));
            }
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance has failed"),
            Rebalance::Assign(_) | Rebalance::Revoke(_) => {}
        }
    }
}

impl Decisions {
    fn tell(&self, change: Change) {
        // Without a listener the group is being left.
        let _unheard = self.changes.blocking_send(Ok(change));
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    let mut partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    partitions.sort_unstable();
    partitions
}

impl Member {
    /// Who the group takes this process for, so that what it says of partitions that it held once does not count.
    pub(super) fn metadata(&self, topic: &str, partitions: Vec<i32>) -> Result<ConsumerGroupMetadata> {
        let tried = format!("could not look up what is held in group `{}`", self.group);
        let held = self.consumer.assignment().map_err(|error| error_of(&tried, error))?;
        if let Some(partition) = partitions.into_iter().find(|at| held.find_partition(topic, *at).is_none()) {
            let message =
                format!("group `{}` has given partition {partition} of topic `{topic}` to another", self.group);
            return Err(Error::new(ErrorKind::Fenced, message));
        }
        let metadata = self.consumer.group_metadata();
        metadata.ok_or_else(|| Error::new(ErrorKind::Internal, format!("group `{}` has no metadata", self.group)))
    }

    /// Polls until it is told to leave, or cannot go on.
    fn follow(&self) {
        let decisions = self.consumer.context();
        while !decisions.leaving.load(Ordering::Relaxed) {
            let Some(Err(error)) = self.consumer.poll(POLL_MAX) else { continue };
            let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
            let kind = match kind_of(&error) {
                // librdkafka goes on trying by itself.
                ErrorKind::Unavailable | ErrorKind::NotFound | ErrorKind::Internal | ErrorKind::Data if !fatal => {
                    tracing::debug!(group = self.group, %error, "membership goes on");
                    continue;
                }
                kind => kind,
            };
            let message = format!("could not stay in group `{}`", self.group);
            // Without a listener the group is being left.
            let _unheard = decisions.changes.blocking_send(Err(Error::new(kind, message).with_source(error)));
            return;
        }
    }
}

impl Shared {
    /// This process as a member of `group`, if it has joined it.
    ///
    /// # Errors
    /// `Fenced` when it has left since.
    pub(super) fn member(&self, group: &str) -> Result<Option<Arc<Member>>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = members.get(group) else { return Ok(None) };
        let left = || Error::new(ErrorKind::Fenced, format!("this process has left group `{group}`"));
        member.upgrade().ok_or_else(left).map(Some)
    }

    fn join(&self, spec: &GroupSpec, decisions: Decisions) -> Result<Arc<Member>> {
        self.partitions(&spec.topic)?;
        let session = spec.session_timeout.as_millis();
        let mut config = client::base(&self.settings);
        config.set("group.id", &spec.group).set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", session.to_string());
        config.set("heartbeat.interval.ms", (session / 6).clamp(1, 3_000).to_string());
        config.set("max.poll.interval.ms", REBALANCE_MAX.as_millis().max(session).to_string());
        // Offsets are sent in transactions; nothing is read here, from wherever it would be.
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "latest");
        config.set("allow.auto.create.topics", "false");
        let consumer: BaseConsumer<Decisions> =
            config.create_with_context(decisions).map_err(|error| client::setup_error(&self.settings, error))?;
        let subscribed = consumer.subscribe(&[&spec.topic]);
        subscribed.map_err(|error| self.error(&format!("join group `{}`", spec.group), error))?;
        let member = Arc::new(Member { group: spec.group.clone(), consumer });
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.insert(spec.group.clone(), Arc::downgrade(&member));
        Ok(member)
    }
}

/// A member, and the thread that polls it.
pub(super) struct KafkaMembership {
    group: String,
    heard: mpsc::Receiver<Result<Change>>,
    leaving: Arc<AtomicBool>,
    polling: JoinSet<()>,
}

impl KafkaMembership {
    pub(super) async fn join(log: &KafkaLog, spec: &GroupSpec) -> Result<Self> {
        let (changes, heard) = mpsc::channel(CHANGES_MAX);
        let leaving = Arc::new(AtomicBool::new(false));
        let decisions = Decisions { changes, leaving: Arc::clone(&leaving) };
        let asked = spec.clone();
        let member = log.blocking(move |shared| shared.join(&asked, decisions)).await?;
        let mut polling = JoinSet::new();
        // The group is left where the last hold of the member is let go, which takes a round trip.
        polling.spawn_blocking(move || member.follow());
        Ok(Self { group: spec.group.clone(), heard, leaving, polling })
    }
}

impl fmt::Debug for KafkaMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaMembership").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn changed(&mut self) -> Result<Change> {
        let over = || Error::new(ErrorKind::Unavailable, format!("membership in group `{}` is over", self.group));
        self.heard.recv().await.ok_or_else(over)?
    }

    async fn leave(mut self: Box<Self>) {
        self.leaving.store(true, Ordering::Relaxed);
        // A decision that waits to be heard would keep the thread.
        self.heard.close();
        while self.heard.recv().await.is_some() {}
        while self.polling.join_next().await.is_some() {}
    }
}
