//! One function a target, each in the form that libFuzzer calls.

mod event;
mod file;
mod market;
mod mmdb;
mod nip19;
mod records;

#[path = "../../ingest/src/relay/message/tests/oracle.rs"]
mod frames;

pub use event::event;
pub use file::file;
pub use market::market;
pub use mmdb::mmdb;
pub use nip19::nip19;
pub use records::{manifest, sighting};

/// A text frame of a relay.
pub fn frame(bytes: &[u8]) {
    frames::agrees(bytes);
    crate::relay::message::created_at(&String::from_utf8_lossy(bytes));
}
