//! The shared Nostr vectors, good and bad, and the `nostr` and `serde_json` crates as oracles.
//!
//! The vectors lie beside the repository in `../shared/data/nostr`; without them their tests say so and pass.

mod oracle;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use event::{Event, EventId, Limits, Reason, Rejection};

/// Our decision on every line that `invalid.tsv` leaves to policy; docs/nostr-events.md has the reasons.
const POLICY: &[(&[usize], Option<Reason>)] = &[
    // A byte order mark; a line of blanks.
    (&[15, 16], Some(Reason::MalformedJson)),
    // A relay frame where an event is expected.
    (&[23], Some(Reason::NotObject)),
    (&[39, 40, 41], Some(Reason::DuplicateKey)),
    // An unknown field nested 5,000 deep.
    (&[43], Some(Reason::TooDeep)),
    // `created_at` as 1.0 or 1e3; `tags` as null.
    (&[61, 63], Some(Reason::WrongType)),
    (&[171, 182, 183, 189, 201, 211, 217], Some(Reason::WrongType)),
    // Dates that fit the calendar (2100, 1970, milliseconds), and those that do not (-1, 2^53, 2^63-1, 2^64).
    (&[122, 123, 125], None),
    (&[124, 126, 127, 128], Some(Reason::OutOfRange)),
    // Kinds 65535 and 22242; 65536, -1, 2^40.
    (&[129, 133], None),
    (&[130, 131, 132], Some(Reason::OutOfRange)),
    // Odd tags, reactions and expirations.
    (&[134, 135, 136, 137, 138, 139, 140, 141, 142], None),
    // Long ones: within the limits of 1 MiB and 10,000 tags.
    (&[143, 144, 145, 146], None),
    // Empty content and odd characters, verbatim.
    (&[147, 148, 149, 150, 151, 152], None),
    // Control characters: hashed as \u00xx, not verbatim.
    (&[153], None),
    (&[154], Some(Reason::IdMismatch)),
    // Real events with an odd date or kind.
    (&[169, 170], None),
];

/// The file of that name in the shared data, or a loud word.
#[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nostr").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there; nothing was tested", path.display());
        return None;
    }
    Some(path)
}

fn judge(json: &[u8]) -> Result<Event, Rejection> {
    let event = Event::parse(json, &Limits::default())?;
    event::verify::verify(event).map(event::VerifiedEvent::into_event)
}

/// `accept` or `reject:<code>`, as in `invalid.tsv`.
fn verdict(reason: Option<Reason>) -> String {
    reason.map_or_else(|| "accept".to_owned(), |reason| format!("reject:{reason}"))
}

struct Case {
    line: usize,
    json: Vec<u8>,
    verdict: String,
    must: bool,
}

fn cases() -> Option<Vec<Case>> {
    let bytes = fs::read(shared("invalid.jsonl")?).expect("readable");
    let table = fs::read_to_string(shared("invalid.tsv")?).expect("readable");
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "the file ends with a line feed");
    let rows = table.lines().skip(1).map(|row| row.split('\t').collect::<Vec<_>>());
    let case = |(index, (row, json)): (usize, (Vec<&str>, &&[u8]))| {
        assert_eq!(row[0], (index + 1).to_string());
        assert!(["must", "policy"].contains(&row[2]), "{}", row[2]);
        Case { line: index + 1, json: json.to_vec(), verdict: row[1].to_owned(), must: row[2] == "must" }
    };
    assert_eq!(table.lines().count() - 1, lines.len(), "one row a line");
    Some(rows.zip(&lines).enumerate().map(case).collect())
}

#[test]
fn every_must_line_has_its_verdict() {
    let Some(cases) = cases() else { return };
    let must: Vec<&Case> = cases.iter().filter(|case| case.must).collect();
    assert_eq!(must.len(), 234, "lines that are not policy");
    let mut wrong = Vec::new();
    for case in must {
        // The codes are those of the file, to the letter: of its leave to report another fault first we make no use.
        let ours = judge(&case.json).err();
        if verdict(ours.as_ref().map(|rejection| rejection.reason)) != case.verdict {
            wrong.push(format!("line {}: {} wanted, {ours:?} given", case.line, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_policy_line_is_decided() {
    let Some(cases) = cases() else { return };
    let mut decided: Vec<usize> = POLICY.iter().flat_map(|(lines, _)| lines.iter().copied()).collect();
    decided.sort_unstable();
    let open: Vec<usize> = cases.iter().filter(|case| !case.must).map(|case| case.line).collect();
    assert_eq!(decided, open, "each policy line is decided once");
    for (lines, reason) in POLICY {
        for line in *lines {
            let ours = judge(&cases[line - 1].json).err();
            assert_eq!(
                verdict(ours.as_ref().map(|rejection| rejection.reason)),
                verdict(*reason),
                "line {line}: {ours:?}"
            );
        }
    }
}

#[test]
fn our_policy_departs_from_the_strict_reader_in_one_line_only() {
    let Some(cases) = cases() else { return };
    let departs = |case: &&Case| verdict(judge(&case.json).err().map(|rejection| rejection.reason)) != case.verdict;
    let lines: Vec<usize> = cases.iter().filter(departs).map(|case| case.line).collect();
    assert_eq!(lines, [126], "created_at 2^53 fits no microsecond timestamp");
}

#[test]
fn a_rejection_of_any_line_is_short_and_names_the_claimed_id() {
    let Some(cases) = cases() else { return };
    for case in &cases {
        let Err(rejection) = judge(&case.json) else { continue };
        assert!((1..=200).contains(&rejection.detail.len()), "line {}: {rejection}", case.line);
        assert_eq!(rejection.id, EventId::scan(&case.json), "line {}", case.line);
    }
}

fn real_events() -> Option<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(shared("events.jsonl.gz")?).expect("readable");
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    let lines: Vec<Vec<u8>> =
        bytes.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect();
    assert_eq!(lines.len(), 10_405);
    Some(lines)
}

#[test]
fn every_real_event_is_accepted_as_it_stands() {
    let Some(lines) = real_events() else { return };
    for line in &lines {
        let event = judge(line).unwrap_or_else(|rejection| panic!("{rejection}: {}", String::from_utf8_lossy(line)));
        let other: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        assert_eq!(other["id"], event.id.to_string());
        assert_eq!(other["created_at"], event.created_at);
        assert_eq!(other["kind"], event.kind);
        assert_eq!(other["tags"], serde_json::json!(event.tags));
        assert_eq!(other["content"], event.content);
        assert_eq!(EventId::scan(line), Some(event.id));
        let again = event.to_json();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&again).expect("JSON"), other);
        assert_eq!(judge(again.as_bytes()), Ok(event));
    }
}

#[test]
fn rates() {
    let Some(lines) = real_events() else { return };
    let rate = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        work();
        let secs = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a count of thousands")]
        let rate = lines.len() as f64 / secs;
        eprintln!("{name}: {rate:.0} events/s on one core, this build profile");
    };
    let events: Vec<Event> =
        lines.iter().map(|line| Event::parse(line, &Limits::default()).expect("a good event")).collect();
    rate("scan", &|| assert!(lines.iter().all(|line| EventId::scan(line).is_some())));
    rate("parse", &|| assert!(lines.iter().all(|line| Event::parse(line, &Limits::default()).is_ok())));
    rate("id", &|| assert!(events.iter().all(|event| EventId::of(&event.canonical()) == event.id)));
    rate("parse and verify", &|| assert!(lines.iter().all(|line| judge(line).is_ok())));
    rate("batch", &|| {
        let mut builder = event::EventBatchBuilder::new();
        events.iter().zip(&lines).for_each(|(event, raw)| builder.append(event, &event::Origin::default(), raw));
        assert_eq!(builder.finish().num_rows(), lines.len());
    });
}
