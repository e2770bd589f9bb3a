//! A log whose records are made up while they are read, as far as a lander needs one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use topic::{Error, ErrorKind, Log, OffsetRange, Offsets, Reader, Result, StoredRecord, TopicInfo, TopicSpec, Writer};

use super::market;
use super::nostr::Nostr;
use super::share;

/// Records in the order of their offsets, partition by partition or in turns.
pub(super) type Records = Box<dyn Iterator<Item = StoredRecord> + Send>;

/// What a topic holds, or one partition of it.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A partition of events.
    Events { nostr: Arc<Nostr>, partition: i32 },
    /// A partition of sightings.
    Sightings { nostr: Arc<Nostr>, partition: i32, sightings: i64 },
    /// All of the market.
    Market { seed: u64, events: u64 },
}

impl Content {
    fn ranges(&self) -> Vec<OffsetRange> {
        let range = |partition, end| OffsetRange { partition, start: 0, end };
        match self {
            Self::Events { nostr, partition } => vec![range(*partition, nostr.events(*partition))],
            Self::Sightings { partition, sightings, .. } => vec![range(*partition, *sightings)],
            Self::Market { events, .. } => (0..market::PARTITIONS)
                .map(|number| range(number, share(*events, number, market::PARTITIONS)))
                .collect(),
        }
    }

    fn records(&self) -> Records {
        match self.clone() {
            Self::Events { nostr, partition } => {
                let offsets = 0..nostr.events(partition);
                Box::new(offsets.map(move |offset| nostr.event(partition, offset)))
            }
            Self::Sightings { nostr, partition, sightings } => {
                Box::new((0..sightings).map(move |offset| nostr.sighting(partition, offset, sightings)))
            }
            Self::Market { seed, events } => Box::new(market::records(seed, events)),
        }
    }
}

/// A log with one topic, whatever it is called.
#[derive(Debug)]
pub(super) struct MadeLog(pub(super) Content);

/// What nobody asks of it.
fn not_held<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Internal, format!("a log that is made up while it is read has no {what}")))
}

#[async_trait]
impl Log for MadeLog {
    async fn create_topic(&self, _spec: &TopicSpec) -> Result<bool> {
        not_held("new topics")
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        not_held("names")
    }

    async fn ranges(&self, _topic: &str) -> Result<Vec<OffsetRange>> {
        Ok(self.0.ranges())
    }

    async fn offsets_at(&self, _topic: &str, _timestamp_ms: i64) -> Result<Offsets> {
        not_held("index by time")
    }

    async fn reader(&self, _topic: &str, from: Offsets) -> Result<Box<dyn Reader>> {
        let ranges = self.0.ranges();
        let left = |(partition, offset): &(i32, i64)| {
            let end = ranges.iter().find(|range| range.partition == *partition).map_or(0, |range| range.end);
            end - offset
        };
        let left = from.iter().map(left).sum();
        Ok(Box::new(MadeReader { records: self.0.records(), positions: from, left }))
    }

    async fn writer(&self, _transactional_id: Option<&str>) -> Result<Box<dyn Writer>> {
        not_held("writer")
    }

    async fn committed(&self, _group: &str, _topic: &str) -> Result<Offsets> {
        not_held("groups")
    }

    async fn last_by_key(&self, _topic: &str, _key: &[u8]) -> Result<Option<StoredRecord>> {
        not_held("index by key")
    }
}

/// Makes records of some partitions from their start on, and leaves out what lies before its positions.
struct MadeReader {
    records: Records,
    positions: Offsets,
    /// Records that are still to come.
    left: i64,
}

impl fmt::Debug for MadeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeReader").field("positions", &self.positions).finish_non_exhaustive()
    }
}

#[async_trait]
impl Reader for MadeReader {
    async fn read(&mut self, max_records: usize, _max_wait: Duration) -> Result<Vec<StoredRecord>> {
        let mut read = Vec::with_capacity(max_records);
        while self.left > 0 && read.len() < max_records {
            let Some(record) = self.records.next() else {
                let message = format!("{} records fewer can be made than the log has", self.left);
                return Err(Error::new(ErrorKind::Data, message));
            };
            let position = self.positions.iter_mut().find(|(partition, _)| *partition == record.partition);
            if let Some((_, next)) = position.filter(|(_, next)| *next <= record.offset) {
                *next = record.offset + 1;
                self.left -= 1;
                read.push(record);
            }
        }
        // The other landers of this thread have their turn.
        tokio::task::yield_now().await;
        Ok(read)
    }

    fn positions(&self) -> Offsets {
        let mut positions = self.positions.clone();
        positions.sort_unstable();
        positions
    }
}
