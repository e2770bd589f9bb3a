//! What a scripted relay holds, and a filter matcher that is too simple to be wrong: every event is looked at.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

/// Events, newest first and of one second the lowest id first (NIP-01).
#[derive(Debug, Default)]
pub struct Store(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    order: (Reverse<i64>, String),
    event: Value,
    raw: Arc<str>,
}

impl Store {
    /// A store of these events; each must be JSON with an id and a date, true or not.
    pub(super) fn new(events: &[String]) -> Self {
        let mut store = Self(events.iter().map(|raw| entry(&raw.as_str().into())).collect());
        store.0.sort_by(|a, b| a.order.cmp(&b.order));
        store
    }

    pub(super) fn insert(&mut self, raw: &Arc<str>) {
        let entry = entry(raw);
        let at = self.0.partition_point(|other| other.order < entry.order);
        self.0.insert(at, entry);
    }

    /// All events, newest first.
    pub fn all(&self) -> Vec<Arc<str>> {
        self.0.iter().map(|entry| Arc::clone(&entry.raw)).collect()
    }

    /// Events that a filter matches, newest first, at most `limit` of the filter and `cap`.
    pub fn matching(&self, filter: &Value, cap: usize) -> Vec<Arc<str>> {
        let limit = filter["limit"].as_u64().map_or(cap, |limit| usize::try_from(limit).unwrap_or(cap).min(cap));
        let found = self.0.iter().filter(|entry| matches(filter, &entry.event));
        found.take(limit).map(|entry| Arc::clone(&entry.raw)).collect()
    }
}

fn entry(raw: &Arc<str>) -> Entry {
    let event: Value = serde_json::from_str(raw).expect("what a relay serves as an event is JSON");
    // Beyond i64 lies the far future.
    let created_at = event["created_at"].as_i64().unwrap_or(i64::MAX);
    Entry { order: (Reverse(created_at), event["id"].to_string()), event, raw: Arc::clone(raw) }
}

/// Whether a filter of NIP-01 matches, `limit` aside.
pub(super) fn matches(filter: &Value, event: &Value) -> bool {
    let Some(filter) = filter.as_object() else { return false };
    filter.iter().all(|(name, wanted)| match name.as_str() {
        "ids" => among(wanted, &event["id"]),
        "authors" => among(wanted, &event["pubkey"]),
        "kinds" => among(wanted, &event["kind"]),
        "since" => event["created_at"].as_i64() >= wanted.as_i64(),
        "until" => event["created_at"].as_i64().is_some_and(|at| wanted.as_i64().is_some_and(|until| at <= until)),
        "limit" => true,
        tag => tagged(tag.trim_start_matches('#'), wanted, event),
    })
}

fn among(wanted: &Value, value: &Value) -> bool {
    wanted.as_array().is_some_and(|wanted| wanted.contains(value))
}

fn tagged(name: &str, wanted: &Value, event: &Value) -> bool {
    event["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag[0] == name && among(wanted, &tag[1])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, created_at: i64, kind: u16) -> String {
        json!({"id": id, "pubkey": "p", "created_at": created_at, "kind": kind, "tags": [["t", "x"]]}).to_string()
    }

    #[test]
    fn what_is_stored_is_given_out_newest_first_up_to_the_least_limit() {
        let store = Store::new(&[event("b", 5, 1), event("a", 5, 1), event("c", 9, 7), event("d", 1, 1)]);
        let ids = |filter: Value, cap| -> Vec<String> {
            let found = store.matching(&filter, cap);
            let id =
                |raw: &Arc<str>| serde_json::from_str::<Value>(raw).expect("JSON")["id"].as_str().map(str::to_owned);
            found.iter().filter_map(id).collect()
        };
        assert_eq!(ids(json!({}), 10), ["c", "a", "b", "d"]);
        assert_eq!(ids(json!({}), 2), ["c", "a"]);
        assert_eq!(ids(json!({"limit": 1}), 2), ["c"]);
        assert_eq!(ids(json!({"limit": 0}), 2), [""; 0]);
        assert_eq!(ids(json!({"until": 5, "since": 2}), 10), ["a", "b"]);
        assert_eq!(ids(json!({"kinds": [7, 8]}), 10), ["c"]);
        assert_eq!(ids(json!({"ids": ["d", "e"]}), 10), ["d"]);
        assert_eq!(ids(json!({"#t": ["y"]}), 10), [""; 0]);
        assert_eq!(ids(json!({"#t": ["x"], "authors": ["p"]}), 10).len(), 4);
    }
}
