//! What becomes of a frame at the member that reads it: a record for the intake topic, unless these very bytes have
//! been handed in before.
//!
//! Nothing is verified here, so that a copy is known by all its bytes, and never by the id that it claims: a forged
//! event must not keep the true one from being handed in. Ids of events that were verified and published by whichever
//! member are looked up before ([`crate::intake::Intake`]).

use std::sync::Arc;

use event::EventId;
use sha2::{Digest, Sha256};

use super::frame;
use crate::dedup::Dedup;
use crate::metrics::{Counters, add};
use crate::parcel::{Arrival, Outgoing};
use crate::relay::created_at;
use crate::verifier::{Input, Rules};
use crate::whole::Whole;

/// Frames that are remembered of the relays of one partition.
const HANDED_MAX: usize = 200_000;

/// The frames of the relays of one partition.
#[derive(Debug)]
pub(super) struct Collector {
    rules: Rules,
    counters: Arc<Counters>,
    /// By the hash of all bytes: what is on its way, and what the intake topic has acknowledged.
    pub(super) handed: Arc<Dedup>,
}

impl Collector {
    pub(super) fn new(rules: Rules, counters: &Arc<Counters>) -> Self {
        Self { rules, counters: Arc::clone(counters), handed: Arc::new(Dedup::new(HANDED_MAX)) }
    }

    /// The record of a frame, under the token by which copies of it are known.
    pub(super) fn settle(&self, input: Input) -> Option<Outgoing> {
        let Input { mut arrival, refused, .. } = input;
        let whole = Whole::of(&arrival.raw);
        let token = token(&arrival, &whole);
        if !self.handed.claim(&token, arrival.held.page.as_ref()) {
            let counter = if refused.is_some() { &self.counters.rejected_again } else { &self.counters.copies };
            add(counter, 1);
            return None;
        }
        let record = frame::record(&arrival, &whole, refused, &self.rules);
        Some(Outgoing::Event(token, record, std::mem::take(&mut arrival.held)))
    }
}

/// The hash of the bytes. What is dated ahead is refused today and may be believed tomorrow, so that a later copy of
/// it is another.
fn token(arrival: &Arrival, whole: &Whole) -> EventId {
    let dated = std::str::from_utf8(&arrival.raw).ok().and_then(created_at);
    if dated.is_none_or(|seconds| seconds <= arrival.received_at_ms.div_euclid(1_000)) {
        return EventId(whole.sha256);
    }
    let unlike = Sha256::new().chain_update(whole.sha256).chain_update(arrival.received_at_ms.to_be_bytes());
    EventId(unlike.chain_update(arrival.relay.as_bytes()).finalize().into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use event::{Reason, Rejection};

    use super::*;
    use crate::parcel::{Held, Phase, Source};
    use crate::settings::IntakeSettings;

    const NOW_SECS: i64 = 1_700_000_000;

    fn event(created_at: i64, content: &str) -> String {
        let (id, sig) = ("ab".repeat(32), "cd".repeat(64));
        format!(
            r#"{{"id":"{id}","pubkey":"{id}","created_at":{created_at},"kind":1,"tags":[],"content":"{content}","sig":"{sig}"}}"#
        )
    }

    fn input(raw: impl Into<Bytes>, received_at_ms: i64) -> Input {
        let (relay, source, phase) = ("wss://relay.example.org".into(), Source::Nostr, Phase::Live);
        let arrival = Arrival { raw: raw.into(), relay, received_at_ms, source, phase, held: Held::default() };
        Input { arrival, refused: None, cut: None }
    }

    fn collector() -> Collector {
        Collector::new(Rules::of(&IntakeSettings::default()), &Arc::new(Counters::default()))
    }

    #[test]
    fn the_same_bytes_are_handed_in_once_and_another_claim_of_the_same_id_is_too() {
        let (collector, now) = (collector(), NOW_SECS * 1_000);
        let forged = collector.settle(input(event(NOW_SECS, "forged"), now)).expect("it is new");
        let Outgoing::Event(token, forged, _) = forged else { panic!("an event") };
        assert!(collector.settle(input(event(NOW_SECS, "forged"), now + 5)).is_none());
        collector.handed.confirm(&token);
        assert!(collector.settle(input(event(NOW_SECS, "forged"), now + 5)).is_none());
        let Some(Outgoing::Event(_, genuine, _)) = collector.settle(input(event(NOW_SECS, "true"), now)) else {
            panic!("the true event is handed in although a forged one of its id was")
        };
        assert_eq!(genuine.key, forged.key);
        let again = Input { refused: Some(Rejection::new(Reason::FrameUnknown, "?")), ..input("[\"X\"]", now) };
        assert!(collector.settle(again).is_some());
        let again = Input { refused: Some(Rejection::new(Reason::FrameUnknown, "?")), ..input("[\"X\"]", now) };
        assert!(collector.settle(again).is_none());
        let counters = collector.counters.snapshot();
        assert_eq!((counters.copies, counters.rejected_again), (2, 1));
    }

    #[test]
    fn what_is_dated_ahead_is_handed_in_again_later() {
        let (collector, now) = (collector(), NOW_SECS * 1_000);
        let ahead = event(NOW_SECS + 3_600, "from the future");
        assert!(collector.settle(input(ahead.clone(), now)).is_some());
        assert!(collector.settle(input(ahead.clone(), now)).is_none(), "the very same frame");
        assert!(collector.settle(input(ahead, now + 3_600_000)).is_some());
    }
}
