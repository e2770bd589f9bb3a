//! Late rows: which windows a row came too late for, and the record that says so.

use bytes::Bytes;
use event::{Event, EventTime};
use topic::{Record, StoredRecord};

use crate::sink::header;
use crate::stream::window::WindowSpec;

/// The windows that a row came too late for: those it belongs to that `watermark` has closed.
pub(super) fn late_windows(spec: WindowSpec, time: i64, watermark: Option<i64>) -> Vec<i64> {
    let Some(watermark) = watermark else { return Vec::new() };
    let mut starts: Vec<i64> =
        spec.windows_of(spec.pane_of(time)).filter(|start| start + spec.size() <= watermark).collect();
    starts.reverse();
    starts
}

/// One late (row, window) pair as a JSON line: the window, by how much it was missed, where the row lies, and the
/// event itself.
pub(super) fn late_line(
    job: &str,
    spec: WindowSpec,
    start: i64,
    watermark: i64,
    record: &StoredRecord,
    event: &Event,
) -> String {
    let raw = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    // Lateness in whole microseconds, printed as seconds with the digits that are there.
    let lateness = watermark.saturating_sub(event.event_time().micros());
    format!(
        "{{\"job\":{},\"window_start\":\"{}\",\"window_end\":\"{}\",\"watermark\":\"{}\",\"lateness_seconds\":{},\
         \"kafka_partition\":{},\"kafka_offset\":{},\"id\":\"{}\",\"event\":{}}}",
        serde_json::Value::from(job),
        micros_text(start),
        micros_text(start + spec.size()),
        micros_text(watermark),
        lateness as f64 / 1e6,
        record.partition,
        record.offset,
        event.id,
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

/// A late line as a record of the late topic; its key is the event's id.
pub(super) fn late_record(line: &str, job: &str, id: &str, now_ms: i64) -> Record {
    Record {
        key: Some(Bytes::copy_from_slice(id.as_bytes())),
        value: Some(Bytes::copy_from_slice(line.as_bytes())),
        headers: vec![header("content-type", "application/json"), header("job", job)],
        timestamp_ms: Some(now_ms),
        partition: None,
    }
}
