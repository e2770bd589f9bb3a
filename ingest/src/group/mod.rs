//! Several processes that share the relays of one raw topic: `tidegate ingest nostr --group`.
//!
//! ```text
//! relays of p ──▶ collector of p ──▶ <topic>.intake, by claimed id ──▶ owner of q ──▶ <topic>, <topic>.rejected
//!                      └──▶ <topic>.coverage, <topic>.gaps                 └──▶ the group's offsets
//! ```
//!
//! Kafka's own group protocol shares the partitions of the intake topic out among the members. Whoever holds a
//! partition does both for it: it follows the relays whose URL falls to it, and it de-duplicates, verifies and publishes
//! the frames whose id does, whichever member has handed them in. So a relay and an id have one owner each at any time,
//! and those of a member that is gone are taken over.
//!
//! What is in the intake is durable and will be settled, so the coverage ledger counts it as here: its lines are written
//! in the transaction that holds the last frames that they speak of, or a later one.
//!
//! Read in this order: `frame` (the intake's records, pure), `collect` (frames to the intake), `settle` (the intake to the
//! raw topic), `follow` (what the others have written), `post` (a partition, from taking it over to giving it up).

mod collect;
mod follow;
mod frame;
mod post;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;

use event::layout::{intake_topic, rejected_topic};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topic::{Change, GroupSpec, Log, Membership, partition_for_key};

use self::follow::followed;
use self::post::{Common, Orders, Post};
pub(crate) use self::settle::settle_leftover;
use crate::Components;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::owner::{group_id, take_for_group};
use crate::pipeline::{create, create_topics};
use crate::rejected::{REMEMBERED_MAX, Refused};
use crate::relay::{Listed, RelayUrl, asker, tls};
use crate::settings::{GroupSettings, NostrSettings};

/// The intake is no archive: it holds what members that are all down may have left behind, three days of it. Less than
/// the week for which Kafka remembers how far a group without members had come.
const INTAKE_RETENTION_MS: &str = "259200000";
/// Its files are closed so often that retention has what to delete.
const INTAKE_SEGMENT_MS: &str = "3600000";

/// Follows this member's share of the relays until `shutdown`, then gives it up in good order.
///
/// # Errors
/// As [`crate::nostr`].
pub(crate) async fn run(
    settings: NostrSettings,
    group: GroupSettings,
    listed: watch::Receiver<Listed>,
    components: Components,
    shutdown: CancellationToken,
) -> Result<()> {
    if settings.once {
        let message = format!("group `{}` has no end: `once` is for a process that is alone", group.name);
        return Err(Error::new(ErrorKind::Config, message));
    }
    if settings.intake.sightings {
        let message = format!("group `{}` keeps no sightings: they are for a process that is alone", group.name);
        return Err(Error::new(ErrorKind::Config, message));
    }
    let (log, raw) = (Arc::clone(&components.log), settings.intake.topic.clone());
    create_topics(log.as_ref(), &settings.intake).await?;
    let partitions = create_intake(log.as_ref(), &raw).await?;
    take_for_group(log.as_ref(), &raw, &group.name, &components.clock).await?;

    let (dedup, refused) = (Arc::new(Dedup::new(settings.intake.dedup_ids_max)), Arc::new(Refused::new()));
    let known = Arc::clone(&dedup);
    let (raw_seen, raw_follower) = followed(&log, &raw, move |record| {
        known.learn(record);
    });
    let known = Arc::clone(&refused);
    let (rejected_seen, rejected_follower) = followed(&log, &rejected_topic(&raw), move |record| {
        record.key.as_deref().into_iter().for_each(|key| known.learn(key));
    });
    let mut following = JoinSet::new();
    following.spawn(raw_follower.run(settings.intake.dedup_replay_max));
    following.spawn(rejected_follower.run(REMEMBERED_MAX as u64));
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        // However many ids there are to be read back: a member that joins too early is waited for.
        seen = async { raw_seen.pass_whenever().await.and(rejected_seen.pass_whenever().await) } => seen?,
    }
    tracing::info!(topic = raw, "known ids read back");

    let spec = GroupSpec { group: group_id(&raw), topic: intake_topic(&raw), session_timeout: group.session_timeout };
    let joined = log.join(&spec).await;
    let mut membership =
        joined.map_err(|source| Error::of_log(format!("could not join group `{}`", group.name), source))?;
    let asker = asker(&settings)?;
    let common = Common {
        settings,
        components,
        group: group.name,
        dedup,
        refused: refused.anew(),
        raw: raw_seen,
        rejected: rejected_seen,
        partitions,
        tls: tls()?,
        asker,
    };
    let (common, posts, tasks) = (Arc::new(common), BTreeMap::new(), JoinSet::new());
    let mut member = Member { common, listed, posts, tasks };
    let outcome = member.follow(membership.as_mut(), &shutdown).await;
    let ended = member.end().await;
    membership.leave().await;
    outcome.and(ended)
}

/// The intake has as many partitions as the raw topic, so that a partition of the one leads to one of the other; how many.
async fn create_intake(log: &dyn Log, raw_topic: &str) -> Result<usize> {
    let failed = |source| Error::of_log(format!("could not look up topic `{raw_topic}`"), source);
    let partitions = log.ranges(raw_topic).await.map_err(failed)?.len();
    let kept = [("retention.ms", INTAKE_RETENTION_MS), ("segment.ms", INTAKE_SEGMENT_MS)];
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    create(log, &intake_topic(raw_topic), count, &kept).await?;
    Ok(partitions)
}

/// The partition whose holder follows a relay.
fn falls_to(relay: &RelayUrl, partitions: usize) -> i32 {
    partition_for_key(relay.text().as_bytes(), i32::try_from(partitions).unwrap_or(i32::MAX))
}

/// This process in its group.
struct Member {
    common: Arc<Common>,
    listed: watch::Receiver<Listed>,
    posts: BTreeMap<i32, Orders>,
    tasks: JoinSet<(i32, Result<()>)>,
}

impl Member {
    /// Takes and gives partitions as the group decides, until `shutdown`.
    async fn follow(&mut self, membership: &mut dyn Membership, shutdown: &CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => self.ended(ended)?,
                change = membership.changed() => {
                    let failed = |source| Error::of_log("could not follow the group", source);
                    match change.map_err(failed)? {
                        Change::Taken(partitions) => self.take(&partitions),
                        Change::Given(partitions, turn) => {
                            self.give(&partitions).await?;
                            drop(turn);
                        }
                        Change::Lost(partitions) => {
                            tracing::warn!(?partitions, "this member was away for too long, and others take over");
                            self.give(&partitions).await?;
                        }
                    }
                    self.tell();
                }
            }
        }
    }

    /// Says what is this member's now.
    fn tell(&self) {
        let partitions: Vec<i32> = self.posts.keys().copied().collect();
        let listed = self.listed.borrow();
        let mine = |url: &&RelayUrl| self.posts.contains_key(&falls_to(url, self.common.partitions));
        let urls: Vec<&str> = listed.relays.iter().filter(mine).map(|url| &**url.text()).collect();
        tracing::info!(group = self.common.group, ?partitions, relays = urls.join(" "), "this member's share");
    }

    fn take(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let (common, partition) = (Arc::clone(&self.common), *partition);
            let (orders, post) = (Orders::default(), Post { common, partition, listed: self.listed.clone() });
            self.posts.insert(partition, orders.clone());
            self.tasks.spawn(async move { (partition, post.hold(orders).await) });
        }
    }

    /// Has others take these over, as soon as nothing is done for them here any more.
    async fn give(&mut self, partitions: &[i32]) -> Result<()> {
        for orders in partitions.iter().filter_map(|partition| self.posts.get(partition)) {
            orders.collect_no_more.cancel();
            orders.end.cancel();
        }
        while partitions.iter().any(|partition| self.posts.contains_key(partition)) {
            let Some(ended) = self.tasks.join_next().await else { break };
            self.ended(ended)?;
        }
        Ok(())
    }

    /// Relays first; then what all of them have sent is settled as far as it is this member's.
    async fn end(&mut self) -> Result<()> {
        self.posts.values().for_each(|orders| orders.collect_no_more.cancel());
        for orders in self.posts.values() {
            orders.collected.cancelled().await;
        }
        self.posts.values().for_each(|orders| orders.drain.cancel());
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            result = result.and(self.ended(ended));
        }
        result
    }

    fn ended(&mut self, ended: std::result::Result<(i32, Result<()>), tokio::task::JoinError>) -> Result<()> {
        let panicked = |panic| Error::new(ErrorKind::Internal, "what holds a partition panicked").with_source(panic);
        let (partition, result) = ended.map_err(panicked)?;
        self.posts.remove(&partition);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_spread_over_the_partitions() {
        let names: Vec<String> = (0..200).map(|at| format!("wss://relay{at}.example.org")).collect();
        let mut shares = [0; 4];
        for url in RelayUrl::parse_all(&names).expect("urls") {
            shares[usize::try_from(falls_to(&url, 4)).expect("a partition")] += 1;
        }
        // Murmur2 spreads 200 names over 4 within 50 ± 20 with a probability beyond doubt, and always alike.
        assert!(shares.iter().all(|share| (30..=70).contains(share)), "{shares:?}");
    }
}
