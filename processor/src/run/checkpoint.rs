//! What a stream job remembers: segments of state in the object store, and one control record that says they count.
//!
//! A segment is what came since the one before, as an Arrow IPC file; now and then one holds everything and takes the
//! place of all. Segments are written first; the control record goes into the transaction that also holds the results
//! and the offsets. A crash between the two leaves an object that nothing refers to.

use std::collections::HashSet;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use event::layout::JOBS_TOPIC;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use topic::{Log, Record, TopicSpec};

use crate::error::{Error, ErrorKind, Result};

/// Form of the control record and of the state in its segments. Whoever counts on here adds golden sets (the README in
/// `processor/src/run/golden`).
pub(super) const VERSION: u32 = 2;

/// What a job's control record says: the state after everything below the offsets has been taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    /// Form of this record.
    pub(super) version: u32,
    /// Who wrote it: a run of the job, and where it runs.
    pub(super) owner: Owner,
    /// What the plan must share with the one that wrote the state, by cut: a hash, and the text that was hashed.
    pub(super) cuts: Vec<(String, String)>,
    /// Commits so far.
    pub(super) epoch: u64,
    /// Watermark, microseconds since 1970.
    pub(super) watermark: Option<i64>,
    /// Every window with an end at or before this has been emitted.
    pub(super) closed_until: Option<i64>,
    /// Partition, next offset, and greatest bounded event time seen.
    pub(super) partitions: Vec<(i32, i64, Option<i64>)>,
    /// State, in any order.
    pub(super) segments: Vec<Segment>,
    /// How much of the lake has been taken in before the topic is read; none once it has all been.
    pub(super) lake: Option<LakePosition>,
    /// All windows have been closed; there is nothing to go on with.
    pub(super) finished: bool,
    /// (Row, window) pairs that came too late, so far.
    pub(super) late: u64,
}

/// A run of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Tells runs apart.
    pub(super) run: String,
    /// One more than that of the run before.
    pub(super) generation: u64,
    /// Host and process, for people.
    pub(super) place: String,
    /// When the run began, RFC 3339.
    pub(super) since: String,
}

/// An object that holds state of one cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// The cut's fingerprint.
    pub(super) cut: String,
    /// Path of the object.
    pub(super) object: String,
    /// SHA-256 of the object, lower-case hex.
    pub(super) sha256: String,
    /// Rows of state.
    pub(super) rows: u64,
}

/// Objects of the lake that have been taken in, of those that end at or before the offsets of the control record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LakePosition {
    /// Objects taken in, in the order of their least event time.
    pub(super) done: usize,
    /// SHA-256 of the names of all the objects, lower-case hex.
    pub(super) names: String,
    /// Version of the lake's manifest that has them; 0 where there was none.
    #[serde(default)]
    pub(super) manifest: u64,
}

/// Where a job keeps its state.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
}

impl Snapshots {
    /// Writes state of a cut to an object whose name begins with `name`; none when there is no row.
    pub(super) async fn write(&self, name: &str, cut: &str, state: &RecordBatch) -> Result<Option<Segment>> {
        if state.num_rows() == 0 {
            return Ok(None);
        }
        let bytes = encode(state)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        // The generation and the hash keep two copies of a job apart until one of them is fenced.
        let path = self.prefix.clone().join(format!("{name}-{}-{}.arrow", &cut[..8], &sha256[..16]));
        self.store.put(&path, PutPayload::from(bytes)).await?;
        let rows = state.num_rows() as u64;
        Ok(Some(Segment { cut: cut.to_owned(), object: path.to_string(), sha256, rows }))
    }

    /// Reads a segment.
    pub(super) async fn read(&self, segment: &Segment) -> Result<RecordBatch> {
        let gone = |what: &str| {
            Error::new(ErrorKind::Data, format!("checkpoint object `{}` {what}", segment.object))
                .with_hint("point --checkpoint-dir to where the job's checkpoint lies, or begin anew with --restart")
        };
        let bytes = match self.store.get(&Path::from(segment.object.as_str())).await {
            Ok(object) => object.bytes().await?,
            Err(error @ object_store::Error::NotFound { .. }) => return Err(gone("is not there").with_source(error)),
            Err(error) => return Err(error.into()),
        };
        if segment.sha256 != hex::encode(Sha256::digest(&bytes)) {
            return Err(gone("is not what was written"));
        }
        decode(bytes)
    }

    /// Removes the objects of generations before `generation` that are not in `kept`.
    pub(super) async fn collect(&self, kept: &HashSet<String>, generation: u64) {
        let of_generation = |object: &ObjectMeta| {
            object.location.filename()?.split('-').next()?.parse::<u64>().ok().filter(|of| *of < generation)
        };
        let mut objects = self.store.list(Some(&self.prefix));
        loop {
            match objects.try_next().await {
                Ok(Some(object)) => {
                    if of_generation(&object).is_some() && !kept.contains(object.location.as_ref()) {
                        self.forget(object.location.as_ref()).await;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "could not look for checkpoint objects that nothing refers to");
                    return;
                }
            }
        }
    }

    /// Removes an object that no control record refers to any more; one that stays behind does no harm.
    pub(super) async fn forget(&self, name: &str) {
        if let Err(error) = self.store.delete(&Path::from(name)).await {
            tracing::warn!(object = name, %error, "could not delete an old checkpoint object");
        }
    }
}

/// State as an Arrow IPC file.
pub(crate) fn encode(state: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &state.schema())?;
    writer.write(state)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// What [`encode`] wrote.
pub(crate) fn decode(bytes: Bytes) -> Result<RecordBatch> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.collect::<std::result::Result<_, _>>()?;
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}

/// Creates the topic of control records unless it exists.
pub(super) async fn create_jobs_topic(log: &dyn Log) -> Result<()> {
    let config = vec![("cleanup.policy".to_owned(), "compact".to_owned())];
    // An open transaction hides what was committed after it in its partition: jobs should rarely share one.
    log.create_topic(&TopicSpec { name: JOBS_TOPIC.to_owned(), partitions: 16, config }).await?;
    Ok(())
}

/// The last control record of a job.
pub(super) async fn read_control(log: &dyn Log, id: &str) -> Result<Option<Control>> {
    let Some(record) = log.last_by_key(JOBS_TOPIC, id.as_bytes()).await? else { return Ok(None) };
    let value = record.value.unwrap_or_default();
    let control: Control = serde_json::from_slice(&value).map_err(|error| {
        Error::new(ErrorKind::Checkpoint, format!("control record of job `{id}` cannot be read"))
            .with_hint("it was written by another version; begin anew with --restart")
            .with_source(error)
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
