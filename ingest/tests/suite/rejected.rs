//! The rejected topic: each input once, over restarts too, and what becomes of it by the rules of another day.

use std::collections::BTreeMap;

use event::{Clock, EventId, Limits, Reason, Span};
use ingest::{ErrorKind, FileSettings, IntakeSettings, NostrSettings, RedriveSettings, Redriven, redrive};
use tokio_util::sync::CancellationToken;

use crate::harness::{Lab, REJECTED, TOPIC, assert_balanced, assert_same, quick, signed, sorted, value};

/// 2026-01-01, and a day of it.
const NEW_YEAR_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;

fn intake() -> IntakeSettings {
    IntakeSettings { partitions: 1, max_future: Some(Span::from_secs(900)), ..IntakeSettings::default() }
}

async fn land(lab: &Lab, lines: &[String], intake: IntakeSettings) {
    let settings = FileSettings { path: lab.file(lines), intake, ..FileSettings::default() };
    ingest::file(settings, lab.components(), CancellationToken::new()).await.expect("a run");
}

/// Redrives, and returns the counts by words.
async fn again(lab: &Lab, settings: RedriveSettings) -> BTreeMap<(String, &'static str), u64> {
    let components = lab.components();
    let counters = std::sync::Arc::clone(&components.counters);
    let dry_run = settings.dry_run;
    let counts = redrive(settings, components, CancellationToken::new()).await.expect("a run");
    if !dry_run {
        assert_balanced(&counters.snapshot());
    }
    counts.into_iter().map(|((was, now), count)| ((was, now.as_str()), count)).collect()
}

fn counts<const N: usize>(wanted: [(&str, &'static str, u64); N]) -> BTreeMap<(String, &'static str), u64> {
    wanted.into_iter().map(|(was, now, count)| ((was.to_owned(), now), count)).collect()
}

/// Events whose dates lie a day, two days, … after new year.
fn dated_ahead(days: i64) -> Vec<String> {
    let key = event::SecretKey::from_bytes([7; 32]).expect("a key");
    let at = |day: i64| (NEW_YEAR_MS + day * DAY_MS) / 1_000;
    (1..=days).map(|day| key.sign(at(day), 1, vec![], format!("day {day}")).to_json()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dated_ahead_passes_when_its_time_has_come() {
    let lab = Lab { clock: Clock::mock(NEW_YEAR_MS), ..Lab::new() };
    let events = dated_ahead(4);
    land(&lab, &events, intake()).await;
    assert_eq!(lab.rejected().await, BTreeMap::from([("future".to_owned(), 4)]));
    lab.clock.set(NEW_YEAR_MS + 2 * DAY_MS);
    let settings = || RedriveSettings { intake: intake(), ..RedriveSettings::default() };
    let wanted = counts([("future", "published", 2), ("future", "future", 2)]);
    // A dry run says the same and writes nothing, however often.
    for _ in 0..2 {
        assert_eq!(again(&lab, RedriveSettings { dry_run: true, ..settings() }).await, wanted);
        assert_eq!(lab.records(TOPIC).await.len(), 0);
    }
    assert_eq!(again(&lab, settings()).await, wanted);
    assert_eq!(again(&lab, settings()).await, counts([("future", "known", 2), ("future", "future", 2)]));
    let records = lab.records(TOPIC).await;
    assert_same(&records.iter().map(value).collect::<Vec<_>>(), &events[..2]);
    let (record, refused) = (&records[0], &lab.records(REJECTED).await[0]);
    for name in ["source", "relay", "received_at"] {
        assert_eq!(record.header(name), refused.header(name), "{name}");
    }
    assert_eq!(record.header("received_at"), Some(NEW_YEAR_MS.to_string().as_str()));
    assert_eq!(record.timestamp_ms, NEW_YEAR_MS);
    assert_eq!((record.header("phase"), record.header("redriven")), (Some("backfill"), Some("future")));
    let id = EventId::scan(events[0].as_bytes()).expect("an id").to_string();
    assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
    assert_eq!(lab.rejected().await, BTreeMap::from([("future".to_owned(), 4)]), "the rejected topic stays as it is");
    // The same event from elsewhere is a copy now.
    let (before, _) = (lab.records(TOPIC).await.len(), land(&lab, &events[..1], intake()).await);
    assert_eq!(lab.records(TOPIC).await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_judged_again_and_a_part_of_an_input_is_not() {
    let lab = Lab { clock: Clock::mock(NEW_YEAR_MS + DAY_MS), ..Lab::new() };
    let key = event::SecretKey::from_bytes([7; 32]).expect("a key");
    let tagged = key.sign(1, 1, vec![vec!["t".into(), "x".into()]], "tagged".into()).to_json();
    let other_kind = key.sign(1, 7, vec![vec!["t".into()]], "other".into()).to_json();
    let forged = key.sign(1, 1, vec![], "forged".into()).to_json().replace("forged", "changed");
    let huge = key.sign(1, 1, vec![], "x".repeat(1_100_000)).to_json();
    let strict = IntakeSettings { limits: Limits { tags_max: 0, ..Limits::default() }, ..intake() };
    land(&lab, &[tagged.clone(), other_kind, forged, huge, "junk".into()], strict).await;
    let intake = IntakeSettings { kinds: ingest::Kinds::parse("1").expect("kinds"), ..intake() };
    let settings = RedriveSettings { intake, ..RedriveSettings::default() };
    let only = |reason| RedriveSettings { reasons: vec![reason], dry_run: true, ..settings.clone() };
    assert_eq!(again(&lab, only(Reason::IdMismatch)).await, counts([("id_mismatch", "id_mismatch", 1)]));
    assert_eq!(again(&lab, only(Reason::BadHex)).await, counts([]));
    let received = NEW_YEAR_MS + DAY_MS;
    for (since_ms, until_ms, count) in [
        (Some(received), None, 5),
        (Some(received + 1), None, 0),
        (None, Some(received), 0),
        (None, Some(received + 1), 5),
    ] {
        let settings = RedriveSettings { since_ms, until_ms, dry_run: true, ..settings.clone() };
        assert_eq!(again(&lab, settings).await.values().sum::<u64>(), count, "{since_ms:?} {until_ms:?}");
    }
    let wanted = counts([
        ("too_many_tags", "published", 1),
        ("too_many_tags", "filtered", 1),
        ("id_mismatch", "id_mismatch", 1),
        ("too_large", "cut", 1),
        ("malformed_json", "malformed_json", 1),
    ]);
    assert_eq!(again(&lab, settings).await, wanted);
    assert_eq!(lab.values().await, [tagged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rejected_topic_the_topic_is_named() {
    let lab = Lab::new();
    let settings = RedriveSettings { intake: intake(), ..RedriveSettings::default() };
    let error = redrive(settings, lab.components(), CancellationToken::new()).await.expect_err("no topic");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(REJECTED), "{error}");
    assert_eq!(Redriven::Refused(Reason::Future).as_str(), "future");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_relays_send_again_after_a_restart_is_counted_and_not_written_again() {
    let mut lab = Lab::new();
    let mut lines = signed(31, 200);
    for line in lines.iter_mut().step_by(4) {
        *line = line.replacen("\"content\":\"", "\"content\":\"forged ", 1);
    }
    let relay = lab.relay_of(&lines, relay::Faults::default()).await;
    let (first, result) = lab.once(std::slice::from_ref(&relay)).await;
    result.expect("a run");
    let written: Vec<String> = sorted(&lab.records(REJECTED).await.iter().map(value).collect::<Vec<_>>());
    assert_eq!((first.rejected_total(), written.len()), (50, 50));
    let again = NostrSettings { relays: vec![relay], once: true, refetch: true, ..quick() };
    let (second, result) = lab.nostr(again).await;
    result.expect("a second run");
    assert_balanced(&second);
    assert_eq!((second.rejected_total(), second.published), (0, 0));
    assert_eq!(second.rejected_again, 50);
    assert_same(&sorted(&lab.records(REJECTED).await.iter().map(value).collect::<Vec<_>>()), &written);
}
