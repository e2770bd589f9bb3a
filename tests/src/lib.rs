//! The yard's tools: what the suite needs from the machine around it, and the binary under test.
//!
//! Everything outside the repository is optional for whoever runs `cargo test` by hand and demanded in CI: each
//! function here says loudly what is absent, and panics instead when `TIDEGATE_REQUIRE_SERVICES=1`. `tests/run` starts
//! the services and sets the variables. Nothing here knows what tidegate computes; that is the suite's business.

pub mod audit;
pub mod big_lake;
mod binary;
pub mod crowd;
pub mod edit;
pub mod lake_contract;
pub mod log_contract;
mod machine;
pub mod oracle;
pub mod postgres;
pub mod real_relay;
pub mod scripted_phoenix;
pub mod scripted_relay;
pub mod signed;
pub mod sim;
pub mod small_disk;
pub mod stage;
pub mod traffic;
pub mod wire;

pub use binary::{Finished, finish, signal, sorted, tidegate};
pub use machine::{S3Test, kafka, postgres, postgres_certificate, python, repository, s3, script, shared, unique};
