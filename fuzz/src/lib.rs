//! What the fuzzers in `fuzz_targets` try: each takes bytes from a stranger, reads them as tidegate does, and panics where
//! what comes out is not so, by another reader's judgement where there is one.
//!
//! The readers of `ingest` are private, and the crate brings Kafka and Parquet: they are taken file by file, at the paths
//! that they have there, so that nothing is built and instrumented in vain.
#![allow(dead_code, private_interfaces, unreachable_pub, reason = "of the files that are taken, not all is used")]

pub mod targets;

mod file;
#[path = "../../ingest/src/frame.rs"]
mod frame;
#[path = "../../ingest/src/directory/geo.rs"]
mod geo;
mod relay;
#[path = "../../ingest/src/whole.rs"]
mod whole;

/// The oracle beside it wants its names here.
mod nip19 {
    pub(crate) use event::nip19::*;
}
