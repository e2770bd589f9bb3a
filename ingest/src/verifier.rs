//! The door: arrivals become believed events or rejections here, on threads of their own and never on a socket's task.
//!
//! In comes the bounded queue that all sockets share; out go records for the publisher. A worker takes what waits, up
//! to a batch, looks each id up among those already verified, and checks only what is new.

use std::sync::{Arc, Mutex};

use event::verify::{check_future, verify};
use event::{Event, EventId, Limits, MarketEvent, MarketFrame, Reason, Rejection, Span, Table};
use tokio::sync::mpsc;

use crate::dedup::Dedup;
use crate::frame::event_in;
use crate::kinds::Kinds;
use crate::metrics::{Counters, add};
use crate::parcel::{Arrival, Outgoing};
use crate::rejected::{self, Refused};
use crate::settings::IntakeSettings;
use crate::sighting::Sightings;
use crate::whole::Whole;

/// Arrivals that a worker takes at once: enough to make the lock cheap, few enough to keep the other workers busy.
const BATCH: usize = 64;

/// What is believed.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    table: Table,
    kinds: Kinds,
    pub(crate) limits: Limits,
    max_future: Option<Span>,
}

/// What the rules say about some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Verified: the id is that of these bytes' content, and the signature is its author's. Events of a market have none:
    /// what is readable is believed.
    Believed {
        id: EventId,
        /// The event's date, seconds since 1970.
        created_at: i64,
    },
    /// An event nobody asked for, or a frame that is none.
    Filtered,
    /// Not believed.
    Refused(Rejection),
}

impl Rules {
    pub(crate) fn of(settings: &IntakeSettings) -> Self {
        let (table, kinds) = (settings.table(), settings.kinds.clone());
        Self { table, kinds, limits: settings.limits, max_future: settings.max_future }
    }

    /// The id that bytes claim, found without parsing; a market's events claim none.
    pub(crate) fn claimed(&self, raw: &[u8]) -> Option<EventId> {
        if self.table == Table::Market { None } else { EventId::scan(raw) }
    }

    /// What of a file's line or a rejected record is to be judged: a relay's frame is opened, a market's is kept whole.
    pub(crate) fn opened<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        if self.table == Table::Market { line } else { event_in(line) }
    }

    /// Shape, limits, kind, id, signature, and the date last: what is refused as dated ahead is otherwise genuine, and
    /// may be taken in once its time has come.
    pub(crate) fn judge(&self, raw: &[u8], received_at_ms: i64) -> Verdict {
        if self.table == Table::Market {
            return self.judge_market(raw);
        }
        let believed = Event::parse(raw, &self.limits).and_then(|event| {
            if !self.kinds.contains(event.kind) {
                return Ok(None);
            }
            let event = verify(event)?;
            check_future(&event, received_at_ms, self.max_future)?;
            Ok(Some((event.id, event.created_at)))
        });
        match believed {
            Ok(Some((id, created_at))) => Verdict::Believed { id, created_at },
            Ok(None) => Verdict::Filtered,
            Err(rejection) => Verdict::Refused(rejection),
        }
    }
}

impl Rules {
    /// Size and form. Its dates are the market's own, so that they are not compared with our clock.
    fn judge_market(&self, raw: &[u8]) -> Verdict {
        let bytes_max = self.limits.event_bytes_max;
        if raw.len() > bytes_max {
            let detail = format!("{} bytes, more than {bytes_max}", raw.len());
            return Verdict::Refused(Rejection::new(Reason::TooLarge, detail));
        }
        match MarketEvent::parse(raw) {
            Ok(MarketFrame::Event(event)) => {
                let created_at = event.event_time.micros().div_euclid(1_000_000);
                Verdict::Believed { id: event.id(), created_at }
            }
            Ok(MarketFrame::Control(_)) => Verdict::Filtered,
            Err(rejection) => Verdict::Refused(rejection),
        }
    }
}

/// An arrival to be judged, or junk that the socket's task has judged already.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) arrival: Arrival,
    pub(crate) refused: Option<Rejection>,
    /// Hash and length of the whole, where only a part of it is here.
    pub(crate) cut: Option<Whole>,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) rules: Rules,
    pub(crate) dedup: Arc<Dedup>,
    pub(crate) refused: Arc<Refused>,
    pub(crate) sightings: Sightings,
    pub(crate) counters: Arc<Counters>,
}

/// One worker: takes inputs until the queue is closed and empty, or nobody takes what becomes of them.
pub(crate) fn work(
    queue: &Mutex<mpsc::Receiver<Input>>,
    settle: impl Fn(Input) -> Option<Outgoing>,
    out: &mpsc::Sender<Outgoing>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        // A poisoned lock means that another worker has panicked while it waited: the run is over.
        let Ok(taken) = queue.lock().map(|mut queue| queue.blocking_recv_many(&mut batch, BATCH)) else { return };
        if taken == 0 {
            return;
        }
        for input in batch.drain(..) {
            let Some(outgoing) = settle(input) else { continue };
            if out.blocking_send(outgoing).is_err() {
                return;
            }
        }
    }
}

impl Verifier {
    /// What becomes of an input: an event that nobody had, a refusal that nobody had, or nothing.
    pub(crate) fn settle(&self, input: Input) -> Option<Outgoing> {
        let Input { mut arrival, refused, cut } = input;
        if let Some(rejection) = refused {
            return self.refuse(&arrival, cut, rejection);
        }
        // Looked up a second time: while it waited in the queue, another relay's copy may have been verified.
        let claimed = self.rules.claimed(&arrival.raw);
        if let Some(id) = claimed.filter(|id| self.dedup.is_copy(id, arrival.held.page.as_ref())) {
            self.note_copy(&arrival, &id);
            return None;
        }
        match self.rules.judge(&arrival.raw, arrival.received_at_ms) {
            Verdict::Believed { id, created_at } if self.dedup.claim(&id, arrival.held.page.as_ref()) => {
                arrival.held.sighting = self.sightings.first(&arrival, &id, created_at);
                arrival.held.lane.iter().for_each(|lane| lane.was_novel());
                Some(arrival.into_outgoing(id))
            }
            Verdict::Believed { id, .. } => {
                self.note_copy(&arrival, &id);
                None
            }
            Verdict::Filtered => {
                add(&self.counters.filtered, 1);
                None
            }
            Verdict::Refused(rejection) => self.refuse(&arrival, cut, rejection),
        }
    }

    fn note_copy(&self, arrival: &Arrival, id: &EventId) {
        add(&self.counters.copies, 1);
        self.counters.add_copy_of(&arrival.relay);
        // Who takes no sighting any more has ended, and takes no event either.
        let _ = self.sightings.copy_blocking(arrival, id);
    }

    fn refuse(&self, arrival: &Arrival, cut: Option<Whole>, rejection: Rejection) -> Option<Outgoing> {
        let whole = cut.unwrap_or_else(|| Whole::of(&arrival.raw));
        if self.refused.is_first(&whole) {
            return Some(rejected::record(arrival, &whole, rejection));
        }
        add(&self.counters.rejected_again, 1);
        None
    }
}
