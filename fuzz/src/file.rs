//! The readers of files, as in `ingest`.

#[path = "../../ingest/src/file/elements.rs"]
pub(crate) mod elements;
#[path = "../../ingest/src/file/lines.rs"]
pub(crate) mod lines;
