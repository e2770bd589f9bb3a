//! Output rows as records of a topic: a stable key, a JSON object, and what a reader may filter by in headers.
//!
//! The key is (job, window, group): writing a window again overwrites it in a compacted topic or a table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use event::Clock;
use event::layout::late_topic;
use topic::{Header, Log, Record, TopicSpec, Writer};

use crate::error::Result;
use crate::job::Job;
use crate::plan::locality::Origin;
use crate::row::json_rows;

/// Rows as records; `now_ms` is the record time (the window's end would let retention delete results of history).
pub(crate) fn output_records(job: &Job, rows: &RecordBatch, now_ms: i64) -> Result<Vec<Record>> {
    let values = json_rows(rows)?;
    let mut keys = json_rows(&rows.project(&job.key_columns())?)?;
    let column = |origin| -> Result<Option<Vec<String>>> {
        let Some(at) = job.column_of(origin) else { return Ok(None) };
        Ok(Some(json_rows(&rows.project(&[at])?)?))
    };
    let (starts, ends) = (column(Origin::Start)?, column(Origin::End)?);
    let mut records = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let mut headers = vec![header("content-type", "application/json"), header("job", job.name())];
        for (name, column) in [("window-start", &starts), ("window-end", &ends)] {
            if let Some(time) = column.as_ref().and_then(|column| only_value(&column[at])) {
                headers.push(header(name, time));
            }
        }
        let key = std::mem::take(&mut keys[at]);
        let rest = key.strip_prefix('{').filter(|rest| *rest != "}").map_or("}".to_owned(), |rest| format!(",{rest}"));
        let key = format!("{{\"job\":{}{rest}", serde_json::Value::from(job.name()));
        records.push(Record {
            key: Some(Bytes::from(key)),
            value: Some(Bytes::from(value)),
            headers,
            timestamp_ms: Some(now_ms),
            partition: None,
        });
    }
    Ok(records)
}

/// The text in `{"column":"text"}`.
fn only_value(object: &str) -> Option<&str> {
    object.strip_suffix("\"}")?.rsplit_once(":\"").map(|(_, value)| value)
}

pub(crate) fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// Creates a job's output topic and its late topic unless they exist.
pub(crate) async fn create_topics(log: &dyn Log, output: &str) -> Result<()> {
    for name in [output.to_owned(), late_topic(output)] {
        log.create_topic(&TopicSpec { name, partitions: 1, config: Vec::new() }).await?;
    }
    Ok(())
}

/// Writes the rows of a batch to a topic; all become visible together.
pub struct TopicSink<'a> {
    job: &'a Job,
    topic: String,
    clock: Clock,
    writer: Box<dyn Writer>,
    rows: u64,
}

impl<'a> TopicSink<'a> {
    /// Opens the sink and begins its transaction; creates the topic unless it exists.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be reached.
    pub async fn open(log: Arc<dyn Log>, job: &'a Job, topic: &str, clock: Clock) -> Result<Self> {
        create_topics(log.as_ref(), topic).await?;
        let mut writer = log.writer(Some(&format!("tidegate.batch.{}.{topic}", job.name()))).await?;
        writer.begin().await?;
        Ok(Self { job, topic: topic.to_owned(), clock, writer, rows: 0 })
    }

    /// Adds rows to the transaction.
    ///
    /// # Errors
    /// `Fenced` when another batch of the job writes to the topic.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let records = output_records(self.job, rows, self.clock.now_ms())?;
        self.rows += records.len() as u64;
        Ok(self.writer.send(&self.topic, records).await?)
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
        f.debug_struct("TopicSink").field("topic", &self.topic).field("rows", &self.rows).finish_non_exhaustive()
    }
}
