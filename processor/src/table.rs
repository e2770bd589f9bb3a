//! What a job can read: a table's name, its columns, and which of them says when a row happened.

use arrow::datatypes::SchemaRef;
use event::Table;

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
    /// The table that a topic's records are rows of.
    #[must_use]
    pub fn of(table: Table) -> Self {
        let (name, event_time) = (table.name().to_owned(), Some(table.event_time().to_owned()));
        Self { name, schema: table.schema(), event_time }
    }
}
