//! One event as the relay holds it: the fields that filters and rules look at, and the text that is sent.

use event::{Event, EventId, PublicKey};

/// An event held by the relay; the text is kept byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) pubkey: PublicKey,
    pub(crate) created_at: i64,
    pub(crate) kind: u16,
    /// Name and value of the tags that a filter can ask for: one ASCII letter and at least one value.
    pub(crate) tags: Box<[(u8, Box<str>)]>,
    /// When it expires (NIP-40), seconds since 1970.
    pub(crate) expiration: Option<i64>,
    /// The event as it came.
    pub(crate) raw: Box<str>,
}

impl Entry {
    /// An entry for `event`, which was read from `raw`.
    pub(crate) fn new(event: &Event, raw: impl Into<Box<str>>) -> Self {
        let letter = |tag: &Vec<String>| match (tag.first()?.as_bytes(), tag.get(1)) {
            ([name], Some(value)) if name.is_ascii_alphabetic() => Some((*name, value.as_str().into())),
            _ => None,
        };
        Self {
            id: event.id,
            pubkey: event.pubkey,
            created_at: event.created_at,
            kind: event.kind,
            tags: event.tags.iter().filter_map(letter).collect(),
            expiration: event::tags::first(&event.tags, "expiration").and_then(|secs| secs.parse().ok()),
            raw: raw.into(),
        }
    }

    /// Values of the tags named `name`, in order.
    pub(crate) fn values(&self, name: u8) -> impl Iterator<Item = &str> {
        self.tags.iter().filter(move |(letter, _)| *letter == name).map(|(_, value)| &**value)
    }

    /// Whether its author let it expire before `now_secs`.
    pub(crate) fn expired(&self, now_secs: i64) -> bool {
        self.expiration.is_some_and(|at| at <= now_secs)
    }
}
