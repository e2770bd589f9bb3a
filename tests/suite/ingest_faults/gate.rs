//! A log before which there is a gate: while it is shut, no writer gets on, as with a broker that answers nobody.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use topic::{
    Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Record, Result, StoredRecord, TopicInfo, TopicSpec, Writer,
};

/// Opens and shuts.
#[derive(Debug)]
pub(super) struct Gate(watch::Sender<Door>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Shut,
    /// Writers are told that it is shut.
    Refusing,
}

impl Gate {
    pub(super) fn shut(&self) {
        self.0.send_replace(Door::Shut);
    }

    pub(super) fn open(&self) {
        self.0.send_replace(Door::Open);
    }

    pub(super) fn refuse(&self) {
        self.0.send_replace(Door::Refusing);
    }
}

/// The log behind the gate.
#[derive(Debug)]
pub(super) struct Gated {
    log: Arc<dyn Log>,
    open: watch::Receiver<Door>,
}

impl Gated {
    /// The log, and its gate, which is open.
    pub(super) fn before(log: Arc<dyn Log>) -> (Self, Gate) {
        let (gate, open) = watch::channel(Door::Open);
        (Self { log, open }, Gate(gate))
    }
}

#[async_trait]
impl Log for Gated {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.log.create_topic(spec).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.log.topics().await
    }

    async fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        self.log.ranges(topic).await
    }

    async fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        self.log.offsets_at(topic, timestamp_ms).await
    }

    async fn reader(&self, topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        self.log.reader(topic, from).await
    }

    async fn writer(&self, transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        let writer = self.log.writer(transactional_id).await?;
        Ok(Box::new(GatedWriter { writer, open: self.open.clone() }))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        self.log.committed(group, topic).await
    }

    async fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        self.log.last_by_key(topic, key).await
    }
}

struct GatedWriter {
    writer: Box<dyn Writer>,
    open: watch::Receiver<Door>,
}

#[async_trait]
impl Writer for GatedWriter {
    async fn begin(&mut self) -> Result<()> {
        // A test that is over opens it by dropping it.
        while *self.open.borrow_and_update() == Door::Shut && self.open.changed().await.is_ok() {}
        if *self.open.borrow() == Door::Refusing {
            return Err(Error::new(ErrorKind::Unavailable, "the gate is shut"));
        }
        self.writer.begin().await
    }

    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        self.writer.send(topic, records).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await
    }

    async fn send_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        self.writer.send_offsets(group, topic, offsets).await
    }

    async fn commit(&mut self) -> Result<()> {
        self.writer.commit().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.writer.abort().await
    }
}

#[test]
fn a_shut_gate_stops_writers() {
    super::fault(async {
        let lab = super::lab::Lab::new();
        lab.gate.shut();
        let relay = tests::scripted_relay::ScriptedRelay::honest(&tests::signed::events(119, 5)).await;
        let run = lab.follow(&[relay.url()]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(run.counters().published, 0);
        lab.gate.open();
        run.until_published(5).await;
        run.stop().await;
    });
}
