//! Rows into the order of event time and id, within bounded memory.
//!
//! In: batches in any order. Out: batches in order. So many bytes as fit are sorted at once (a *run*) and put into a
//! file; then the runs are merged. A file has no name and goes with the process.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use event::Table;
use event::schema::{KAFKA_OFFSET, KAFKA_PARTITION};

use super::failed;
use crate::error::{Error, ErrorKind, Result};

/// Rows of a batch that leaves a run; what the merge holds is this times the runs.
const MERGE_ROWS: usize = 1024;

/// What rows are sorted by: event time, id, partition, offset. The id of an event says its time, so that an event's
/// copies are neighbours. Where the table has no id, it is all zeros.
pub(super) type Key = (i64, [u8; 32], i32, i64);

/// Sorts what it is given.
pub(super) struct Sorter<'a> {
    table: Table,
    scratch: &'a Path,
    run_bytes_max: usize,
    held: Vec<RecordBatch>,
    bytes: usize,
    runs: Vec<File>,
}

impl<'a> Sorter<'a> {
    /// Runs of nearly `run_bytes_max` bytes; files go to the directory `scratch`.
    pub(super) const fn new(table: Table, scratch: &'a Path, run_bytes_max: usize) -> Self {
        Self { table, scratch, run_bytes_max, held: Vec::new(), bytes: 0, runs: Vec::new() }
    }

    /// Takes rows.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.bytes >= self.run_bytes_max {
            let run = self.sort_held()?;
            self.runs.push(self.spill(&run)?);
        }
        self.bytes += batch.get_array_memory_size();
        self.held.push(batch);
        Ok(())
    }

    fn sort_held(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        let rows = concat_batches(&self.table.schema(), &std::mem::take(&mut self.held)).map_err(failed)?;
        let mut order: Vec<(Key, u32)> = keys(self.table, &rows)?.into_iter().zip(0..).collect();
        order.sort_unstable();
        let order: UInt32Array = order.into_iter().map(|(_, row)| row).collect();
        take_record_batch(&rows, &order).map_err(failed)
    }

    fn spill(&self, run: &RecordBatch) -> Result<File> {
        let full = |error: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("could not sort rows in a file in `{}`", self.scratch.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        let file = tempfile::tempfile_in(self.scratch).map_err(|error| full(error.into()))?;
        let mut writer = StreamWriter::try_new_buffered(file, &run.schema()).map_err(|error| full(error.into()))?;
        for batch in slices(run) {
            writer.write(&batch).map_err(|error| full(error.into()))?;
        }
        writer.finish().map_err(|error| full(error.into()))?;
        let mut file = writer
            .into_inner()
            .map_err(|error| full(error.into()))?
            .into_inner()
            .map_err(|error| full(error.into_error().into()))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| full(error.into()))?;
        Ok(file)
    }

    /// Hands all rows on in order, with their keys.
    pub(super) fn finish(mut self, emit: &mut dyn FnMut(RecordBatch, &[Key]) -> Result<()>) -> Result<()> {
        let mut runs = Vec::with_capacity(self.runs.len() + 1);
        if !self.held.is_empty() {
            let rest = self.sort_held()?;
            runs.push(Run::open(self.table, Box::new(slices(&rest).collect::<Vec<_>>().into_iter().map(Ok)))?);
        }
        for file in self.runs {
            let batches = StreamReader::try_new(BufReader::new(file), None).map_err(failed)?;
            runs.push(Run::open(self.table, Box::new(batches.map(|batch| batch.map_err(failed))))?);
        }
        merge(runs.into_iter().flatten().collect(), emit)
    }
}

fn slices(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let starts = (0..rows.num_rows()).step_by(MERGE_ROWS);
    starts.map(|start| rows.slice(start, MERGE_ROWS.min(rows.num_rows() - start)))
}

/// The keys of a batch of `table`.
fn keys(table: Table, rows: &RecordBatch) -> Result<Vec<Key>> {
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| failed(std::fmt::Error));
    let time = column(table.event_time())?.as_primitive::<TimestampMicrosecondType>();
    let ids = table.id().map(|name| Ok(column(name)?.as_fixed_size_binary())).transpose()?;
    let partition = column(KAFKA_PARTITION)?.as_primitive::<Int32Type>();
    let offset = column(KAFKA_OFFSET)?.as_primitive::<Int64Type>();
    let key = |row: usize| {
        let id: [u8; 32] = ids.map_or(Ok([0; 32]), |ids| ids.value(row).try_into()).map_err(failed)?;
        Ok((time.value(row), id, partition.value(row), offset.value(row)))
    };
    (0..rows.num_rows()).map(key).collect()
}

/// A sorted sequence of batches, and how far it has been merged.
struct Run {
    table: Table,
    rest: Box<dyn Iterator<Item = Result<RecordBatch>>>,
    batch: RecordBatch,
    keys: Vec<Key>,
    at: usize,
}

impl Run {
    fn open(table: Table, mut rest: Box<dyn Iterator<Item = Result<RecordBatch>>>) -> Result<Option<Self>> {
        let Some(batch) = rest.next().transpose()? else { return Ok(None) };
        let keys = keys(table, &batch)?;
        Ok(Some(Self { table, rest, batch, keys, at: 0 }))
    }

    /// Goes on to the next batch; `false` at the end.
    fn turn(&mut self) -> Result<bool> {
        let Some(batch) = self.rest.next().transpose()? else { return Ok(false) };
        (self.keys, self.batch, self.at) = (keys(self.table, &batch)?, batch, 0);
        Ok(true)
    }
}

fn merge(mut runs: Vec<Run>, emit: &mut dyn FnMut(RecordBatch, &[Key]) -> Result<()>) -> Result<()> {
    let mut heap: BinaryHeap<Reverse<(Key, usize)>> =
        runs.iter().enumerate().map(|(number, run)| Reverse((run.keys[0], number))).collect();
    let (mut picked, mut merged) = (Vec::new(), Vec::new());
    while let Some(Reverse((key, number))) = heap.pop() {
        picked.push((number, runs[number].at));
        merged.push(key);
        runs[number].at += 1;
        let exhausted = runs[number].at == runs[number].keys.len();
        // Rows that were picked point into the batches of now; they leave before one of these goes.
        if exhausted || picked.len() == MERGE_ROWS {
            let batches: Vec<&RecordBatch> = runs.iter().map(|run| &run.batch).collect();
            emit(interleave_record_batch(&batches, &picked).map_err(failed)?, &merged)?;
            picked.clear();
            merged.clear();
        }
        let run = &mut runs[number];
        if !exhausted || run.turn()? {
            heap.push(Reverse((run.keys[run.at], number)));
        }
    }
    if picked.is_empty() {
        return Ok(());
    }
    let batches: Vec<&RecordBatch> = runs.iter().map(|run| &run.batch).collect();
    emit(interleave_record_batch(&batches, &picked).map_err(failed)?, &merged)
}
