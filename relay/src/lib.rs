//! A NIP-01 relay for tests, demos and load: serves events from files like an archive, or traffic that it makes up and
//! signs for real, and misbehaves on demand. Not a relay to put on the network: it keeps everything in memory.
//!
//! ```text
//! files ─load──────────┐
//! seed ──generate─live─┼─▶ hub (store + listeners) ──▶ connection ──▶ outbox (+ faults) ──▶ socket
//! EVENT ─connection────┘
//! ```
//!
//! Read in this order: `settings`, [`Faults`], [`generate`](mod@generate), `load`, `entry`, `filter`, `store`, `hub`,
//! `message`, `nip11`, `auth`, `connection`, `outbox`, `live`, `server`, `error`. The crate imports `event` only; flags and
//! signals are the `cli`'s.

mod auth;
mod compare;
mod connection;
mod entry;
mod error;
mod faults;
mod filter;
pub mod generate;
mod hub;
mod live;
mod load;
mod message;
mod nip11;
mod outbox;
mod server;
mod settings;
mod store;

pub use error::{Error, ErrorKind, Result};
pub use faults::Faults;
pub use generate::Generate;
pub use load::Loaded;
pub use server::Server;
pub use settings::Settings;

#[cfg(test)]
mod tests;
