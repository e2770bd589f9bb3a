//! What relays, wires, brokers and stores do to ingest, each with what has to come of it. The other side is a scripted
//! relay behind a faulty wire; afterwards an audit demands that every valid event that was served is in the topic and in
//! the lake, once, byte for byte. A file is a family of faults; the numbers are those of the design's list.
//!
//! Most tests run in this process, on the embedded log and a store in memory, with short intervals ([`lab`]); those of
//! broker, store and process start `tidegate` ([`place`]). Nothing is timed: a test waits for what has to happen, and
//! fails when it has not happened soon.

mod connection;
mod disk;
mod gate;
mod group;
mod hostile;
mod killed;
mod lab;
mod limits;
mod manners;
mod negentropy;
mod opensea;
mod place;
mod real;
mod relay_file;
mod services;
mod sightings;
mod subscription;
mod times;

/// Runs a test to its end.
fn fault(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test);
}
