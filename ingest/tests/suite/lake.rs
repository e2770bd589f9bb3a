//! The lander: the contract in memory and on a directory, and what goes wrong between it, the log and the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event::layout::LakeFormat;
use event::{Clock, Table};
use ingest::lake::{Catalog, CompactSettings, LanderSettings, compact, land, sweep};
use ingest::{Components, CountersSnapshot, ErrorKind};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use topic::Log;

use crate::lake_contract::{self, Chance, HOUR, NOW, Object, TOPIC, check_tiling, components, objects, small};
use crate::scripted::{Faults, FaultyStore, ScriptedLog};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_in_memory_keeps_the_contract() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    lake_contract::run_all(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_on_a_directory_keeps_the_contract() {
    let dir = TempDir::new().expect("a directory");
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).expect("a store"));
    lake_contract::run_all(&store).await;
}

/// A log and a store that can fail, and landers between them.
struct Yard {
    log: ScriptedLog,
    store: Arc<FaultyStore>,
    prefix: Path,
}

impl Yard {
    fn new(partitions: usize, faults: Faults, seed: u64) -> Self {
        let store = FaultyStore::new(Arc::new(InMemory::new()), faults, seed);
        Self { log: ScriptedLog::new(partitions), store, prefix: Path::from("lake") }
    }

    async fn land(&self, settings: LanderSettings, drain: CancellationToken) -> ingest::Result<CountersSnapshot> {
        let log: Arc<dyn Log> = Arc::new(self.log.clone());
        let components = components(&log);
        let counters = Arc::clone(&components.counters);
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        land(settings, components, store, self.prefix.clone(), drain).await?;
        Ok(counters.snapshot())
    }

    /// Lands what is there now.
    async fn land_all(&self, settings: LanderSettings) -> ingest::Result<CountersSnapshot> {
        let drain = CancellationToken::new();
        drain.cancel();
        self.land(settings, drain).await
    }

    async fn objects(&self) -> Vec<Object> {
        objects(self.store.as_ref(), &self.prefix).await
    }

    async fn check(&self) {
        let ranges = self.log.ranges(TOPIC).await.expect("ranges");
        check_tiling(&self.objects().await, &self.log.records(), &ranges);
    }
}

#[tokio::test]
async fn an_end_lies_past_what_is_no_record() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    yard.log.skip(0, 2);
    yard.log.push(0, NOW, &mut chance);
    yard.log.skip(0, 1);
    yard.log.push(0, NOW, &mut chance);
    yard.log.skip(0, 3);
    yard.land_all(small(100)).await.expect("landed");
    yard.log.push(0, NOW, &mut chance);
    yard.land_all(small(100)).await.expect("landed");
    yard.check().await;
    let ranges: Vec<(i64, i64)> = yard.objects().await.iter().map(|object| (object.key.start, object.end)).collect();
    assert_eq!(ranges, [(0, 8), (8, 9)]);
}

#[tokio::test]
async fn a_time_that_no_folder_can_hold_moves_no_folder() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    [-1, i64::MAX, NOW, i64::MAX, NOW + HOUR].into_iter().for_each(|time| yard.log.push(0, time, &mut chance));
    yard.land_all(small(100)).await.expect("landed");
    let hours: Vec<(i64, usize)> =
        yard.objects().await.iter().map(|object| (object.key.hour, object.rows.len())).collect();
    assert_eq!(hours, [(0, 2), (NOW / HOUR, 2), (NOW / HOUR + 1, 1)]);
}

#[tokio::test]
async fn json_lines_close_at_a_hole() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    for _ in 0..3 {
        yard.log.skip(0, 2);
        (0..4).for_each(|_| yard.log.push(0, NOW, &mut chance));
    }
    let settings = || LanderSettings { format: LakeFormat::JsonGz, ..small(100) };
    yard.land_all(settings()).await.expect("landed");
    yard.log.skip(0, 1);
    yard.log.push(0, NOW, &mut chance);
    yard.land_all(settings()).await.expect("landed");
    yard.check().await;
    let ranges: Vec<(i64, i64)> = yard.objects().await.iter().map(|object| (object.key.start, object.end)).collect();
    assert_eq!(ranges, [(2, 6), (8, 12), (14, 18), (19, 20)]);
}

#[tokio::test]
async fn an_answer_that_was_lost_repeats_nothing() {
    for format in [LakeFormat::Parquet, LakeFormat::JsonGz] {
        let yard = Yard::new(1, Faults { lose_answer: 100, ..Faults::default() }, 1);
        let mut chance = Chance(1);
        (0..30).for_each(|_| yard.log.push(0, NOW, &mut chance));
        let counters = yard.land_all(LanderSettings { format, ..small(10) }).await.expect("landed");
        assert_eq!((counters.landed_rows, counters.landed_objects), (30, 3));
        yard.check().await;
    }
}

#[tokio::test]
async fn a_lander_that_was_cut_off_for_hours_looks_where_the_lake_ends() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let cut_off = FaultyStore::new(Arc::clone(&inner), Faults { fail: 100, ..Faults::default() }, 1);
    let (log, prefix, clock) = (ScriptedLog::new(1), Path::from("lake"), Clock::mock(NOW));
    let mut chance = Chance(1);
    (0..40).for_each(|_| log.push(0, NOW, &mut chance));
    let lander = |store: Arc<dyn ObjectStore>, rows_max: usize, drain: CancellationToken| {
        let log: Arc<dyn Log> = Arc::new(log.clone());
        let components = Components { log, clock: clock.clone(), counters: Arc::default() };
        land(small(rows_max), components, store, prefix.clone(), drain)
    };
    let drain = CancellationToken::new();
    let sleeper = lander(Arc::clone(&cut_off) as Arc<dyn ObjectStore>, 30, drain.clone());
    let others = async {
        // The sleeper holds an object that it cannot put.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let done = CancellationToken::new();
        done.cancel();
        lander(Arc::clone(&inner), 10, done).await.expect("landed");
        // Hours later: what was landed was compacted, and its names are free.
        clock.set(NOW + 9 * HOUR);
        let catalog = Catalog {
            store: Arc::clone(&inner),
            prefix: prefix.clone(),
            topic: TOPIC.to_owned(),
            table: Table::Events,
            clock: clock.clone(),
        };
        let (settings, progress) = (CompactSettings::new(std::env::temp_dir()), Arc::default());
        compact(&catalog, &settings, progress, &CancellationToken::new()).await.expect("compacted");
        assert_eq!(sweep(&catalog, Duration::ZERO, false).await.expect("swept").raw_objects, 4);
        log.push(0, NOW + 9 * HOUR, &mut chance);
        cut_off.set(Faults::default());
        drain.cancel();
    };
    let (landed, ()) = tokio::join!(sleeper, others);
    landed.expect("landed");
    let starts: Vec<(i64, i64)> =
        objects(inner.as_ref(), &prefix).await.iter().map(|object| (object.key.start, object.end)).collect();
    assert_eq!(starts, [(40, 41)]);
}

#[tokio::test]
async fn a_store_that_comes_back_gets_everything() {
    let yard = Yard::new(2, Faults { fail: 100, ..Faults::default() }, 1);
    let mut chance = Chance(1);
    (0..40).for_each(|at| yard.log.push(at % 2, NOW, &mut chance));
    let drain = CancellationToken::new();
    let heal = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(yard.objects().await.len(), 0);
        yard.store.set(Faults::default());
        drain.cancel();
    };
    let (landed, ()) = tokio::join!(yard.land(small(7), drain.clone()), heal);
    assert_eq!(landed.expect("landed").landed_rows, 40);
    yard.check().await;
}

#[tokio::test]
async fn a_log_that_comes_back_is_read_on() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    (0..20).for_each(|_| yard.log.push(0, NOW, &mut chance));
    yard.log.failing_reads.store(3, Ordering::SeqCst);
    let drain = CancellationToken::new();
    let wait = async {
        while yard.log.failing_reads.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        drain.cancel();
    };
    let (landed, ()) = tokio::join!(yard.land(small(7), drain.clone()), wait);
    assert_eq!(landed.expect("landed").landed_rows, 20);
    yard.check().await;
}

#[tokio::test]
async fn a_partition_that_was_added_is_landed() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    yard.log.push(0, NOW, &mut chance);
    let drain = CancellationToken::new();
    let grow = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        yard.log.add_partition();
        yard.log.push(1, NOW, &mut chance);
        drain.cancel();
    };
    let (landed, ()) = tokio::join!(yard.land(small(7), drain.clone()), grow);
    assert_eq!(landed.expect("landed").landed_rows, 2);
    yard.check().await;
}

#[tokio::test]
async fn records_that_were_deleted_before_they_were_landed_are_an_error() {
    let yard = Yard::new(1, Faults::default(), 1);
    let mut chance = Chance(1);
    (0..5).for_each(|_| yard.log.push(0, NOW, &mut chance));
    yard.land_all(small(100)).await.expect("landed");
    (0..20).for_each(|_| yard.log.push(0, NOW, &mut chance));
    yard.log.forget(0, 12);
    let error = yard.land_all(small(100)).await.expect_err("seven records are gone");
    assert_eq!(error.kind(), ErrorKind::Data);
    let words = error.to_string();
    assert!(words.contains("offset 12") && words.contains("ends at 5") && words.contains("retention"), "{words}");
}

#[tokio::test]
async fn a_store_without_conditional_puts_is_refused() {
    let yard = Yard::new(1, Faults { unconditional: true, ..Faults::default() }, 1);
    yard.log.push(0, NOW, &mut Chance(1));
    let error = yard.land_all(small(100)).await.expect_err("two landers could overwrite each other");
    assert_eq!(error.kind(), ErrorKind::Config);
}

/// Two landers, each killed or stopped at any moment and started again with other bounds, on one topic that grows with
/// holes, in a store that fails and loses answers: what lies in the lake in the end is the topic, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn landers_that_race_and_die_neither_overlap_nor_lose() {
    let seeds = 1..=16_u64;
    let mut runs = tokio::task::JoinSet::new();
    for seed in seeds {
        let format = if seed % 4 == 0 { LakeFormat::JsonGz } else { LakeFormat::Parquet };
        runs.spawn(async move {
            // Printed before the run, so that the seed of one that fails or hangs is known.
            eprintln!("seed {seed}");
            race(seed, format).await;
        });
    }
    while let Some(run) = runs.join_next().await {
        run.expect("no run fails");
    }
}

async fn race(seed: u64, format: LakeFormat) {
    let yard = Yard::new(2, Faults { fail: 4, lose_answer: 4, unconditional: false }, seed);
    let grown = CancellationToken::new();
    let grow = async {
        let mut chance = Chance(seed);
        let mut time = NOW;
        for _ in 0..60 {
            for _ in 0..chance.below(20) {
                let partition = usize::from(chance.below(3) == 0);
                yard.log.push(partition, time, &mut chance);
                if chance.below(20) == 0 {
                    yard.log.skip(partition, 2);
                }
                // Received times go back now and then.
                time += i64::try_from(chance.below(240_000)).expect("small") - 60_000;
            }
            tokio::time::sleep(Duration::from_millis(chance.below(12))).await;
        }
        grown.cancel();
    };
    let ((), (), ()) =
        tokio::join!(grow, lives(&yard, seed + 1_000, format, &grown), lives(&yard, seed + 2_000, format, &grown));
    let drained = tokio::time::timeout(Duration::from_secs(60), yard.land_all(LanderSettings { format, ..small(50) }));
    drained.await.expect("draining ends").expect("landed");
    yard.check().await;
    let hours = yard.objects().await.iter().map(|object| object.key.hour).collect::<std::collections::BTreeSet<_>>();
    assert!(hours.len() > 3, "the run passed {} hours from {}", hours.len(), NOW / HOUR);
}

/// The lives of one lander, one after another.
async fn lives(yard: &Yard, seed: u64, format: LakeFormat, grown: &CancellationToken) {
    let mut chance = Chance(seed);
    while !grown.is_cancelled() {
        let rows_max = usize::try_from(1 + chance.below(40)).expect("small");
        let age_max = Duration::from_millis(1 + chance.below(40));
        let settings = LanderSettings { format, age_max, ..small(rows_max) };
        let life = Duration::from_millis(3 + chance.below(90));
        let drain = CancellationToken::new();
        let landed = yard.land(settings, drain.clone());
        if chance.below(2) == 0 {
            // Killed: whatever it held is gone.
            let _ = tokio::time::timeout(life, landed).await;
        } else {
            let stop = async {
                tokio::time::sleep(life).await;
                drain.cancel();
            };
            let (landed, ()) = tokio::join!(landed, stop);
            landed.expect("landed");
        }
    }
}
