//! The filter against an oracle: the `nostr` crate must say the same of every generated event and random filter.

use std::sync::LazyLock;

use nostr::filter::MatchEventOptions;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;
use crate::entry::Entry;
use crate::filter::Filter;
use crate::generate::{Generate, generate};

struct Pair {
    ours: Entry,
    theirs: nostr::event::Event,
}

static EVENTS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let settings = Generate { authors: 40, forged: 0.0, late: 0.3, ..Generate::default() };
    let generated = generate(settings).expect("settings").take(400);
    generated
        .map(|generated| Pair {
            theirs: nostr::event::Event::from_json(&generated.json).expect("the oracle reads it"),
            ours: Entry::new(&generated.event, generated.json),
        })
        .collect()
});

/// A filter made of what some events have, so that it often matches; lists are never empty, for there the two differ
/// on purpose (ours matches nothing, as strfry has it).
fn filters() -> impl Strategy<Value = Value> {
    let picks = (prop::collection::vec(any::<Index>(), 1..12), subsequence(vec![0, 1, 2, 3, 4, 5], 1..4));
    picks.prop_map(|(picks, conditions)| {
        let picked: Vec<&Entry> = picks.iter().map(|pick| &pick.get(&EVENTS).ours).collect();
        let mut filter = json!({});
        for condition in conditions {
            match condition {
                0 => filter["ids"] = picked.iter().map(|entry| json!(entry.id.to_string())).collect(),
                1 => filter["authors"] = picked.iter().map(|entry| json!(entry.pubkey.to_string())).collect(),
                2 => filter["kinds"] = picked.iter().map(|entry| json!(entry.kind)).collect(),
                3 => filter["since"] = json!(picked[0].created_at),
                4 => filter["until"] = json!(picked[0].created_at),
                _ => {
                    for (letter, value) in picked.iter().flat_map(|entry| entry.tags.iter().take(2)) {
                        let name = format!("#{}", char::from(*letter));
                        match filter[&name].as_array_mut() {
                            Some(values) => values.push(json!(value)),
                            None => filter[&name] = json!([value]),
                        }
                    }
                }
            }
        }
        filter
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_filter_matches_what_the_oracle_says(json in filters()) {
        let ours = Filter::parse(&json.to_string()).expect("a good filter");
        let theirs = nostr::filter::Filter::from_json(json.to_string()).expect("the oracle reads it");
        for pair in EVENTS.iter() {
            let oracle = theirs.match_event(&pair.theirs, MatchEventOptions::new());
            prop_assert_eq!(ours.matches(&pair.ours), oracle, "{} of {}", json, pair.ours.raw);
        }
    }
}
