//! The reader of frames, as in `ingest`.

#[path = "../../ingest/src/relay/message.rs"]
pub(crate) mod message;
