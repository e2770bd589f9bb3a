//! Output rows on their way: as records to the outbox of the next transaction, and to the observer.

use arrow::array::RecordBatch;
use topic::Record;

use super::commit::Outbox;
use super::settings::{OutputMode, StreamSettings};
use super::stream::StreamObserver;
use crate::error::Result;
use crate::job::Job;
use crate::sink::{Updates, output_records, with_final};

/// Where the rows of one call to the engine go: to their topics, and to the observer.
pub(super) struct Out<'o> {
    job: &'o Job,
    mode: OutputMode,
    topics: &'o [Option<String>],
    now_ms: i64,
    observer: &'o mut dyn StreamObserver,
    /// What was emitted of open windows, where they are emitted.
    pub(super) updates: Option<&'o mut Updates>,
    outbox: Outbox,
    bytes: usize,
    rows_out: u64,
}

impl<'o> Out<'o> {
    pub(super) fn new(
        job: &'o Job,
        settings: &StreamSettings,
        topics: &'o [Option<String>],
        now_ms: i64,
        observer: &'o mut dyn StreamObserver,
    ) -> Self {
        let mode = settings.output_mode;
        Self { job, mode, topics, now_ms, observer, updates: None, outbox: Vec::new(), bytes: 0, rows_out: 0 }
    }

    pub(super) fn rows(&mut self, output: usize, rows: RecordBatch, is_final: bool) -> Result<()> {
        let mut rows = if self.mode == OutputMode::Append { rows } else { with_final(&rows, is_final)? };
        if let Some(updates) = self.updates.as_deref_mut().filter(|_| self.mode == OutputMode::Update) {
            match is_final {
                true => updates.forget(self.job, output, &rows)?,
                false => rows = updates.changed(self.job, output, rows)?,
            }
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.rows_out += rows.num_rows() as u64;
        if let Some(topic) = &self.topics[output] {
            let records = output_records(self.job, output, &rows, self.now_ms)?;
            self.bytes +=
                records.iter().map(|record| record.value.as_ref().map_or(0, |value| value.len()) + 256).sum::<usize>();
            push(&mut self.outbox, topic, records);
        }
        self.observer.rows(output, &rows)
    }

    pub(super) fn into_outbox(self, outbox: &mut Outbox, bytes: &mut usize, rows_out: &mut u64) {
        for (topic, records) in self.outbox {
            push(outbox, &topic, records);
        }
        *bytes += self.bytes;
        *rows_out += self.rows_out;
    }
}

/// Adds records to those that go to a topic.
pub(super) fn push(outbox: &mut Outbox, topic: &str, records: Vec<Record>) {
    match outbox.iter_mut().find(|(name, _)| name == topic) {
        Some((_, held)) => held.extend(records),
        None => outbox.push((topic.to_owned(), records)),
    }
}
