//! EventBatchBuilder: events to Arrow rows with the schema of [`crate::schema::events_schema`].
//!
//! In come parsed events with where they came from and their bytes; out go record batches. Nothing is checked again
//! here: what is appended has been verified, or comes from a topic that holds only verified events.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder as _, ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, Int32Builder, Int64Builder, ListBuilder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;

use crate::event::Event;
use crate::schema::{events_schema, tags_type};

/// Where a row comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// URL of the relay, or path of the file.
    pub relay: Option<&'a str>,
    /// When the frame left the socket, milliseconds since 1970.
    pub received_at_ms: Option<i64>,
    /// `live` or `backfill`.
    pub phase: Option<&'a str>,
    /// Partition of the raw topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
}

type TagsBuilder = ListBuilder<ListBuilder<StringBuilder>>;

/// Builds record batches of events, row by row.
#[derive(Debug)]
pub struct EventBatchBuilder {
    bytes: usize,
    id: FixedSizeBinaryBuilder,
    pubkey: FixedSizeBinaryBuilder,
    created_at: TimestampMicrosecondBuilder,
    kind: Int32Builder,
    tags: TagsBuilder,
    content: StringBuilder,
    sig: FixedSizeBinaryBuilder,
    relay: StringBuilder,
    received_at: TimestampMicrosecondBuilder,
    phase: StringBuilder,
    raw: BinaryBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
}

/// Bytes of a row without its tags and texts: the fixed columns, and the offsets of those of variable length.
const ROW_BYTES: usize = 32 + 32 + 64 + 2 * 8 + 2 * 4 + 8 + 5 * 4;

impl EventBatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Self {
            bytes: 0,
            id: FixedSizeBinaryBuilder::new(32),
            pubkey: FixedSizeBinaryBuilder::new(32),
            created_at: time(),
            kind: Int32Builder::new(),
            tags: tags_builder(),
            content: StringBuilder::new(),
            sig: FixedSizeBinaryBuilder::new(64),
            relay: StringBuilder::new(),
            received_at: time(),
            phase: StringBuilder::new(),
            raw: BinaryBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
        }
    }

    /// Appends one row; `raw` is the JSON object as it was received.
    ///
    /// Call [`EventBatchBuilder::finish`] long before [`EventBatchBuilder::bytes`] reaches 2 GiB, the most that a
    /// column of text can hold.
    pub fn append(&mut self, event: &Event, origin: &Origin<'_>, raw: &[u8]) {
        const WIDTH: &str = "the array has the width of its column";
        self.id.append_value(event.id.0).expect(WIDTH);
        self.pubkey.append_value(event.pubkey.0).expect(WIDTH);
        self.sig.append_value(event.sig).expect(WIDTH);
        self.created_at.append_value(event.event_time().micros());
        self.kind.append_value(i32::from(event.kind));
        self.content.append_value(&event.content);
        self.relay.append_option(origin.relay);
        self.received_at.append_option(origin.received_at_ms.map(|millis| millis.saturating_mul(1_000)));
        self.phase.append_option(origin.phase);
        self.raw.append_value(raw);
        self.partition.append_value(origin.partition);
        self.offset.append_value(origin.offset);
        let texts = event.content.len() + raw.len();
        let origins = origin.relay.map_or(0, str::len) + origin.phase.map_or(0, str::len);
        self.bytes += ROW_BYTES + texts + origins + append_tags(&mut self.tags, &event.tags);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offset.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the rows in bytes, nearly.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows; the builder is empty again.
    pub fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.pubkey.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.tags.finish()),
            Arc::new(self.content.finish()),
            Arc::new(self.sig.finish()),
            Arc::new(self.relay.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.phase.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
        ];
        RecordBatch::try_new(events_schema(), columns).expect("the columns are built in the schema's order and types")
    }
}

impl Default for EventBatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// A builder with the names and nullability of the schema's lists.
fn tags_builder() -> TagsBuilder {
    let DataType::List(tag) = tags_type() else { unreachable!("tags are a list") };
    let DataType::List(item) = tag.data_type() else { unreachable!("a tag is a list") };
    let items = ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(item));
    ListBuilder::new(items).with_field(tag)
}

/// Returns the bytes added.
fn append_tags(builder: &mut TagsBuilder, tags: &[Vec<String>]) -> usize {
    let mut bytes = 0;
    for tag in tags {
        let values = builder.values().values();
        for value in tag {
            values.append_value(value);
            bytes += 4 + value.len();
        }
        builder.values().append(true);
        bytes += 4;
    }
    builder.append(true);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EventId, PublicKey};

    #[test]
    fn a_finished_builder_is_empty_and_goes_on() {
        let event = Event {
            id: EventId([1; 32]),
            pubkey: PublicKey([2; 32]),
            created_at: 7,
            kind: 65_535,
            tags: vec![vec![], vec!["t".into(), "x".into()]],
            content: "c".into(),
            sig: [3; 64],
        };
        let mut builder = EventBatchBuilder::new();
        assert_eq!(builder.finish().num_rows(), 0);
        for rows in 1..3 {
            for _ in 0..rows {
                builder.append(&event, &Origin::default(), b"{}");
            }
            assert_eq!((builder.len(), builder.is_empty()), (rows, false));
            assert!(builder.bytes() >= rows * 200, "{}", builder.bytes());
            let batch = builder.finish();
            assert_eq!((batch.num_rows(), batch.schema()), (rows, events_schema()));
            assert_eq!((builder.len(), builder.bytes(), builder.is_empty()), (0, 0, true));
        }
    }
}
