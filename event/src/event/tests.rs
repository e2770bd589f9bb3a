//! What [`Event::parse`] takes and refuses, and for which reason.

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The seven fields, each as JSON, in the order of [`FIELDS`].
fn fields() -> [(&'static str, String); 7] {
    [
        ("id", format!("\"{ID}\"")),
        ("pubkey", format!("\"{}\"", "ab".repeat(32))),
        ("created_at", "1700000000".to_owned()),
        ("kind", "1".to_owned()),
        ("tags", r#"[["e","x"],[]]"#.to_owned()),
        ("content", r#""a\nb""#.to_owned()),
        ("sig", format!("\"{}\"", "cd".repeat(64))),
    ]
}

fn object(fields: &[(&str, String)]) -> String {
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// An event in which the fields of `changes` stand otherwise.
fn with(changes: &[(&str, &str)]) -> String {
    let mut fields = fields();
    for (name, value) in changes {
        fields.iter_mut().find(|field| field.0 == *name).expect("a field").1 = (*value).to_owned();
    }
    object(&fields)
}

fn parse(json: &str) -> Result<Event, Rejection> {
    Event::parse(json.as_bytes(), &Limits::default())
}

fn reason(json: &str) -> Option<Reason> {
    parse(json).err().map(|rejection| rejection.reason)
}

#[test]
fn key_order_blanks_and_escapes_do_not_matter() {
    let event = parse(&with(&[])).expect("good");
    assert_eq!((event.created_at, event.kind, event.content.as_str()), (1_700_000_000, 1, "a\nb"));
    assert_eq!(event.tags, [vec!["e".to_owned(), "x".to_owned()], vec![]]);
    let mut reversed = fields();
    reversed.reverse();
    assert_eq!(parse(&object(&reversed)).as_ref(), Ok(&event));
    let other = with(&[("content", r#""\u0061\u000Ab""#)])
        .replace(',', " ,\t")
        .replace(':', " :\r\n")
        .replace("\"kind\"", r#""k\u0069nd""#);
    assert_eq!(parse(&format!("\n {other} ")).as_ref(), Ok(&event));
    assert_eq!(parse(&event.to_json()), Ok(event));
}

#[test]
fn a_written_event_has_the_order_of_nip_01() {
    assert_eq!(parse(&with(&[])).map(|event| event.to_json()), Ok(with(&[])));
}

#[test]
fn unknown_fields_are_skipped_but_must_be_json() {
    let extra = |json: &str| with(&[("sig", &format!("\"{}\",{json}", "cd".repeat(64)))]);
    assert_eq!(reason(&extra(r#""x":{"a":[1.5e3,{"b":null}]},"":0"#)), None);
    assert_eq!(reason(&extra(r#""x":"\ud800""#)), None, "no field of ours");
    assert_eq!(reason(&extra(r#""x":NaN"#)), Some(Reason::MalformedJson));
    assert_eq!(reason(&extra(r#""x":{"a":[[[0]]]}"#)), Some(Reason::TooDeep));
    assert_eq!(reason(&extra(r#""x":1,"\u0078":2"#)), Some(Reason::DuplicateKey));
    assert_eq!(reason(&extra(r#""s\u0069g":null"#)), Some(Reason::DuplicateKey));
    assert_eq!(reason(&extra(r#""\ud800":1"#)), Some(Reason::InvalidUnicode));
}

#[test]
fn each_field_must_be_there() {
    for missing in 0..7 {
        let mut some = fields().to_vec();
        let (name, _) = some.remove(missing);
        let rejection = parse(&object(&some)).expect_err("refused");
        assert_eq!((rejection.reason, rejection.detail), (Reason::MissingField, format!("field `{name}` is missing")));
    }
    assert_eq!(reason("{}"), Some(Reason::MissingField));
}

#[test]
fn each_field_must_have_its_type() {
    for (name, value) in fields() {
        for wrong in ["null", "true", "{}", "[0]", "\"x\"", "1.5", "1e2", "-0", "0"] {
            let same_type = match name {
                "created_at" | "kind" => wrong == "0",
                "tags" => false,
                _ => value.starts_with('"') == wrong.starts_with('"'),
            };
            if !same_type {
                assert_eq!(reason(&with(&[(name, wrong)])), Some(Reason::WrongType), "{name} {wrong}");
            }
        }
    }
    for wrong in [r#"["e"]"#, "[null]", "[{}]", "[[1]]", "[[null]]", r#"[["e",["x"]]]"#, r#"[["e",{"a":1}]]"#] {
        assert_eq!(reason(&with(&[("tags", wrong)])), Some(Reason::WrongType), "{wrong}");
    }
    let rejection = parse(&with(&[("tags", "null")])).expect_err("refused");
    assert_eq!(rejection.to_string(), "wrong_type: `tags` is null, not an array");
}

#[test]
fn numbers_have_ranges_and_are_never_wrapped() {
    let last = EventTime::MAX.micros() / 1_000_000;
    for good in [("created_at", "0"), ("created_at", &last.to_string()), ("kind", "0"), ("kind", "65535")] {
        assert_eq!(reason(&with(&[good])), None, "{good:?}");
    }
    let beyond = (last + 1).to_string();
    for wrong in ["-1", "9007199254740992", "9223372036854775807", "18446744073709551616", &beyond, &"9".repeat(121)] {
        assert_eq!(reason(&with(&[("created_at", wrong)])), Some(Reason::OutOfRange), "{wrong}");
    }
    for wrong in ["-1", "65536", "1099511627776", "18446744073709551617"] {
        assert_eq!(reason(&with(&[("kind", wrong)])), Some(Reason::OutOfRange), "{wrong}");
    }
    assert_eq!(reason(&with(&[("kind", "01")])), Some(Reason::MalformedJson));
}

#[test]
fn limits_are_inclusive() {
    let json = with(&[]);
    let limits = |event_bytes_max, tags_max| Limits { event_bytes_max, tags_max };
    let reason = |limits| Event::parse(json.as_bytes(), &limits).err().map(|r| r.reason);
    assert_eq!(reason(limits(json.len(), 2)), None);
    assert_eq!(reason(limits(json.len() - 1, 2)), Some(Reason::TooLarge));
    assert_eq!(reason(limits(json.len(), 1)), Some(Reason::TooManyTags));
}

#[test]
fn the_gravest_fault_is_told_wherever_it_stands() {
    let grave = [
        (r#""tags":null,"kind":99999,"id":"x","kind":1}"#, Reason::MalformedJson),
        (r#"{"tags":null,"kind":99999,"id":"x","kind":1}"#, Reason::DuplicateKey),
        (r#"{"tags":null,"kind":99999,"id":"x"}"#, Reason::MissingField),
    ];
    for (json, wanted) in grave {
        assert_eq!(reason(json), Some(wanted), "{json}");
    }
    let surrogate = r#"[["\ud800"]]"#;
    assert_eq!(
        reason(&with(&[("id", "\"x\""), ("kind", "-1"), ("tags", surrogate), ("sig", "1")])),
        Some(Reason::WrongType)
    );
    assert_eq!(reason(&with(&[("id", "\"x\""), ("kind", "-1"), ("tags", surrogate)])), Some(Reason::InvalidUnicode));
    assert_eq!(reason(&with(&[("id", "\"x\""), ("kind", "-1")])), Some(Reason::BadHex));
    let bytes = [with(&[("kind", "null")]).as_bytes(), b"\xff"].concat();
    assert_eq!(Event::parse(&bytes, &Limits::default()).expect_err("refused").reason, Reason::InvalidUtf8);
}

#[test]
fn a_rejection_carries_the_claimed_id_when_one_is_found() {
    let id = EventId::from_hex(ID);
    assert_eq!(parse(&with(&[("kind", "-1")])).expect_err("refused").id, id);
    assert_eq!(parse(&with(&[])[..100]).expect_err("refused").id, id);
    assert_eq!(parse("[]").expect_err("refused").id, None);
}

#[test]
fn a_long_input_of_one_sort_takes_no_long_time() {
    // Each is about a megabyte; with work that grows with the square these would take minutes.
    let keys: Vec<String> = (0..80_000).map(|key| format!("\"{key:06}\":0")).collect();
    assert_eq!(reason(&format!("{{{}}}", keys.join(","))), Some(Reason::MissingField));
    assert_eq!(reason(&format!("{{{}}}", vec!["\"id\":0"; 140_000].join(","))), Some(Reason::DuplicateKey));
    assert_eq!(reason(&with(&[("tags", &format!("[{}]", vec!["[]"; 300_000].join(",")))])), Some(Reason::TooManyTags));
    assert_eq!(reason(&with(&[("tags", &"[".repeat(1_000_000))])), Some(Reason::TooDeep));
    assert_eq!(reason(&with(&[("content", &format!("\"{}\"", r"\u0000".repeat(170_000)))])), None);
}
