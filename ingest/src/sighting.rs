//! Sightings on their way: a record for each delivery of an event by a relay, in the log no sooner than the event.
//!
//! The first delivery's record travels with the event itself. A copy's comes to the publisher by a queue of its own, and
//! goes with the next parcel; that of an event in flight waits until the event has its place, and that of an event which
//! the log refused goes nowhere. A full queue makes the socket wait, as that of the events does.

use event::layout::HEADER_PARCEL;
use event::{EventId, Sighting};
use tokio::sync::mpsc;
use topic::Record;

use crate::coverage::Page;
use crate::dedup::{Dedup, Generations, prefix};
use crate::intake::NotTaken;
use crate::parcel::{Arrival, Parcel, header};

/// Copies that wait for the publisher.
const QUEUED_MAX: usize = 16 * 1_024;
/// Copies that the publisher has taken, at most: those of a parcel, and those of events in flight.
const TAKEN_MAX: usize = 20_000;
/// Ids of events that the log refused, at most: there is hardly ever one.
const REFUSED_MAX: usize = 64 * 1_024;

/// The sighting of a copy, and the event it is of.
#[derive(Debug)]
pub(crate) struct Copied {
    id: EventId,
    record: Record,
    /// Its share in the relay's answer: what the answer proves is not written before the sighting is, so that after a
    /// crash the relay is asked again for deliveries that were not noted.
    _page: Option<Page>,
}

impl Copied {
    fn of(arrival: &Arrival, id: &EventId) -> Self {
        Self { id: *id, record: record(arrival, *id, None), _page: arrival.held.page.clone() }
    }
}

/// Where sightings are made, if they are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings(Option<mpsc::Sender<Copied>>);

impl Sightings {
    /// Both ends of the queue; where sightings are not wanted, nothing ever comes out of it.
    pub(crate) fn new(wanted: bool) -> (Self, Copies) {
        let (send, receive) = mpsc::channel(QUEUED_MAX);
        let copies = Copies {
            queue: wanted.then_some(receive),
            taken: Vec::new(),
            refused: Generations::new(REFUSED_MAX),
            parcels: 0,
        };
        (Self(wanted.then_some(send)), copies)
    }

    /// The sighting of the delivery that puts an event into the raw topic.
    pub(crate) fn first(&self, arrival: &Arrival, id: &EventId, created_at: i64) -> Option<Record> {
        self.0.as_ref().map(|_| record(arrival, *id, Some(created_at)))
    }

    /// Notes a copy, waiting while the queue is full.
    pub(crate) async fn copy(&self, arrival: &Arrival, id: &EventId) -> Result<(), NotTaken> {
        let Some(queue) = &self.0 else { return Ok(()) };
        queue.send(Copied::of(arrival, id)).await.map_err(|_| NotTaken::Ended)
    }

    /// The same on a thread that may wait.
    pub(crate) fn copy_blocking(&self, arrival: &Arrival, id: &EventId) -> Result<(), NotTaken> {
        let Some(queue) = &self.0 else { return Ok(()) };
        queue.blocking_send(Copied::of(arrival, id)).map_err(|_| NotTaken::Ended)
    }
}

/// The record of a delivery: the first one where the event's date is given, which is verified then.
fn record(arrival: &Arrival, id: EventId, created_at: Option<i64>) -> Record {
    let sighting = Sighting {
        id,
        relay: arrival.relay.as_ref().into(),
        received_at_ms: arrival.received_at_ms,
        phase: arrival.phase.as_str().into(),
        first: created_at.is_some(),
        created_at,
    };
    Record {
        key: Some(id.to_string().into()),
        value: Some(sighting.to_json().into()),
        timestamp_ms: Some(arrival.received_at_ms),
        ..Record::default()
    }
}

/// The publisher's end of the queue.
#[derive(Debug)]
pub(crate) struct Copies {
    /// None once nothing more comes.
    queue: Option<mpsc::Receiver<Copied>>,
    taken: Vec<Copied>,
    /// Ids that count as known although their events are not in the raw topic.
    refused: Generations,
    /// Parcels that were marked.
    parcels: u64,
}

impl Copies {
    /// Whether sightings are wanted at all.
    pub(crate) const fn are_wanted(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether more can be taken before some are packed.
    pub(crate) const fn has_room(&self) -> bool {
        self.taken.len() < TAKEN_MAX
    }

    /// Waits until some are taken; for ever, where there is no room or nothing more comes.
    pub(crate) async fn arrive(&mut self) {
        while let (Some(queue), room @ 1..) = (&mut self.queue, TAKEN_MAX - self.taken.len()) {
            match queue.recv_many(&mut self.taken, room).await {
                0 => self.queue = None,
                _ => return,
            }
        }
        std::future::pending().await
    }

    /// Takes what is left once all that make sightings have let go; `false` when that is nothing.
    pub(crate) async fn take_rest(&mut self) -> bool {
        if let Some(queue) = &mut self.queue {
            let room = TAKEN_MAX - self.taken.len();
            if room > 0 && queue.recv_many(&mut self.taken, room).await == 0 {
                self.queue = None;
            }
        }
        !self.taken.is_empty()
    }

    /// Puts into `parcel`, whose events have their place, what need not wait any longer.
    pub(crate) fn pack(&mut self, parcel: &mut Parcel, dedup: &Dedup) {
        let refused = &self.refused;
        let ready = self.taken.extract_if(.., |copied| !dedup.is_waiting(&copied.id));
        let ready = ready.filter(|copied| !refused.contains(prefix(&copied.id.0)));
        parcel.sightings.extend(ready.map(|copied| copied.record));
    }

    /// Marks a parcel of sightings alone, which shows by its first one whether it was committed: two deliveries may be
    /// alike in every respect. `run` names this run.
    pub(crate) fn mark(&mut self, parcel: &mut Parcel, run: &str) {
        if parcel.holds_sightings_alone() {
            self.parcels += 1;
            let mark = format!("{run} {}", self.parcels);
            parcel.sightings[0].headers.push(header(HEADER_PARCEL, mark.into()));
        }
    }

    /// The log has refused an event: its copies are sightings of nothing.
    pub(crate) fn refuse(&mut self, id: &EventId) {
        self.refused.insert(prefix(&id.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use bytes::Bytes;
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::coverage::{Band, Ledger, Line, Proof};
    use crate::parcel::{Held, Outgoing, Phase, Source};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A relay delivers an event; it is verified on the way.
        Deliver(u8),
        /// The publisher writes so many of the events that wait, and the copies it has.
        Publish(usize),
        /// It does, and the log refuses the first of them.
        Refuse(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6).prop_map(Step::Deliver),
            1 => (0_usize..4).prop_map(Step::Publish),
            1 => (1_usize..4).prop_map(Step::Refuse),
        ]
    }

    fn delivery(number: usize) -> Arrival {
        Arrival {
            raw: Bytes::new(),
            relay: "wss://relay.example".into(),
            received_at_ms: i64::try_from(number).expect("few"),
            source: Source::Nostr,
            phase: Phase::Live,
            held: Held::default(),
        }
    }

    /// Id, time and whether it was the first, of a sighting's record.
    fn told(record: &Record) -> (u8, i64, bool) {
        let json = record.value.as_deref().expect("a value");
        let sighting = Sighting::parse(json).expect("a sighting");
        assert_eq!(record.key.as_deref(), Some(sighting.id.to_string().as_bytes()));
        (sighting.id.0[0], sighting.received_at_ms, sighting.first)
    }

    proptest! {
        /// Whatever overtakes what: each delivery of a published event is noted once and no sooner than the event, its
        /// first one as that; and nothing is noted of an event that the log refused.
        #[test]
        fn each_delivery_is_noted_once_and_not_before_its_event(steps in prop::collection::vec(step(), 1..60)) {
            let (dedup, (sightings, mut copies)) = (Dedup::new(1_000), Sightings::new(true));
            let (mut waiting, mut queued): (Vec<Outgoing>, bool) = (Vec::new(), false);
            let mut deliveries: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
            let (mut published, mut refused, mut noted) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
            let all = steps.iter().copied().chain([Step::Publish(usize::MAX)]);
            for (number, step) in all.enumerate() {
                let (count, refusing) = match step {
                    Step::Deliver(event) => {
                        let (mut arrival, id) = (delivery(number), EventId([event; 32]));
                        deliveries.entry(event).or_default().push(arrival.received_at_ms);
                        if dedup.is_copy(&id, None) {
                            sightings.copy_blocking(&arrival, &id).expect("the queue is open");
                            queued = true;
                        } else {
                            prop_assert!(dedup.claim(&id, None));
                            arrival.held.sighting = sightings.first(&arrival, &id, 7);
                            waiting.push(arrival.into_outgoing(id));
                        }
                        continue;
                    }
                    Step::Publish(count) => (count, false),
                    Step::Refuse(count) => (count, true),
                };
                let mut parcel = Parcel::of(waiting.drain(..count.min(waiting.len())));
                parcel.ids.iter().for_each(|id| dedup.placed(id));
                if std::mem::take(&mut queued) {
                    block_on(copies.arrive());
                }
                copies.pack(&mut parcel, &dedup);
                if let (true, Some(id)) = (refusing, parcel.ids.first().copied()) {
                    // As the publisher does with an event that the log takes in no parcel.
                    copies.refuse(&id);
                    dedup.confirm(&id);
                    refused.insert(parcel.ids.remove(0).0[0]);
                    let event = parcel.events.remove(0);
                    parcel.sightings.retain(|sighting| sighting.key != event.key);
                }
                published.extend(parcel.ids.iter().map(|id| id.0[0]));
                for record in &parcel.sightings {
                    prop_assert!(published.contains(&told(record).0), "a sighting before its event");
                    noted.push(told(record));
                }
                parcel.ids.iter().for_each(|id| dedup.confirm(id));
            }
            let owed = deliveries.iter().filter(|(event, _)| published.contains(event));
            let owed = owed.flat_map(|(event, times)| times.iter().zip(0..).map(|(time, at)| (*event, *time, at == 0)));
            noted.sort_unstable();
            prop_assert_eq!(noted, owed.collect::<Vec<_>>());
            prop_assert!(published.is_disjoint(&refused));
        }
    }

    #[test]
    fn an_answer_is_not_proven_before_the_sightings_of_its_copies_have_their_place() {
        let (ledger, dedup, id) = (Arc::new(Ledger::default()), Dedup::new(10), EventId([1; 32]));
        let line = ledger.open(&Line { relay: "wss://relay.example".into(), kinds: "all".into() });
        let (page, (sightings, mut copies)) = (Page::new(&ledger, &line), Sightings::new(true));
        dedup.confirm(&id);
        let mut arrival = delivery(0);
        arrival.held.page = Some(page.clone());
        sightings.copy_blocking(&arrival, &id).expect("the queue is open");
        drop(arrival);
        page.prove(vec![Band { from: 0, to: 9, proven_at: 10, proof: Proof::Paged }], Vec::new());
        block_on(copies.arrive());
        assert!(ledger.take_unwritten().0.is_empty(), "the copy is not noted yet");
        copies.pack(&mut Parcel::default(), &dedup);
        assert_eq!(ledger.take_unwritten().0.len(), 1);
    }

    #[test]
    fn parcels_of_sightings_alone_can_be_told_apart() {
        let (sightings, mut copies) = Sightings::new(true);
        let dedup = Dedup::new(10);
        dedup.confirm(&EventId([1; 32]));
        let mut parcels = Vec::new();
        for _ in 0..2 {
            sightings.copy_blocking(&delivery(0), &EventId([1; 32])).expect("the queue is open");
            block_on(copies.arrive());
            let mut parcel = Parcel::default();
            copies.pack(&mut parcel, &dedup);
            copies.mark(&mut parcel, "a run");
            parcels.push(parcel.sightings.remove(0));
        }
        assert_eq!(parcels[0].value, parcels[1].value);
        assert_ne!(parcels[0].headers, parcels[1].headers);
        let mut parcel =
            Parcel { gaps: vec![Record::default()], sightings: vec![Record::default()], ..Parcel::default() };
        copies.mark(&mut parcel, "a run");
        assert!(parcel.sightings[0].headers.is_empty(), "something else tells it");
    }

    #[test]
    fn where_they_are_not_wanted_there_are_none() {
        let (sightings, copies) = Sightings::new(false);
        assert!(!copies.are_wanted() && sightings.first(&delivery(0), &EventId([1; 32]), 7).is_none());
        sightings.copy_blocking(&delivery(0), &EventId([1; 32])).expect("nothing to wait for");
    }
}
