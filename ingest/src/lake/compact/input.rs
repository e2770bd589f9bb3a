//! The rows of a raw object, proven to be what its lander wrote.
//!
//! In: an object's bytes. Out: its rows as batches of the topic's table, and what it covers. Its copy in the lake will be
//! deleted one day, so nothing is taken on trust: rows are counted and hashed as the footer says they were.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor};

use arrow::array::{AsArray, RecordBatch};
use bytes::Bytes;
use event::layout::{LakeFormat, LakeKey, footer};
use event::schema::RAW;
use event::{Origin, Table};
use flate2::bufread::MultiGzDecoder;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};

use super::super::object::{BATCH_BYTES, BATCH_ROWS};
use super::super::resume::{MILLIS_PER_HOUR, damaged};
use crate::error::{Error, ErrorKind, Result};

/// A raw object to be compacted.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) key: LakeKey,
    pub(super) path: Path,
    pub(super) bytes: Bytes,
}

/// What a raw object says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
    /// Greatest received time of the partition so far, milliseconds.
    pub(super) received_max_ms: i64,
    /// Lines that are no row of the table; JSON objects keep them.
    pub(super) unreadable: u64,
}

impl Input {
    /// Hands the rows to `take`, batch by batch in offset order.
    ///
    /// # Errors
    /// `Data` when it is not what a lander wrote, or what `take` says.
    pub(super) fn read(&self, table: Table, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<Piece> {
        match self.key.format {
            LakeFormat::Parquet => self.read_parquet(table, take),
            LakeFormat::JsonGz => self.read_json(table, take),
        }
    }

    fn read_parquet(&self, table: Table, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<Piece> {
        let wrong = |error| damaged(&self.path).with_source(error);
        let reader = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone()).map_err(wrong)?;
        let entries = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let facts: HashMap<String, String> =
            entries.into_iter().filter_map(|entry| Some((entry.key, entry.value?))).collect();
        let number =
            |name: &str| facts.get(name).and_then(|fact| fact.parse::<i64>().ok()).ok_or_else(|| damaged(&self.path));
        let piece = Piece {
            partition: self.key.partition,
            start: self.key.start,
            end: number(footer::END)?,
            received_max_ms: number(footer::RECEIVED_MAX)?,
            unreadable: 0,
        };
        let (mut rows, mut hash, schema) = (0_i64, Sha256::new(), table.schema());
        for batch in reader.with_batch_size(BATCH_ROWS).build().map_err(wrong)? {
            let batch = batch.map_err(|error| damaged(&self.path).with_source(error))?;
            if batch.schema().fields() != schema.fields() {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!("lake object `{}` has other columns than a lander writes", self.path),
                ));
            }
            for raw in batch.column_by_name(RAW).ok_or_else(|| damaged(&self.path))?.as_binary::<i32>().iter() {
                hash.update(raw.unwrap_or_default());
                hash.update(b"\n");
            }
            rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
            take(batch)?;
        }
        let whole = rows == number(footer::ROWS)? && facts.get(footer::SHA256) == Some(&hex::encode(hash.finalize()));
        if !whole {
            let message = format!("lake object `{}` holds other rows than its footer says; it is damaged", self.path);
            return Err(Error::new(ErrorKind::Data, message));
        }
        Ok(piece)
    }

    fn read_json(&self, table: Table, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<Piece> {
        let mut lines = BufReader::new(MultiGzDecoder::new(BufReader::new(Cursor::new(self.bytes.clone()))));
        let (mut builder, mut line) = (table.builder(), Vec::new());
        let (mut offset, mut unreadable) = (self.key.start, 0);
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            if read.map_err(|error| damaged(&self.path).with_source(error))? == 0 {
                break;
            }
            let raw = line.strip_suffix(b"\n").unwrap_or(&line);
            let origin = Origin { partition: self.key.partition, offset, ..Origin::default() };
            unreadable += u64::from(builder.take(raw, &origin).is_err());
            offset += 1;
            if builder.len() >= BATCH_ROWS || builder.bytes() >= BATCH_BYTES {
                take(builder.finish())?;
            }
        }
        take(builder.finish())?;
        Ok(Piece {
            partition: self.key.partition,
            start: self.key.start,
            end: offset,
            received_max_ms: self.key.hour * MILLIS_PER_HOUR,
            unreadable,
        })
    }
}
