//! Events that are signed for real, for whatever a test wants to serve.

use std::collections::HashSet;

use nostr::event::{EventBuilder, FinalizeEvent as _, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use relay::Generate;

/// `count` events of the generator that `tidegate relay` has, as JSON: all valid, no two alike, oldest first, 20 a
/// second from 2026 on. The same seed gives the same events.
///
/// # Panics
/// When the generator refuses its settings.
pub fn events(seed: u64, count: usize) -> Vec<String> {
    let settings = Generate { seed, late: 0.0, future: 0.0, forged: 0.0, ..Generate::default() };
    let made = relay::generate::generate(settings).expect("the settings make sense").map(|made| made.json);
    // One author who says the same twice within a second makes one event.
    let mut seen = HashSet::new();
    made.filter(|json| seen.insert(json.clone())).take(count).collect()
}

/// A note of kind 1, dated `created_at` seconds after 1970, as JSON; signed by the `nostr` crate.
///
/// # Panics
/// Never: the key is one.
pub fn note(created_at: u64, content: &str) -> String {
    event(1, created_at, &[], content)
}

/// `count` different notes of one second, as JSON.
pub fn notes_of_one_second(created_at: u64, count: usize) -> Vec<String> {
    (0..count).map(|number| note(created_at, &format!("note {number} of {count}"))).collect()
}

/// An event of any kind, date and content, as JSON; signed by the `nostr` crate.
///
/// # Panics
/// On a tag without a name.
pub fn event(kind: u16, created_at: u64, tags: &[&[&str]], content: &str) -> String {
    let keys = Keys::new(SecretKey::from_slice(&[7; 32]).expect("a key"));
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).expect("a tag has a name"));
    let built = EventBuilder::new(Kind::from_u16(kind), content).tags(tags);
    let signed = built.custom_created_at(Timestamp::from_secs(created_at)).finalize(&keys).expect("a key signs");
    serde_json::to_string(&signed).expect("an event is JSON")
}
