//! A log whose readers stop before they read, so that a lander can sleep while it knows where the lake ends and holds
//! nothing yet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use topic::{Log, OffsetRange, Offsets, Reader, Result, StoredRecord, TopicInfo, TopicSpec, Writer};

use super::store::Gate;

#[derive(Debug)]
pub(super) struct GatedLog {
    pub(super) inner: Arc<dyn Log>,
    pub(super) gate: Arc<Gate>,
}

#[async_trait]
impl Log for GatedLog {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.inner.create_topic(spec).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.inner.topics().await
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        self.inner.ranges(topic).await
    }

    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        self.inner.offsets_at(topic, timestamp_ms).await
    }

    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        let (inner, gate) = (self.inner.reader(topic, from).await?, Arc::clone(&self.gate));
        Ok(Box::new(GatedReader { inner, gate }))
    }

    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        self.inner.writer(transactional_id).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        self.inner.committed(group, topic).await
    }

    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        self.inner.last_by_key(topic, key).await
    }
}

struct GatedReader {
    inner: Box<dyn Reader>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Reader for GatedReader {
    async fn read(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<StoredRecord>> {
        self.gate.pass().await;
        // Nobody waits for records here; there is no clock to wait by.
        self.inner.read(max_records.min(20), max_wait.min(Duration::from_millis(1))).await
    }

    fn positions(&self) -> Offsets {
        self.inner.positions()
    }
}
