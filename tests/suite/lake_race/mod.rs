//! Landers, compactors, expirers and readers in one lake at once, stopped at every step of the store: a reader that is
//! younger than the grace sees each landed row exactly once, whoever dies when.
//!
//! Who goes on next, which step fails and who is killed is decided by a seed. What a reader must see is known from the
//! topic and from what was put; nothing of the code under test is asked.

#![allow(clippy::cast_possible_truncation, reason = "numbers are small here")]

mod log;
mod store;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use event::layout::LakeFormat;
use event::schema::{KAFKA_OFFSET, KAFKA_PARTITION, RAW, events_schema};
use event::{Clock, Table};
use futures::TryStreamExt;
use ingest::lake::{Catalog, CompactProgress, CompactSettings, LanderSettings, compact, expire, land, sweep};
use ingest::{Components, Counters};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use processor::lake::LakeTable;
use serde_json::Value;
use tests::lake_contract::{Bench, Chance, HOUR, NOW, TOPIC, object, records};
use tokio_util::sync::CancellationToken;

use log::GatedLog;
use store::{Fate, Gate, GatedStore};

const MINUTE: i64 = 60_000;
/// After this long, what was replaced is deleted.
const GRACE: i64 = HOUR * 3 / 2;
/// A query that takes longer than this is none of ours.
const QUERY: i64 = HOUR;
/// Hours older than this leave the lake.
const AGE: i64 = 9 * HOUR;
const PARTITIONS: i32 = 2;

/// Row: partition, offset, raw JSON.
type Rows = Vec<(i32, i64, Vec<u8>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Lander,
    Compactor,
    Expirer,
    Reader,
}

struct Process {
    role: Role,
    began_ms: i64,
    /// A step of it was made to fail.
    failed: bool,
    /// Stopped until then, as a machine that sleeps.
    asleep_until_ms: i64,
    gate: Arc<Gate>,
    /// Tells a lander to come to an end.
    drain: CancellationToken,
    /// End of what was landed when it began, by partition.
    landed: BTreeMap<i32, i64>,
    work: Pin<Box<dyn Future<Output = Result<Option<Rows>, String>>>>,
}

/// What became of the processes, so that a test that tests nothing is seen.
#[derive(Debug, Default)]
struct Tally {
    read: usize,
    failed: usize,
    killed: usize,
    done: BTreeMap<&'static str, usize>,
}

struct Race {
    bench: Bench,
    inner: Arc<InMemory>,
    clock: Clock,
    chance: Chance,
    processes: Vec<Process>,
    landed: BTreeMap<i32, i64>,
    /// Raw objects that were looked at.
    seen: HashSet<Path>,
    format: LakeFormat,
    tally: Tally,
}

impl Race {
    async fn new(seed: u64) -> Self {
        let inner = Arc::new(InMemory::new());
        let store: Arc<dyn ObjectStore> = Arc::clone(&inner) as Arc<dyn ObjectStore>;
        Self {
            bench: Bench::new(&store, "race", PARTITIONS).await,
            inner,
            clock: Clock::mock(NOW),
            chance: Chance(seed),
            processes: Vec::new(),
            landed: BTreeMap::new(),
            seen: HashSet::new(),
            format: if seed % 4 == 3 { LakeFormat::JsonGz } else { LakeFormat::Parquet },
            tally: Tally::default(),
        }
    }

    fn start(&mut self, role: Role) {
        let (gate, drain) = (Arc::new(Gate::default()), CancellationToken::new());
        let gated = GatedStore { inner: Arc::clone(&self.inner), gate: Arc::clone(&gate), clock: self.clock.clone() };
        let store: Arc<dyn ObjectStore> = Arc::new(gated);
        let catalog = Catalog {
            store: Arc::clone(&store),
            prefix: self.bench.prefix.clone(),
            topic: TOPIC.to_owned(),
            table: Table::Events,
            clock: self.clock.clone(),
        };
        let work: Pin<Box<dyn Future<Output = Result<Option<Rows>, String>>>> = match role {
            Role::Lander => {
                let counters = Arc::new(Counters::default());
                let log = GatedLog { inner: Arc::clone(&self.bench.log), gate: Arc::clone(&gate) };
                let components = Components { log: Arc::new(log), clock: self.clock.clone(), counters };
                let rows_max = 3 + self.chance.below(9) as usize;
                let (topic, format, age_max) = (TOPIC.to_owned(), self.format, Duration::ZERO);
                let settings = LanderSettings { topic, format, rows_max, age_max, ..LanderSettings::default() };
                let prefix = self.bench.prefix.clone();
                let drain = drain.clone();
                Box::pin(async move { told(land(settings, components, store, prefix, drain).await) })
            }
            Role::Compactor => {
                let target_bytes = 2_000 + self.chance.below(40_000);
                let settings = CompactSettings { target_bytes, ..CompactSettings::new(std::env::temp_dir()) };
                Box::pin(async move {
                    let (progress, stop) = (Arc::new(CompactProgress::default()), CancellationToken::new());
                    told(compact(&catalog, &settings, progress, &stop).await)?;
                    told(sweep(&catalog, millis(GRACE), false).await)
                })
            }
            Role::Expirer => Box::pin(async move {
                told(expire(&catalog, millis(AGE), false).await)?;
                told(sweep(&catalog, millis(GRACE), false).await)
            }),
            Role::Reader => {
                let lake = LakeTable::new(store, &self.bench.prefix, TOPIC);
                Box::pin(async move { read(&lake).await.map(Some) })
            }
        };
        let (began_ms, landed) = (self.clock.now_ms(), self.landed.clone());
        self.processes.push(Process { role, began_ms, failed: false, asleep_until_ms: 0, gate, drain, landed, work });
    }

    /// One thing happens.
    async fn step(&mut self) {
        match self.chance.below(100) {
            0..=5 => {
                self.clock.set(self.clock.now_ms() + MINUTE * (1 + self.chance.below(40) as i64));
                let now = self.clock.now_ms();
                self.bench.receive((0..4 + self.chance.below(12) as i64).map(|at| now + at)).await;
            }
            6..=13 if self.processes.len() < 6 => {
                let roles = [
                    Role::Lander,
                    Role::Lander,
                    Role::Compactor,
                    Role::Compactor,
                    Role::Expirer,
                    Role::Reader,
                    Role::Reader,
                ];
                let role = roles[self.chance.below(roles.len() as u64) as usize];
                self.start(role);
            }
            14 if !self.processes.is_empty() => {
                let at = self.chance.below(self.processes.len() as u64) as usize;
                self.processes.swap_remove(at);
                self.tally.killed += 1;
            }
            15 if !self.processes.is_empty() => {
                let at = self.chance.below(self.processes.len() as u64) as usize;
                self.processes[at].asleep_until_ms = self.clock.now_ms() + self.chance.below(24) as i64 * HOUR;
            }
            _ => {
                let now = self.clock.now_ms();
                let awake: Vec<usize> =
                    (0..self.processes.len()).filter(|at| self.processes[*at].asleep_until_ms <= now).collect();
                let Some(at) = awake.get(self.chance.below(awake.len().max(1) as u64) as usize) else { return };
                let fate = [Fate::Fail, Fate::LoseAnswer];
                let fate = fate.get(self.chance.below(60) as usize).copied().unwrap_or(Fate::Pass);
                self.go_on(*at, fate).await;
            }
        }
    }

    /// Lets a process go to its next step; looks at what it did.
    async fn go_on(&mut self, at: usize, fate: Fate) {
        let drains = self.chance.below(30) == 0;
        let process = &mut self.processes[at];
        if drains {
            process.drain.cancel();
        }
        process.failed |= fate != Fate::Pass;
        // Queries that took too long would be told so; here nobody waits for them.
        if process.role == Role::Reader && self.clock.now_ms() - process.began_ms > QUERY {
            self.processes.swap_remove(at);
            return;
        }
        // A lander would try again after a pause; what that does is tested beside it.
        process.gate.open(if process.role == Role::Lander { Fate::Pass } else { fate });
        let outcome = loop {
            if let std::task::Poll::Ready(outcome) = futures::poll!(process.work.as_mut()) {
                break Some(outcome);
            }
            if process.gate.waits() {
                break None;
            }
            if process.gate.hangs() {
                self.processes.swap_remove(at);
                self.tally.killed += 1;
                return;
            }
            // It waits for a thread or the log.
            tokio::task::yield_now().await;
        };
        if process.role == Role::Lander {
            self.note_landed().await;
        }
        let Some(outcome) = outcome else { return };
        let process = self.processes.swap_remove(at);
        let role = format!("{:?}", process.role);
        match outcome {
            Ok(rows) => {
                *self
                    .tally
                    .done
                    .entry(match process.role {
                        Role::Lander => "landed",
                        Role::Compactor => "compacted",
                        Role::Expirer => "expired",
                        Role::Reader => "read",
                    })
                    .or_default() += 1;
                if let Some(rows) = rows {
                    self.tally.read += rows.len();
                    self.check(&process.landed, rows).await;
                }
            }
            Err(why) => {
                assert!(why.contains("Unavailable"), "{role}: {why}");
                // What a query began with stays for as long as the grace.
                assert!(process.failed || process.role != Role::Reader, "{role}: {why}");
                self.tally.failed += 1;
            }
        }
    }

    /// How far the topic is landed: raw objects may go later, what was landed stays landed.
    async fn note_landed(&mut self) {
        let folder = self.bench.prefix.clone().join("topics");
        let listed: Vec<_> = self.inner.list(Some(&folder)).try_collect().await.expect("a list");
        for meta in listed {
            if self.seen.insert(meta.location.clone()) {
                let object = object(self.inner.as_ref(), &self.bench.prefix, &meta.location).await;
                let end = self.landed.entry(object.key.partition).or_default();
                *end = (*end).max(object.end);
            }
        }
    }

    /// The manifest that counts.
    async fn manifest(&self) -> Option<Value> {
        let folder = self.bench.prefix.clone().join("curated").join(TOPIC).join("v1").join("_manifest");
        let listed: Vec<_> = self.inner.list(Some(&folder)).try_collect().await.expect("a list");
        let newest = listed.into_iter().max_by(|a, b| a.location.cmp(&b.location))?;
        let read = object_store::ObjectStoreExt::get(self.inner.as_ref(), &newest.location).await.expect("a manifest");
        Some(serde_json::from_slice(&read.bytes().await.expect("bytes")).expect("JSON"))
    }

    /// How far rows were removed by age, as the manifest logs it.
    async fn removed(&self) -> BTreeMap<i32, i64> {
        let mut removed = BTreeMap::new();
        let Some(manifest) = self.manifest().await else { return removed };
        let entries = manifest["removed"].as_array().expect("a log of deletions");
        for range in entries.iter().flat_map(|entry| entry["ranges"].as_array().expect("ranges")) {
            let end = removed.entry(range["partition"].as_i64().expect("a number") as i32).or_default();
            *end = range["end"].as_i64().expect("a number").max(*end);
        }
        removed
    }

    /// The rows are those of the topic from an offset that may have been removed to one that was landed.
    async fn check(&self, landed: &BTreeMap<i32, i64>, mut rows: Rows) {
        rows.sort();
        let removed = self.removed().await;
        let records = records(self.bench.log.as_ref()).await;
        for partition in 0..PARTITIONS {
            let rows: Vec<_> = rows.iter().filter(|row| row.0 == partition).collect();
            let removed = removed.get(&partition).copied().unwrap_or_default();
            let landed = landed.get(&partition).copied().unwrap_or_default();
            let (start, end) = match (rows.first(), rows.last()) {
                (Some(first), Some(last)) => (first.1, last.1 + 1),
                _ => (removed, removed),
            };
            assert!(start <= removed, "partition {partition} begins at {start}, removed up to {removed}");
            assert!(end >= landed, "partition {partition} ends at {end}, landed up to {landed}");
            let wanted: Vec<_> = records
                .iter()
                .filter(|record| record.partition == partition && (start..end).contains(&record.offset))
                .map(|record| (record.offset, record.value.as_deref().unwrap_or_default()))
                .collect();
            let seen: Vec<_> = rows.iter().map(|row| (row.1, &row.2[..])).collect();
            assert!(seen == wanted, "partition {partition}: {:?}", seen.iter().map(|row| row.0).collect::<Vec<_>>());
        }
    }

    /// No compacted file lies in the store that the manifest neither has nor logs as removed.
    async fn check_files(&self) {
        let folder = self.bench.prefix.clone().join("curated").join(TOPIC).join("v1");
        let listed: Vec<_> = self.inner.list(Some(&folder)).try_collect().await.expect("a list");
        let manifest = self.manifest().await.unwrap_or_default();
        let known = manifest.to_string();
        for name in listed.iter().filter_map(|meta| meta.location.filename()).filter(|name| name.starts_with("part-")) {
            assert!(known.contains(name), "{name} is a leftover");
        }
    }

    /// Everybody who is left comes to an end, then all is landed and read once more.
    async fn settle(&mut self) {
        while !self.processes.is_empty() {
            let at = self.chance.below(self.processes.len() as u64) as usize;
            self.go_on(at, Fate::Pass).await;
        }
        for role in [Role::Lander, Role::Compactor, Role::Expirer, Role::Lander, Role::Reader] {
            self.start(role);
            while !self.processes.is_empty() {
                self.go_on(0, Fate::Pass).await;
            }
        }
        self.check_files().await;
        let ends = self.bench.log.ranges(TOPIC).await.expect("ranges");
        for range in ends {
            assert_eq!(self.landed.get(&range.partition).copied().unwrap_or_default(), range.end, "landed to the end");
        }
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// A library's end as this file wants it: no rows, or kind and words of the error.
fn told<T>(outcome: ingest::Result<T>) -> Result<Option<Rows>, String> {
    outcome.map(|_| None).map_err(|error| format!("{:?}: {error}", error.kind()))
}

async fn read(lake: &LakeTable) -> Result<Rows, String> {
    let told = |error: processor::Error| format!("{:?}: {error}", error.kind());
    let columns: Vec<usize> = (0..events_schema().fields().len()).collect();
    let mut rows = Rows::new();
    for object in lake.objects().await.map_err(told)? {
        let mut batches = lake.read(&object, &columns);
        while let Some(batch) = batches.try_next().await.map_err(told)? {
            let column = |name: &str| batch.column_by_name(name).expect("a column of the table");
            let partitions = column(KAFKA_PARTITION).as_primitive::<Int32Type>();
            let offsets = column(KAFKA_OFFSET).as_primitive::<Int64Type>();
            let raw = column(RAW).as_binary::<i32>();
            let row = |at: usize| (partitions.value(at), offsets.value(at), raw.value(at).to_vec());
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    Ok(rows)
}

#[tokio::test]
async fn readers_see_each_row_once_whoever_dies_when() {
    let only = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = only.map_or_else(|| (0..20).collect(), |seed| vec![seed]);
    let mut total = Tally::default();
    for seed in seeds {
        println!("seed {seed}");
        let mut race = Race::new(seed).await;
        for _ in 0..2_000 {
            race.step().await;
        }
        race.settle().await;
        total.read += race.tally.read;
        total.failed += race.tally.failed;
        total.killed += race.tally.killed;
        for (what, count) in race.tally.done {
            *total.done.entry(what).or_default() += count;
        }
    }
    println!("{total:?}");
    assert!(total.read > 0 && total.killed > 0 && total.failed > 0 && total.done.len() == 4, "{total:?}");
}
