//! Everything that reads a person's or a stranger's text, on real texts with edits: it may refuse, in words, and it
//! never panics. What it takes means what a dumb reader says.
//!
//! A short run of each is part of the suite; `PROPTEST_CASES=100000` makes it a long one. Events, frames and NIP-19 have
//! theirs beside their readers, against the `nostr` crate and `serde_json`. Edits of real texts by proptest, because they
//! shrink and run wherever the tests do; `tests/fuzz` has fuzzers that follow coverage, for what needs no DataFusion.

use std::sync::LazyLock;

use event::{EventTime, Span};
use ingest::Kinds;
use processor::{ErrorKind, Job, JobOptions, JobSource, built_in_jobs};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tests::edit;
use tokio::runtime::Runtime;

/// So many cases, or what `PROPTEST_CASES` says.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

/// What jobs are made of, beyond the words of those that are built in.
const SQL: &[&str] = &[
    "'1 minute'",
    "'0 seconds'",
    "'1 month'",
    "''",
    "'",
    "\"",
    "0",
    "-1",
    "1e400",
    "9223372036854775808",
    "NULL",
    "*",
    "(",
    ")",
    ",",
    ";",
    ".",
    "${window}",
    "${slide}",
    "${nothing}",
    "${",
    "SET job.slide = '7 minutes';\n",
    "SELECT",
    "DISTINCT",
    "UNION ALL",
    "GROUP BY",
    "ORDER BY 1",
    "LIMIT 3",
    "HAVING",
    "WHERE",
    "JOIN events ON true",
    "OVER (ORDER BY kind)",
    "window(created_at, '1 hour')",
    "window.start",
    "window_start",
    "explode(tags)",
    "tag_values(tags, 't')",
    "count(*)",
    "count(DISTINCT pubkey)",
    "approx_distinct(id)",
    "min(created_at)",
    "ROLLUP (kind)",
    "CASE WHEN kind = 1 THEN 2 END",
    "(SELECT 1)",
    "EXISTS (SELECT 1)",
    "--",
    "/*",
    "INSERT INTO x ",
    "CREATE VIEW v AS ",
    "DROP TABLE events",
    "é",
    "\u{0}",
];

fn jobs() -> Vec<String> {
    built_in_jobs().iter().map(|(_, sql)| (*sql).to_owned()).collect()
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

/// Plans a job as the commands do, on a stack like theirs.
fn plan(sql: String) -> Result<(), processor::Error> {
    let planning = move || {
        let source = JobSource { name: "edited".into(), sql, path: None };
        let job = RUNTIME.block_on(Job::plan(&source, &JobOptions::default()))?;
        assert!(!job.explain("nostr-event", None).is_empty());
        assert!(job.json_schema().is_object());
        // A batch may do what a stream cannot.
        drop(job.can_stream());
        Ok(())
    };
    let planner = std::thread::Builder::new().stack_size(8 << 20).spawn(planning).expect("a thread");
    planner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn the_jobs_that_are_edited_are_right_before() {
    for sql in jobs() {
        plan(sql).expect("a built-in job");
    }
}

/// The property below would hold of a reader that refuses everything.
#[test]
fn of_the_edited_jobs_many_are_planned_and_many_are_refused() {
    let mut runner = TestRunner::deterministic();
    let edited = edit::words(&jobs(), SQL);
    let planned = (0..300).filter(|_| plan(edited.new_tree(&mut runner).expect("a job").current()).is_ok()).count();
    assert!((60..=240).contains(&planned), "{planned} of 300 are planned");
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn an_edited_job_is_planned_or_refused_as_a_mistake_of_its_author(sql in edit::words(&jobs(), SQL)) {
        if let Err(error) = plan(sql) {
            prop_assert_eq!(error.kind(), ErrorKind::Job, "{}: {:?}", error, std::error::Error::source(&error));
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

const DURATIONS: &[&str] = &[
    "1 hour 30 minutes",
    "1h30m",
    "PT1H30M",
    "P1DT1S",
    "90 seconds",
    "1.5h",
    "250ms",
    "0",
    "INTERVAL 90 minutes",
    "2 weeks",
];
const TIMES: &[&str] = &[
    "2024-07-28",
    "2024-07-28T12:00:00Z",
    "2024-07-28 12:00:00.5+02:00",
    "1700000000",
    "now",
    "-7d",
    "-1 hour",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "-9223372036854775808",
];
const KINDS: &[&str] = &["1,7,5000-6999", "0-65535", "30023", " 1 , 2-3,4"];
const TOKENS: &[&str] = &[
    "0",
    "9",
    "-",
    ",",
    ".",
    ":",
    " ",
    "T",
    "Z",
    "P",
    "h",
    "m",
    "s",
    "d",
    "w",
    "month",
    "65535",
    "65536",
    "99999999999999999999",
    "+",
    "e",
    "é",
    "\u{0}",
    "\u{2212}",
    "_",
    "1",
];

fn text(seeds: &[&str]) -> impl Strategy<Value = String> + use<> {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    edit::bytes(seeds, TOKENS).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn a_duration_that_is_taken_is_printed_and_read_as_the_same(text in text(DURATIONS)) {
        if let Ok(span) = Span::parse(&text) {
            prop_assert!(span.micros() >= 0);
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span), "{}", text);
        }
    }

    #[test]
    fn a_time_that_is_taken_is_printed_and_read_as_the_same(text in text(TIMES), now in any::<i32>()) {
        let now = EventTime::from_secs(i64::from(now)).expect("in range");
        if let Ok(time) = EventTime::parse(&text, now) {
            let printed = time.to_string();
            // Beyond four digits of a year there is no form that others read.
            if !printed.starts_with(['+', '-']) {
                prop_assert_eq!(EventTime::parse(&printed, now), Ok(time), "{}", text);
            }
        }
    }

    #[test]
    fn kinds_that_are_taken_are_those_that_stand_there(text in text(KINDS), probe in any::<u16>()) {
        if let Ok(kinds) = Kinds::parse(&text) {
            let parts: Vec<Vec<u16>> = text
                .split(',')
                .map(|part| part.split('-').map(|number| number.trim().parse().expect("a number")).collect())
                .collect();
            let near = parts.iter().flatten().flat_map(|end| [end.saturating_sub(1), *end, end.saturating_add(1)]);
            for kind in near.chain([probe]) {
                let stands = parts.iter().any(|ends| (ends[0]..=ends[ends.len() - 1]).contains(&kind));
                prop_assert_eq!(kinds.contains(kind), stands, "{} in {}", kind, text);
            }
            let printed = kinds.to_string();
            prop_assert_eq!(Kinds::parse(&printed), Ok(kinds));
        }
    }
}
