//! The meeting points: names of topics, record headers and lake objects.
//!
//! `ingest` writes and `processor` reads what is named here; the two never import each other.

use std::fmt;

use crate::time::{EventTime, Span};

/// Raw Nostr events, one record an event that was verified; the key is the event id in hex.
pub const NOSTR_EVENT_TOPIC: &str = "nostr-event";
/// Deliveries of the events of [`NOSTR_EVENT_TOPIC`] by relays, where wanted; the key is the event id in hex.
pub const NOSTR_SIGHTING_TOPIC: &str = "nostr-sighting";
/// Raw frames of OpenSea's stream, one record an event; the key is the event's id in hex, [`crate::MarketEvent::id`].
pub const OPENSEA_RAW_TOPIC: &str = "OpenSeaRawEvents";
/// What is known of each relay, one JSON document a relay; the key is its URL in normal form.
pub const NOSTR_RELAY_TOPIC: &str = "nostr-relay";
/// Control records of stream jobs, one key a job.
pub const JOBS_TOPIC: &str = "__jobs";

/// Record header: where the bytes came from (`nostr`, `opensea`, `file`).
pub const HEADER_SOURCE: &str = "source";
/// Record header: URL of the relay, or path of the file.
pub const HEADER_RELAY: &str = "relay";
/// Record header: when the frame left the socket, whole milliseconds since 1970 in decimal; equals the record's timestamp.
pub const HEADER_RECEIVED_AT: &str = "received_at";
/// Record header: `backfill` (history, files) or `live`.
pub const HEADER_PHASE: &str = "phase";
/// Record header of a rejected record: the reason's code.
pub const HEADER_REASON: &str = "reason";
/// Record header of a rejected record: what exactly was wrong, at most 200 bytes.
pub const HEADER_DETAIL: &str = "detail";
/// Record header of an event that was refused first: the code of the reason that no longer holds.
pub const HEADER_REDRIVEN: &str = "redriven";
/// Record header of the first sighting of a transaction that holds nothing else: a mark that no other one has.
pub const HEADER_PARCEL: &str = "parcel";
/// Record header of a rejected record: length in bytes of the whole input.
pub const HEADER_FULL_LEN: &str = "full_len";

/// Footer metadata of a lake object (Parquet key-value metadata); all values are text.
pub mod footer {
    /// Topic the rows were read from.
    pub const TOPIC: &str = "tidegate.topic";
    /// Partition the rows were read from.
    pub const PARTITION: &str = "tidegate.partition";
    /// Offset of the first record that the object covers.
    pub const START: &str = "tidegate.start_offset";
    /// Offset at which the next object starts: the consumer's position, past aborted records and markers.
    pub const END: &str = "tidegate.end_offset";
    /// Number of rows.
    pub const ROWS: &str = "tidegate.rows";
    /// SHA-256 over the raw values in offset order, each followed by a line feed, lower-case hex.
    pub const SHA256: &str = "tidegate.sha256";
    /// Least event time, microseconds since 1970; absent when there is no row.
    pub const EVENT_TIME_MIN: &str = "tidegate.event_time_min";
    /// Greatest event time, microseconds since 1970; absent when there is no row.
    pub const EVENT_TIME_MAX: &str = "tidegate.event_time_max";
    /// Greatest received time of the partition so far, milliseconds since 1970; the hour of the next object is not before it.
    pub const RECEIVED_MAX: &str = "tidegate.received_max";
    /// Number of records in the range that hold no event and so have no row.
    pub const UNREADABLE: &str = "tidegate.unreadable";
}

/// Topic for input to `raw_topic` that was refused.
#[must_use]
pub fn rejected_topic(raw_topic: &str) -> String {
    format!("{raw_topic}.rejected")
}

/// Topic that says what of each relay's past is proven to be in `raw_topic`, one key a relay and filter.
#[must_use]
pub fn coverage_topic(raw_topic: &str) -> String {
    format!("{raw_topic}.coverage")
}

/// Topic for stretches of a relay's events that may be missing from `raw_topic`.
#[must_use]
pub fn gap_topic(raw_topic: &str) -> String {
    format!("{raw_topic}.gaps")
}

/// Ending of the name of a sightings topic that has none of its own.
const SIGHTINGS: &str = ".sightings";

/// Topic of the deliveries of the events in `raw_topic`; a sightings topic is its own.
#[must_use]
pub fn sighting_topic(raw_topic: &str) -> String {
    match raw_topic {
        NOSTR_EVENT_TOPIC => NOSTR_SIGHTING_TOPIC.to_owned(),
        own if is_sighting_topic(own) => own.to_owned(),
        other => format!("{other}{SIGHTINGS}"),
    }
}

/// Whether `topic` is one of those that [`sighting_topic`] gives.
pub(crate) fn is_sighting_topic(topic: &str) -> bool {
    topic == NOSTR_SIGHTING_TOPIC || topic.ends_with(SIGHTINGS)
}

/// Whether `topic` is one of raw frames of the market, as its name says.
pub(crate) fn is_market_topic(topic: &str) -> bool {
    topic == OPENSEA_RAW_TOPIC || topic.ends_with(".market")
}

/// Topic through which the collectors of a group hand frames for `raw_topic` to whoever settles them; the key is the id
/// that the event claims.
#[must_use]
pub fn intake_topic(raw_topic: &str) -> String {
    format!("{raw_topic}.intake")
}

/// Topic of the authors' newest relay lists, from which the counts in `relay_topic` come, one key a kind and author.
#[must_use]
pub fn relay_lists_topic(relay_topic: &str) -> String {
    format!("{relay_topic}.lists")
}

/// Topic for rows that came after a window of theirs had closed, beside `output_topic`.
#[must_use]
pub fn late_topic(output_topic: &str) -> String {
    format!("{output_topic}.late")
}

/// Topic through which the rows of a job go into a table, where the job has none of its own: one for each window.
#[must_use]
pub fn sink_topic(job: &str, size: Span, slide: Span) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let job: String = job.chars().map(plain).collect();
    format!("tidegate.sink.{job}.{}.{}", size.micros(), slide.micros())
}

/// How the rows of a lake object are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LakeFormat {
    /// Parquet with the schema of the topic's table, [`crate::Table::schema`].
    Parquet,
    /// The record values only, one a line, gzip.
    JsonGz,
}

impl LakeFormat {
    /// File name extension, without the leading dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::JsonGz => "json.gz",
        }
    }
}

/// Name of a lake object: `topics/<topic>/year=YYYY/month=MM/day=DD/hour=HH/<topic>-<partition>-<start>.<ext>`.
///
/// The name is a function of topic, partition, start offset and the hour in which the first row was received, so
/// that two writers of the same rows race for one name and only one can win.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LakeKey {
    /// Topic the rows come from.
    pub topic: String,
    /// Partition the rows come from.
    pub partition: i32,
    /// Offset of the first record that the object covers.
    pub start: i64,
    /// Hours since 1970 (UTC) of the received time that decided the prefix.
    pub hour: i64,
    /// Form of the rows.
    pub format: LakeFormat,
}

impl LakeKey {
    /// Prefix under which all objects of `topic` lie, without a trailing slash.
    #[must_use]
    pub fn topic_prefix(topic: &str) -> String {
        format!("topics/{topic}")
    }

    /// Prefix of one hour of `topic`, without a trailing slash.
    #[must_use]
    pub fn hour_prefix(topic: &str, hour: i64) -> String {
        let (year, month, day, hour) = EventTime::from_hours(hour).calendar_hour();
        format!("topics/{topic}/year={year:04}/month={month:02}/day={day:02}/hour={hour:02}")
    }

    /// Reads a key back from an object's name, whatever prefix stands before it; `None` when the name is not one that
    /// a lander writes.
    ///
    /// Start offsets of any width are read, as Kafka Connect's S3 sink writes ten digits.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let [.., "topics", topic, year, month, day, hour, file] = parts.as_slice() else { return None };
        let (stem, format) = match file.strip_suffix(".parquet") {
            Some(stem) => (stem, LakeFormat::Parquet),
            None => (file.strip_suffix(".json.gz")?, LakeFormat::JsonGz),
        };
        let (rest, start) = stem.rsplit_once('-')?;
        let (name, partition) = rest.rsplit_once('-')?;
        if name != *topic {
            return None;
        }
        let number = |part: &str, label: &str| part.strip_prefix(label)?.parse::<u32>().ok();
        let hour = EventTime::from_calendar_hour(
            i32::try_from(number(year, "year=")?).ok()?,
            number(month, "month=")?,
            number(day, "day=")?,
            number(hour, "hour=")?,
        )?;
        Some(Self {
            topic: (*topic).to_owned(),
            partition: partition.parse().ok()?,
            start: start.parse().ok()?,
            hour,
            format,
        })
    }
}

impl fmt::Display for LakeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Self::hour_prefix(&self.topic, self.hour);
        let (topic, partition, start, extension) = (&self.topic, self.partition, self.start, self.format.extension());
        write!(f, "{prefix}/{topic}-{partition}-{start:020}.{extension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_key_reads_back_what_it_prints() {
        let key = LakeKey {
            topic: "nostr-event".into(),
            partition: 3,
            start: 91,
            hour: 483_000,
            format: LakeFormat::Parquet,
        };
        let name = key.to_string();
        assert_eq!(
            name,
            "topics/nostr-event/year=2025/month=02/day=06/hour=00/nostr-event-3-00000000000000000091.parquet"
        );
        assert_eq!(LakeKey::parse(&format!("some/prefix/{name}")).as_ref(), Some(&key));
        assert_eq!(LakeKey::parse(&format!("my-topics/topics/x/{name}")), Some(key));
    }

    #[test]
    fn the_ten_digits_of_kafka_connect_are_read() {
        let name = "topics/OpenSeaRawEvents/year=2024/month=07/day=28/hour=09/OpenSeaRawEvents-0-0000000042.json.gz";
        let key = LakeKey::parse(name).expect("a key");
        assert_eq!((key.partition, key.start, key.format), (0, 42, LakeFormat::JsonGz));
        assert_eq!(LakeKey::parse("topics/x/year=2024/month=13/day=28/hour=09/x-0-1.json.gz"), None);
    }
}
