//! What an event is: from untrusted bytes to a believed event, and from there to Arrow rows.
//!
//! ```text
//! bytes ──parse──▶ Event ──verify──▶ VerifiedEvent ──EventBatchBuilder──▶ RecordBatch
//!             └──▶ Rejection   └──▶ Rejection
//! ```
//!
//! Read in this order: [`event`], [`id`], [`verify`], [`rejection`], [`sign`], [`nip19`], [`tags`], [`time`],
//! [`clock`], [`schema`], [`batch`], [`sighting`], [`market`], [`table`], [`layout`], [`manifest`]. The crate knows nothing of
//! sockets, Kafka, object stores or SQL; `layout` and `manifest` name the topics and object keys at which the other rooms
//! meet.

pub mod batch;
pub mod clock;
pub mod event;
pub mod id;
mod json;
pub mod layout;
pub mod manifest;
pub mod market;
pub mod nip19;
mod place;
pub mod rejection;
pub mod schema;
pub mod sighting;
pub mod sign;
pub mod table;
pub mod tags;
pub mod time;
pub mod verify;

pub use batch::{EventBatchBuilder, Origin};
pub use clock::Clock;
pub use event::{Event, Limits};
pub use id::{EventId, PublicKey};
pub use market::{MarketEvent, MarketFrame};
pub use place::place;
pub use rejection::{Reason, Rejection};
pub use sighting::Sighting;
pub use sign::SecretKey;
pub use table::{Row, RowBuilder, Table};
pub use time::{EventTime, Span};
pub use verify::VerifiedEvent;
