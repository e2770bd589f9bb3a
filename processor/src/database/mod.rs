//! Rows of outputs as rows of PostgreSQL.
//!
//! ```text
//! batch ──rows──▶ lines ──▶ one transaction ──▶ tables
//! stream ──▶ topic ──committed records──▶ lines ──▶ one transaction with the position in the topic ──▶ table
//! ```
//!
//! The topic is what is true, and a table follows it: a job neither waits for the database nor repeats itself there.
//! docs/sinks.md says what is promised.

mod batch;
mod error;
mod follow;
mod line;
mod place;
mod session;
mod stream;
mod table;
mod tls;

pub use batch::DatabaseSink;
pub use follow::{End, Followed, Follower};
pub use place::Database;
pub use session::positions_definition;
pub use stream::{follow, followers, stream_into, topics};
pub use table::definitions;
