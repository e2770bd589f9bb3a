//! What a job can read: a table's name, its columns, and which of them says when a row happened.

use arrow::datatypes::SchemaRef;
use event::schema::{CREATED_AT, events_schema};

/// A table that a job may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// The column that windows are over, a `Timestamp(µs, UTC)`; without one the table has no windows.
    pub event_time: Option<String>,
}

impl TableSpec {
    /// The table of Nostr events.
    #[must_use]
    pub fn events() -> Self {
        Self { name: "events".to_owned(), schema: events_schema(), event_time: Some(CREATED_AT.to_owned()) }
    }
}
