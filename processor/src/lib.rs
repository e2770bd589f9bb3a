//! SQL jobs over the lake or a topic: the same file as a batch over a time range, or as a continuous job.
//!
//! ```text
//! source ──rows──▶ panes ──merge──▶ closed windows ──upper plan──▶ output rows ──▶ sink
//! (lake, topic)    (state)          (watermark)                                    (topic, caller)
//! ```
//!
//! Read in this order: [`job`] (a file to a plan), `plan` (the cut at the window), `stream` (time, pure), `state`
//! (open panes), [`lake`] (a source), [`run`] (the two loops), [`distributed`] (a batch on many machines),
//! [`row`] (rows to text), [`database`] (rows to tables), [`case`] (a job against the rows that it must give).

pub mod case;
pub mod database;
pub mod distributed;
mod engine;
mod error;
pub mod job;
pub mod lake;
mod memory;
mod plan;
pub mod row;
pub mod run;
mod sink;
pub mod sql;
mod state;
mod stream;
mod table;
pub mod tail;
pub mod top;
mod workers;

pub use error::{Error, ErrorKind, Result};
pub use job::{Job, JobOptions, JobSource, Output, built_in_jobs};
pub use memory::Memory;
pub use sink::{TopicSink, final_field};
pub use table::TableSpec;
