//! Frames of every sort, real ones, edited ones and junk; `serde_json` is the oracle.

use proptest::prelude::*;

use super::*;
use crate::edit;

mod oracle;

#[test]
fn the_event_is_kept_byte_for_byte() {
    let event = "{ \"id\":\"\\u0061\" ,\n \"created_at\" : 7, \"x\": 1e400, \"y\":\"\\ud800\" }";
    let frame = format!(" [ \"EVENT\" , \"s\\u0031\", {event} , null, [1] ]\n");
    assert_eq!(parse(&frame), Ok(Message::Event { sub: "s1".into(), event }));
    assert_eq!(created_at("{\"created_at\":1700000000,\"tags\":[[]]}"), Some(1_700_000_000));
    assert_eq!(created_at("{\"created_at\":1.5}"), None);
}

#[test]
fn the_messages_of_nip_01_are_read() {
    assert_eq!(parse(r#"["EOSE","a"]"#), Ok(Message::Eose { sub: "a".into(), finished: false }));
    assert_eq!(parse(r#"["EOSE","a",["finish"]]"#), Ok(Message::Eose { sub: "a".into(), finished: true }));
    assert_eq!(parse(r#"["EOSE","a",["more"]]"#), Ok(Message::Eose { sub: "a".into(), finished: false }));
    assert_eq!(parse(r#"["CLOSED","a"]"#), Ok(Message::Closed { sub: "a".into(), text: "".into() }));
    assert_eq!(parse(r#"["CLOSED","a","error: x"]"#), Ok(Message::Closed { sub: "a".into(), text: "error: x".into() }));
    assert_eq!(parse(r#"["NEG-MSG","a","61"]"#), Ok(Message::NegMsg { sub: "a".into(), hex: "61".into() }));
    assert_eq!(
        parse(r#"["NEG-ERR","a","blocked: too big",500]"#),
        Ok(Message::NegErr { sub: "a".into(), text: "blocked: too big".into() })
    );
    assert_eq!(parse(r#"["NOTICE","hé"]"#), Ok(Message::Notice("hé".into())));
    assert_eq!(parse(r#"["AUTH","challenge"]"#), Ok(Message::Auth("challenge".into())));
    assert_eq!(parse(r#"["AUTH",{}]"#), Ok(Message::Other("AUTH".into())));
}

#[test]
fn what_became_of_an_event_is_read() {
    let hex = "07".repeat(32);
    let ok = |accepted, text: &'static str| Ok(Message::Ok { id: EventId([7; 32]), accepted, text: text.into() });
    assert_eq!(parse(&format!(r#"["OK","{hex}",true,""]"#)), ok(true, ""));
    assert_eq!(parse(&format!(r#"["OK","{hex}",false,"blocked: \"no\"",1]"#)), ok(false, "blocked: \"no\""));
    assert_eq!(parse(&format!(r#"["OK","{hex}",true]"#)), ok(true, ""));
    for odd in [format!(r#"["OK","{hex}"]"#), format!(r#"["OK","{hex}",1,""]"#), r#"["OK","x",true,""]"#.to_owned()] {
        assert_eq!(parse(&odd), Ok(Message::Other("OK".into())), "{odd}");
    }
}

#[test]
fn junk_has_a_reason() {
    let reason = |text: &str| parse(text).expect_err(text).reason;
    for text in ["", "<html>", "[", "[\"EVENT\",\"a\",{\"x\":}]", "[\"EOSE\",\"a\"] x", "{\"a\":", "[1,2,3,4,]"] {
        assert_eq!(reason(text), Reason::MalformedJson, "{text}");
    }
    for text in
        ["{}", "1", "null", "[]", "[1]", "[\"EVENT\"]", "[\"EVENT\",\"a\"]", "[\"EVENT\",{},{}]", "[\"LIMITS\",{}]"]
    {
        assert_eq!(reason(text), Reason::FrameUnknown, "{text}");
    }
}

#[test]
fn depth_does_not_take_the_stack() {
    let deep = format!("[\"EVENT\",\"a\",{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(matches!(parse(&deep), Ok(Message::Event { .. })));
    assert_eq!(parse(&"[".repeat(1_000_000)).expect_err("torn").reason, Reason::MalformedJson);
}

#[test]
fn a_request_has_one_filter_and_only_what_is_asked() {
    let filter = Filter { kinds: Some(&[1, 7]), limit: Some(0), ..Filter::default() };
    assert_eq!(req("live-1", &filter), r#"["REQ","live-1",{"kinds":[1,7],"limit":0}]"#);
    let filter = Filter { kinds: None, since: Some(5), until: Some(9), limit: Some(500) };
    assert_eq!(req("stored-2", &filter), r#"["REQ","stored-2",{"since":5,"until":9,"limit":500}]"#);
    assert_eq!(close("live-1"), r#"["CLOSE","live-1"]"#);
    let id = "ab".repeat(32);
    assert_eq!(req_ids("ids-3", &[EventId([0xab; 32])]), format!(r#"["REQ","ids-3",{{"ids":["{id}"]}}]"#));
    let filter = Filter { since: Some(7), until: Some(7), ..Filter::default() };
    assert_eq!(neg_open("list-4", &filter, "61"), r#"["NEG-OPEN","list-4",{"since":7,"until":7},"61"]"#);
}

#[test]
fn the_frames_of_real_relays_are_read() {
    let Some(text) = real_frames() else { return };
    let messages: Vec<_> = text.lines().map(parse).collect();
    let events = messages.iter().filter(|message| matches!(message, Ok(Message::Event { .. }))).count();
    let ends = messages.iter().filter(|message| matches!(message, Ok(Message::Eose { .. }))).count();
    assert_eq!((events, ends), (787, 1));
}

fn real_frames() -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nostr/relay_frames.jsonl.gz");
    let Ok(file) = std::fs::File::open(path) else {
        eprintln!("SKIPPED: {path} is not there");
        return None;
    };
    Some(std::io::read_to_string(flate2::read::MultiGzDecoder::new(file)).expect("frames"))
}

/// Frames of every sort, and what breaks readers of JSON.
const FRAMES: [&str; 7] = [
    r#"["EOSE","sub",["finish"]]"#,
    r#"["CLOSED","sub","auth-required: who?"]"#,
    r#"["NOTICE","h\u00e9 \"quoted\""]"#,
    r#"["OK","b10da0095f96aa2accd99fa3d93bf29a76f51d2594cf5a0a52f8e961aecd0b67",true,"duplicate: had it"]"#,
    r#"["AUTH","challenge"]"#,
    r#"["NEG-MSG","sub","6100000203"]"#,
    r#"["EVENT","sub",{"id":"x","tags":[["a"]],"content":"]\\\"["}]"#,
];
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "1e400",
    "\\ud800",
    "\\u0000",
    "\"EVENT\"",
    "\"OK\"",
    "EOSE",
    "[[[[[[[[[[[[[[[[",
    " ",
    "\n",
    "é",
];

fn edited() -> impl Strategy<Value = Vec<u8>> {
    let real = real_frames().unwrap_or_default();
    let frames = real.lines().take(40).chain(FRAMES).map(|frame| frame.as_bytes().to_vec());
    edit::bytes(frames.collect(), PIECES)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_frame_means_what_serde_json_says(bytes in edited()) {
        oracle::agrees(&bytes);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        drop(parse(&text));
    }

    #[test]
    fn no_array_of_odd_elements_panics(
        label in prop_oneof![Just("EVENT"), Just("EOSE"), Just("CLOSED"), Just("NOTICE"), Just("OK"), Just("X")],
        rest in proptest::collection::vec(
            prop_oneof![Just("1"), Just("null"), Just("\"s\""), Just("{}"), Just("[[]]"), Just("\"\\ud800\""), Just("{")],
            0..5,
        ),
    ) {
        let text = format!("[\"{label}\"{}{}]", if rest.is_empty() { "" } else { "," }, rest.join(","));
        drop(parse(&text));
        created_at(&text);
    }

    #[test]
    fn what_is_sent_is_what_was_meant(sub in "\\PC{1,20}", json in "[a-z0-9 ]{0,20}") {
        let event = serde_json::to_string(&json).expect("json");
        let frame = format!("[\"EVENT\",{},{event}]", serde_json::to_string(&sub).expect("json"));
        prop_assert_eq!(parse(&frame), Ok(Message::Event { sub: sub.as_str().into(), event: &event }));
    }
}
