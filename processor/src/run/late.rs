//! Late rows: the record that says which row came too late for which window.

use bytes::Bytes;
use event::{EventId, EventTime};
use topic::{Record, StoredRecord};

use crate::engine::LateRow;
use crate::sink::header;

/// One late (row, window) pair as a JSON line: the window, by how much it was missed, where the row lies, and the
/// record itself.
pub(super) fn late_line(job: &str, late: &LateRow, record: &StoredRecord, id: &str) -> String {
    let raw = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    // Lateness in whole microseconds, printed as seconds with the digits that are there.
    let lateness = late.watermark.saturating_sub(late.time);
    format!(
        "{{\"job\":{},\"window_start\":\"{}\",\"window_end\":\"{}\",\"watermark\":\"{}\",\"lateness_seconds\":{},\
         \"kafka_partition\":{},\"kafka_offset\":{},\"id\":{},\"event\":{}}}",
        serde_json::Value::from(job),
        micros_text(late.start),
        micros_text(late.end),
        micros_text(late.watermark),
        lateness as f64 / 1e6,
        record.partition,
        record.offset,
        serde_json::Value::from(id),
        one_line(&raw),
    )
}

/// An instant as RFC 3339; beyond the calendar, which only the end of a window can reach, as plain microseconds.
fn micros_text(micros: i64) -> String {
    EventTime::from_micros(micros).map_or_else(|| micros.to_string(), |time| time.to_string())
}

/// A JSON object without line feeds: raw ones can stand between tokens only.
fn one_line(json: &str) -> std::borrow::Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// What a late row is known by: its event's id, or else its record's key.
pub(super) fn late_id(record: &StoredRecord, id: Option<EventId>) -> String {
    let key = || record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    id.map_or_else(key, |id| id.to_string())
}

/// A late line as a record of the late topic; its key is what the row is known by.
pub(super) fn late_record(line: &str, job: &str, id: &str, now_ms: i64) -> Record {
    Record {
        key: Some(Bytes::copy_from_slice(id.as_bytes())),
        value: Some(Bytes::copy_from_slice(line.as_bytes())),
        headers: vec![header("content-type", "application/json"), header("job", job)],
        timestamp_ms: Some(now_ms),
        partition: None,
    }
}
