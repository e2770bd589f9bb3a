//! Refused input once more, by today's rules: what passes now goes to the raw topic, as it would have then.
//!
//! In comes the rejected topic as it stands at the start; out go events, each id once, with the source, relay and
//! received time that they came with, and the reason for which they had been refused. The rejected topic is left as it
//! is. What is dated ahead is judged by the present: that its time has come is what such a run is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use event::layout::{
    HEADER_FULL_LEN, HEADER_PHASE, HEADER_REASON, HEADER_RECEIVED_AT, HEADER_REDRIVEN, HEADER_RELAY, HEADER_SOURCE,
    rejected_topic,
};
use event::{EventId, Reason};
use tokio_util::sync::CancellationToken;
use topic::{Header, Record, StoredRecord, Tail};

use crate::Components;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::add;
use crate::parcel::{Held, Outgoing, header};
use crate::pipeline::Pipeline;
use crate::settings::IntakeSettings;
use crate::verifier::{Rules, Verdict};

/// Settings of [`redrive`].
#[derive(Clone, Debug, Default)]
pub struct RedriveSettings {
    /// The raw topic, and the rules of today.
    pub intake: IntakeSettings,
    /// Only what was refused for one of these reasons; empty means for any.
    pub reasons: Vec<Reason>,
    /// Only what was received at or after this time, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what was received before this time, milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Say what would come of it, and write nothing.
    pub dry_run: bool,
}

/// What became of a rejected record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redriven {
    /// It passes, and is in the raw topic now (with `dry_run`: would be).
    Published,
    /// It passes, and was in the raw topic before.
    Known,
    /// It passes, but its kind is not asked for.
    Filtered,
    /// Only its beginning was kept, so nobody can say.
    Cut,
    /// It is refused still, or for another reason now.
    Refused(Reason),
}

impl Redriven {
    /// A word for tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Known => "known",
            Self::Filtered => "filtered",
            Self::Cut => "cut",
            Self::Refused(reason) => reason.as_str(),
        }
    }
}

/// How many records: by the reason they had been refused for, as the record has it, and by what became of them.
pub type RedriveCounts = BTreeMap<(String, Redriven), u64>;

/// Reads the rejected topic from its start to its present end and publishes what passes today's rules.
///
/// Running it again publishes nothing twice: what is in the raw topic, as far as its ids are read back, is known. On
/// `shutdown` it ends early; what it has counted as published is.
///
/// # Errors
/// `Config` when there is no rejected topic, `Unavailable` when the log fails.
pub async fn redrive(
    settings: RedriveSettings,
    components: Components,
    shutdown: CancellationToken,
) -> Result<RedriveCounts> {
    let topic = rejected_topic(&settings.intake.topic);
    let failed = |source| Error::of_log(format!("could not read topic `{topic}`"), source);
    let mut tail = Tail::whole(components.log.as_ref(), &topic).await.map_err(failed)?;
    let stop = shutdown.child_token();
    let mut run = Run::open(settings, &components, stop.clone()).await?;
    let result = loop {
        if stop.is_cancelled() {
            break Ok(());
        }
        let records = match tail.next().await {
            Ok(Some(records)) => records,
            Ok(None) => break Ok(()),
            Err(source) => break Err(failed(source)),
        };
        if let Err(error) = run.take(records).await {
            break Err(error);
        }
    };
    run.finish().await.and_then(|counts| result.map(|()| counts))
}

/// One run: the rules, the known ids, and the way out.
struct Run {
    settings: Arc<RedriveSettings>,
    components: Components,
    rules: Arc<Rules>,
    dedup: Arc<Dedup>,
    /// None when nothing is to be written.
    pipeline: Option<Pipeline>,
    counts: RedriveCounts,
}

impl Run {
    async fn open(settings: RedriveSettings, components: &Components, stop: CancellationToken) -> Result<Self> {
        let intake = &settings.intake;
        let (pipeline, dedup) = match settings.dry_run {
            false => {
                let pipeline = Pipeline::open(intake, components, stop).await?;
                let dedup = Arc::clone(&pipeline.dedup);
                (Some(pipeline), dedup)
            }
            true => {
                let dedup = Dedup::new(intake.dedup_ids_max);
                dedup.replay(components.log.as_ref(), &intake.topic, intake.dedup_replay_max).await?;
                (None, Arc::new(dedup))
            }
        };
        Ok(Self {
            rules: Arc::new(Rules::of(intake)),
            settings: Arc::new(settings),
            components: components.clone(),
            dedup,
            pipeline,
            counts: RedriveCounts::new(),
        })
    }

    async fn take(&mut self, records: Vec<StoredRecord>) -> Result<()> {
        let (settings, rules) = (Arc::clone(&self.settings), Arc::clone(&self.rules));
        let now_ms = self.components.clock.now_ms();
        let judged = tokio::task::spawn_blocking(move || {
            let wanted = records.into_iter().filter(|record| settings.wants(record));
            wanted.map(|record| judge(&rules, record, now_ms)).collect::<Vec<_>>()
        });
        let judged =
            judged.await.map_err(|panic| Error::new(ErrorKind::Internal, "a verifier panicked").with_source(panic))?;
        for (record, raw, verdict) in judged {
            self.settle(&record, raw, verdict).await;
        }
        Ok(())
    }

    async fn settle(&mut self, record: &StoredRecord, raw: Bytes, verdict: Option<Verdict>) {
        let counters = &self.components.counters;
        add(&counters.received, 1);
        let became = match verdict {
            Some(Verdict::Believed { id, .. }) if self.dedup.claim(&id, None) => {
                if let Some(pipeline) = &self.pipeline {
                    // The publisher has ended: its own error says why.
                    if pipeline
                        .outgoing()
                        .send(Outgoing::Event(id, published(record, raw, &id), Held::default()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Redriven::Published
            }
            Some(Verdict::Believed { .. }) => {
                add(&counters.copies, 1);
                Redriven::Known
            }
            Some(Verdict::Filtered) => {
                add(&counters.filtered, 1);
                Redriven::Filtered
            }
            Some(Verdict::Refused(rejection)) => {
                add(&counters.rejected_again, 1);
                Redriven::Refused(rejection.reason)
            }
            None => {
                add(&counters.rejected_again, 1);
                Redriven::Cut
            }
        };
        let was = record.header(HEADER_REASON).unwrap_or_default().to_owned();
        *self.counts.entry((was, became)).or_default() += 1;
    }

    async fn finish(self) -> Result<RedriveCounts> {
        match self.pipeline {
            Some(pipeline) => pipeline.finish().await.map(|()| self.counts),
            None => Ok(self.counts),
        }
    }
}

impl RedriveSettings {
    fn wants(&self, record: &StoredRecord) -> bool {
        let reason = record.header(HEADER_REASON);
        let at = record.timestamp_ms;
        (self.reasons.is_empty() || self.reasons.iter().any(|wanted| reason == Some(wanted.as_str())))
            && self.since_ms.is_none_or(|since| at >= since)
            && self.until_ms.is_none_or(|until| at < until)
    }
}

/// What today's rules say of a record; none where only a part of the input was kept.
fn judge(rules: &Rules, record: StoredRecord, now_ms: i64) -> (StoredRecord, Bytes, Option<Verdict>) {
    let value = record.value.clone().unwrap_or_default();
    let whole = record.header(HEADER_FULL_LEN).and_then(|len| len.parse().ok()) == Some(value.len());
    let raw = value.slice_ref(rules.opened(&value));
    let verdict = whole.then(|| rules.judge(&raw, now_ms));
    (record, raw, verdict)
}

/// The record of the raw topic: what is known of its arrival is what was known then.
fn published(record: &StoredRecord, raw: Bytes, id: &EventId) -> Record {
    let kept = |name: &str| record.headers.iter().find(|header| header.name == name).cloned();
    let was = record.header(HEADER_REASON).unwrap_or_default().to_owned();
    let headers: Vec<Header> = [HEADER_SOURCE, HEADER_RELAY, HEADER_RECEIVED_AT]
        .into_iter()
        .filter_map(kept)
        .chain([header(HEADER_PHASE, Bytes::from_static(b"backfill")), header(HEADER_REDRIVEN, was.into())])
        .collect();
    Record {
        key: Some(id.to_string().into()),
        value: Some(raw),
        headers,
        timestamp_ms: Some(record.timestamp_ms),
        partition: None,
    }
}
