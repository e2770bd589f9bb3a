//! The two loops that run a job: over the lake to its end, or over a topic for ever.
//!
//! Both put rows into an `engine`; they differ in where rows come from and in who says how far time
//! has come.

mod batch;
pub(crate) mod checkpoint;
mod commit;
#[cfg(test)]
mod golden;
mod handover;
mod late;
mod out;
mod progress;
mod settings;
pub(crate) mod source;
mod stream;
#[cfg(test)]
mod tests;

pub use batch::{BatchProgress, BatchSettings, BatchSummary, batch};
pub(crate) use batch::{Done, ObjectReader, Queue};
pub use progress::{Durations, PartitionProgress, StreamProgress};
pub use settings::{OutputMode, Pace, Start, StreamSettings};
pub use stream::{StreamObserver, StreamSummary, stream};
