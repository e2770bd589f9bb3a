//! The bands of a run, by relay and filter, and which of them the log does not know yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event::layout::{coverage_topic, gap_topic};
use tokio::sync::Notify;
use topic::{Log, Record, Tail};

use crate::coverage::{Band, Bands, Coverage, Gap};
use crate::error::{Error, Result};

/// Gaps that wait to be written; beyond it they are counted only, since a relay that makes more of them is not honest.
const GAPS_WAITING_MAX: usize = 1_000;

/// Key of a record of the coverage topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// URL in normal form.
    pub(crate) relay: Arc<str>,
    /// As [`crate::Kinds`] prints them.
    pub(crate) kinds: String,
}

impl Line {
    /// The record's key.
    pub(crate) fn key(&self) -> Arc<str> {
        format!("{} {}", self.relay, self.kinds).into()
    }
}

/// Coverage of all relays; shared by their sessions and the publisher.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    lines: BTreeMap<Arc<str>, Coverage>,
    /// Lines that changed since they were last taken.
    unwritten: BTreeSet<Arc<str>>,
    gaps: Vec<Gap>,
}

impl Ledger {
    /// Reads back what was proven for `raw_topic`; a line that cannot be read counts as not proven.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read.
    pub(crate) async fn load(log: &dyn Log, raw_topic: &str) -> Result<Self> {
        let topic = coverage_topic(raw_topic);
        let tail = Tail::whole(log, &topic).await;
        Self::of(tail.map_err(|source| unreadable(&topic, source))?, &topic).await
    }

    /// The same while others write: waits for what they have begun by now.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read.
    pub(crate) async fn load_written(log: &dyn Log, raw_topic: &str) -> Result<Self> {
        let topic = coverage_topic(raw_topic);
        let tail = Tail::written(log, &topic).await;
        Self::of(tail.map_err(|source| unreadable(&topic, source))?, &topic).await
    }

    async fn of(mut tail: Tail, topic: &str) -> Result<Self> {
        let failed = |source| unreadable(topic, source);
        let mut lines = BTreeMap::new();
        while let Some(records) = tail.next().await.map_err(failed)? {
            for record in records {
                let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { continue };
                match record.value.as_deref().map(serde_json::from_slice::<Coverage>) {
                    Some(Ok(line)) => drop(lines.insert(Arc::from(key), line)),
                    None => drop(lines.remove(key)),
                    // The owner's record, or one of a later version.
                    Some(Err(_)) => {}
                }
            }
        }
        Ok(Self { inner: Mutex::new(Inner { lines, ..Inner::default() }), changed: Notify::new() })
    }

    /// What is proven of a line.
    pub(crate) fn bands(&self, line: &Line) -> Bands {
        let inner = self.lock();
        inner.lines.get(&line.key()).map(|coverage| Bands::of(coverage.bands.clone())).unwrap_or_default()
    }

    /// Makes a line known, so that what is proven later has a place.
    pub(crate) fn open(&self, line: &Line) -> Arc<str> {
        let key = line.key();
        let new = || Coverage { relay: line.relay.to_string(), kinds: line.kinds.clone(), bands: Vec::new() };
        self.lock().lines.entry(Arc::clone(&key)).or_insert_with(new);
        key
    }

    /// Enters what was proven, and what was found missing.
    pub(crate) fn enter(&self, key: &Arc<str>, bands: &[Band], gaps: Vec<Gap>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(line) = inner.lines.get_mut(key)
            && !bands.is_empty()
        {
            let mut all = Bands::of(std::mem::take(&mut line.bands));
            bands.iter().for_each(|band| all.prove(*band));
            line.bands = all.as_slice().to_vec();
            inner.unwritten.insert(Arc::clone(key));
        }
        let room = GAPS_WAITING_MAX.saturating_sub(inner.gaps.len());
        inner.gaps.extend(gaps.into_iter().take(room));
        self.changed.notify_one();
    }

    /// Waits until there is something to be written.
    pub(crate) async fn changed(&self) {
        while !self.has_unwritten() {
            self.changed.notified().await;
        }
    }

    fn has_unwritten(&self) -> bool {
        let inner = self.lock();
        !inner.unwritten.is_empty() || !inner.gaps.is_empty()
    }

    /// Records of what changed since this was last called: lines for the coverage topic, gaps for the gap topic.
    pub(crate) fn take_unwritten(&self) -> (Vec<Record>, Vec<Record>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let keys = std::mem::take(&mut inner.unwritten);
        let lines = keys.iter().filter_map(|key| inner.lines.get(key).map(|line| record(key, line))).collect();
        let gaps = std::mem::take(&mut inner.gaps);
        (lines, gaps.iter().map(|gap| record(&gap.relay, gap)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(topic: &str, source: topic::Error) -> Error {
    Error::of_log(format!("could not read back topic `{topic}`"), source)
}

fn record(key: &str, value: &impl serde::Serialize) -> Record {
    let value = serde_json::to_vec(value).expect("text and numbers always have a JSON form");
    Record { key: Some(key.to_owned().into()), value: Some(value.into()), ..Record::default() }
}

/// Coverage of every relay and filter of `raw_topic`, by relay and kinds.
///
/// # Errors
/// `Config` when there is no such ledger, `Unavailable` when the log cannot be read.
pub async fn coverage(log: &dyn Log, raw_topic: &str) -> Result<Vec<Coverage>> {
    let ledger = Ledger::load(log, raw_topic).await?;
    let inner = ledger.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(inner.lines.into_values().collect())
}

/// Gaps found in what relays gave to `raw_topic`, in the order in which they were found.
///
/// # Errors
/// `Config` when there is no such ledger, `Unavailable` when the log cannot be read.
pub async fn gaps(log: &dyn Log, raw_topic: &str) -> Result<Vec<Gap>> {
    let topic = gap_topic(raw_topic);
    let failed = |source| Error::of_log(format!("could not read back topic `{topic}`"), source);
    let mut tail = Tail::whole(log, &topic).await.map_err(failed)?;
    let mut gaps: Vec<Gap> = Vec::new();
    while let Some(records) = tail.next().await.map_err(failed)? {
        gaps.extend(records.iter().filter_map(|record| serde_json::from_slice(record.value.as_deref()?).ok()));
    }
    gaps.sort_by_key(|gap| gap.found_at);
    Ok(gaps)
}
