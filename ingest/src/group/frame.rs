//! The form of a frame on its way through the intake topic. Pure.
//!
//! A frame that claims an id has that id as its key, so that all copies of an event come to one partition, whoever
//! hands them in. What claims none is refused before it is handed in; it has the hash of its bytes as its key and the
//! form of a rejected record.

use event::layout::{
    HEADER_DETAIL, HEADER_FULL_LEN, HEADER_PHASE, HEADER_REASON, HEADER_RECEIVED_AT, HEADER_RELAY, HEADER_SOURCE,
};
use event::{Event, EventId, Reason, Rejection};
use topic::{Record, StoredRecord};

use crate::parcel::{Arrival, Held, Phase, Source};
use crate::rejected;
use crate::verifier::{Input, Rules, Verdict};
use crate::whole::{VALUE_BYTES_MAX, Whole};

/// The record of an arrival; takes what is refused already, and refuses what cannot be handed in as an event.
pub(super) fn record(arrival: &Arrival, whole: &Whole, refused: Option<Rejection>, rules: &Rules) -> Record {
    let claimed = match refused {
        Some(rejection) => Err(rejection),
        None => claimed(arrival, rules),
    };
    match claimed {
        Ok(id) => Record {
            key: Some(id.to_string().into()),
            value: Some(arrival.raw.clone()),
            headers: arrival.headers(),
            timestamp_ms: Some(arrival.received_at_ms),
            partition: None,
        },
        Err(rejection) => rejected::record_of(arrival, whole, rejection),
    }
}

/// The id by which copies are told. Some ids only a parser finds: a key may be written with escapes.
fn claimed(arrival: &Arrival, rules: &Rules) -> Result<EventId, Rejection> {
    if arrival.raw.len() > VALUE_BYTES_MAX
        && let Verdict::Refused(rejection) = rules.judge(&arrival.raw, arrival.received_at_ms)
    {
        return Err(rejection);
    }
    match EventId::scan(&arrival.raw) {
        Some(id) => Ok(id),
        None => Event::parse(&arrival.raw, &rules.limits).map(|event| event.id),
    }
}

/// The arrival that a record was made of.
pub(super) fn input(record: StoredRecord) -> Input {
    let text = |name: &str| record.header(name).unwrap_or_default();
    let reason = record.header(HEADER_REASON).and_then(|code| code.parse::<Reason>().ok());
    let refused = reason.map(|reason| Rejection::new(reason, text(HEADER_DETAIL)));
    let cut = refused.as_ref().and_then(|_| {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(record.key.as_deref()?, &mut sha256).ok()?;
        Some(Whole { sha256, len: text(HEADER_FULL_LEN).parse().ok()? })
    });
    let arrival = Arrival {
        relay: text(HEADER_RELAY).into(),
        received_at_ms: text(HEADER_RECEIVED_AT).parse().unwrap_or(record.timestamp_ms),
        source: if text(HEADER_SOURCE) == "file" { Source::File } else { Source::Nostr },
        phase: if text(HEADER_PHASE) == "live" { Phase::Live } else { Phase::Backfill },
        raw: record.value.clone().unwrap_or_default(),
        held: Held::default(),
    };
    Input { arrival, refused, cut }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::parcel::Outgoing;
    use crate::settings::IntakeSettings;

    /// An event by its shape.
    fn event() -> String {
        let (id, sig) = ("ab".repeat(32), "cd".repeat(64));
        format!(
            r#"{{"id":"{id}","pubkey":"{id}","created_at":1700000000,"kind":1,"tags":[],"content":"gm","sig":"{sig}"}}"#
        )
    }

    fn arrival(raw: impl Into<Bytes>) -> Arrival {
        Arrival {
            raw: raw.into(),
            relay: "wss://relay.example.org".into(),
            received_at_ms: 1_795_219_200_123,
            source: Source::Nostr,
            phase: Phase::Live,
            held: Held::default(),
        }
    }

    fn stored(record: Record) -> StoredRecord {
        StoredRecord {
            partition: 0,
            offset: 7,
            timestamp_ms: record.timestamp_ms.expect("a time"),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    fn through(raw: impl Into<Bytes>, refused: Option<Rejection>) -> (String, Input) {
        let (arrival, rules) = (arrival(raw), Rules::of(&IntakeSettings::default()));
        let record = record(&arrival, &Whole::of(&arrival.raw), refused, &rules);
        let key = record.key.clone().expect("a key");
        (String::from_utf8(key.to_vec()).expect("hex"), input(stored(record)))
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let (key, input) = through(event(), None);
        assert_eq!((key, input.refused, input.cut), ("ab".repeat(32), None, None));
        let (Arrival { raw, relay, received_at_ms, source, phase, .. }, was) = (input.arrival, arrival(event()));
        assert_eq!((raw, relay, received_at_ms), (was.raw, was.relay, was.received_at_ms));
        assert_eq!((source, phase), (was.source, was.phase));
    }

    #[test]
    fn an_id_whose_key_is_written_with_escapes_comes_to_the_same_partition() {
        let escaped = event().replacen("\"id\"", "\"\\u0069d\"", 1);
        assert_eq!(EventId::scan(escaped.as_bytes()), None, "it cannot be found without parsing");
        assert_eq!(through(escaped, None).0, through(event(), None).0);
    }

    #[test]
    fn what_is_refused_is_the_rejected_record_that_one_process_would_write() {
        let long = vec![b'x'; VALUE_BYTES_MAX + 5];
        for (raw, why) in [
            (b"[\"HELLO\"]".to_vec(), Some(Rejection::new(Reason::FrameUnknown, "no label of ours"))),
            (b"{\"kind\":1}".to_vec(), None),
            (long, None),
        ] {
            let (was, whole) = (arrival(raw.clone()), Whole::of(&raw));
            let (key, input) = through(raw, why);
            assert_eq!(key, hex::encode(whole.sha256));
            assert_eq!(input.cut, Some(whole));
            let rejection = input.refused.expect("refused");
            let Outgoing::Rejected(_, want, _) = rejected::record(&was, &whole, rejection.clone()) else {
                panic!("a rejection")
            };
            let Outgoing::Rejected(_, got, _) = rejected::record(&input.arrival, &whole, rejection) else {
                panic!("a rejection")
            };
            assert_eq!(got, want);
        }
    }
}
