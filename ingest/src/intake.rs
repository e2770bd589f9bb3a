//! Where relays put what they read: into memory while there is room, then on disk, and where there is no place either, they
//! wait.
//!
//! ```text
//!            room ───────────────▶ queue ─▶ verifiers
//! arrival ─┤                        ▲
//!            none ─▶ spill ─────────┘  in order, as room comes free
//! ```
//!
//! What is stored at a relay is not asked for any more once half of the spill is used ([`Intake::is_strained`]); when it is
//! full, the relays that are of least use are closed (`relay::govern`). What was not asked for or not taken is not proven.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use event::{EventId, Rejection};
use tokio::sync::{Mutex as Turn, Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::coverage::Page;
use crate::dedup::Dedup;
use crate::lane::{Lane, SHARE, share};
use crate::metrics::{Counters, RelayCounters, add};
use crate::parcel::{Arrival, Held, Phase, Source};
use crate::settings::NostrSettings;
use crate::sighting::Sightings;
use crate::spill::{Popped, Spill};
use crate::verifier::Input;

/// How long an arrival waits for memory before it goes to the disk: verifiers that are merely busy make room in less, and
/// a relay that is not read for longer begins to drop events.
const PATIENCE: Duration = Duration::from_millis(500);

/// Bounds of what waits between sockets and log.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Memory, in KiB.
    pub(crate) room_kib: u32,
    /// Where files are made; none takes nothing.
    pub(crate) spill_dir: Option<PathBuf>,
    /// Bytes on disk.
    pub(crate) spill_bytes: u64,
    /// Relays that share them.
    pub(crate) lanes: usize,
    /// Whether sources are asked for what they have stored, which can be left out where there is no room.
    pub(crate) asks_for_stored: bool,
}

impl Bounds {
    /// Those of the settings, for one of `parts` that share them, with so many relays.
    pub(crate) fn of(settings: &NostrSettings, parts: usize, lanes: usize) -> Self {
        let parts = parts.max(1) as u64;
        Self {
            room_kib: u32::try_from(settings.room_bytes / 1_024 / parts).unwrap_or(u32::MAX).max(1),
            spill_dir: settings.spill_dir.clone(),
            spill_bytes: settings.spill_bytes_max / parts,
            // A file may name more of them later.
            lanes: if settings.relay_file.is_some() { lanes.max(SHARE) } else { lanes },
            asks_for_stored: true,
        }
    }
}

/// Room in memory, of all relays and of one.
#[derive(Debug)]
pub(crate) struct Room {
    _one: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Why an arrival was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The pipeline has ended, so nothing more can be taken in.
    Ended,
    /// The relay has been closed to make room for others.
    Closed,
}

/// Where relays put what they read.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Input>,
    dedup: Arc<Dedup>,
    counters: Arc<Counters>,
    sightings: Sightings,
    bounds: Bounds,
    room: Arc<Semaphore>,
    overflow: Arc<Overflow>,
    /// Fires when the last of the relays has let go.
    _open: Arc<DropGuard>,
}

/// The spill as everybody sees it.
#[derive(Debug)]
pub(crate) struct Overflow {
    spill: Arc<Turn<Spill>>,
    bytes_max: u64,
    used: AtomicU64,
    /// Arrivals that found no place at all and wait.
    waiting: AtomicUsize,
    strained: AtomicBool,
    asks_for_stored: bool,
    /// The disk did not take something, and that was said.
    refused: AtomicBool,
    filled: Notify,
    freed: Notify,
    /// Fires when nothing is brought back any more.
    ended: CancellationToken,
    lanes: Mutex<Vec<Arc<Lane>>>,
    counters: Arc<Counters>,
}

/// What became of an arrival at the spill.
enum Pushed {
    Taken,
    /// Its relay has its share.
    Share(Input),
    /// Nobody's finds a place; whether anything is there that will be read.
    Full(Input, bool),
}

impl Intake {
    /// An intake before `queue`, and what brings back into it what was spilled: to be run until it ends.
    pub(crate) fn new(
        queue: mpsc::Sender<Input>,
        dedup: &Arc<Dedup>,
        counters: &Arc<Counters>,
        sightings: Sightings,
        bounds: Bounds,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let room = Arc::new(Semaphore::new(bounds.room_kib as usize));
        let bytes_max = if bounds.spill_dir.is_some() { bounds.spill_bytes } else { 0 };
        let overflow = Arc::new(Overflow {
            spill: Arc::new(Turn::new(Spill::new(bounds.spill_dir.clone(), bytes_max))),
            bytes_max,
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            strained: AtomicBool::new(false),
            asks_for_stored: bounds.asks_for_stored,
            refused: AtomicBool::new(false),
            filled: Notify::new(),
            freed: Notify::new(),
            ended: CancellationToken::new(),
            lanes: Mutex::default(),
            counters: Arc::clone(counters),
        });
        let closed = CancellationToken::new();
        let back = bring_back(Arc::clone(&overflow), Arc::clone(&room), queue.clone(), closed.clone());
        let open = Arc::new(closed.drop_guard());
        let (dedup, counters) = (Arc::clone(dedup), Arc::clone(counters));
        (Self { queue, dedup, counters, sightings, bounds, room, overflow, _open: open }, back)
    }

    /// A relay's way in.
    pub(crate) fn lane(&self, counters: &Arc<RelayCounters>) -> Arc<Lane> {
        let lanes = self.bounds.lanes;
        let room_kib = u32::try_from(share(self.bounds.room_kib.into(), lanes)).unwrap_or(u32::MAX).max(1);
        let spilled_max = share(self.overflow.bytes_max, lanes);
        let lane = Arc::new(Lane::new(Arc::clone(counters), room_kib, spilled_max));
        let mut lanes = self.overflow.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of relays that are not followed any more, and have nothing under way.
        lanes.retain(|lane| Arc::strong_count(lane) > 1);
        lanes.push(Arc::clone(&lane));
        lane
    }

    pub(crate) fn overflow(&self) -> Arc<Overflow> {
        Arc::clone(&self.overflow)
    }

    /// Whether nothing is to be asked for that a relay has stored.
    pub(crate) fn is_strained(&self) -> bool {
        self.overflow.strained.load(Relaxed)
    }

    /// Takes in an event with the id it claims, waiting where there is no place; `false` when it is a copy of one that
    /// was verified before, which ends here.
    pub(crate) async fn event(
        &self,
        lane: &Arc<Lane>,
        arrival: Arrival,
        id: Option<EventId>,
    ) -> Result<bool, NotTaken> {
        lane.delivered();
        let copy = id.filter(|id| self.dedup.is_copy(id, arrival.held.page.as_ref()));
        match &copy {
            Some(id) => {
                add(&self.counters.copies, 1);
                self.sightings.copy(&arrival, id).await?;
            }
            None => self.enqueue(lane, Input { arrival, refused: None, cut: None }).await?,
        }
        add(&self.counters.received, 1);
        Ok(copy.is_none())
    }

    /// Takes in a frame of the market, whole, from the endpoint that `lane` is called after: what it is and whether it is
    /// a copy is found out behind the queue. With one verifier ([`crate::IntakeSettings::verifiers`]) frames stay in
    /// their order. What `page` proves waits for it; a frame that is `refused` already is none.
    pub(crate) async fn frame(
        &self,
        lane: &Arc<Lane>,
        (raw, received_at_ms): (Bytes, i64),
        page: Option<Page>,
        refused: Option<Rejection>,
    ) -> Result<(), NotTaken> {
        let arrival = Arrival {
            raw,
            relay: Arc::clone(lane.relay()),
            received_at_ms,
            source: Source::OpenSea,
            phase: Phase::Live,
            held: Held { page, ..Held::default() },
        };
        match refused {
            Some(why) => self.junk(lane, arrival, why).await,
            None => self.event(lane, arrival, None).await.map(|_| ()),
        }
    }

    /// Those of `ids` whose events are not here; `page` must not be proven before one that is on its way.
    pub(crate) async fn unknown(&self, ids: Vec<EventId>, page: Page) -> Result<Vec<EventId>, NotTaken> {
        let dedup = Arc::clone(&self.dedup);
        // A thousand look-ups at once, which may have to go to the disk.
        let looked_up =
            spawn_blocking(move || ids.into_iter().filter(|id| !dedup.is_copy(id, Some(&page))).collect()).await;
        looked_up.map_err(|_| NotTaken::Ended)
    }

    /// Takes in bytes that are no event, with the reason.
    pub(crate) async fn junk(&self, lane: &Arc<Lane>, arrival: Arrival, why: Rejection) -> Result<(), NotTaken> {
        lane.delivered();
        self.enqueue(lane, Input { arrival, refused: Some(why), cut: None }).await?;
        add(&self.counters.received, 1);
        Ok(())
    }

    async fn enqueue(&self, lane: &Arc<Lane>, mut input: Input) -> Result<(), NotTaken> {
        input.arrival.held.lane = Some(Arc::clone(lane));
        tokio::select! {
            biased;
            () = lane.until(true) => Err(NotTaken::Closed),
            () = self.overflow.ended.cancelled() => Err(NotTaken::Ended),
            placed = self.place(lane, input) => placed,
        }
    }

    /// Relays take turns where they wait, since each waits with one arrival.
    async fn place(&self, lane: &Arc<Lane>, mut input: Input) -> Result<(), NotTaken> {
        // Behind what the same relay has on disk already, and without a wait where others had to go there too.
        if lane.spilled.load(Relaxed) == 0 {
            let patience = if self.overflow.used.load(Relaxed) == 0 { PATIENCE } else { Duration::ZERO };
            if let Ok(room) = timeout(patience, take_room(&self.room, lane, &input)).await {
                return self.send(input, room?).await;
            }
        }
        loop {
            let (freed, shared) = (self.overflow.freed.notified(), lane.freed.notified());
            let (mut freed, mut shared) = (std::pin::pin!(freed), std::pin::pin!(shared));
            freed.as_mut().enable();
            shared.as_mut().enable();
            input = match self.overflow.push(lane, input).await? {
                Pushed::Taken => return Ok(()),
                Pushed::Share(input) => {
                    shared.await;
                    input
                }
                Pushed::Full(input, true) => {
                    let _waiting = self.overflow.wait();
                    freed.await;
                    input
                }
                // Nothing will be read back and make room, so that memory is all there is.
                Pushed::Full(input, false) => {
                    let _waiting = self.overflow.wait();
                    let room = take_room(&self.room, lane, &input).await?;
                    return self.send(input, room).await;
                }
            };
        }
    }

    async fn send(&self, mut input: Input, room: Room) -> Result<(), NotTaken> {
        input.arrival.held.room = Some(Arc::new(room));
        self.queue.send(input).await.map_err(|_| NotTaken::Ended)
    }
}

/// Waits for memory: of the relay's share, then of all.
async fn take_room(all: &Arc<Semaphore>, lane: &Lane, input: &Input) -> Result<Room, NotTaken> {
    let kib = u32::try_from(input.arrival.raw.len() / 1_024 + 1).unwrap_or(u32::MAX).min(lane.room_kib);
    let take = |from: &Arc<Semaphore>| Arc::clone(from).acquire_many_owned(kib);
    let one = take(&lane.room).await.map_err(|_| NotTaken::Ended)?;
    let all = take(all).await.map_err(|_| NotTaken::Ended)?;
    Ok(Room { _one: one, _all: all })
}

/// Puts what was spilled into the queue, in order, as room comes free; ends when it is empty and no relay is left.
async fn bring_back(
    overflow: Arc<Overflow>,
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Input>,
    closed: CancellationToken,
) {
    // Those that wait for a place would wait for ever.
    let _ended = overflow.ended.clone().drop_guard();
    loop {
        let mut filled = std::pin::pin!(overflow.filled.notified());
        filled.as_mut().enable();
        let last = closed.is_cancelled();
        let Some(mut input) = overflow.pop().await else {
            if last {
                return;
            }
            tokio::select! {
                () = filled => {}
                () = closed.cancelled() => {}
            }
            continue;
        };
        let Some(lane) = input.arrival.held.lane.clone() else { continue };
        let Ok(room) = take_room(&room, &lane, &input).await else { return };
        input.arrival.held.room = Some(Arc::new(room));
        if let Err(unsent) = queue.send(input).await {
            unsent.0.arrival.held.page.iter().for_each(Page::tear);
            return;
        }
    }
}

/// Somebody waits, until this is dropped.
struct Waiting<'a>(&'a Overflow);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Overflow {
    /// Whether arrivals find no place at all.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whether so little is on disk that everything may be as before.
    pub(crate) fn is_relieved(&self) -> bool {
        !self.is_full() && self.used.load(Relaxed) <= self.bytes_max / 4
    }

    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is stored is asked for again.
    pub(crate) fn relieve(&self) {
        if self.strained.swap(false, Relaxed) {
            self.refused.store(false, Relaxed);
            tracing::info!("there is room again: relays are asked for what they have stored");
        }
    }

    fn strain(&self, why: &str) {
        if self.asks_for_stored && !self.strained.swap(true, Relaxed) {
            add(&self.counters.backfill_pauses, 1);
            tracing::warn!(why, "relays are not asked for what they have stored until there is room");
        }
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        self.strain("arrivals find no room, neither in memory nor on disk");
        Waiting(self)
    }

    fn is_over_share(&self, lane: &Lane, input: &Input) -> bool {
        let spilled = lane.spilled.load(Relaxed);
        // An arrival that is larger than a share has to be able to go somewhere.
        spilled > 0 && spilled + Spill::cost(input) > lane.spilled_max
    }

    async fn push(self: &Arc<Self>, lane: &Arc<Lane>, mut input: Input) -> Result<Pushed, NotTaken> {
        if self.is_over_share(lane, &input) {
            // The shares of a few relays make up the whole: when all have theirs, there is no place either.
            let full = self.used.load(Relaxed) > self.bytes_max / 8 * 7;
            return Ok(if full { Pushed::Full(input, true) } else { Pushed::Share(input) });
        }
        let mut spill = Arc::clone(&self.spill).lock_owned().await;
        let (overflow, lane) = (Arc::clone(self), Arc::clone(lane));
        // Once begun it is done and counted, also when the session has ended meanwhile.
        let pushed = spawn_blocking(move || {
            let cost = Spill::cost(&input);
            let pushed = spill.push(&mut input);
            if overflow.pushed(pushed, &lane, cost, spill.used()) {
                return Pushed::Taken;
            }
            Pushed::Full(input, !spill.is_empty())
        });
        pushed.await.map_err(|_| NotTaken::Ended)
    }

    /// Counts what was pushed, if it was.
    fn pushed(&self, pushed: std::io::Result<bool>, lane: &Lane, cost: u64, used: u64) -> bool {
        let before = self.used.swap(used, Relaxed);
        match pushed {
            Ok(true) => {
                lane.spilled.fetch_add(cost, Relaxed);
                add(&self.counters.spilled, 1);
                if before == 0 {
                    tracing::warn!("no room in memory: arrivals wait on disk");
                }
                if used > self.bytes_max / 2 {
                    self.strain("half of what may be spilled is used");
                }
                self.filled.notify_one();
                return true;
            }
            Ok(false) => {}
            Err(error) if !self.refused.swap(true, Relaxed) => {
                tracing::warn!(%error, "the disk takes no arrivals: sockets wait until there is room");
            }
            Err(_) => {}
        }
        false
    }

    async fn pop(self: &Arc<Self>) -> Option<Input> {
        loop {
            let mut spill = Arc::clone(&self.spill).lock_owned().await;
            let overflow = Arc::clone(self);
            let popped = spawn_blocking(move || {
                let (popped, used) = (spill.pop(), spill.used());
                (popped, overflow.used.swap(used, Relaxed), used)
            });
            let (popped, before, used) = popped.await.ok()?;
            let Popped { lane, cost, input } = popped?;
            if let Some(lane) = &lane {
                lane.spilled.fetch_sub(cost, Relaxed);
                lane.freed.notify_waiters();
            }
            if used < before {
                self.freed.notify_waiters();
                if used == 0 {
                    tracing::info!("what waited on disk is in memory again");
                }
            }
            match input {
                Ok(input) => return Some(input),
                Err(error) => {
                    tracing::error!(%error, "an arrival could not be read back from the disk: what its relay's answer was to prove is asked for again");
                }
            }
        }
    }
}
