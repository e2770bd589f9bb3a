//! The generator at work: stored history at the start, then each event when it is due.
//!
//! Signing happens on a thread of its own, ahead of time by a bounded number of events, so that neither connections
//! nor the schedule wait for it.

use std::time::Duration;

use event::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::entry::Entry;
use crate::error::Result;
use crate::generate::{Generate, GeneratedEvent, Generator};
use crate::server::Shared;

/// Events signed ahead of time.
const AHEAD_MAX: usize = 4_096;
/// How often the clock is looked at. Not a timer set to the next event, for the clock may be a test's.
const TICK: Duration = Duration::from_millis(5);
/// Behind schedule by this much, the machine is too slow for the rate.
const BEHIND_MS: i64 = 2_000;

/// The stored history of `settings` as of `now_ms`, oldest first; whether each is forged.
pub(crate) fn history(settings: &Generate, now_ms: i64) -> Result<Vec<(Entry, bool)>> {
    settings.check()?;
    if settings.history == 0 {
        return Ok(Vec::new());
    }
    let span_ms = i64::try_from(settings.history_span.as_millis()).unwrap_or(i64::MAX);
    let generator = Generator::try_new(settings.of_history())?;
    let first = generator.index_at(now_ms.saturating_sub(span_ms));
    let due = generator.starting_at(first).take_while(|generated| generated.at_ms < now_ms);
    Ok(due.map(|generated| (Entry::new(&generated.event, generated.json), generated.fault.forged())).collect())
}

/// Delivers the stream from `started_ms` on, each event when the clock says so; never ends by itself.
pub(crate) async fn run(generator: Generator, started_ms: i64, shared: &Shared) {
    let (sender, mut signed) = mpsc::channel(AHEAD_MAX);
    let first = generator.index_at(started_ms);
    info!(seed = generator.settings().seed, rate = generator.settings().rate, first, "generating events");
    let mut signing = JoinSet::new();
    signing.spawn_blocking(move || {
        // The receiver goes away when this relay ends, and that ends the thread.
        for generated in generator.starting_at(first) {
            if sender.blocking_send(generated).is_err() {
                break;
            }
        }
    });
    let mut warned = false;
    while let Some(generated) = signed.recv().await {
        let behind = wait_until(generated.at_ms, &shared.clock).await;
        if behind > BEHIND_MS && !warned {
            warn!(behind_ms = behind, "generator is behind its schedule: the rate is too high for this machine");
            warned = true;
        }
        deliver(generated, shared);
    }
}

async fn wait_until(at_ms: i64, clock: &Clock) -> i64 {
    loop {
        let behind = clock.now_ms() - at_ms;
        if behind >= 0 {
            return behind;
        }
        tokio::time::sleep(TICK).await;
    }
}

fn deliver(generated: GeneratedEvent, shared: &Shared) {
    let entry = Entry::new(&generated.event, generated.json);
    shared.hub.generated(entry, generated.fault.forged(), shared.now_secs());
}
