//! Properties over generated events: other people's code must agree with ours.
//!
//! `nostr` signs and checks events, `serde_json` reads and writes JSON. Where they are more lenient than we are, the
//! property says in which way, and in no other.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use event::{Event, EventBatchBuilder, EventId, Limits, Origin, PublicKey};
use nostr::event::FinalizeEvent as _;
use nostr::{event as theirs, key};
use proptest::collection::vec;
use proptest::prelude::*;

use super::judge;

mod verdict;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Text of any characters, those that JSON or the id treat in a special way above all.
fn text(len_max: usize) -> impl Strategy<Value = String> {
    const SPECIAL: &str = "\0\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f} \"/\\<>&'\u{7f}\u{80}\u{85}\u{a0}\u{300}é\u{2028}\u{feff}\u{fffd}\u{ffff}😀\u{10ffff}";
    let special = proptest::sample::select(SPECIAL.chars().collect::<Vec<_>>());
    vec(prop_oneof![2 => special, 1 => any::<char>(), 3 => proptest::char::range(' ', '~')], 0..len_max)
        .prop_map(String::from_iter)
}

/// An event with random fields and neither id nor signature of its own.
fn event(tag_len_min: usize) -> impl Strategy<Value = Event> {
    let bytes = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
    let date = prop_oneof![0..2_000_000_000_i64, 0..8_210_000_000_000_i64];
    (bytes, date, any::<u16>(), vec(vec(text(12), tag_len_min..5), 0..6), text(200)).prop_map(
        |((id, pubkey, r, s), created_at, kind, tags, content)| Event {
            id: EventId(id),
            pubkey: PublicKey(pubkey),
            created_at,
            kind,
            tags,
            content,
            sig: [r, s].concat().try_into().expect("64 bytes"),
        },
    )
}

/// The same event, signed by the `nostr` crate, which allows no empty tag.
fn signed() -> impl Strategy<Value = theirs::Event> {
    event(1).prop_map(|event| {
        let mut secret = event.sig[..32].to_vec();
        // Between 1 and the order of the group.
        secret[0] &= 0x7f;
        secret[31] |= 1;
        let keys = key::Keys::new(key::SecretKey::from_slice(&secret).expect("a secret key"));
        let tags = event.tags.iter().map(|tag| theirs::Tag::parse(tag.clone()).expect("a tag"));
        theirs::EventBuilder::new(theirs::Kind::from_u16(event.kind), &event.content)
            .custom_created_at(nostr::types::Timestamp::from_secs(event.created_at.unsigned_abs()))
            .tags(tags)
            .finalize(&keys)
            .expect("signed")
    })
}

/// The JSON of `event` with every character of every string as an escape, and the keys from last to first.
fn written_otherwise(event: &Event) -> String {
    let escaped = |text: &str| {
        let mut out = "\"".to_owned();
        text.encode_utf16().for_each(|unit| write!(out, "\\u{unit:04X}").expect("a String"));
        out + "\""
    };
    let tags: Vec<String> = event
        .tags
        .iter()
        .map(|tag| format!("[ {} ]", tag.iter().map(|value| escaped(value)).collect::<Vec<_>>().join("\n,")))
        .collect();
    let (sig, id, pubkey) = (sig_hex(event), event.id.to_string(), event.pubkey.to_string());
    format!(
        "\r\n{{ {}:{}, {}:{} ,\t{}:[{}],{}:{},{}:{},{}:{},{}:{} }} ",
        escaped("sig"),
        escaped(&sig),
        escaped("content"),
        escaped(&event.content),
        escaped("tags"),
        tags.join(" , "),
        escaped("kind"),
        event.kind,
        escaped("created_at"),
        event.created_at,
        escaped("pubkey"),
        escaped(&pubkey),
        escaped("id"),
        escaped(&id),
    )
}

fn sig_hex(event: &Event) -> String {
    event.sig.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An edit of a JSON text: where (as a share of its length), and what to do there.
#[derive(Clone, Debug)]
enum Edit {
    Flip(u8),
    Insert(u8),
    Remove,
}

fn edits(count_max: usize) -> impl Strategy<Value = Vec<(f64, Edit)>> {
    let telling = proptest::sample::select(b"{}[]\",:\\/ \n\t-+.eEu0123456789dDfFxntrb\0\x1f\x7f\xff\xc3".to_vec());
    let edit = prop_oneof![
        4 => (0..8_u8).prop_map(|bit| Edit::Flip(1 << bit)),
        4 => telling.prop_map(Edit::Insert),
        2 => Just(Edit::Remove),
    ];
    vec((0.0..1.0, edit), 0..=count_max)
}

fn edited(json: &[u8], edits: &[(f64, Edit)]) -> Vec<u8> {
    let mut json = json.to_vec();
    for (share, edit) in edits {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place"
        )]
        let at = (share * json.len() as f64) as usize;
        match edit {
            Edit::Flip(bit) if at < json.len() => json[at] ^= bit,
            Edit::Insert(byte) => json.insert(at, *byte),
            Edit::Remove if at < json.len() => drop(json.remove(at)),
            Edit::Flip(_) | Edit::Remove => {}
        }
    }
    json
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn what_nostr_signs_we_accept_and_write_alike(theirs in signed()) {
        let json = theirs.as_json();
        let ours = judge(json.as_bytes()).map_err(|rejection| TestCaseError::fail(rejection.to_string()))?;
        prop_assert_eq!(ours.id.0, theirs.id.to_bytes());
        prop_assert_eq!(EventId::scan(json.as_bytes()), Some(ours.id));
        prop_assert_eq!(ours.to_json(), json);
        let otherwise = written_otherwise(&ours);
        prop_assert_eq!(judge(otherwise.as_bytes()), Ok(ours));
        prop_assert!(EventId::scan(otherwise.as_bytes()).is_none(), "escaped keys are left to parse");
    }

    #[test]
    fn edited_events_have_the_same_verdict(theirs in signed(), edits in edits(2)) {
        let json = edited(theirs.as_json().as_bytes(), &edits);
        verdict::agrees(&json);
    }

    #[test]
    fn the_canonical_form_is_what_serde_json_writes(event in event(0)) {
        let fields = (0, event.pubkey.to_string(), event.created_at, event.kind, &event.tags, &event.content);
        prop_assert_eq!(event.canonical(), serde_json::to_vec(&fields).expect("JSON"));
    }

    #[test]
    fn a_written_event_is_read_back(event in event(0)) {
        let limits = Limits::default();
        prop_assert_eq!(&Event::parse(event.to_json().as_bytes(), &limits), &Ok(event.clone()));
        prop_assert_eq!(Event::parse(written_otherwise(&event).as_bytes(), &limits), Ok(event));
    }

    #[test]
    fn a_batch_holds_what_was_appended(rows in vec((event(0), origin(), vec(any::<u8>(), 0..40)), 0..20)) {
        let mut builder = EventBatchBuilder::new();
        for (event, (relay, received_at_ms, phase, partition, offset), raw) in &rows {
            let (relay, phase) = (relay.as_deref(), phase.as_deref());
            let origin = Origin { relay, received_at_ms: *received_at_ms, phase, partition: *partition, offset: *offset };
            builder.append(event, &origin, raw);
        }
        prop_assert_eq!((builder.len(), builder.is_empty()), (rows.len(), rows.is_empty()));
        let batch = builder.finish();
        prop_assert_eq!(batch.schema(), event::schema::events_schema());
        prop_assert_eq!(batch.num_rows(), rows.len());
        for (index, row) in rows.iter().enumerate() {
            prop_assert_eq!(&read_back(&batch, index), row);
        }
    }
}

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn we_call_malformed_what_serde_json_cannot_read(base in 0..TEXTS.len(), edits in edits(4)) {
        let json = edited(TEXTS[base].as_bytes(), &edits);
        verdict::malformed_is_what_serde_json_cannot_read(&json);
    }

    #[test]
    fn no_bytes_make_us_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Event::parse(&bytes, &Limits::default()).is_err());
        let id = EventId::scan(&bytes);
        prop_assert!(id.is_none());
    }

    #[test]
    fn an_id_that_is_scanned_is_the_one_that_is_parsed(base in event(0), edits in edits(3)) {
        let json = edited(base.to_json().as_bytes(), &edits);
        if let Ok(event) = Event::parse(&json, &Limits::default()) {
            let scanned = EventId::scan(&json);
            prop_assert!(scanned.is_none_or(|id| id == event.id), "{:?} scanned, {:?} parsed", scanned, event.id);
        }
    }
}

/// JSON of all sorts, to be edited.
const TEXTS: &[&str] = &[
    r#"{"id":"0","pubkey":null,"created_at":1700000000,"kind":1.5e+10,"tags":[["e",""],[]],"content":"a\n\u00e9\ud83d\ude00\\","sig":-0}"#,
    r#" [ 0 , -1.25E-7 , true , false , null , "" , { } , [ ] , "\"\\\/\b\f\n\r\t" ] "#,
    r#"{"a":{"b":[1,{"c":2}]},"a\u0062":"x","":0}"#,
    r#""\ud800\udc00\ud800""#,
    "-0.0e0",
    "10203",
];

type OwnedOrigin = (Option<String>, Option<i64>, Option<String>, i32, i64);

fn origin() -> impl Strategy<Value = OwnedOrigin> {
    let millis = proptest::option::of(-8_000_000_000_000_000..8_000_000_000_000_000_i64);
    (proptest::option::of(text(20)), millis, proptest::option::of(text(8)), any::<i32>(), any::<i64>())
}

/// One row of a batch, column by column.
fn read_back(batch: &RecordBatch, row: usize) -> (Event, OwnedOrigin, Vec<u8>) {
    let column = |name: &str| batch.column_by_name(name).expect(name);
    let binary = |name: &str| column(name).as_fixed_size_binary().value(row).to_vec();
    let text = |name: &str| {
        let column = column(name).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let micros = |name: &str| {
        let column = column(name).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| column.value(row))
    };
    let tags = column("tags").as_list::<i32>().value(row);
    let tag = |tag: Option<arrow::array::ArrayRef>| {
        let tag = tag.expect("no null");
        tag.as_string::<i32>().iter().map(|value| value.expect("no null").to_owned()).collect()
    };
    let event = Event {
        id: EventId(binary("id").try_into().expect("32 bytes")),
        pubkey: PublicKey(binary("pubkey").try_into().expect("32 bytes")),
        created_at: micros("created_at").expect("no null") / 1_000_000,
        kind: u16::try_from(column("kind").as_primitive::<Int32Type>().value(row)).expect("a kind"),
        tags: tags.as_list::<i32>().iter().map(tag).collect(),
        content: text("content").expect("no null"),
        sig: binary("sig").try_into().expect("64 bytes"),
    };
    let partition = column("kafka_partition").as_primitive::<Int32Type>().value(row);
    let offset = column("kafka_offset").as_primitive::<Int64Type>().value(row);
    let received_at_ms = micros("received_at").map(|micros| micros / 1_000);
    let origin = (text("relay"), received_at_ms, text("phase"), partition, offset);
    (event, origin, column("raw").as_binary::<i32>().value(row).to_vec())
}
