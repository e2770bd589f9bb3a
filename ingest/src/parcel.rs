//! What travels between the stations: an arrival from a source, and a parcel of records on its way to the log with
//! the ids that are settled once it has arrived.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use event::layout::{HEADER_PHASE, HEADER_RECEIVED_AT, HEADER_RELAY, HEADER_SOURCE};
use event::{EventId, Reason};
use topic::{Header, Offsets, Record};

use crate::coverage::Page;
use crate::intake::Room;
use crate::lane::Lane;

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Nostr,
    OpenSea,
    File,
}

impl Source {
    /// As headers have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nostr => "nostr",
            Self::OpenSea => "opensea",
            Self::File => "file",
        }
    }
}

/// Whether bytes are history or news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Backfill,
    Live,
}

impl Phase {
    /// As headers and sightings have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Live => "live",
        }
    }
}

/// Bytes as they arrived, and what is known about their arrival.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The event object, or the whole frame or line where none could be told apart.
    pub(crate) raw: Bytes,
    /// URL of the relay, or label of the file.
    pub(crate) relay: Arc<str>,
    /// When the frame left the socket, milliseconds since 1970.
    pub(crate) received_at_ms: i64,
    pub(crate) source: Source,
    pub(crate) phase: Phase,
    pub(crate) held: Held,
}

/// What an arrival holds until it is settled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Its share in a relay's answer.
    pub(crate) page: Option<Page>,
    /// The relay's way in, where it came by one.
    pub(crate) lane: Option<Arc<Lane>>,
    /// Its room in memory.
    pub(crate) room: Option<Arc<Room>>,
    /// The sighting that goes into the log with it.
    pub(crate) sighting: Option<Record>,
}

impl Arrival {
    /// The headers that every record has, raw or rejected.
    pub(crate) fn headers(&self) -> Vec<Header> {
        vec![
            header(HEADER_SOURCE, Bytes::from_static(self.source.as_str().as_bytes())),
            header(HEADER_RELAY, Bytes::copy_from_slice(self.relay.as_bytes())),
            header(HEADER_RECEIVED_AT, self.received_at_ms.to_string().into()),
            header(HEADER_PHASE, Bytes::from_static(self.phase.as_str().as_bytes())),
        ]
    }

    /// On its way to the raw topic, as the event `id`.
    pub(crate) fn into_outgoing(mut self, id: EventId) -> Outgoing {
        let held = std::mem::take(&mut self.held);
        Outgoing::Event(id, self.into_record(&id), held)
    }

    /// The record of the raw topic: key = id in hex, value = the event's bytes, time = received time.
    fn into_record(self, id: &EventId) -> Record {
        Record {
            key: Some(id.to_string().into()),
            headers: self.headers(),
            value: Some(self.raw),
            timestamp_ms: Some(self.received_at_ms),
            partition: None,
        }
    }
}

pub(crate) fn header(name: &str, value: Bytes) -> Header {
    Header { name: name.to_owned(), value }
}

/// A record on its way to the log.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A verified event whose id has been claimed.
    Event(EventId, Record, Held),
    /// Refused input.
    Rejected(Reason, Record, Held),
}

/// Records of one transaction, with the ids that are known from then on.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) ids: Vec<EventId>,
    pub(crate) events: Vec<Record>,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) rejected: Vec<Record>,
    /// Lines of the coverage topic.
    pub(crate) coverage: Vec<Record>,
    /// Records of the gap topic.
    pub(crate) gaps: Vec<Record>,
    /// Deliveries: the first ones of the parcel's events, and copies of these and of events before.
    pub(crate) sightings: Vec<Record>,
    /// How far the intake topic is settled once the parcel is delivered.
    pub(crate) offsets: Offsets,
    /// Room that is free again once the parcel is delivered.
    pub(crate) room: Vec<Arc<Room>>,
}

impl Parcel {
    /// Packs records; each gives up its share in a relay's answer, since it has its place now.
    pub(crate) fn of(outgoing: impl Iterator<Item = Outgoing>) -> Self {
        let mut parcel = Self::default();
        for one in outgoing {
            let held = match one {
                Outgoing::Event(id, record, held) => {
                    parcel.ids.push(id);
                    parcel.events.push(record);
                    held
                }
                Outgoing::Rejected(reason, record, held) => {
                    parcel.reasons.push(reason);
                    parcel.rejected.push(record);
                    held
                }
            };
            parcel.room.extend(held.room);
            parcel.sightings.extend(held.sighting);
        }
        parcel
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sightings.is_empty() && self.holds_no_other()
    }

    /// Whether there is nothing but sightings in it.
    pub(crate) fn holds_sightings_alone(&self) -> bool {
        !self.sightings.is_empty() && self.holds_no_other()
    }

    fn holds_no_other(&self) -> bool {
        self.offsets.is_empty()
            && [&self.events, &self.rejected, &self.coverage, &self.gaps].iter().all(|records| records.is_empty())
    }

    /// Takes the second half of the events out, with their ids, and with what is proven or settled once all of them are
    /// there. Sightings stay with their events; those of events before go with the second half.
    pub(crate) fn split(&mut self) -> Self {
        let half = self.ids.len() / 2;
        let (ids, events) = (self.ids.split_off(half), self.events.split_off(half));
        let staying: HashSet<&Option<Bytes>> = self.events.iter().map(|event| &event.key).collect();
        let sightings = self.sightings.extract_if(.., |sighting| !staying.contains(&sighting.key)).collect();
        Self {
            ids,
            events,
            sightings,
            coverage: std::mem::take(&mut self.coverage),
            gaps: std::mem::take(&mut self.gaps),
            offsets: std::mem::take(&mut self.offsets),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proven_goes_with_the_last_of_the_events() {
        let event = |at: u8| Outgoing::Event(EventId([at; 32]), Record::default(), Held::default());
        let mut first =
            Parcel { coverage: vec![Record::default()], offsets: vec![(0, 5)], ..Parcel::of((0..5).map(event)) };
        let rest = first.split();
        assert_eq!((first.ids.len(), rest.ids.len()), (2, 3));
        assert_eq!((first.events.len(), rest.events.len()), (2, 3));
        assert!(first.coverage.is_empty() && rest.coverage.len() == 1);
        assert!(first.offsets.is_empty() && rest.offsets == [(0, 5)]);
        assert_eq!(rest.ids.last(), Some(&EventId([4; 32])));
    }

    #[test]
    fn a_sighting_stays_with_its_event_when_a_parcel_is_split() {
        let record = |key: u8| Record { key: Some(vec![key].into()), ..Record::default() };
        let keys =
            |records: &[Record]| records.iter().map(|one| one.key.as_ref().expect("a key")[0]).collect::<Vec<_>>();
        let event = |at: u8| {
            let held = Held { sighting: Some(record(at)), ..Held::default() };
            Outgoing::Event(EventId([at; 32]), record(at), held)
        };
        let mut first = Parcel::of((0..4).map(event));
        first.sightings.extend([record(9), record(1), record(3)]);
        let rest = first.split();
        assert_eq!((keys(&first.events), keys(&first.sightings)), (vec![0, 1], vec![0, 1, 1]));
        assert_eq!((keys(&rest.events), keys(&rest.sightings)), (vec![2, 3], vec![2, 3, 9, 3]));
    }

    #[test]
    fn a_record_carries_the_bytes_and_their_arrival() {
        let arrival = Arrival {
            raw: Bytes::from_static(b"{ \"any\" : 1 }"),
            relay: "wss://relay.example.org".into(),
            received_at_ms: 1_700_000_000_123,
            source: Source::Nostr,
            phase: Phase::Live,
            held: Held::default(),
        };
        let record = arrival.into_record(&EventId([0xab; 32]));
        assert_eq!(record.key.as_deref(), Some("ab".repeat(32).as_bytes()));
        assert_eq!(record.value.as_deref(), Some(b"{ \"any\" : 1 }".as_slice()));
        assert_eq!(record.timestamp_ms, Some(1_700_000_000_123));
        let headers: Vec<_> = record.headers.iter().map(|one| (one.name.as_str(), &one.value[..])).collect();
        let wanted: [(&str, &[u8]); 4] = [
            ("source", b"nostr"),
            ("relay", b"wss://relay.example.org"),
            ("received_at", b"1700000000123"),
            ("phase", b"live"),
        ];
        assert_eq!(headers, wanted);
    }
}
