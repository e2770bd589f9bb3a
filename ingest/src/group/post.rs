//! What a member does for one partition while it is the member's: it follows the partition's relays and hands their
//! frames in, and settles the frames that all members have handed in for the partition.
//!
//! Both halves publish under transactional ids of the partition, which are fenced before anything is read back: what a
//! member before had open is ended then, and it cannot write any more. So what is read back is all there is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::layout::intake_topic;
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use topic::{Reader, Writer};

use super::collect::Collector;
use super::falls_to;
use super::follow::Followed;
use super::settle::Settler;
use crate::Components;
use crate::coverage::Ledger;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::intake::{Bounds, Intake};
use crate::nip11::Asker;
use crate::owner::{collect_id, demand_group, fence, group_id, settle_id};
use crate::pipeline::OUTGOING_MAX;
use crate::publish::{Desk, Publisher, Topics};
use crate::rejected::Refused;
use crate::relay::{Backoff, Listed, RelayUrl, Shared, follow};
use crate::settings::NostrSettings;
use crate::sighting::Sightings;
use crate::verifier::{Rules, Verifier, work};

/// How long a log that is away is waited for once a partition is to be given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// A partition that was held this long was well: the next failure waits as the first one does.
const HEALTHY: Duration = Duration::from_secs(60);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(10) };

/// What all partitions of a member share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) settings: NostrSettings,
    pub(super) components: Components,
    /// Name of the group.
    pub(super) group: String,
    /// Ids of the raw topic.
    pub(super) dedup: Arc<Dedup>,
    /// Hashes of the rejected topic.
    pub(super) refused: Refused,
    pub(super) raw: Followed,
    pub(super) rejected: Followed,
    /// Partitions of the intake topic.
    pub(super) partitions: usize,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) asker: Option<Asker>,
}

/// What a post is told, and tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// Relays are left, and what they sent is handed in.
    pub(super) collect_no_more: CancellationToken,
    /// That is done.
    pub(super) collected: CancellationToken,
    /// Settle what has been handed in for the partition by now, and end.
    pub(super) drain: CancellationToken,
    /// End with what is under way.
    pub(super) end: CancellationToken,
}

/// A partition that is this member's.
pub(super) struct Post {
    pub(super) common: Arc<Common>,
    pub(super) partition: i32,
    pub(super) listed: watch::Receiver<Listed>,
}

impl Post {
    /// Holds the partition until it is told to end, beginning anew where the log fails.
    ///
    /// # Errors
    /// `Fenced` when another process or group took the raw topic over; what cannot be mended.
    pub(super) async fn hold(self, orders: Orders) -> Result<()> {
        // However this ends, nobody waits for it any more.
        let _collected = orders.collected.clone().drop_guard();
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let Err(error) = self.work(&orders).await else { return Ok(()) };
            if error.kind() == ErrorKind::Fenced {
                self.demand().await?;
            }
            if orders.collect_no_more.is_cancelled() {
                tracing::debug!(partition = self.partition, %error, "a partition was given up in the middle");
                return Ok(());
            }
            if !matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Unavailable) {
                return Err(error);
            }
            failures = if begun.elapsed() >= HEALTHY { 1 } else { failures + 1 };
            tracing::warn!(partition = self.partition, failures, %error, "a partition is begun anew");
            tokio::select! {
                () = orders.collect_no_more.cancelled() => return Ok(()),
                () = sleep(BACKOFF.delay(failures, rand::random())) => {}
            }
        }
    }

    /// Demands that the raw topic is the group's; a log that does not say is asked again later.
    async fn demand(&self) -> Result<()> {
        let Common { settings, components, group, .. } = self.common.as_ref();
        match demand_group(components.log.as_ref(), &settings.intake.topic, group).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
            demanded => demanded,
        }
    }

    async fn work(&self, orders: &Orders) -> Result<()> {
        // Not to be called off: it might fence whoever has the partition by then.
        let writers = self.fence().await?;
        let ready = tokio::select! {
            biased;
            () = orders.collect_no_more.cancelled() => return Ok(()),
            ready = self.open(writers, orders) => ready?,
        };
        let Ready { ledger, collector, handing_in, settler } = ready;
        tracing::info!(partition = self.partition, "partition is at work");
        let (stop, failed) = (orders.collect_no_more.child_token(), CancellationToken::new());
        let collect = async {
            let collected = self.collect(&ledger, collector, handing_in, &stop).await;
            match &collected {
                Err(_) => failed.cancel(),
                // Otherwise it was the other half that has failed, and both begin anew.
                Ok(()) if orders.collect_no_more.is_cancelled() => orders.collected.cancel(),
                Ok(()) => {}
            }
            collected
        };
        let settle = async {
            let end = CancellationToken::new();
            let told = async {
                tokio::select! {
                    () = orders.drain.cancelled() => {}
                    () = orders.end.cancelled() => {}
                    () = failed.cancelled() => {}
                }
                end.cancel();
                std::future::pending::<()>().await;
            };
            let settled = tokio::select! {
                settled = settler.run(&end, || orders.drain.is_cancelled()) => settled,
                () = told => Ok(()),
            };
            stop.cancel();
            settled
        };
        let (collected, settled) = tokio::join!(Box::pin(collect), Box::pin(settle));
        collected.and(settled)
    }

    /// Fences whoever held the partition before.
    async fn fence(&self) -> Result<Writers> {
        let Common { settings, components, .. } = self.common.as_ref();
        let (log, raw) = (components.log.as_ref(), &settings.intake.topic);
        let (collect, settle) = (collect_id(raw, self.partition), settle_id(raw, self.partition));
        let (collecting, settling) = tokio::try_join!(fence(log, raw, &collect), fence(log, raw, &settle))?;
        Ok(Writers { collect: (collecting, collect), settle: (settling, settle) })
    }

    /// Reads back what there is to know, now that nobody else can write it.
    async fn open(&self, writers: Writers, orders: &Orders) -> Result<Ready> {
        let Common { settings, components, group, .. } = self.common.as_ref();
        let (log, raw, partition) = (&components.log, &settings.intake.topic, self.partition);
        demand_group(log.as_ref(), raw, group).await?;
        let ledger = Arc::new(Ledger::load_written(log.as_ref(), raw).await?);
        self.common.raw.pass().await?;
        self.common.rejected.pass().await?;
        let reader = self.reader().await?;
        let rules = Rules::of(&settings.intake);
        let collector = Collector::new(rules.clone(), &components.counters);
        let desk = |dedup: &Arc<Dedup>, ledger: &Arc<Ledger>| Desk {
            dedup: Arc::clone(dedup),
            ledger: Arc::clone(ledger),
            counters: Arc::clone(&components.counters),
            stop: orders.collect_no_more.clone(),
            patience: PATIENCE,
            copies: Sightings::new(false).1,
        };
        let (writer, id) = writers.collect;
        let own = desk(&collector.handed, &ledger);
        let handing_in = Publisher::open(Arc::clone(log), writer, id, Topics::handing_in(raw), own).await?;
        // What is settled proves nothing of a relay: that was written when it was handed in.
        let (writer, id) = writers.settle;
        let own = desk(&self.common.dedup, &Arc::default());
        let publisher = Publisher::open(Arc::clone(log), writer, id, Topics::settling(raw), own).await?;
        let verifier = Verifier {
            rules,
            dedup: Arc::clone(&self.common.dedup),
            refused: Arc::new(self.common.refused.anew()),
            sightings: Sightings::default(),
            counters: Arc::clone(&components.counters),
        };
        let settler = Settler {
            log: Arc::clone(log),
            intake: intake_topic(raw),
            partition,
            publisher,
            reader,
            verifier: Arc::new(verifier),
            threads: settings.intake.verifier_threads(),
        };
        Ok(Ready { ledger, collector, handing_in, settler })
    }

    /// Reads the partition from where it is settled to.
    async fn reader(&self) -> Result<Box<dyn Reader>> {
        let Common { settings, components, .. } = self.common.as_ref();
        let (log, raw, partition) = (&components.log, &settings.intake.topic, self.partition);
        let topic = intake_topic(raw);
        let failed = |source| Error::of_log(format!("could not read topic `{topic}`"), source);
        let committed = log.committed(&group_id(raw), &topic).await.map_err(failed)?;
        let ranges = log.ranges(&topic).await.map_err(failed)?;
        let Some(range) = ranges.iter().find(|range| range.partition == partition) else {
            return Err(Error::new(ErrorKind::Config, format!("topic `{topic}` has no partition {partition}")));
        };
        let committed = committed.iter().find(|(other, _)| *other == partition).map(|(_, next)| *next);
        let mut from = committed.unwrap_or(range.start);
        if from < range.start {
            tracing::error!(
                topic,
                partition,
                frames = range.start - from,
                "frames were deleted before they were settled, although the ledger counts them: run once with --refetch"
            );
            from = range.start;
        } else if from > range.end {
            tracing::warn!(topic, partition, "the topic is not the one that was settled before: it is settled anew");
            from = range.start;
        }
        log.reader(&topic, vec![(partition, from)]).await.map_err(failed)
    }

    /// Follows the partition's relays until `stop`, then hands in what they sent.
    async fn collect(
        &self,
        ledger: &Arc<Ledger>,
        collector: Collector,
        handing_in: Publisher,
        stop: &CancellationToken,
    ) -> Result<()> {
        let Common { settings, components, dedup, partitions, tls, asker, .. } = self.common.as_ref();
        // A member may hold all partitions, and is to stay within its bounds then.
        let mine = |url: &RelayUrl| falls_to(url, *partitions) == self.partition;
        let relays = self.listed.borrow().relays.iter().filter(|url| mine(url)).count();
        let bounds = Bounds::of(settings, *partitions, relays);
        let (queue, arrivals) = mpsc::channel(bounds.room_kib as usize);
        let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
        let mut tasks = JoinSet::new();
        let ended = stop.clone().drop_guard();
        tasks.spawn(async move {
            let _ended = ended;
            handing_in.run(outgoing).await
        });
        let ended = stop.clone().drop_guard();
        tasks.spawn_blocking(move || {
            let _ended = ended;
            work(&Mutex::new(arrivals), |input| collector.settle(input), &out);
            Ok(())
        });
        let (intake, bring_back) = Intake::new(queue, dedup, &components.counters, Sightings::default(), bounds);
        tasks.spawn(async move {
            bring_back.await;
            Ok(())
        });
        let shared = Shared::new(settings.clone(), components, intake, Arc::clone(tls), asker.clone());
        let mut result = follow(self.listed.clone(), mine, shared, ledger, stop).await.map(drop);
        while let Some(ended) = tasks.join_next().await {
            let panicked =
                |panic| Err(Error::new(ErrorKind::Internal, "a collector's task panicked").with_source(panic));
            result = result.and(ended.unwrap_or_else(panicked));
        }
        result
    }
}

/// The newest writers of a partition's ids, with these.
struct Writers {
    collect: (Box<dyn Writer>, String),
    settle: (Box<dyn Writer>, String),
}

/// A partition that has been opened.
struct Ready {
    ledger: Arc<Ledger>,
    collector: Collector,
    handing_in: Publisher,
    settler: Settler,
}
