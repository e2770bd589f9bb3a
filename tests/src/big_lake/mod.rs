//! A lake of any size, made up by seed: events, sightings and the market's events as a lander lands them.
//!
//! The lander itself writes the objects, over a log that makes its records up while they are read (`log`), one lander a
//! partition, so that names, footers and sizes are the house's own. Nothing is signed or verified: who reads a lake relies
//! on ingest for that. An event is a function of seed, partition and offset (`nostr`); the market's frames are those of
//! [`crate::traffic`] without their copies (`market`).

mod log;
mod market;
mod nostr;

use std::sync::Arc;
use std::time::Duration;

use event::Clock;
use event::layout::{NOSTR_EVENT_TOPIC, OPENSEA_RAW_TOPIC, sighting_topic};
use ingest::lake::{LanderSettings, land};
use ingest::{Components, Counters, CountersSnapshot};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use log::{Content, MadeLog};
use nostr::Nostr;

/// Partitions of the topics of events and of sightings.
pub const PARTITIONS: i32 = 8;

/// How much of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BigLake {
    /// Decides everything; the same seed and amounts give the same objects.
    pub seed: u64,
    /// Events, over two days.
    pub events: u64,
    /// Events of the market, over nearly five days.
    pub market: u64,
    /// Deliveries of events, four of an event; at most four times as many as events.
    pub sightings: u64,
}

/// The part of `total` that partition `number` of `partitions` holds.
fn share(total: u64, number: i32, partitions: i32) -> i64 {
    let (number, partitions) = (i64::from(number), i64::from(partitions));
    let total = i64::try_from(total).expect("a number of rows that a disk holds");
    total / partitions + i64::from(number < total % partitions)
}

impl BigLake {
    /// Lands it below `prefix`, and says what was landed.
    ///
    /// # Errors
    /// When there are too many sightings for the events, or the store does not take an object.
    pub async fn land(&self, store: Arc<dyn ObjectStore>, prefix: Path) -> anyhow::Result<CountersSnapshot> {
        anyhow::ensure!(
            self.sightings <= self.events.saturating_mul(4),
            "{} sightings are more than four of each of {} events",
            self.sightings,
            self.events
        );
        let counters = Arc::new(Counters::default());
        let mut landers = JoinSet::new();
        for (topic, content) in self.contents() {
            let settings = LanderSettings {
                topic,
                // By rows, bytes and hours alone: the same objects however fast they are made.
                age_max: Duration::MAX,
                ..LanderSettings::default()
            };
            let components =
                Components { log: Arc::new(MadeLog(content)), clock: Clock::system(), counters: Arc::clone(&counters) };
            // Fired already: each lander ends where its topic does.
            let drain = CancellationToken::new();
            drain.cancel();
            landers.spawn(land(settings, components, Arc::clone(&store), prefix.clone(), drain));
        }
        while let Some(landed) = landers.join_next().await {
            landed??;
        }
        Ok(counters.snapshot())
    }

    /// What each lander lands; the market first, which one lander lands alone.
    fn contents(&self) -> Vec<(String, Content)> {
        let mut contents = Vec::new();
        if self.market > 0 {
            contents.push((OPENSEA_RAW_TOPIC.to_owned(), Content::Market { seed: self.seed, events: self.market }));
        }
        let nostr = Arc::new(Nostr::new(self.seed, self.events));
        for partition in 0..PARTITIONS {
            let events = Content::Events { nostr: Arc::clone(&nostr), partition };
            contents.push((NOSTR_EVENT_TOPIC.to_owned(), events));
        }
        for partition in 0..PARTITIONS {
            let sightings = share(self.sightings, partition, PARTITIONS);
            let content = Content::Sightings { nostr: Arc::clone(&nostr), partition, sightings };
            contents.push((sighting_topic(NOSTR_EVENT_TOPIC), content));
        }
        contents
    }
}
