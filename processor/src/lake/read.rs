//! The rows of an object, with the columns that are wanted.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use event::Origin;
use event::layout::LakeFormat;
use event::schema::{ID, PUBKEY};
use flate2::bufread::MultiGzDecoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::statistics::Statistics;

use super::file::ObjectFile;
use super::list::unread;
use super::{LakeObject, LakeRange, LakeTable};
use crate::error::{Error, ErrorKind, Result};

/// Rows of a batch.
const BATCH_ROWS: usize = 8 * 1024;
/// Bytes of a batch made from JSON lines, nearly; an Arrow column of text holds no more than 2 GiB.
const BATCH_BYTES: usize = 64 * 1024 * 1024;

impl LakeTable {
    /// The rows of `object` with the columns of its table at `columns`, ascending.
    ///
    /// The stream fails with `Data` when the object is not what a lander writes.
    pub fn read(&self, object: &LakeObject, columns: &[usize]) -> BoxStream<'static, Result<RecordBatch>> {
        let (table, object, columns) = (self.clone(), object.clone(), columns.to_vec());
        let opened = async move {
            match object.format {
                LakeFormat::Parquet => table.read_parquet(object, columns).await,
                LakeFormat::JsonGz => table.read_json(object, columns).await,
            }
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn read_parquet(
        self,
        object: LakeObject,
        columns: Vec<usize>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let path = object.path.clone();
        let damaged = move |error| unread(format!("could not read lake object `{path}`"), error);
        let mut builder = ParquetRecordBatchStreamBuilder::new(self.parquet(&object)).await.map_err(damaged.clone())?;
        let groups = self.groups(&mut builder).await.map_err(damaged.clone())?;
        let wanted = self.table.schema().project(&columns)?;
        let mut roots = Vec::with_capacity(columns.len());
        for field in wanted.fields() {
            let at = builder.schema().index_of(field.name()).map_err(|error| {
                Error::new(ErrorKind::Data, format!("lake object `{}` has no column `{}`", object.path, field.name()))
                    .with_source(error)
            })?;
            roots.push(at);
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let rows = builder
            .with_row_groups(groups)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(damaged.clone())?;
        let wanted = Arc::new(wanted);
        Ok(rows.map_err(damaged).map(move |batch| as_written(&batch?, &wanted)).boxed())
    }

    /// The row groups that may hold a row that is needed: by the statistics of event time, which landers and compaction
    /// write, and by the bloom filters of ids and authors, which compaction does.
    async fn groups(
        &self,
        builder: &mut ParquetRecordBatchStreamBuilder<ObjectFile>,
    ) -> std::result::Result<Vec<usize>, ParquetError> {
        let metadata = Arc::clone(builder.metadata());
        let leaf = |name: &str| {
            let columns = metadata.file_metadata().schema_descr().columns();
            columns.iter().position(|column| column.path().string() == name)
        };
        let mut groups = Vec::new();
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let times = leaf(self.table.event_time()).and_then(|at| group.column(at).statistics());
            let mut needed = match times {
                Some(Statistics::Int64(times)) => {
                    !lies_outside(&self.needed.event_time, times.min_opt(), times.max_opt())
                }
                _ => true,
            };
            for (name, wanted) in [(ID, self.needed.id), (PUBKEY, self.needed.pubkey)] {
                let (true, Some(wanted), Some(at)) = (needed, wanted, leaf(name)) else { continue };
                let filter = builder.get_row_group_column_bloom_filter(number, at).await?;
                needed = filter.is_none_or(|filter| filter.check(&wanted[..]));
            }
            if needed {
                groups.push(number);
            }
        }
        Ok(groups)
    }

    async fn read_json(
        self,
        object: LakeObject,
        columns: Vec<usize>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let read = async { self.store.get(&object.path).await?.bytes().await };
        let bytes = read.await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not read lake object `{}`", object.path))
                .with_source(error)
        })?;
        let lines = JsonLines {
            lines: BufReader::new(MultiGzDecoder::new(BufReader::new(std::io::Cursor::new(bytes)))),
            range: object.ranges.first().copied().unwrap_or(LakeRange { partition: 0, start: 0, end: None }),
            table: self,
            object,
            columns,
        };
        Ok(stream::unfold(lines, |mut lines| async move { lines.next().transpose().map(|batch| (batch, lines)) })
            .boxed())
    }
}

/// Whether values between `least` and `most` all lie outside of `[start, end)`.
fn lies_outside(range: &Range<Option<i64>>, least: Option<&i64>, most: Option<&i64>) -> bool {
    let before = most.zip(range.start).is_some_and(|(most, start)| *most < start);
    before || least.zip(range.end).is_some_and(|(least, end)| *least >= end)
}

/// The columns in the order and with the exact types of the table.
fn as_written(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let columns = wanted.fields().iter().map(|field| {
        let at = batch.schema().index_of(field.name())?;
        let column = batch.column(at);
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    // Without any column, as `count(*)` wants it, the number of rows has to be said.
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &rows)?)
}

/// The lines of a `.json.gz` object: record values only, dense in offsets from the start that its name says.
struct JsonLines {
    lines: BufReader<MultiGzDecoder<BufReader<std::io::Cursor<Bytes>>>>,
    /// Its start is moved on as lines are read.
    range: LakeRange,
    table: LakeTable,
    object: LakeObject,
    columns: Vec<usize>,
}

impl JsonLines {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut builder = self.table.table.builder();
        let mut line = Vec::new();
        let mut ended = false;
        while builder.len() < BATCH_ROWS && builder.bytes() < BATCH_BYTES {
            line.clear();
            let read = self.lines.read_until(b'\n', &mut line).map_err(|error| {
                Error::new(ErrorKind::Data, format!("could not unpack lake object `{}`", self.object.path))
                    .with_source(error)
            })?;
            if read == 0 {
                ended = true;
                break;
            }
            let raw = line.strip_suffix(b"\n").unwrap_or(&line);
            let LakeRange { partition, start: offset, .. } = self.range;
            let origin = Origin { partition, offset, ..Origin::default() };
            self.range.start += 1;
            if builder.take(raw, &origin).is_err() {
                self.table.unreadable.fetch_add(1, Ordering::Relaxed);
            }
        }
        if ended && builder.is_empty() {
            return Ok(None);
        }
        Ok(Some(builder.finish().project(&self.columns)?))
    }
}
