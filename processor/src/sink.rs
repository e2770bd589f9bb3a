//! Output rows as records of a topic: a stable key, a JSON object, and what a reader may filter by in headers.
//!
//! The key is (job, window, group): writing a window again overwrites it in a compacted topic or a table.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use event::Clock;
use event::layout::late_topic;
use topic::{Header, Log, Record, TopicSpec, Writer};

use crate::error::Result;
use crate::job::Job;
use crate::row::json_rows;

/// Rows of an output as records; `now_ms` is the record time (the window's end would let retention delete results of
/// history). A query that goes row by row has no group: its records have no key.
pub(crate) fn output_records(job: &Job, output: usize, rows: &RecordBatch, now_ms: i64) -> Result<Vec<Record>> {
    let values = json_rows(rows)?;
    let keyed = job.key_columns(output);
    let mut keys =
        if keyed.is_empty() { vec![String::new(); rows.num_rows()] } else { json_rows(&rows.project(&keyed)?)? };
    let column = |at: Option<usize>| -> Result<Option<Vec<String>>> {
        let Some(at) = at else { return Ok(None) };
        Ok(Some(json_rows(&rows.project(&[at])?)?))
    };
    let (starts, ends) = (column(job.start_column(output))?, column(job.end_column(output))?);
    let mut records = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let mut headers = vec![header("content-type", "application/json"), header("job", job.name())];
        for (name, column) in [("window-start", &starts), ("window-end", &ends)] {
            if let Some(time) = column.as_ref().and_then(|column| only_value(&column[at])) {
                headers.push(header(name, time));
            }
        }
        let key = std::mem::take(&mut keys[at]);
        let key = key
            .strip_prefix('{')
            .map(|rest| Bytes::from(format!("{{\"job\":{},{rest}", serde_json::Value::from(job.name()))));
        records.push(Record {
            key,
            value: Some(Bytes::from(value)),
            headers,
            timestamp_ms: Some(now_ms),
            partition: None,
        });
    }
    Ok(records)
}

/// The rows with a last column `final`.
pub(crate) fn with_final(rows: &RecordBatch, is_final: bool) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(final_field()));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(BooleanArray::from(vec![is_final; rows.num_rows()])));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The column that says whether a row is of a closed window, in the output modes that emit open ones too.
#[must_use]
pub fn final_field() -> Field {
    Field::new("final", DataType::Boolean, false)
}

/// Rows of open windows as they were last emitted, so that only what has changed is emitted again.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// Hash of the row by output and key.
    emitted: HashMap<(usize, String), u64>,
}

impl Updates {
    /// Those of the rows that were not emitted just so before.
    pub(crate) fn changed(&mut self, job: &Job, output: usize, rows: RecordBatch) -> Result<RecordBatch> {
        let (keys, values) = (json_rows(&rows.project(&job.key_columns(output))?)?, json_rows(&rows)?);
        let mut keep = Vec::with_capacity(rows.num_rows());
        for (key, value) in keys.into_iter().zip(values) {
            let mut hash = std::hash::DefaultHasher::new();
            value.hash(&mut hash);
            let hash = hash.finish();
            keep.push(self.emitted.insert((output, key), hash) != Some(hash));
        }
        Ok(filter_record_batch(&rows, &BooleanArray::from(keep))?)
    }

    /// Forgets rows that have become final.
    pub(crate) fn forget(&mut self, job: &Job, output: usize, rows: &RecordBatch) -> Result<()> {
        for key in json_rows(&rows.project(&job.key_columns(output))?)? {
            self.emitted.remove(&(output, key));
        }
        Ok(())
    }
}

/// The text in `{"column":"text"}`.
fn only_value(object: &str) -> Option<&str> {
    object.strip_suffix("\"}")?.rsplit_once(":\"").map(|(_, value)| value)
}

pub(crate) fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// Says of outputs that go to a topic whether their rows lack what tells windows apart.
pub(crate) fn warn_of_keys(job: &Job, topics: &[Option<String>]) {
    for (output, topic) in topics.iter().enumerate().filter_map(|(output, topic)| Some((output, topic.as_ref()?))) {
        if !job.tells_windows_apart(output) {
            tracing::warn!(
                topic,
                "no column of the output is the window's start or end: rows of several windows have one key; select \
                 window.end beside them"
            );
        }
    }
}

/// Creates a job's output topic and its late topic unless they exist.
pub(crate) async fn create_topics(log: &dyn Log, output: &str) -> Result<()> {
    for name in [output.to_owned(), late_topic(output)] {
        log.create_topic(&TopicSpec { name, partitions: 1, config: Vec::new() }).await?;
    }
    Ok(())
}

/// Writes the outputs of a batch to their topics; all become visible together.
pub struct TopicSink<'a> {
    job: &'a Job,
    /// The topic of each output.
    topics: Vec<Option<String>>,
    clock: Clock,
    writer: Box<dyn Writer>,
    rows: u64,
}

impl<'a> TopicSink<'a> {
    /// Opens the sink and begins its transaction; creates the topics unless they exist. `topic` is that of the query
    /// that is not inserted into anything.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached.
    pub async fn open(log: Arc<dyn Log>, job: &'a Job, topic: Option<&str>, clock: Clock) -> Result<Self> {
        let topics: Vec<Option<String>> =
            job.outputs().iter().map(|output| output.name.clone().or_else(|| topic.map(str::to_owned))).collect();
        warn_of_keys(job, &topics);
        for topic in topics.iter().flatten() {
            create_topics(log.as_ref(), topic).await?;
        }
        let named: Vec<&str> = topics.iter().flatten().map(String::as_str).collect();
        let mut writer = log.writer(Some(&format!("tidegate.batch.{}.{}", job.name(), named.join("+")))).await?;
        writer.begin().await?;
        Ok(Self { job, topics, clock, writer, rows: 0 })
    }

    /// Whether the output of this number goes to a topic.
    #[must_use]
    pub fn takes(&self, output: usize) -> bool {
        self.topics.get(output).is_some_and(Option::is_some)
    }

    /// Adds rows of an output to the transaction.
    ///
    /// # Errors
    /// `Fenced` when another batch of the job writes to the topic.
    pub async fn write(&mut self, output: usize, rows: &RecordBatch) -> Result<()> {
        let Some(Some(topic)) = self.topics.get(output) else { return Ok(()) };
        let records = output_records(self.job, output, rows, self.clock.now_ms())?;
        self.rows += records.len() as u64;
        Ok(self.writer.send(topic, records).await?)
    }

    /// Commits; returns the number of rows written.
    ///
    /// # Errors
    /// `Fenced`, `Unavailable`: nothing of the batch is then visible, or the outcome is not known.
    pub async fn finish(mut self) -> Result<u64> {
        self.writer.commit().await?;
        Ok(self.rows)
    }
}

impl std::fmt::Debug for TopicSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicSink").field("topics", &self.topics).field("rows", &self.rows).finish_non_exhaustive()
    }
}
