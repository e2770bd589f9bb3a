//! The event that is described on the command line: kind, content, tags, date; and its signature.

use event::{Clock, Event, EventTime, SecretKey, nip19};

use crate::error::Failure;
use crate::keys;

/// What is to be signed.
#[derive(Debug, clap::Args)]
pub(super) struct DraftArgs {
    /// Kind
    #[arg(long, value_name = "KIND", default_value_t = 1)]
    kind: u16,

    /// Content
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "events")]
    content: Option<String>,

    /// A tag as name=value,value or as a JSON array; repeatable. Behind e, p and q an id or key may be a note, nevent or
    /// npub
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Date of the event, as 2024-07-28T12:00:00Z, unix seconds or -1h [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::job::time)]
    created_at: Option<EventTime>,
}

impl DraftArgs {
    /// The signed event.
    pub(super) fn sign(&self, key: Option<&SecretKey>, clock: &Clock) -> Result<Event, Failure> {
        let tags = self.tags.iter().map(|text| tag(text)).collect::<Result<Vec<_>, _>>()?;
        let content = self.content.clone().unwrap_or_default();
        if tags.iter().flatten().chain([&content]).any(|text| holds_secret(text)) {
            return Err(Failure::usage("the event holds an nsec, a secret key, and is not signed")
                .hint("whoever reads it could write in that key's name; an author is named by the npub"));
        }
        let created_at = match self.created_at {
            Some(time) => time.micros().div_euclid(1_000_000),
            None => clock.now_ms().div_euclid(1_000),
        };
        if created_at < 0 {
            return Err(Failure::usage("an event cannot be dated before 1970"));
        }
        let Some(key) = key else {
            return Err(Failure::usage("there is no key to sign with").hint(format!(
                "name one with --key-file or in {}; `tidegate keygen --out FILE` makes one",
                keys::VARIABLE
            )));
        };
        Ok(key.sign(created_at, self.kind, tags, content))
    }
}

/// `name=value,value`, or a JSON array of texts where a value holds a comma.
fn tag(text: &str) -> Result<Vec<String>, Failure> {
    let refused = || {
        Failure::usage(format!("`{text}` is not a tag"))
            .hint("use name=value,value as in e=<id>,wss://nos.lol or a JSON array as in '[\"title\",\"a, b\"]'")
    };
    let mut tag: Vec<String> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).map_err(|_| refused())?,
        false => {
            let (name, values) = text.split_once('=').ok_or_else(refused)?;
            std::iter::once(name).chain(values.split(',')).map(str::to_owned).collect()
        }
    };
    let named = |why| Failure::usage(format!("tag `{}`: {why}", tag[0]));
    let hex = match tag.as_slice() {
        [] => return Err(refused()),
        [name, value, ..] => match name.as_str() {
            "e" | "E" => Some(nip19::event_id(value).map_err(named)?.to_string()),
            "p" | "P" => Some(nip19::public_key(value).map_err(named)?.to_string()),
            // An address may stand there as well.
            "q" => nip19::event_id(value).ok().map(|id| id.to_string()),
            _ => None,
        },
        [_] => None,
    };
    if let Some(hex) = hex {
        tag[1] = hex;
    }
    Ok(tag)
}

/// Whether a word of the text is an nsec, whole and right.
fn holds_secret(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| word.len() >= 63)
        .any(|word| matches!(nip19::Nip19::parse(word), Ok(nip19::Nip19::SecretKey(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(content: &str, tags: &[&str]) -> DraftArgs {
        let tags = tags.iter().map(ToString::to_string).collect();
        DraftArgs { kind: 1, content: Some(content.to_owned()), tags, created_at: EventTime::from_secs(7) }
    }

    fn signed(content: &str, tags: &[&str]) -> Result<Event, String> {
        let key = SecretKey::from_bytes([7; 32]).expect("a key");
        draft(content, tags).sign(Some(&key), &Clock::mock(0)).map_err(|failure| failure.text())
    }

    #[test]
    fn tags_are_read_in_both_forms_and_names_become_hex() {
        let key = SecretKey::from_bytes([9; 32]).expect("a key").public_key();
        let note = nip19::Nip19::Note(event::EventId([7; 32])).to_text().expect("a note");
        let event = signed(
            "gm",
            &[
                &format!("p={}", nip19::npub(&key)),
                &format!("e={note},wss://x.example,reply"),
                "[\"title\",\"a, b\"]",
                "t=",
                "r=a=b",
                "[\"-\"]",
            ],
        );
        let tags = event.expect("an event").tags;
        let id = "07".repeat(32);
        let wanted: [&[&str]; 6] = [
            &["p", &key.to_string()],
            &["e", &id, "wss://x.example", "reply"],
            &["title", "a, b"],
            &["t", ""],
            &["r", "a=b"],
            &["-"],
        ];
        assert_eq!(tags, wanted);
    }

    #[test]
    fn what_cannot_be_signed_is_named() {
        for (tag, said) in [
            ("nothing", "`nothing` is not a tag"),
            ("[1]", "is not a tag"),
            ("[]", "is not a tag"),
            ("p=jack", "tag `p`: `jack` is 4 characters long"),
            ("e=jack", "the id of an event belongs here"),
        ] {
            let text = signed("", &[tag]).expect_err(tag);
            assert!(text.contains(said), "{text}");
        }
        assert!(draft("", &[]).sign(None, &Clock::mock(0)).is_err_and(|why| why.text().contains("tidegate keygen")));
    }

    #[test]
    fn a_secret_key_is_not_published() {
        let nsec = nip19::nsec(&SecretKey::from_bytes([9; 32]).expect("a key"));
        for (content, tag) in [(format!("my key: {nsec}!"), "t=x".to_owned()), ("gm".to_owned(), format!("t={nsec}"))] {
            let text = signed(&content, &[&tag]).expect_err("refused");
            assert!(text.contains("holds an nsec") && !text.contains(&nsec), "{text}");
        }
        let text = signed("gm", &[&format!("p={nsec}")]).expect_err("refused");
        assert!(!text.contains(&nsec), "{text}");
    }
}
