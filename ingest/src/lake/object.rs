//! One object while it is being filled, and as bytes.
//!
//! Parquet: the columns of the topic's table, zstd, the footer's facts as key-value metadata. JSON lines: the record
//! values only, one a line, gzip; its rows are dense in offsets, so that name and line number give each row's offset.

use std::io::Write as _;

use bytes::Bytes;
use event::layout::{HEADER_PHASE, HEADER_RELAY, LakeFormat, footer};
use event::schema::{CONTENT, CREATED_AT, EVENT_TIME, ID, KAFKA_OFFSET, PUBKEY, RAW, RECEIVED_AT, SENT_AT, SIG};
use event::{Origin, Rejection, Row, RowBuilder, Table};
use flate2::Compression as GzLevel;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use topic::StoredRecord;

use crate::error::{Error, ErrorKind, Result};

/// Rows handed to the Parquet writer at once.
pub(super) const BATCH_ROWS: usize = 4 * 1024;
/// Bytes handed to the Parquet writer at once, nearly; an Arrow column of text holds no more than 2 GiB.
pub(super) const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Rows of a Parquet row group at most: a reader's unit of skipping.
const ROW_GROUP_ROWS: usize = 128 * 1024;

enum Body {
    Parquet { writer: Box<ArrowWriter<Vec<u8>>>, rows: Box<dyn RowBuilder> },
    Json(Box<GzEncoder<Vec<u8>>>),
}

/// An object that still takes rows.
pub(super) struct OpenObject {
    table: Table,
    body: Body,
    start: i64,
    hour: i64,
    /// Offset after the last record taken.
    next: i64,
    rows: usize,
    bytes: usize,
    unreadable: u64,
    event_time: Option<(i64, i64)>,
    received_max: i64,
    hash: Sha256,
    pub(super) opened_at: Instant,
}

/// An object, ready to be put.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) bytes: Bytes,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) hour: i64,
    pub(super) rows: usize,
    pub(super) sha256: String,
}

impl OpenObject {
    pub(super) fn try_new(table: Table, format: LakeFormat, start: i64, hour: i64) -> Result<Self> {
        let body = match format {
            LakeFormat::Parquet => {
                let properties = columns(table).set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
                let writer = ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties)).map_err(failed)?;
                Body::Parquet { writer: Box::new(writer), rows: table.builder() }
            }
            LakeFormat::JsonGz => Body::Json(Box::new(GzEncoder::new(Vec::new(), GzLevel::default()))),
        };
        Ok(Self {
            table,
            body,
            start,
            hour,
            next: start,
            rows: 0,
            bytes: 0,
            unreadable: 0,
            event_time: None,
            received_max: i64::MIN,
            hash: Sha256::new(),
            opened_at: Instant::now(),
        })
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the raw values taken.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the record at `offset`, received in `hour`, belongs to another object.
    pub(super) fn ends_before(&self, hour: i64, offset: i64) -> bool {
        self.hour != hour || (matches!(self.body, Body::Json(_)) && self.next != offset)
    }

    /// Adds a record; why it is none when it holds no row. Such a record is counted in the footer, and in Parquet it
    /// has no row.
    pub(super) fn append(&mut self, record: &StoredRecord, received_max: i64) -> Result<Option<Rejection>> {
        let raw = record.value.as_deref().unwrap_or_default();
        self.next = record.offset + 1;
        self.received_max = received_max;
        match &mut self.body {
            Body::Parquet { writer, rows } => {
                let origin = Origin {
                    relay: record.header(HEADER_RELAY),
                    received_at_ms: Some(record.timestamp_ms),
                    phase: record.header(HEADER_PHASE),
                    partition: record.partition,
                    offset: record.offset,
                };
                let row = match rows.take(raw, &origin) {
                    Ok(row) => row,
                    Err(rejection) => {
                        self.unreadable += 1;
                        return Ok(Some(rejection));
                    }
                };
                if rows.len() >= BATCH_ROWS || rows.bytes() >= BATCH_BYTES {
                    writer.write(&rows.finish()).map_err(failed)?;
                }
                self.note_row(raw, Some(row));
                Ok(None)
            }
            Body::Json(gzip) => {
                let row = self.table.row(raw);
                self.unreadable += u64::from(row.is_err());
                gzip.write_all(&one_line(raw)).map_err(failed)?;
                self.note_row(raw, row.as_ref().ok().copied());
                Ok(row.err())
            }
        }
    }

    fn note_row(&mut self, raw: &[u8], row: Option<Row>) {
        if let Some(row) = row {
            let time = row.time.micros();
            self.event_time =
                Some(self.event_time.map_or((time, time), |(least, most)| (least.min(time), most.max(time))));
        }
        self.hash.update(raw);
        self.hash.update(b"\n");
        self.rows += 1;
        self.bytes += raw.len();
    }

    /// Closes the object; it covers the offsets up to `end`.
    pub(super) fn finish(self, topic: &str, partition: i32, end: i64) -> Result<Finished> {
        let sha256 = hex::encode(self.hash.finalize());
        let mut facts = vec![
            (footer::TOPIC, topic.to_owned()),
            (footer::PARTITION, partition.to_string()),
            (footer::START, self.start.to_string()),
            (footer::END, end.to_string()),
            (footer::ROWS, self.rows.to_string()),
            (footer::SHA256, sha256.clone()),
            (footer::RECEIVED_MAX, self.received_max.to_string()),
            (footer::UNREADABLE, self.unreadable.to_string()),
        ];
        if let Some((least, most)) = self.event_time {
            facts.push((footer::EVENT_TIME_MIN, least.to_string()));
            facts.push((footer::EVENT_TIME_MAX, most.to_string()));
        }
        let (bytes, end) = match self.body {
            Body::Parquet { mut writer, mut rows } => {
                if !rows.is_empty() {
                    writer.write(&rows.finish()).map_err(failed)?;
                }
                for (name, value) in facts {
                    writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
                }
                (writer.into_inner().map_err(failed)?, end)
            }
            Body::Json(gzip) => (gzip.finish().map_err(failed)?, self.next),
        };
        Ok(Finished { bytes: Bytes::from(bytes), start: self.start, end, hour: self.hour, rows: self.rows, sha256 })
    }
}

/// A JSON object on a line of its own: line feeds can stand between its tokens only, where a blank means the same.
fn one_line(raw: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> = raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
    line.push(b'\n');
    line
}

/// How the columns of a table are written, whoever writes them.
pub(super) fn columns(table: Table) -> WriterPropertiesBuilder {
    let schema = table.schema();
    let those = |names: &'static [&'static str]| {
        let held: Vec<&str> = names.iter().copied().filter(|name| schema.index_of(name).is_ok()).collect();
        held.into_iter().map(ColumnPath::from)
    };
    let mut properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()));
    // Delta encoding for what mostly grows; no dictionary for what never repeats.
    for column in those(&[CREATED_AT, EVENT_TIME, SENT_AT, RECEIVED_AT, KAFKA_OFFSET]) {
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for column in those(&[ID, SIG, RAW, CONTENT]) {
        properties = properties.set_column_dictionary_enabled(column, false);
    }
    for column in those(&[ID, PUBKEY, SIG, RAW, CONTENT]) {
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    properties
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "could not build a lake object").with_source(error)
}
