//! The tables: what a topic's records are as rows, and which column says when a row happened.
//!
//! A table is a name in SQL, columns, and the way from a record's value to a row. The lander, compaction, verification,
//! jobs and queries ask here, so that a further table is one more member of [`Table`] and a builder of its rows. Every
//! table has the columns `received_at`, `raw`, `kafka_partition` and `kafka_offset`.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::batch::{EventBatchBuilder, Origin};
use crate::event::{Event, Limits};
use crate::id::EventId;
use crate::layout::{NOSTR_EVENT_TOPIC, OPENSEA_RAW_TOPIC, is_market_topic, is_sighting_topic, sighting_topic};
use crate::market::{MarketBatchBuilder, MarketEvent};
use crate::rejection::Rejection;
use crate::schema::{CREATED_AT, EVENT_TIME, ID, RECEIVED_AT, events_schema, market_schema, sightings_schema};
use crate::sighting::{Sighting, SightingBatchBuilder};
use crate::time::EventTime;

/// How large an event may be was decided when it came in; here it is only taken apart.
const NO_LIMITS: Limits = Limits { event_bytes_max: usize::MAX, tags_max: usize::MAX };

/// A table that a topic's records are rows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Table {
    /// Verified Nostr events, each once.
    #[default]
    Events,
    /// Deliveries of events by relays.
    Sightings,
    /// Events of OpenSea's market, each once.
    Market,
}

/// What is known of a row beside its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it happened.
    pub time: EventTime,
    /// Id of the event that it is of, where it is of one.
    pub id: Option<EventId>,
}

/// Builds record batches of one table, row by row.
pub trait RowBuilder: Debug + Send {
    /// Appends the row of a record with this value.
    ///
    /// # Errors
    /// Why the value is no row of the table; nothing is appended then.
    fn take(&mut self, raw: &[u8], origin: &Origin<'_>) -> Result<Row, Rejection>;

    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the rows in bytes, nearly; an Arrow column of text holds no more than 2 GiB.
    fn bytes(&self) -> usize;

    /// The rows; the builder is empty again.
    fn finish(&mut self) -> RecordBatch;
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Events, Self::Sightings, Self::Market];

    /// Its name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Sightings => "sightings",
            Self::Market => "market",
        }
    }

    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The table that the records of `topic` are rows of, as far as its name says.
    #[must_use]
    pub fn told_by(topic: &str) -> Option<Self> {
        match topic {
            name if is_sighting_topic(name) => Some(Self::Sightings),
            name if is_market_topic(name) => Some(Self::Market),
            NOSTR_EVENT_TOPIC => Some(Self::Events),
            _ => None,
        }
    }

    /// The same, where a name that says nothing is one of events.
    #[must_use]
    pub fn of_topic(topic: &str) -> Self {
        Self::told_by(topic).unwrap_or_default()
    }

    /// The raw topic of whoever names none.
    #[must_use]
    pub const fn raw_topic(self) -> &'static str {
        match self {
            Self::Events | Self::Sightings => NOSTR_EVENT_TOPIC,
            Self::Market => OPENSEA_RAW_TOPIC,
        }
    }

    /// The topic of this table that belongs to a raw topic; a topic of the table itself belongs to itself. The market's
    /// is no relay's, and belongs to itself whatever its name.
    #[must_use]
    pub fn topic(self, raw_topic: &str) -> String {
        match self {
            Self::Events | Self::Market => raw_topic.to_owned(),
            Self::Sightings => sighting_topic(raw_topic),
        }
    }

    /// Its columns.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Events => events_schema(),
            Self::Sightings => sightings_schema(),
            Self::Market => market_schema(),
        }
    }

    /// The column that says when a row happened, a `Timestamp(µs, UTC)`.
    #[must_use]
    pub const fn event_time(self) -> &'static str {
        match self {
            Self::Events => CREATED_AT,
            Self::Sightings => RECEIVED_AT,
            Self::Market => EVENT_TIME,
        }
    }

    /// The column of 32 bytes that rows of one time are sorted and found by, where there is one.
    #[must_use]
    pub const fn id(self) -> Option<&'static str> {
        match self {
            Self::Events | Self::Sightings | Self::Market => Some(ID),
        }
    }

    /// Whether one id has one row.
    #[must_use]
    pub const fn has_each_id_once(self) -> bool {
        matches!(self, Self::Events | Self::Market)
    }

    /// A builder of its rows.
    #[must_use]
    pub fn builder(self) -> Box<dyn RowBuilder> {
        match self {
            Self::Events => Box::<EventBatchBuilder>::default(),
            Self::Sightings => Box::<SightingBatchBuilder>::default(),
            Self::Market => Box::<MarketBatchBuilder>::default(),
        }
    }

    /// What is known of the row of a record with this value.
    ///
    /// # Errors
    /// Why the value is no row of the table.
    pub fn row(self, raw: &[u8]) -> Result<Row, Rejection> {
        match self {
            Self::Events => Event::parse(raw, &NO_LIMITS).map(|event| row_of(&event)),
            Self::Sightings => Sighting::parse(raw).map(|sighting| sighting.row()),
            Self::Market => MarketEvent::parse_event(raw).map(|event| event.row()),
        }
    }
}

fn row_of(event: &Event) -> Row {
    Row { time: event.event_time(), id: Some(event.id) }
}

impl RowBuilder for EventBatchBuilder {
    fn take(&mut self, raw: &[u8], origin: &Origin<'_>) -> Result<Row, Rejection> {
        let event = Event::parse(raw, &NO_LIMITS)?;
        self.append(&event, origin, raw);
        Ok(row_of(&event))
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn finish(&mut self) -> RecordBatch {
        Self::finish(self)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;
    use crate::schema::{KAFKA_OFFSET, KAFKA_PARTITION, RAW};

    /// One value that is a row of each table.
    fn value(table: Table) -> String {
        match table {
            Table::Events => format!(
                r#"{{"id":"{0}","pubkey":"{0}","created_at":7,"kind":1,"tags":[],"content":"","sig":"{0}{0}"}}"#,
                "0".repeat(64)
            ),
            Table::Sightings => format!(
                r#"{{"id":"{}","relay":"wss://a","received_at":7000,"phase":"live","first":false}}"#,
                "0".repeat(64)
            ),
            Table::Market => r#"{"event_type":"t","payload":{"event_timestamp":"1970-01-01T00:00:07Z"}}"#.to_owned(),
        }
    }

    #[test]
    fn every_table_has_what_its_readers_rely_on() {
        for table in Table::ALL {
            assert_eq!(Table::named(table.name()), Some(table));
            let schema = table.schema();
            let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            for (name, sort) in [
                (table.event_time(), time.clone()),
                (RECEIVED_AT, time),
                (RAW, DataType::Binary),
                (KAFKA_PARTITION, DataType::Int32),
                (KAFKA_OFFSET, DataType::Int64),
            ] {
                assert_eq!(schema.field_with_name(name).expect(name).data_type(), &sort, "{table:?}");
            }
            if let Some(id) = table.id() {
                assert_eq!(schema.field_with_name(id).expect(id).data_type(), &DataType::FixedSizeBinary(32));
            }
            let (mut builder, value) = (table.builder(), value(table));
            for rows in 1..3 {
                for _ in 0..rows {
                    let row = builder.take(value.as_bytes(), &Origin::default()).expect("a row");
                    assert_eq!(table.row(value.as_bytes()).as_ref(), Ok(&row));
                    assert_eq!(row.time.micros(), 7_000_000);
                }
                assert!(builder.take(b"{}", &Origin::default()).is_err() && table.row(b"{}").is_err());
                assert!(builder.len() == rows && builder.bytes() >= rows * value.len());
                let batch = builder.finish();
                assert_eq!((batch.num_rows(), batch.schema()), (rows, table.schema()));
                assert!(builder.is_empty() && builder.bytes() == 0);
            }
        }
    }

    #[test]
    fn a_topic_tells_its_table_and_a_table_its_topic() {
        for (raw, sightings) in [("nostr-event", "nostr-sighting"), ("mine", "mine.sightings")] {
            assert_eq!((Table::Events.topic(raw), Table::Sightings.topic(raw)), (raw.into(), sightings.into()));
            assert_eq!(Table::Sightings.topic(sightings), sightings);
            assert_eq!((Table::of_topic(raw), Table::of_topic(sightings)), (Table::Events, Table::Sightings));
        }
        for market in ["OpenSeaRawEvents", "mine.market"] {
            assert_eq!((Table::of_topic(market), Table::Market.topic(market)), (Table::Market, market.into()));
        }
        assert_eq!((Table::told_by("mine"), Table::told_by("nostr-event")), (None, Some(Table::Events)));
        assert!(Table::ALL.into_iter().all(|table| Table::of_topic(&table.topic(table.raw_topic())) == table));
    }
}
