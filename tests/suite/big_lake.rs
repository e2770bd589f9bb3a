//! The made-up lake of the benchmarks is one that a lander would have written: whole, reproducible, each event once, and
//! every built-in job finds something in it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::big_lake::BigLake;
use tests::{finish, repository, tidegate};

/// Small, with remainders where it is shared out.
const SMALL: BigLake = BigLake { seed: 7, events: 20_003, market: 3_001, sightings: 4_001 };

/// Every object by name, after landing in memory.
async fn objects(lake: BigLake) -> BTreeMap<String, Vec<u8>> {
    let store = Arc::new(InMemory::new());
    let landed = lake.land(Arc::clone(&store) as Arc<dyn ObjectStore>, Path::from("a/lake")).await.expect("landed");
    let listed: Vec<_> = store.list(None).try_collect().await.expect("listed");
    let mut objects = BTreeMap::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.expect("there").bytes().await.expect("read");
        objects.insert(meta.location.to_string(), bytes.to_vec());
    }
    assert_eq!(landed.landed_rows, lake.events + lake.market + lake.sightings);
    assert_eq!(landed.landed_objects, objects.len() as u64);
    objects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_decides_every_byte() {
    let lake = BigLake { events: 3_001, market: 301, sightings: 601, ..SMALL };
    let once = objects(lake).await;
    assert!(once.keys().all(|name| name.starts_with("a/lake/topics/")), "{:?}", once.keys());
    assert_eq!(once, objects(lake).await);
    assert_ne!(once, objects(BigLake { seed: 8, ..lake }).await);
    let store = Arc::new(InMemory::new());
    let too_many = BigLake { sightings: 4 * lake.events + 1, ..lake };
    assert!(too_many.land(store, Path::default()).await.is_err());
}

/// The small lake in a directory.
async fn landed() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    fs::create_dir(dir.path().join("lake")).expect("made");
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path().join("lake")).expect("a store");
    SMALL.land(Arc::new(store), Path::default()).await.expect("landed");
    dir
}

fn command(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = tidegate();
    command.args(arguments).arg("--data-dir").arg(dir.path());
    command
}

/// The only row of a query.
fn row(dir: &TempDir, query: &str) -> Value {
    finish(&mut command(dir, &["sql", query, "--format", "ndjson"])).success().ndjson().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_lake_is_whole_and_its_rows_know_each_other() {
    let dir = landed().await;
    for topic in ["nostr-event", "nostr-sighting", "OpenSeaRawEvents"] {
        finish(&mut command(&dir, &["lake", "verify", "--content", "--topic", topic])).success();
    }
    let (events, market, sightings) = (SMALL.events, SMALL.market, SMALL.sightings);
    for (table, rows) in [("events", events), ("market", market)] {
        let query = format!("SELECT count(*) AS rows, count(DISTINCT id) AS ids FROM {table}");
        assert_eq!(row(&dir, &query), json!({ "rows": rows, "ids": rows }));
    }
    // A delivery is of an event that there is; its first one is the one that brought it.
    let query = "SELECT count(*) AS rows, count(*) FILTER (WHERE first) AS firsts, count(DISTINCT id) AS ids,
        count(DISTINCT concat(encode(id, 'hex'), relay)) AS pairs FROM sightings";
    let sighted: u64 = (0..8).map(|number| (sightings / 8 + u64::from(number < sightings % 8)).div_ceil(4)).sum();
    let expected = json!({ "rows": sightings, "firsts": sighted, "ids": sighted, "pairs": sightings });
    assert_eq!(row(&dir, query), expected);
    let query = "SELECT count(*) AS rows FROM sightings AS s JOIN events AS e ON s.id = e.id
        WHERE (s.first AND s.relay = e.relay AND s.received_at = e.received_at AND s.created_at = e.created_at)
        OR (NOT s.first AND s.relay <> e.relay AND s.received_at > e.received_at AND s.created_at IS NULL)";
    assert_eq!(row(&dir, query), json!({ "rows": sightings }));
    // Whoever is answered is there.
    let query = "SELECT count(*) > 5000 AS many, count(e.id) = count(*) AS known
        FROM (SELECT unnest(tag_values(tags, 'e')) AS target FROM events) AS t
        LEFT JOIN events AS e ON encode(e.id, 'hex') = t.target";
    assert_eq!(row(&dir, query), json!({ "many": true, "known": true }));
    let query = "SELECT count(DISTINCT date_trunc('hour', received_at)) AS hours, count(DISTINCT kind) > 30 AS kinds,
        count(DISTINCT pubkey) > 5000 AS authors FROM events";
    assert_eq!(row(&dir, query), json!({ "hours": 48, "kinds": true, "authors": true }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_built_in_job_finds_something_in_a_made_up_lake() {
    let dir = landed().await;
    let files = fs::read_dir(repository().join("jobs")).expect("listed");
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    let jobs: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".sql")?.to_owned())).collect();
    assert!(jobs.len() >= 13, "{jobs:?}");
    for job in jobs {
        let batch = ["batch", &job, "1 hour", "--slide-duration", "30 minutes", "--debug", "--format", "ndjson"];
        let rows = finish(&mut command(&dir, &batch)).success().ndjson().len();
        assert!(rows >= 48, "{job}: {rows} rows");
    }
}
