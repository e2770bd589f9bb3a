//! Cases: a job with its input and the rows it must give, run without a broker, a lake or a clock.
//!
//! ```text
//! folder ──read──▶ Case ──play──▶ Report
//!                   │     as batch, as stream, shuffled over partitions, restarted after every epoch
//!                   └──── refused.json: statements that planning must refuse
//! ```
//!
//! Read in this order: `types` and `rows` (what a case writes, to Arrow), `read` (a folder to a [`Case`]), `script`
//! (epochs with what each must emit), `epochs` (how a variant hands rows over; pure), `run` (one engine), `play` (the
//! variants), `compare` (rows as multisets; pure). How a case is written for users is in docs/testing-jobs.md.

mod compare;
mod epochs;
mod play;
mod read;
mod rows;
mod run;
mod script;
mod types;

pub use play::{Differs, Report, Variant, play};
pub use read::{Case, find_cases};

#[cfg(test)]
mod tests;
