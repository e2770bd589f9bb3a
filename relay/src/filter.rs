//! Filters of NIP-01: read strictly, matched exactly.
//!
//! What a filter names in a way that the NIP does not know (a prefix of an id, a tag of several letters, `search`) is
//! refused with a reason instead of being ignored, since a client that believes it filtered would take everything.

use std::collections::HashSet;
use std::hash::Hash;

use event::{EventId, PublicKey};
use serde_json::{Map, Value};

use crate::entry::Entry;

/// One filter; conditions that are absent hold for every event, an empty list for none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filter {
    pub(crate) ids: Option<HashSet<EventId>>,
    pub(crate) authors: Option<HashSet<PublicKey>>,
    pub(crate) kinds: Option<HashSet<u16>>,
    /// By letter: one value of the set must be among the event's.
    pub(crate) tags: Vec<(u8, HashSet<String>)>,
    pub(crate) since: Option<i64>,
    pub(crate) until: Option<i64>,
    pub(crate) limit: Option<usize>,
}

impl Filter {
    /// Reads a filter; the error says what is wrong with it.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let fields: Map<String, Value> =
            serde_json::from_str(json).map_err(|_| "a filter is not an object".to_owned())?;
        let mut filter = Self::default();
        for (name, value) in &fields {
            match (name.as_str(), name.strip_prefix('#').map(str::as_bytes)) {
                ("ids", _) => filter.ids = Some(set(name, value, |v| EventId::from_hex(v.as_str()?))?),
                ("authors", _) => filter.authors = Some(set(name, value, |v| PublicKey::from_hex(v.as_str()?))?),
                ("kinds", _) => filter.kinds = Some(set(name, value, |v| u16::try_from(v.as_u64()?).ok())?),
                ("since", _) => filter.since = Some(seconds(name, value)?),
                ("until", _) => filter.until = Some(seconds(name, value)?),
                ("limit", _) => {
                    let limit = value.as_u64().ok_or("`limit` is not a whole number from 0 on")?;
                    filter.limit = Some(usize::try_from(limit).unwrap_or(usize::MAX));
                }
                (_, Some([letter])) if letter.is_ascii_alphabetic() => {
                    filter.tags.push((*letter, set(name, value, |v| v.as_str().map(str::to_owned))?));
                }
                _ => return Err(format!("filter item `{}` is not known", name.chars().take(40).collect::<String>())),
            }
        }
        Ok(filter)
    }

    /// Whether the filter matches; `limit` has no say.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| since <= entry.created_at)
            && self.until.is_none_or(|until| entry.created_at <= until)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&entry.kind))
            && self.authors.as_ref().is_none_or(|authors| authors.contains(&entry.pubkey))
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&entry.id))
            && self.tags.iter().all(|(letter, wanted)| entry.values(*letter).any(|value| wanted.contains(value)))
    }
}

fn set<T: Eq + Hash>(name: &str, value: &Value, item: impl Fn(&Value) -> Option<T>) -> Result<HashSet<T>, String> {
    let items = value.as_array().ok_or_else(|| format!("`{name}` is not a list"))?;
    let wanted = match name {
        "ids" | "authors" => "64 lower-case hex digits",
        "kinds" => "a whole number from 0 to 65535",
        _ => "text",
    };
    items.iter().map(|v| item(v).ok_or_else(|| format!("an item of `{name}` is not {wanted}"))).collect()
}

fn seconds(name: &str, value: &Value) -> Result<i64, String> {
    let secs = value.as_u64().ok_or_else(|| format!("`{name}` is not a whole number from 0 on"))?;
    Ok(i64::try_from(secs).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_or_refused_with_what_is_wrong() {
        let hex = "ab".repeat(32);
        let filter = Filter::parse(&format!(
            r##"{{"ids":["{hex}"],"kinds":[1,65535],"#t":["x"],"#T":[],"since":5,"until":18446744073709551615,"limit":0}}"##
        ));
        let filter = filter.expect("all of it is known");
        assert_eq!((filter.since, filter.until, filter.limit), (Some(5), Some(i64::MAX), Some(0)));
        assert_eq!(filter.tags.len(), 2);
        for (json, part) in [
            ("[]", "not an object"),
            (r#"{"ids":["abcd"]}"#, "64 lower-case hex"),
            (r#"{"authors":"ab"}"#, "not a list"),
            (r#"{"kinds":["1"]}"#, "65535"),
            (r#"{"kinds":[65536]}"#, "65535"),
            (r#"{"since":-1}"#, "since"),
            (r#"{"until":1.5}"#, "until"),
            (r#"{"limit":"10"}"#, "limit"),
            (r##"{"#ab":["x"]}"##, "#ab"),
            (r##"{"#1":["x"]}"##, "#1"),
            (r##"{"#t":[1]}"##, "text"),
            (r#"{"search":"gm"}"#, "search"),
        ] {
            assert!(Filter::parse(json).is_err_and(|why| why.contains(part)), "{json}");
        }
    }
}
