//! Sighting: that a relay delivered an event, once for every delivery, and its rows.
//!
//! Out goes the JSON of a record of the sightings topic; in comes the same, or what another tool wrote in that form.
//! Whether a delivery counts, and which one was the first, is decided where events come in.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder as _, ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Int32Builder, Int64Builder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use serde::Deserialize;

use crate::batch::Origin;
use crate::id::{EventId, push_hex, push_integer};
use crate::json::push_string;
use crate::rejection::{Reason, Rejection};
use crate::schema::sightings_schema;
use crate::table::{Row, RowBuilder};
use crate::time::EventTime;

/// A relay's delivery of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting<'a> {
    /// Id of the event: verified where `first`, else the one that the relay's bytes claim.
    pub id: EventId,
    /// URL of the relay.
    pub relay: Cow<'a, str>,
    /// When the frame left the socket, milliseconds since 1970.
    pub received_at_ms: i64,
    /// `live` or `backfill`.
    pub phase: Cow<'a, str>,
    /// Whether this delivery put the event into the raw topic; every other one is a copy.
    pub first: bool,
    /// The event's own date, seconds since 1970. Of a copy it is not kept: nobody has verified a copy's bytes.
    pub created_at: Option<i64>,
}

/// A sighting as it is written.
#[derive(Deserialize)]
struct Form<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    relay: Cow<'a, str>,
    received_at: i64,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    first: bool,
    created_at: Option<i64>,
}

impl<'a> Sighting<'a> {
    /// The value of its record: `{"id":…,"relay":…,"received_at":…,"phase":…,"first":…,"created_at":…}` on one line,
    /// without `created_at` where there is none.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(192 + self.relay.len());
        out.push_str("{\"id\":\"");
        push_hex(&mut out, &self.id.0);
        out.push_str("\",\"relay\":");
        push_string(&mut out, &self.relay);
        out.push_str(",\"received_at\":");
        push_integer(&mut out, self.received_at_ms);
        out.push_str(",\"phase\":");
        push_string(&mut out, &self.phase);
        let first = self.first;
        write!(out, ",\"first\":{first}").expect("writing to a String does not fail");
        if let Some(created_at) = self.created_at {
            out.push_str(",\"created_at\":");
            push_integer(&mut out, created_at);
        }
        out.push('}');
        out
    }

    /// Reads one JSON object; keys that are none of a sighting's are passed over.
    ///
    /// # Errors
    /// `MalformedJson` when it is not of the form, `BadHex` when the id is none, `OutOfRange` for a time that no
    /// microsecond timestamp holds.
    pub fn parse(json: &'a [u8]) -> Result<Self, Rejection> {
        let form: Form<'a> = serde_json::from_slice(json)
            .map_err(|why| Rejection::new(Reason::MalformedJson, format!("no sighting: {why}")))?;
        let id = EventId::from_hex(&form.id)
            .ok_or_else(|| Rejection::new(Reason::BadHex, "id is not 64 lower-case hex digits"))?;
        let sighting = Self {
            id,
            relay: form.relay,
            received_at_ms: form.received_at,
            phase: form.phase,
            first: form.first,
            created_at: form.created_at,
        };
        let dated = sighting.created_at.is_none_or(|secs| EventTime::from_secs(secs).is_some());
        match EventTime::from_millis(sighting.received_at_ms).filter(|_| dated) {
            Some(_) => Ok(sighting),
            None => Err(Rejection::new(Reason::OutOfRange, "a time is beyond the calendar").with_id(Some(id))),
        }
    }

    /// Event time of a sighting: when it was received.
    pub(crate) fn row(&self) -> Row {
        let time = EventTime::from_millis(self.received_at_ms).unwrap_or(EventTime::MIN);
        Row { time, id: Some(self.id) }
    }
}

/// Builds record batches of sightings, row by row.
#[derive(Debug)]
pub struct SightingBatchBuilder {
    bytes: usize,
    id: FixedSizeBinaryBuilder,
    relay: StringBuilder,
    received_at: TimestampMicrosecondBuilder,
    phase: StringBuilder,
    first: BooleanBuilder,
    created_at: TimestampMicrosecondBuilder,
    raw: BinaryBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
}

/// Bytes of a row without its texts.
const ROW_BYTES: usize = 32 + 3 * 8 + 1 + 4 + 3 * 4;

impl Default for SightingBatchBuilder {
    fn default() -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Self {
            bytes: 0,
            id: FixedSizeBinaryBuilder::new(32),
            relay: StringBuilder::new(),
            received_at: time(),
            phase: StringBuilder::new(),
            first: BooleanBuilder::new(),
            created_at: time(),
            raw: BinaryBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
        }
    }
}

impl RowBuilder for SightingBatchBuilder {
    /// Relay, time and phase are the record's own; `origin` gives its place alone.
    fn take(&mut self, raw: &[u8], origin: &Origin<'_>) -> Result<Row, Rejection> {
        let sighting = Sighting::parse(raw)?;
        self.id.append_value(sighting.id.0).expect("the array has the width of its column");
        self.relay.append_value(&sighting.relay);
        self.received_at.append_value(sighting.row().time.micros());
        self.phase.append_value(&sighting.phase);
        self.first.append_value(sighting.first);
        self.created_at.append_option(sighting.created_at.and_then(EventTime::from_secs).map(EventTime::micros));
        self.raw.append_value(raw);
        self.partition.append_value(origin.partition);
        self.offset.append_value(origin.offset);
        self.bytes += ROW_BYTES + sighting.relay.len() + sighting.phase.len() + raw.len();
        Ok(sighting.row())
    }

    fn len(&self) -> usize {
        self.offset.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.relay.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.phase.finish()),
            Arc::new(self.first.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
        ];
        RecordBatch::try_new(sightings_schema(), columns)
            .expect("the columns are built in the schema's order and types")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sighting_reads_back_what_it_writes_and_any_json_reader_reads_the_same(
            id in any::<[u8; 32]>(),
            relay in ".*",
            received_at_ms in 0_i64..4_000_000_000_000,
            first in any::<bool>(),
            created_at in proptest::option::of(0_i64..4_000_000_000),
        ) {
            let phase = Cow::Borrowed(if first { "live" } else { "backfill" });
            let sighting =
                Sighting { id: EventId(id), relay: Cow::Owned(relay), received_at_ms, phase, first, created_at };
            let json = sighting.to_json();
            prop_assert_eq!(&Sighting::parse(json.as_bytes()).expect("a sighting"), &sighting);
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(value["relay"].as_str(), Some(&*sighting.relay));
            prop_assert_eq!(value["received_at"].as_i64(), Some(received_at_ms));
            prop_assert_eq!(value.get("created_at").and_then(serde_json::Value::as_i64), created_at);
            prop_assert!(!json.contains('\n'));
        }
    }

    #[test]
    fn what_is_no_sighting_is_refused() {
        let whole = r#"{"id":"ID","relay":"r","received_at":1,"phase":"live","first":true}"#;
        let reason = |json: String| Sighting::parse(json.as_bytes()).map(|_| ()).map_err(|refused| refused.reason);
        assert!(reason(whole.replace("ID", &"0".repeat(64))).is_ok());
        assert_eq!(reason(whole.to_owned()), Err(Reason::BadHex));
        assert_eq!(reason(whole.replace("\"first\":true", "\"first\":1")), Err(Reason::MalformedJson));
        let late = whole.replace("ID", &"0".repeat(64)).replace(":1,", ":9223372036854775807,");
        assert_eq!(reason(late), Err(Reason::OutOfRange));
        assert_eq!(reason("{}".to_owned()), Err(Reason::MalformedJson));
    }
}
