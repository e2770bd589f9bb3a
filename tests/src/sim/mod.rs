//! The simulator: the real epoch loop over a model of Kafka and a faulty object store; one seed replays.
//!
//! ```text
//!              ┌ run 0 (crashed) ┐
//! feed ──▶ raw │ run 1 (asleep)  │ ──▶ out, out.late, __jobs, offsets ──▶ audit against the oracle
//!              └ run 2 …         ┘ ◀─▶ snapshots
//! ```
//!
//! The job's code is what runs in production: it does all of its input and output through traits, and here these lead
//! to [`SimLog`] and a store in memory. Every call is a step; a [`Plan`] says which steps fail, are the last of their
//! process, or wait until a successor has taken over (`fault`). Runs follow each other until one has finished the job
//! (`harness`), and then a reader must find what the oracle says (`audit`). Nothing here knows how the job commits.
//!
//! Everything happens on one thread, and calls to the model return at once. The one thing that time decides in a run is
//! when it commits between its start and its end: unless a scenario makes every read take [`Scenario::read_time`], runs
//! are too short for that and commit when they are stopped or have finished.

mod audit;
mod broker;
mod fault;
mod harness;
mod input;
mod log;
mod runner;
mod store;

pub use broker::{Defect, Rules};
pub use fault::{Fault, Op, Plan};
pub use harness::{Report, Scenario, simulate};
pub use input::Input;
pub use log::SimLog;
pub use runner::Jobs;
