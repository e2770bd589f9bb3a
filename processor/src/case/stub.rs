//! Stands in for the engine until it is here: the same signatures, and nothing behind them.

#![allow(clippy::unused_async, reason = "the signatures are the engine's")]

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::job::{Job, JobOptions, JobSource};

/// A table a job may read.
#[derive(Clone, Debug)]
pub(super) struct TableSpec {
    /// Name.
    pub name: String,
    /// Columns.
    pub schema: SchemaRef,
    /// Column of event time.
    pub event_time: Option<String>,
}

pub(crate) struct Output {
    pub(crate) name: Option<String>,
    pub(crate) schema: SchemaRef,
}

fn absent() -> Error {
    Error::internal("there is no engine yet")
}

pub(super) trait Planned: Sized {
    async fn plan_over(source: &JobSource, options: &JobOptions, tables: Vec<TableSpec>) -> Result<Self>;
    fn outputs(&self) -> &[Output];
    fn tables(&self) -> &[TableSpec];
    fn can_stream(&self) -> Result<()>;
}

impl Planned for Job {
    async fn plan_over(source: &JobSource, options: &JobOptions, _tables: Vec<TableSpec>) -> Result<Self> {
        Self::plan(source, options).await
    }

    fn outputs(&self) -> &[Output] {
        &[]
    }

    fn tables(&self) -> &[TableSpec] {
        &[]
    }

    fn can_stream(&self) -> Result<()> {
        Err(absent())
    }
}

pub(crate) struct LateRow {
    pub(crate) row: usize,
    pub(crate) dropped_from_all: bool,
}

pub(crate) type Emit<'a> = dyn FnMut(usize, RecordBatch) -> Result<()> + Send + 'a;

pub(crate) struct Engine;

impl Engine {
    pub(crate) async fn new(_job: &Job, _delays: &[i64], _partitions: &[Vec<i32>]) -> Result<Self> {
        Err(absent())
    }

    pub(crate) async fn rows(
        &mut self,
        _table: usize,
        _partition: i32,
        _rows: &RecordBatch,
        _received: Option<&[i64]>,
        _emit: &mut Emit<'_>,
    ) -> Result<Vec<LateRow>> {
        Err(absent())
    }

    pub(crate) async fn end_epoch(&mut self, _idle: &dyn Fn(usize, i32) -> bool, _emit: &mut Emit<'_>) -> Result<()> {
        Err(absent())
    }

    pub(crate) async fn finish(&mut self, _emit: &mut Emit<'_>) -> Result<()> {
        Err(absent())
    }

    pub(crate) fn watermark(&self) -> Option<i64> {
        None
    }

    pub(crate) fn snapshot(&mut self) -> Result<Vec<u8>> {
        Err(absent())
    }

    pub(crate) async fn restore(&mut self, _bytes: &[u8]) -> Result<()> {
        Err(absent())
    }
}
