//! Which events are wanted: options of a person to a condition in SQL. Nothing is read here.

use std::collections::BTreeMap;

use ::ingest::Kinds;
use event::{EventTime, nip19};

use crate::error::Failure;

/// Which events.
#[derive(Debug, Default, clap::Args)]
pub(super) struct FilterArgs {
    /// Only events whose content holds this text, in upper or lower case
    #[arg(short, long, value_name = "TEXT")]
    keyword: Option<String>,

    /// Only these authors, as npub, nprofile or hex; repeatable
    #[arg(long = "author", value_name = "KEY", value_delimiter = ',')]
    authors: Vec<String>,

    /// Only these events, as note, nevent or hex; repeatable
    #[arg(long = "id", value_name = "ID", value_delimiter = ',')]
    ids: Vec<String>,

    /// Only these kinds, as 1,7,5000-6999
    #[arg(long, alias = "kind", value_name = "KINDS", value_parser = Kinds::parse)]
    kinds: Option<Kinds>,

    /// Only events with this tag, as t=nostr, e=note1… or p=npub1…; repeatable: one of the values of each name
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<String>,

    /// Only events dated at or after this time, as 2024-07-28T12:00:00Z, unix seconds or -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::job::time)]
    since: Option<EventTime>,

    /// Only events dated before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::job::time)]
    until: Option<EventTime>,
}

impl FilterArgs {
    /// ` WHERE …`, or nothing when everything is wanted.
    ///
    /// # Errors
    /// A usage error that names the value that is no key, id or tag, unless it is a secret.
    pub(super) fn condition(&self) -> Result<String, Failure> {
        let mut all = Vec::new();
        if let Some(keyword) = self.keyword.as_deref().filter(|keyword| !keyword.is_empty()) {
            all.push(format!("strpos(lower(content), lower({})) > 0", quoted(keyword)));
        }
        all.extend(one_of("pubkey", &self.authors, |text| Ok(nip19::public_key(text)?.to_string()))?);
        all.extend(one_of("id", &self.ids, |text| Ok(nip19::event_id(text)?.to_string()))?);
        all.extend(self.kinds.as_ref().and_then(Kinds::ranges).map(of_kinds));
        all.extend(self.tag_conditions()?);
        all.extend(self.since.map(|time| format!("created_at >= {}", literal(time))));
        all.extend(self.until.map(|time| format!("created_at < {}", literal(time))));
        Ok(if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) })
    }

    /// A condition a name: its values widen it.
    fn tag_conditions(&self) -> Result<Vec<String>, Failure> {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for text in &self.tags {
            let Some((name, value)) = text.split_once('=') else {
                return Err(Failure::usage(format!("`{text}` is not a tag")).hint("use name=value, as in t=nostr"));
            };
            let hex = match name {
                "e" | "E" => nip19::event_id(value).map(|id| id.to_string()),
                "p" | "P" => nip19::public_key(value).map(|key| key.to_string()),
                _ => Ok(value.to_owned()),
            };
            let value = hex.map_err(|why| Failure::usage(format!("tag `{name}`: {why}")))?;
            by_name.entry(name).or_default().push(value);
        }
        let condition = |(name, values): (&str, Vec<String>)| {
            let has = |value: &String| format!("array_has(tag_values(tags, {}), {})", quoted(name), quoted(value));
            format!("({})", values.iter().map(has).collect::<Vec<_>>().join(" OR "))
        };
        Ok(by_name.into_iter().map(condition).collect())
    }
}

fn one_of(
    column: &str,
    texts: &[String],
    hex: impl Fn(&str) -> Result<String, String>,
) -> Result<Option<String>, Failure> {
    let values = texts.iter().map(|text| hex(text).map_err(Failure::usage)).collect::<Result<Vec<_>, _>>()?;
    let list = values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
    Ok((!values.is_empty()).then(|| format!("encode({column}, 'hex') IN ({list})")))
}

fn of_kinds(ranges: &[(u16, u16)]) -> String {
    let any: Vec<String> = ranges.iter().map(|(first, last)| format!("kind BETWEEN {first} AND {last}")).collect();
    format!("({})", any.join(" OR "))
}

/// A constant of the column's own type, so that objects of other times are not even opened.
fn literal(time: EventTime) -> String {
    format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", time.micros())
}

/// Text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_narrow_each_other_and_values_widen_one() {
        let filter = FilterArgs {
            keyword: Some("it's".into()),
            authors: vec!["07".repeat(32), "08".repeat(32)],
            kinds: Kinds::parse("1,5-6").ok(),
            tags: vec!["t=b".into(), "x=1=2".into(), "t=a".into()],
            until: EventTime::from_secs(7),
            ..FilterArgs::default()
        };
        let (seven, eight) = ("07".repeat(32), "08".repeat(32));
        let wanted = format!(
            " WHERE strpos(lower(content), lower('it''s')) > 0 AND encode(pubkey, 'hex') IN ('{seven}', '{eight}') AND \
             (kind BETWEEN 1 AND 1 OR kind BETWEEN 5 AND 6) AND (array_has(tag_values(tags, 't'), 'b') OR \
             array_has(tag_values(tags, 't'), 'a')) AND (array_has(tag_values(tags, 'x'), '1=2')) AND \
             created_at < arrow_cast(7000000, 'Timestamp(Microsecond, Some(\"UTC\"))')"
        );
        assert_eq!(filter.condition().map_err(|failure| failure.text()), Ok(wanted));
        assert_eq!(FilterArgs::default().condition().ok().as_deref(), Some(""));
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let refused = |filter: FilterArgs| filter.condition().map_err(|failure| failure.text()).expect_err("refused");
        let authors = FilterArgs { authors: vec!["jack".into()], ..FilterArgs::default() };
        assert!(refused(authors).contains("`jack` is 4 characters long and no key or id; a public key belongs here"));
        let ids = FilterArgs { ids: vec!["note1x".into()], ..FilterArgs::default() };
        assert!(refused(ids).contains("`note1x`"));
        for (tag, said) in [("t", "`t` is not a tag"), ("e=x", "tag `e`: `x`"), ("p=", "tag `p`: ``")] {
            let tags = FilterArgs { tags: vec![tag.into()], ..FilterArgs::default() };
            assert!(refused(tags).contains(said), "{tag}");
        }
    }
}
