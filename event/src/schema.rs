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
/// Type of a market event, as sent.
pub const EVENT_TYPE: &str = "event_type";
/// When a market event happened on the market, microseconds, UTC.
pub const EVENT_TIME: &str = "event_time";
/// When a market event was sent by the market, microseconds, UTC.
pub const SENT_AT: &str = "sent_at";
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

static MARKET: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new(ID, DataType::FixedSizeBinary(32), false),
        Field::new(EVENT_TYPE, DataType::Utf8, false),
        Field::new(EVENT_TIME, time(), false),
        Field::new(SENT_AT, time(), true),
        text("collection"),
        text("chain"),
        text("nft_id"),
        text("item_name"),
        text("item_url"),
        text("image_url"),
        text("from_account"),
        text("to_account"),
        text("maker"),
        text("taker"),
        Field::new("quantity", whole_type(), false),
        Field::new("price", whole_type(), true),
        text("payment_token"),
        text("payment_symbol"),
        Field::new("payment_decimals", DataType::Int32, true),
        Field::new("eth_price", rate_type(), true),
        Field::new("usd_price", rate_type(), true),
        text("price_basis"),
        Field::new("amount", amount_type(), true),
        Field::new("amount_eth", amount_type(), true),
        Field::new("amount_usd", amount_type(), true),
        text("order_hash"),
        text("transaction_hash"),
        text("listing_type"),
        Field::new("is_private", DataType::Boolean, true),
        Field::new("expires_at", time(), true),
        Field::new(RECEIVED_AT, time(), true),
        Field::new(PHASE, DataType::Utf8, true),
        Field::new(RAW, DataType::Binary, false),
        Field::new(KAFKA_PARTITION, DataType::Int32, false),
        Field::new(KAFKA_OFFSET, DataType::Int64, false),
    ]))
});

/// Type of quantities, and of prices in the smallest unit of their token: 76 digits.
pub(crate) const fn whole_type() -> DataType {
    DataType::Decimal256(76, 0)
}

/// Type of exchange rates as a market sends them.
pub(crate) const fn rate_type() -> DataType {
    DataType::Decimal128(38, 18)
}

/// Type of amounts: 40 digits before the point and 36 behind it.
pub(crate) const fn amount_type() -> DataType {
    DataType::Decimal256(76, 36)
}

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

/// Schema of the market table: events of OpenSea's stream; docs/market.md says what each column is.
#[must_use]
pub fn market_schema() -> SchemaRef {
    Arc::clone(&MARKET)
}
