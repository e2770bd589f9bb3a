//! A stream job's ledger: a snapshot of its panes in the object store, then one control record that says it counts.
//!
//! The snapshot is written first; the control record goes into the transaction that also holds the results and the
//! offsets. A crash between the two leaves an object that nothing refers to.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use event::layout::JOBS_TOPIC;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use topic::{Log, Record, TopicSpec};

use crate::error::{Error, ErrorKind, Result};

/// What a job's control record says: the state after everything below `offsets` has been taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    /// Form of this record.
    pub(super) version: u32,
    /// What the plan must share with the one that wrote the state.
    pub(super) fingerprint: String,
    /// Commits so far.
    pub(super) epoch: u64,
    /// Watermark, microseconds since 1970; every window with an end at or before it has been emitted.
    pub(super) watermark: Option<i64>,
    /// Partition, next offset, and greatest bounded event time seen.
    pub(super) partitions: Vec<(i32, i64, Option<i64>)>,
    /// Object that holds the panes; none when no pane was open.
    pub(super) snapshot: Option<String>,
    /// SHA-256 of that object, lower-case hex.
    pub(super) sha256: Option<String>,
    /// All windows have been closed; there is nothing to go on with.
    pub(super) finished: bool,
    /// (Row, window) pairs that came too late, so far.
    pub(super) late: u64,
}

/// Where a job keeps its snapshots.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
}

impl Snapshots {
    /// Writes the panes; the name and hash of the object, or none when there is no row.
    pub(super) async fn write(&self, epoch: u64, state: &RecordBatch) -> Result<Option<(String, String)>> {
        if state.num_rows() == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut writer = FileWriter::try_new(&mut bytes, &state.schema())?;
        writer.write(state)?;
        writer.finish()?;
        drop(writer);
        let hash = hex::encode(Sha256::digest(&bytes));
        // The hash keeps two copies of a job apart until one of them is fenced.
        let path = self.prefix.clone().join(format!("{epoch:012}-{}.arrow", &hash[..16]));
        self.store.put(&path, PutPayload::from(bytes)).await?;
        Ok(Some((path.to_string(), hash)))
    }

    /// Reads the panes that `control` refers to.
    pub(super) async fn read(&self, control: &Control) -> Result<Vec<RecordBatch>> {
        let Some(name) = &control.snapshot else { return Ok(Vec::new()) };
        let gone = |what: &str| {
            Error::new(ErrorKind::Data, format!("checkpoint object `{name}` {what}"))
                .with_hint("point --checkpoint-dir to where the job's checkpoint lies, or begin anew with --restart")
        };
        let bytes = match self.store.get(&Path::from(name.as_str())).await {
            Ok(object) => object.bytes().await?,
            Err(error) => return Err(gone("cannot be read").with_source(error)),
        };
        if control.sha256.as_deref() != Some(hex::encode(Sha256::digest(&bytes)).as_str()) {
            return Err(gone("is not what was written"));
        }
        Ok(FileReader::try_new(Cursor::new(bytes), None)?.collect::<std::result::Result<_, _>>()?)
    }

    /// Removes an object that no control record refers to any more; one that stays behind does no harm.
    pub(super) async fn forget(&self, name: &str) {
        if let Err(error) = self.store.delete(&Path::from(name)).await {
            tracing::warn!(object = name, %error, "could not delete an old checkpoint object");
        }
    }
}

/// Creates the topic of control records unless it exists.
pub(super) async fn create_jobs_topic(log: &dyn Log) -> Result<()> {
    let config = vec![("cleanup.policy".to_owned(), "compact".to_owned())];
    log.create_topic(&TopicSpec { name: JOBS_TOPIC.to_owned(), partitions: 1, config }).await?;
    Ok(())
}

/// The last control record of a job.
pub(super) async fn read_control(log: &dyn Log, id: &str) -> Result<Option<Control>> {
    let Some(record) = log.last_by_key(JOBS_TOPIC, id.as_bytes()).await? else { return Ok(None) };
    let value = record.value.unwrap_or_default();
    let control: Control = serde_json::from_slice(&value).map_err(|error| {
        Error::new(ErrorKind::Data, format!("control record of job `{id}` cannot be read")).with_source(error)
    })?;
    Ok(Some(control))
}

/// A control record, ready to be sent.
pub(super) fn control_record(id: &str, control: &Control, now_ms: i64) -> Result<Record> {
    let value = serde_json::to_vec(control).map_err(|error| Error::internal("no control record").with_source(error))?;
    Ok(Record {
        key: Some(Bytes::copy_from_slice(id.as_bytes())),
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
        timestamp_ms: Some(now_ms),
        partition: None,
    })
}
