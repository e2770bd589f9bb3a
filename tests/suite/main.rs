//! The one test binary of the house: everything that needs more than one room. Linking DataFusion once is slow enough.
//!
//! Tests that need a real service lie in a module named after it (`…::kafka::…`, `…::minio::…`, `…::postgres::…`): `tests/run` counts
//! them by that name.

mod added_partitions;
mod big_lake;
mod cli;
mod cluster;
mod conformance;
mod crash;
mod fuzz;
mod house_rules;
mod ingest_faults;
mod lake;
mod lake_race;
mod lake_readers;
mod lake_upkeep;
mod main_job;
mod market;
mod market_jobs;
mod memory;
mod readme;
mod relays;
mod sightings;
mod simulation;
mod sink;
mod tools;
