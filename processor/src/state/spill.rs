//! State in files, while memory is short. They hold nothing that lasts: what has to survive is in the checkpoint.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use tempfile::TempDir;

use crate::error::{Error, ErrorKind, Result};

/// A directory of its own for one run, removed with it.
#[derive(Debug)]
pub(crate) struct SpillDir {
    dir: Arc<TempDir>,
    next: AtomicU64,
}

impl SpillDir {
    /// Below the system's directory for temporary files.
    pub(crate) fn new() -> Result<Self> {
        let dir = TempDir::with_prefix("tidegate-panes-").map_err(|error| full(&error))?;
        Ok(Self { dir: Arc::new(dir), next: AtomicU64::new(0) })
    }

    /// Writes state to a file of its own.
    pub(super) fn write(&self, state: &RecordBatch) -> Result<Spilled> {
        let path = self.dir.path().join(format!("{}.arrow", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&path).map_err(|error| full(&error))?;
        let mut writer = FileWriter::try_new(file, &state.schema())?;
        writer.write(state)?;
        writer.finish()?;
        Ok(Spilled { path, rows: state.num_rows(), _dir: Arc::clone(&self.dir) })
    }
}

fn full(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("could not put panes into a file: {error}"))
        .with_hint("give the job more --memory, or point TMPDIR to a directory with room")
}

/// State in a file, which goes when this does.
#[derive(Debug)]
pub(super) struct Spilled {
    path: PathBuf,
    rows: usize,
    _dir: Arc<TempDir>,
}

impl Spilled {
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn read(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let file = File::open(&self.path).map_err(|error| full(&error))?;
        let batches = FileReader::try_new(file, None)?.collect::<std::result::Result<Vec<_>, _>>()?;
        let state = concat_batches(&batches.first().map_or_else(|| Arc::clone(schema), RecordBatch::schema), &batches)?;
        Ok(RecordBatch::try_new(Arc::clone(schema), state.columns().to_vec())?)
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        // The directory goes with the run in any case.
        let _gone = std::fs::remove_file(&self.path);
    }
}
