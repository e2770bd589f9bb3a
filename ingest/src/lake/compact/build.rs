//! Raw objects to one compacted file: a pure function of the bytes.
//!
//! The same inputs give the same bytes, whoever builds them. Rows keep all their columns; only their order changes.

use std::path::Path;

use bytes::Bytes;
use event::Table;
use event::layout::{LakeFormat, footer};
use event::manifest::{CoveredPartition, CoveredRange, FOOTER_RANGES};
use event::schema::PUBKEY;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use super::super::object::columns;
use super::failed;
use super::input::{Input, Piece};
use super::sort::{Key, Sorter};
use crate::error::{Error, ErrorKind, Result};

/// Rows of a row group at most: what a bloom filter lets a reader skip at once.
const ROW_GROUP_ROWS: usize = 32 * 1024;
/// Rows of a data page at most: what the page index lets a reader of a range skip at once.
const PAGE_ROWS: usize = 4 * 1024;
/// Bytes of rows, as Arrow has them, that are sorted at once.
const RUN_BYTES: usize = 64 * 1024 * 1024;
/// Of the pages that a bloom filter lets through, so many are for nothing.
const BLOOM_FPP: f64 = 0.01;

/// What is done with what should not be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) allow_duplicates: bool,
    pub(super) drop_unreadable: bool,
}

/// A compacted file that is not stored yet.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) bytes: Bytes,
    pub(super) sha256: String,
    pub(super) rows: u64,
    /// Rows of an event that has one already.
    pub(super) duplicates: u64,
    /// Lines without an event that were left out.
    pub(super) unreadable: u64,
    pub(super) event_time: Option<(i64, i64)>,
    /// By partition and offset.
    pub(super) ranges: Vec<CoveredRange>,
    pub(super) ends: Vec<CoveredPartition>,
}

/// Builds the file of `inputs`, which belong to `topic`, whose records are rows of `table`, and are sorted by partition and start; `covered` says where a
/// partition's first input should start.
///
/// # Errors
/// `Data` when an input is not what its lander wrote, two cover the same offsets, an event is there twice, or a line
/// is no event, as far as the rules do not allow it.
pub(super) fn build(
    (topic, table): (&str, Table),
    inputs: &[Input],
    covered: &[CoveredPartition],
    rules: Rules,
    scratch: &Path,
) -> Result<Built> {
    let mut sorter = Sorter::new(table, scratch, RUN_BYTES);
    let mut cover = Cover { ends: covered.to_vec(), ..Cover::default() };
    for input in inputs {
        let piece = input.read(table, &mut |batch| sorter.push(batch))?;
        if piece.unreadable > 0 && !rules.drop_unreadable {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "lake object `{}` holds {} lines that are no row of {}, which no compacted file can keep; look at them, \
                     and let them be dropped (--drop-unreadable) if they are of no use",
                    input.path,
                    piece.unreadable,
                    table.name()
                ),
            ));
        }
        cover.add(input, piece)?;
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties(table)?)).map_err(failed)?;
    let (mut rows, mut duplicates) = (0_u64, 0_u64);
    let (mut last, mut first_time): (Option<Key>, Option<i64>) = (None, None);
    sorter.finish(&mut |batch, keys| {
        for key in keys {
            if let Some(twice) = last.filter(|last| table.has_each_id_once() && last.1 == key.1) {
                duplicates += 1;
                if !rules.allow_duplicates {
                    return Err(duplicate(&twice, key));
                }
            }
            first_time = first_time.or(Some(key.0));
            last = Some(*key);
        }
        rows += keys.len() as u64;
        writer.write(&batch).map_err(failed)
    })?;
    let event_time = first_time.zip(last.map(|key| key.0));
    for (name, value) in facts(topic, rows, event_time, &cover.ranges) {
        writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
    }
    let bytes = Bytes::from(writer.into_inner().map_err(failed)?);
    Ok(Built {
        sha256: hex::encode(Sha256::digest(&bytes)),
        bytes,
        rows,
        duplicates,
        unreadable: cover.unreadable,
        event_time,
        ranges: cover.ranges,
        ends: cover.ends,
    })
}

fn duplicate(one: &Key, other: &Key) -> Error {
    let (id, place) = (hex::encode(one.1), |key: &Key| format!("partition {} offset {}", key.2, key.3));
    Error::new(
        ErrorKind::Data,
        format!(
            "event {id} lies in the lake twice, from {} and from {}: it was published twice; keep both rows with \
             --allow-duplicates",
            place(one),
            place(other)
        ),
    )
}

/// What the inputs cover, put together.
#[derive(Default)]
struct Cover {
    ends: Vec<CoveredPartition>,
    ranges: Vec<CoveredRange>,
    unreadable: u64,
}

impl Cover {
    fn add(&mut self, input: &Input, piece: Piece) -> Result<()> {
        let Piece { partition, start, end, received_max_ms, unreadable } = piece;
        self.unreadable += unreadable;
        let known = self.ends.iter_mut().find(|known| known.partition == partition);
        let before = known.as_ref().map(|known| known.end);
        if before.is_some_and(|before| start < before) {
            let message = format!("lake object `{}` covers offsets that the one before it covers", input.path);
            return Err(Error::new(ErrorKind::Data, message));
        }
        // A JSON object cannot start at a hole, so a hole before it is none of objects.
        let start = before.filter(|_| input.key.format == LakeFormat::JsonGz).unwrap_or(start);
        match self.ranges.last_mut().filter(|last| last.partition == partition && last.end == start) {
            Some(last) => last.end = end,
            None => self.ranges.push(CoveredRange { partition, start, end }),
        }
        match known {
            Some(known) => {
                known.end = end;
                known.received_max_ms = known.received_max_ms.max(received_max_ms);
            }
            None => self.ends.push(CoveredPartition { partition, end, received_max_ms }),
        }
        Ok(())
    }
}

fn facts(
    topic: &str,
    rows: u64,
    event_time: Option<(i64, i64)>,
    ranges: &[CoveredRange],
) -> Vec<(&'static str, String)> {
    let ranges: Vec<String> =
        ranges.iter().map(|range| format!("{}:{}-{}", range.partition, range.start, range.end)).collect();
    let mut facts =
        vec![(footer::TOPIC, topic.to_owned()), (footer::ROWS, rows.to_string()), (FOOTER_RANGES, ranges.join(" "))];
    if let Some((least, most)) = event_time {
        facts.push((footer::EVENT_TIME_MIN, least.to_string()));
        facts.push((footer::EVENT_TIME_MAX, most.to_string()));
    }
    facts
}

/// What is read often is written once: more compression than a lander has time for, and all that helps to skip.
fn properties(table: Table) -> Result<WriterProperties> {
    let schema = table.schema();
    // Columns before one of lists are flat, so that their places among the leaves are those among the fields.
    let leaf = |name: &str| i32::try_from(schema.index_of(name).map_err(failed)?).map_err(failed);
    let ascending = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let sorted = std::iter::once(table.event_time()).chain(table.id());
    let order = sorted.map(|name| leaf(name).map(ascending)).collect::<Result<Vec<_>>>()?;
    let mut properties = columns(table)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(9).map_err(failed)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_sorting_columns(Some(order));
    let author = schema.index_of(PUBKEY).is_ok().then_some(PUBKEY);
    for name in table.id().into_iter().chain(author) {
        let column = || ColumnPath::from(name);
        properties = properties
            .set_column_bloom_filter_enabled(column(), true)
            .set_column_bloom_filter_fpp(column(), BLOOM_FPP)
            .set_column_bloom_filter_max_ndv(column(), ROW_GROUP_ROWS as u64);
    }
    Ok(properties.build())
}
