//! Event: the seven fields of NIP-01, parsed, not yet believed.
//!
//! In come bytes from a stranger; out goes an [`Event`] whose fields have their types and ranges, or a [`Rejection`].
//! One pass reads the whole input; a fault that leaves the JSON readable is noted and reading goes on, so that the
//! reason does not depend on the order of the keys. Whether id and signature are right is [`crate::verify`]'s affair.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::id::{self, EventId, PublicKey, decode_hex, push_hex, push_integer, push_tags};
use crate::json::{Fault, Reader, Sort, Text, push_string};
use crate::rejection::{Reason, Rejection};
use crate::time::EventTime;

/// A Nostr event (NIP-01).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Id, as claimed.
    pub id: EventId,
    /// Public key of the author, as claimed.
    pub pubkey: PublicKey,
    /// Seconds since 1970, as the author claims; 0 to what [`EventTime`] holds.
    pub created_at: i64,
    /// Kind.
    pub kind: u16,
    /// Tags; one may be empty, and so may its name.
    pub tags: Vec<Vec<String>>,
    /// Content.
    pub content: String,
    /// BIP-340 signature, as claimed.
    pub sig: [u8; 64],
}

/// How much of an event we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest JSON text in bytes; 1 MiB by default.
    pub event_bytes_max: usize,
    /// Most tags, for every kind; 10,000 by default (follow and bookmark lists of 2,000 are real).
    pub tags_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes_max: 1 << 20, tags_max: 10_000 }
    }
}

impl Event {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// The first fault in this order, wherever it stands: size, UTF-8, JSON (a nesting beyond four and a top-level key
    /// that stands twice included), an object, seven fields, their types, number of tags, well-formed Unicode,
    /// lower-case hex of the right length, ranges.
    pub fn parse(json: &[u8], limits: &Limits) -> Result<Self, Rejection> {
        read(json, limits).map_err(|fault| Rejection::new(fault.reason, fault.detail).with_id(EventId::scan(json)))
    }

    /// The bytes whose SHA-256 the id should be: see [`id::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        id::canonical(&self.pubkey, self.created_at, self.kind, &self.tags, &self.content)
    }

    /// The event as one line of compact JSON, keys in the order of NIP-01.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(384 + self.content.len() * 9 / 8 + self.tags.len() * 80);
        out.push_str("{\"id\":\"");
        push_hex(&mut out, &self.id.0);
        out.push_str("\",\"pubkey\":\"");
        push_hex(&mut out, &self.pubkey.0);
        out.push_str("\",\"created_at\":");
        push_integer(&mut out, self.created_at);
        out.push_str(",\"kind\":");
        push_integer(&mut out, i64::from(self.kind));
        out.push_str(",\"tags\":");
        push_tags(&mut out, &self.tags);
        out.push_str(",\"content\":");
        push_string(&mut out, &self.content);
        out.push_str(",\"sig\":\"");
        push_hex(&mut out, &self.sig);
        out.push_str("\"}");
        out
    }

    /// Event time: `created_at`. A date that [`Event::parse`] would have refused is moved to the end of the calendar.
    #[must_use]
    pub fn event_time(&self) -> EventTime {
        EventTime::from_secs(self.created_at).unwrap_or(if self.created_at < 0 {
            EventTime::MIN
        } else {
            EventTime::MAX
        })
    }
}

fn read(json: &[u8], limits: &Limits) -> Result<Event, Fault> {
    if json.len() > limits.event_bytes_max {
        let detail = format!("{} bytes, more than {}", json.len(), limits.event_bytes_max);
        return Err(Fault { reason: Reason::TooLarge, detail });
    }
    let text = str::from_utf8(json).map_err(|error| Fault {
        reason: Reason::InvalidUtf8,
        detail: format!("no UTF-8 at byte {}", error.valid_up_to()),
    })?;
    let mut reader = Reader::new(text);
    let sort = reader.peek()?;
    if sort != Sort::Object {
        reader.skip(0)?;
        reader.end()?;
        return Err(Fault { reason: Reason::NotObject, detail: format!("{}, not an object", sort.as_str()) });
    }
    let mut draft = Draft::new(limits);
    draft.object(&mut reader)?;
    reader.end()?;
    draft.finish()
}

/// Names of the seven fields; a field's place here is its bit in [`Draft::seen`].
const FIELDS: [&str; 7] = ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"];

/// What has been read of an event so far, and the gravest fault.
struct Draft<'a> {
    tags_max: usize,
    seen: u8,
    /// Top-level keys beside the seven. Sorted, so that a megabyte of keys costs no square of their number.
    others: BTreeSet<Cow<'a, str>>,
    fault: Option<Fault>,
    id: Option<[u8; 32]>,
    pubkey: Option<[u8; 32]>,
    created_at: Option<i64>,
    kind: Option<u16>,
    tags: Vec<Vec<String>>,
    content: String,
    sig: Option<[u8; 64]>,
}

impl<'a> Draft<'a> {
    const fn new(limits: &Limits) -> Self {
        Self {
            tags_max: limits.tags_max,
            seen: 0,
            others: BTreeSet::new(),
            fault: None,
            id: None,
            pubkey: None,
            created_at: None,
            kind: None,
            tags: Vec::new(),
            content: String::new(),
            sig: None,
        }
    }

    fn object(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        reader.open(1)?;
        let mut first = true;
        while reader.item(&mut first, b'}')? {
            let key = reader.key()?;
            if key.lone_surrogate {
                self.note(Reason::InvalidUnicode, || "a key holds a lone surrogate".to_owned());
            }
            let Some(field) = FIELDS.iter().position(|name| *name == key.value) else {
                if self.others.contains(&key.value) {
                    self.note(Reason::DuplicateKey, || format!("key `{}` stands twice", key.value));
                } else {
                    self.others.insert(key.value);
                }
                reader.skip(1)?;
                continue;
            };
            if self.seen & (1 << field) != 0 {
                self.note(Reason::DuplicateKey, || format!("key `{}` stands twice", FIELDS[field]));
            }
            self.seen |= 1 << field;
            self.field(FIELDS[field], reader)?;
        }
        Ok(())
    }

    fn field(&mut self, name: &'static str, reader: &mut Reader<'a>) -> Result<(), Fault> {
        match name {
            "id" => self.id = self.hex("`id`", reader)?,
            "pubkey" => self.pubkey = self.hex("`pubkey`", reader)?,
            "sig" => self.sig = self.hex("`sig`", reader)?,
            "created_at" => {
                let in_range = |secs: &i64| *secs >= 0 && EventTime::from_secs(*secs).is_some();
                self.created_at = self.integer("`created_at`", reader, |secs| Some(secs).filter(in_range))?;
            }
            "kind" => self.kind = self.integer("`kind`", reader, |kind| u16::try_from(kind).ok())?,
            "tags" => self.tags(reader)?,
            _ => {
                if let Some(text) = self.text("`content`", reader, 1)? {
                    self.content = text.value.into_owned();
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Event, Fault> {
        if let Some(missing) = (0..FIELDS.len()).find(|field| self.seen & (1 << field) == 0) {
            self.note(Reason::MissingField, || format!("field `{}` is missing", FIELDS[missing]));
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let values = (self.id, self.pubkey, self.created_at, self.kind, self.sig);
        let (Some(id), Some(pubkey), Some(created_at), Some(kind), Some(sig)) = values else {
            unreachable!("a field that was seen has a value or has left a fault");
        };
        let (id, pubkey) = (EventId(id), PublicKey(pubkey));
        Ok(Event { id, pubkey, created_at, kind, tags: self.tags, content: self.content, sig })
    }

    fn hex<const N: usize>(&mut self, name: &str, reader: &mut Reader<'a>) -> Result<Option<[u8; N]>, Fault> {
        let Some(text) = self.text(name, reader, 1)? else { return Ok(None) };
        let bytes = decode_hex(text.value.as_bytes());
        if bytes.is_none() {
            self.note(Reason::BadHex, || format!("{name} is not {} lower-case hex digits", 2 * N));
        }
        Ok(bytes)
    }

    /// An integer written as one (`-0`, `1.0` and `1e3` are not), of which `convert` takes those in range.
    fn integer<T>(
        &mut self,
        name: &str,
        reader: &mut Reader<'a>,
        convert: impl Fn(i64) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let sort = reader.peek()?;
        if sort != Sort::Number {
            self.wrong(name, sort, "an integer");
            reader.skip(1)?;
            return Ok(None);
        }
        let token = reader.number()?;
        if token == "-0" || token.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            self.note(Reason::WrongType, || format!("{name} is {}, not written as an integer", short(token)));
            return Ok(None);
        }
        let value = token.parse().ok().and_then(convert);
        if value.is_none() {
            self.note(Reason::OutOfRange, || format!("{name} is {}, out of range", short(token)));
        }
        Ok(value)
    }

    fn tags(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        let sort = reader.peek()?;
        if sort != Sort::Array {
            self.wrong("`tags`", sort, "an array");
            return reader.skip(1);
        }
        reader.open(2)?;
        let mut first = true;
        let mut count = 0;
        while reader.item(&mut first, b']')? {
            count += 1;
            if count > self.tags_max {
                // Read on for the sake of the JSON, but keep nothing more.
                reader.skip(2)?;
            } else {
                self.tag(reader)?;
            }
        }
        if count > self.tags_max {
            let tags_max = self.tags_max;
            self.note(Reason::TooManyTags, || format!("{count} tags, more than {tags_max}"));
        }
        Ok(())
    }

    fn tag(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        let sort = reader.peek()?;
        if sort != Sort::Array {
            self.wrong("a tag", sort, "an array");
            return reader.skip(2);
        }
        reader.open(3)?;
        let mut first = true;
        let mut tag = Vec::with_capacity(4);
        while reader.item(&mut first, b']')? {
            if let Some(text) = self.text("an element of a tag", reader, 3)? {
                tag.push(text.value.into_owned());
            }
        }
        self.tags.push(tag);
        Ok(())
    }

    /// A string inside of `depth` brackets; `None` after a fault was noted.
    fn text(&mut self, name: &str, reader: &mut Reader<'a>, depth: u32) -> Result<Option<Text<'a>>, Fault> {
        let sort = reader.peek()?;
        if sort != Sort::Text {
            self.wrong(name, sort, "a string");
            reader.skip(depth)?;
            return Ok(None);
        }
        let text = reader.string()?;
        if text.lone_surrogate {
            self.note(Reason::InvalidUnicode, || format!("{name} holds a lone surrogate"));
        }
        Ok(Some(text))
    }

    fn wrong(&mut self, name: &str, found: Sort, wanted: &str) {
        self.note(Reason::WrongType, || format!("{name} is {}, not {wanted}", found.as_str()));
    }

    /// Keeps a fault unless a graver one, or an earlier one as grave, is known.
    fn note(&mut self, reason: Reason, detail: impl FnOnce() -> String) {
        if self.fault.as_ref().is_none_or(|fault| gravity(reason) < gravity(fault.reason)) {
            self.fault = Some(Fault { reason, detail: detail() });
        }
    }
}

/// Place of a reason in the order of checks; what ends the reading at once needs none.
const fn gravity(reason: Reason) -> u8 {
    match reason {
        Reason::DuplicateKey => 0,
        Reason::MissingField => 1,
        Reason::WrongType => 2,
        Reason::TooManyTags => 3,
        Reason::InvalidUnicode => 4,
        Reason::BadHex => 5,
        _ => 6,
    }
}

/// A number for a message: whole when short.
fn short(token: &str) -> Cow<'_, str> {
    if token.len() <= 40 { token.into() } else { format!("{}… ({} characters)", &token[..20], token.len()).into() }
}

#[cfg(test)]
mod tests;
