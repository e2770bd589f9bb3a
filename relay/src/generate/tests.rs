//! The stream as a whole: repeatable, real signatures, the mix, shares, references, schedule.

use std::collections::{HashMap, HashSet};

use event::{Limits, Reason, verify};

use super::*;

fn stream(settings: Generate, count: usize) -> Vec<GeneratedEvent> {
    generate(settings).expect("settings make sense").take(count).collect()
}

#[test]
fn one_seed_gives_one_stream_and_another_seed_another() {
    let lines = |seed| {
        let mut out = Vec::new();
        write_jsonl(Generate { seed, ..Generate::default() }, 300, &mut out).expect("memory takes all");
        out
    };
    assert_eq!(lines(5), lines(5));
    assert_ne!(lines(5), lines(6));
    let ids = |seed| -> HashSet<EventId> {
        stream(Generate { seed, ..Generate::default() }, 300).iter().map(|generated| generated.event.id).collect()
    };
    assert!(ids(5).is_disjoint(&ids(6)));
}

#[test]
fn an_event_does_not_depend_on_what_was_asked_before() {
    let mut forwards = Generator::try_new(Generate::default()).expect("default");
    let mut backwards = Generator::try_new(Generate::default()).expect("default");
    let ahead: Vec<_> = (1_000..1_100).map(|index| forwards.event(index).json).collect();
    let mut behind: Vec<_> = (1_000..1_100).rev().map(|index| backwards.event(index).json).collect();
    behind.reverse();
    assert_eq!(ahead, behind);
}

#[test]
fn genuine_events_verify_and_forged_ones_are_refused_for_their_fault() {
    let settings = Generate { forged: 0.2, late: 0.1, future: 0.1, ..Generate::default() };
    for generated in stream(settings, 2_500) {
        let parsed = Event::parse(generated.json.as_bytes(), &Limits::default()).expect("the shape is right");
        assert_eq!(parsed, generated.event);
        let verdict = verify::verify(parsed);
        match generated.fault {
            Fault::BadSignature => assert!(verdict.is_err_and(|r| r.reason == Reason::BadSignature)),
            Fault::WrongId => assert!(verdict.is_err_and(|r| r.reason == Reason::IdMismatch)),
            Fault::None | Fault::Late | Fault::Future => assert!(verdict.is_ok(), "{}", generated.json),
        }
    }
}

#[test]
fn kinds_and_sizes_are_those_of_the_network() {
    let events = stream(Generate::default(), 12_000);
    let mut kinds: HashMap<u16, f64> = HashMap::new();
    let (mut content, mut tags) = (0.0, 0.0);
    for generated in &events {
        *kinds.entry(generated.event.kind).or_default() += 100.0 / 12_000.0;
        content += generated.event.content.len() as f64 / 12_000.0;
        tags += serde_json::to_string(&generated.event.tags).expect("text").len() as f64 / 12_000.0;
    }
    let wanted: [(u16, f64); 12] = [
        (1, 39.0),
        (7, 19.0),
        (4, 5.6),
        (0, 4.7),
        (3, 4.5),
        (6, 4.4),
        (5, 3.1),
        (9_735, 2.8),
        (1_059, 2.2),
        (10_002, 1.9),
        (7_000, 0.6),
        (30_023, 0.6),
    ];
    for (kind, percent) in wanted {
        // Four standard deviations of a share among 12,000.
        let tolerance = 4.0 * (percent * (100.0 - percent) / 12_000.0).sqrt();
        let got = kinds.get(&kind).copied().unwrap_or_default();
        assert!((got - percent).abs() < tolerance, "kind {kind}: {got:.2} %, wanted {percent} %");
    }
    let share =
        |range: std::ops::Range<u16>| kinds.iter().filter(|(k, _)| range.contains(k)).map(|(_, s)| s).sum::<f64>();
    assert!((0.8..1.5).contains(&share(5_000..6_000)) && (0.6..1.2).contains(&share(6_000..7_000)));
    eprintln!("content {content:.0} bytes, tags {tags:.0} bytes");
    assert!((357.0 * 0.8..357.0 * 1.2).contains(&content), "content: {content}");
    assert!((290.0 * 0.8..290.0 * 1.2).contains(&tags), "tags: {tags}");
}

#[test]
fn faults_have_their_shares_and_dates() {
    let settings = Generate { forged: 0.1, late: 0.2, future: 0.05, ..Generate::default() };
    let mut generator = Generator::try_new(settings).expect("settings");
    let mut shares: HashMap<Fault, u32> = HashMap::new();
    for index in 0..3_000 {
        let generated = generator.event(index);
        *shares.entry(generated.fault).or_default() += 1;
        let behind = generated.at_ms.div_euclid(1_000) - generated.event.created_at;
        match generated.fault {
            Fault::Late => assert!((120..=3 * 86_400 + 3).contains(&behind), "{behind}"),
            Fault::Future => assert!((-366 * 86_400..=-86_400 + 3).contains(&behind), "{behind}"),
            _ if generated.event.kind == 1_059 => assert!((0..=2 * 86_400 + 3).contains(&behind), "{behind}"),
            _ => assert!((0..=3).contains(&behind), "{behind}"),
        }
    }
    let near = |fault, wanted: f64| (f64::from(shares[&fault]) / 3_000.0 - wanted).abs() < 0.03;
    assert!(near(Fault::Late, 0.2) && near(Fault::Future, 0.05), "{shares:?}");
    assert!(near(Fault::BadSignature, 0.05) && near(Fault::WrongId, 0.05), "{shares:?}");
}

#[test]
fn answers_name_earlier_events_and_quote_them_whole() {
    let mut seen: HashMap<String, GeneratedEvent> = HashMap::new();
    let (mut quoted, mut results, mut reactions, mut known) = (0, 0, 0, 0);
    for generated in stream(Generate { forged: 0.0, ..Generate::default() }, 4_000) {
        let event = &generated.event;
        let target = event::tags::last(&event.tags, "e").and_then(|id| seen.get(id));
        let quote = match event.kind {
            6 => Some(event.content.as_str()).filter(|content| !content.is_empty()),
            9_735 => event::tags::first(&event.tags, "description"),
            6_000..7_000 => event::tags::first(&event.tags, "request"),
            _ => None,
        };
        if let Some(quote) = quote {
            let inner = Event::parse(quote.as_bytes(), &Limits::default()).expect("a quote is an event");
            assert!(verify::verify(inner).is_ok());
            quoted += 1;
        }
        if let Some(target) = target {
            assert!(target.index < generated.index);
            match event.kind {
                6_000..7_000 => {
                    assert_eq!(target.event.kind + 1_000, event.kind);
                    assert_eq!(event::tags::first(&event.tags, "p"), Some(target.event.pubkey.to_string().as_str()));
                    results += 1;
                }
                7_000 => assert!((5_000..6_000).contains(&target.event.kind)),
                5 => assert_eq!(event.pubkey, target.event.pubkey),
                _ => {}
            }
        }
        if event.kind == 7 {
            reactions += 1;
            known += u32::from(target.is_some());
        }
        seen.insert(event.id.to_string(), generated);
    }
    assert!(quoted > 200 && results > 15, "{quoted} quotes, {results} results");
    assert!(known * 10 > reactions * 9, "{known} of {reactions} reactions are to known events");
}

#[test]
fn relays_of_one_seed_share_its_stream() {
    let relay =
        |relay| Generator::try_new(Generate { relays: 3, relay, copies: 0.4, ..Generate::default() }).expect("3");
    let relays = [relay(0), relay(1), relay(2)];
    let mut carried = [0; 4];
    for index in 0..10_000 {
        carried[relays.iter().filter(|relay| relay.delivers(index)).count()] += 1;
    }
    let expected = [0.0, 3_600.0, 4_800.0, 1_600.0];
    for (got, wanted) in carried.iter().zip(expected) {
        assert!((f64::from(*got) - wanted).abs() < 250.0, "{carried:?}");
    }
    let [mut first, mut second, _] = relays;
    assert_eq!(first.event(77).json, second.event(77).json);
}

#[test]
fn the_schedule_and_the_index_are_inverse() {
    for rate in [0.3, 7.0, 20.0, 999.9, 50_000.0] {
        let generator = Generator::try_new(Generate { rate, ..Generate::default() }).expect("a rate");
        let base = generator.settings().base_ms;
        assert_eq!((generator.index_at(base - 5), generator.index_at(base)), (0, 0));
        for now in [base + 1, base + 12_345, base + 27_000_000_123] {
            let index = generator.index_at(now);
            assert!(generator.at_ms(index) >= now && generator.at_ms(index - 1) < now, "rate {rate}, now {now}");
        }
    }
}

#[test]
fn settings_without_sense_are_refused() {
    let refused = |settings: Generate| settings.check().is_err_and(|e| e.kind() == ErrorKind::Config);
    assert!(refused(Generate { rate: f64::NAN, ..Generate::default() }));
    assert!(refused(Generate { rate: -1.0, ..Generate::default() }));
    assert!(refused(Generate { copies: 1.5, ..Generate::default() }));
    assert!(refused(Generate { late: 0.6, forged: 0.6, ..Generate::default() }));
    assert!(refused(Generate { authors: 0, ..Generate::default() }));
    assert!(refused(Generate { relays: 2, relay: 2, ..Generate::default() }));
    assert!(refused(Generate { history: 1, history_span: Duration::ZERO, ..Generate::default() }));
    assert!(Generate::default().check().is_ok());
}
