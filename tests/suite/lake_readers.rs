//! The lake as others read it: DuckDB and pyarrow, which know nothing of tidegate, count what was landed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::stage::Stage;
use tests::{finish, script};

use crate::main_job::input::{development_set, ingest_development_set};

#[test]
fn duckdb_and_pyarrow_count_what_was_landed() {
    let (Some(events), Some(mut counts)) = (development_set(), script("lake_counts.py")) else { return };
    let stage = Stage::embedded();
    ingest_development_set(&stage, &["--max-future", "off", "--rotate-rows", "1000"]).expect("the set is there");
    let counted = finish(counts.arg(stage.dir().join("lake")).arg(stage.topic())).success().ndjson().remove(0);

    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        *kinds.entry(event["kind"].to_string()).or_default() += 1;
    }
    let pubkeys: BTreeSet<&str> = events.iter().filter_map(|event| event["pubkey"].as_str()).collect();
    let micros = |event: &Value| event["created_at"].as_i64().expect("seconds") * 1_000_000;
    let bounds = [events.iter().map(micros).min(), events.iter().map(micros).max()];
    assert_eq!(counted["rows"], json!(events.len()));
    assert_eq!(counted["kinds"], json!(kinds));
    assert_eq!(counted["pubkeys"], json!(pubkeys.len()));
    assert_eq!(counted["created_at"], json!(bounds));
    assert!(counted["objects"].as_u64() >= Some(10), "{counted}");
}
