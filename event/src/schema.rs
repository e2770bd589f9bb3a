//! The Arrow schemas of the tables, in memory and in the lake; column names as constants.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Event id, 32 bytes (NIP-01).
pub const ID: &str = "id";
/// Author's public key, 32 bytes, x-only (BIP-340).
pub const PUBKEY: &str = "pubkey";
/// Event time as the author claims it, microseconds, UTC.
pub const CREATED_AT: &str = "created_at";
/// Kind, 0 to 65535.
pub const KIND: &str = "kind";
/// Tags: a list of lists of text, as signed.
pub const TAGS: &str = "tags";
/// Content, as signed.
pub const CONTENT: &str = "content";
/// BIP-340 signature, 64 bytes.
pub const SIG: &str = "sig";
/// URL of the relay that sent this copy first, or the path of the file; null where the lake object does not keep it.
pub const RELAY: &str = "relay";
/// When the frame left the socket, whole milliseconds; null where the lake object does not keep it.
pub const RECEIVED_AT: &str = "received_at";
/// `live` or `backfill`; null where the lake object does not keep it.
pub const PHASE: &str = "phase";
/// Whether a delivery was the first of its event, the one that put it into the raw topic.
pub const FIRST: &str = "first";
/// The JSON object byte for byte: an event as it was received, another record as it was written.
pub const RAW: &str = "raw";
/// Partition of the raw topic.
pub const KAFKA_PARTITION: &str = "kafka_partition";
/// Offset in the raw topic's partition.
pub const KAFKA_OFFSET: &str = "kafka_offset";

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(ID, DataType::FixedSizeBinary(32), false),
        Field::new(PUBKEY, DataType::FixedSizeBinary(32), false),
        Field::new(CREATED_AT, time(), false),
        Field::new(KIND, DataType::Int32, false),
        Field::new(TAGS, tags_type(), false),
        Field::new(CONTENT, DataType::Utf8, false),
        Field::new(SIG, DataType::FixedSizeBinary(64), false),
        Field::new(RELAY, DataType::Utf8, true),
        Field::new(RECEIVED_AT, time(), true),
        Field::new(PHASE, DataType::Utf8, true),
        Field::new(RAW, DataType::Binary, false),
        Field::new(KAFKA_PARTITION, DataType::Int32, false),
        Field::new(KAFKA_OFFSET, DataType::Int64, false),
    ]))
});

static SIGHTINGS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(ID, DataType::FixedSizeBinary(32), false),
        Field::new(RELAY, DataType::Utf8, false),
        Field::new(RECEIVED_AT, time(), false),
        Field::new(PHASE, DataType::Utf8, false),
        Field::new(FIRST, DataType::Boolean, false),
        Field::new(CREATED_AT, time(), true),
        Field::new(RAW, DataType::Binary, false),
        Field::new(KAFKA_PARTITION, DataType::Int32, false),
        Field::new(KAFKA_OFFSET, DataType::Int64, false),
    ]))
});

/// Type of the `tags` column: list of list of text, no nulls inside.
#[must_use]
pub fn tags_type() -> DataType {
    let item = Field::new("item", DataType::Utf8, false);
    let tag = Field::new("item", DataType::List(Arc::new(item)), false);
    DataType::List(Arc::new(tag))
}

/// Schema of the events table: what the lake holds and what a job's table `events` offers.
#[must_use]
pub fn events_schema() -> SchemaRef {
    Arc::clone(&EVENTS)
}

/// Schema of the sightings table; `created_at` is null for copies.
#[must_use]
pub fn sightings_schema() -> SchemaRef {
    Arc::clone(&SIGHTINGS)
}
