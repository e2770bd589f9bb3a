//! Ids and keys as people pass them on (NIP-19): `npub1…`, `nsec1…`, `note1…`, `nprofile1…`, `nevent1…`, `naddr1…`, each
//! also behind `nostr:` (NIP-21).
//!
//! In comes what a person typed, out goes what it names, or a sentence that says what is wrong with it. A text that may
//! hold a secret key is never repeated in a sentence. Relays in it are hints, given as they stand: nothing connects.

use bech32::primitives::decode::{CheckedHrpstring, CheckedHrpstringError};
use bech32::{Bech32, Hrp};

use crate::id::{EventId, PublicKey};
use crate::sign::SecretKey;

/// What a text of NIP-19 names.
#[derive(Debug)]
pub enum Nip19 {
    /// `npub`: an author.
    PublicKey(PublicKey),
    /// `nsec`: a secret key.
    SecretKey(SecretKey),
    /// `note`: an event.
    Note(EventId),
    /// `nprofile`: an author, with relays to find what is theirs.
    Profile(Profile),
    /// `nevent`: an event, with relays to find it.
    Event(EventPointer),
    /// `naddr`: whatever event is newest under a name of its author's (NIP-01, addressable events).
    Address(Address),
}

/// An author, and where to find what is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The author.
    pub pubkey: PublicKey,
    /// Relay URLs, as they stand.
    pub relays: Vec<String>,
}

/// An event, and where to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPointer {
    /// The event.
    pub id: EventId,
    /// Relay URLs, as they stand.
    pub relays: Vec<String>,
    /// Its author, if named.
    pub author: Option<PublicKey>,
    /// Its kind, if named.
    pub kind: Option<u16>,
}

/// An addressable event: kind, author, and the value of its `d` tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Value of the `d` tag; empty for replaceable events.
    pub identifier: String,
    /// The author.
    pub pubkey: PublicKey,
    /// The kind.
    pub kind: u16,
    /// Relay URLs, as they stand.
    pub relays: Vec<String>,
}

const NPUB: &str = "npub";
const NSEC: &str = "nsec";
const NOTE: &str = "note";
const NPROFILE: &str = "nprofile";
const NEVENT: &str = "nevent";
const NADDR: &str = "naddr";

/// Types of the parts of `nprofile`, `nevent` and `naddr`; others are passed over, as NIP-19 wants.
const SPECIAL: u8 = 0;
const RELAY: u8 = 1;
const AUTHOR: u8 = 2;
const KIND: u8 = 3;

const A_PUBLIC_KEY: &str = "a public key belongs here: an npub, an nprofile or 64 hex digits";
const AN_EVENT_ID: &str = "the id of an event belongs here: a note, an nevent or 64 hex digits";
const A_SECRET_KEY: &str = "a secret key belongs here: an nsec or 64 hex digits";

impl Nip19 {
    /// Reads a text of NIP-19, in lower or in upper case, with or without `nostr:`.
    ///
    /// # Errors
    /// A sentence that names the text, unless it may be a secret, and what is wrong: no bech32 (BIP-173), a wrong
    /// checksum, an unknown prefix, a missing part or one of the wrong length.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = bare(text);
        read(text).map_err(|why| format!("{} {why}", shown(text)))
    }

    /// The text, in lower case and without `nostr:`; of an `nsec` it is the secret.
    ///
    /// # Errors
    /// A sentence when a relay or identifier is longer than 255 bytes, or all of it longer than bech32 takes (1,023
    /// characters).
    pub fn to_text(&self) -> Result<String, String> {
        let (prefix, bytes) = match self {
            Self::PublicKey(pubkey) => (NPUB, pubkey.0.to_vec()),
            Self::SecretKey(key) => (NSEC, key.reveal().to_vec()),
            Self::Note(id) => (NOTE, id.0.to_vec()),
            Self::Profile(profile) => (NPROFILE, profile.parts()?),
            Self::Event(event) => (NEVENT, event.parts()?),
            Self::Address(address) => (NADDR, address.parts()?),
        };
        bech32::encode::<Bech32>(hrp(prefix), &bytes).map_err(|why| format!("does not fit into one {prefix}: {why}"))
    }

    /// What it is, for a sentence.
    const fn sort(&self) -> &'static str {
        match self {
            Self::PublicKey(_) => "an npub (a public key)",
            Self::SecretKey(_) => "an nsec (a secret key)",
            Self::Note(_) => "a note (the id of an event)",
            Self::Profile(_) => "an nprofile (a public key with relays)",
            Self::Event(_) => "an nevent (the id of an event with relays)",
            Self::Address(_) => "an naddr (kind, author and name of an event, not its id)",
        }
    }
}

/// The public key that a person named: npub, nprofile or hex.
///
/// # Errors
/// A sentence that says what is wrong and what would do; a secret key is refused and not repeated.
pub fn public_key(text: &str) -> Result<PublicKey, String> {
    named(text, A_PUBLIC_KEY, PublicKey::from_hex, |named| match named {
        Nip19::PublicKey(pubkey) => Ok(pubkey),
        Nip19::Profile(profile) => Ok(profile.pubkey),
        other => Err(other),
    })
}

/// The event id that a person named: note, nevent or hex.
///
/// # Errors
/// A sentence that says what is wrong and what would do; a secret key is refused and not repeated.
pub fn event_id(text: &str) -> Result<EventId, String> {
    named(text, AN_EVENT_ID, EventId::from_hex, |named| match named {
        Nip19::Note(id) => Ok(id),
        Nip19::Event(event) => Ok(event.id),
        other => Err(other),
    })
}

/// The secret key that a person has in a file: nsec or hex, blanks around it passed over.
///
/// # Errors
/// A sentence that says what is wrong and what would do, without a word of the text.
pub fn secret_key(text: &str) -> Result<SecretKey, String> {
    let text = bare(text);
    if let Some(key) = SecretKey::from_hex(&text.to_ascii_lowercase()) {
        return Ok(key);
    }
    match read(text) {
        Ok(Nip19::SecretKey(key)) => Ok(key),
        Ok(other) => Err(format!("this is {}; {A_SECRET_KEY}", other.sort())),
        Err(why) if secret(text) => Err(format!("this nsec {why}")),
        Err(_) => Err(format!("this is no key; {A_SECRET_KEY}")),
    }
}

/// The npub of a public key.
#[must_use]
pub fn npub(pubkey: &PublicKey) -> String {
    bech32::encode::<Bech32>(hrp(NPUB), &pubkey.0).expect("32 bytes are no more than bech32 takes")
}

/// The nsec of a secret key: the secret in another spelling.
#[must_use]
pub fn nsec(key: &SecretKey) -> String {
    bech32::encode::<Bech32>(hrp(NSEC), &key.reveal()).expect("32 bytes are no more than bech32 takes")
}

fn named<T>(
    text: &str,
    wanted: &str,
    hex: impl Fn(&str) -> Option<T>,
    pick: impl Fn(Nip19) -> Result<T, Nip19>,
) -> Result<T, String> {
    let text = bare(text);
    if let Some(found) = hex(&text.to_ascii_lowercase()) {
        return Ok(found);
    }
    if !text.contains('1') || text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{} is {} characters long and no key or id; {wanted}", shown(text), text.chars().count()));
    }
    let found = read(text).map_err(|why| format!("{} {why}; {wanted}", shown(text)))?;
    pick(found).map_err(|other| format!("{} is {}; {wanted}", shown(text), other.sort()))
}

/// Without `nostr:` and blanks around it.
fn bare(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("nostr:") => rest,
        _ => text,
    }
}

fn secret(text: &str) -> bool {
    text.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(NSEC))
}

/// The text for a sentence, shortened; nothing of what may be a secret.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    if secret(text) {
        return "this text, not repeated here,".to_owned();
    }
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn hrp(prefix: &str) -> Hrp {
    Hrp::parse_unchecked(prefix)
}

fn read(text: &str) -> Result<Nip19, String> {
    let checked = CheckedHrpstring::new::<Bech32>(text).map_err(no_bech32)?;
    let prefix = checked.hrp().to_lowercase();
    let bytes: Vec<u8> = checked.byte_iter().collect();
    // Bits that are left over are zero in the one right spelling.
    if bech32::encode_lower::<Bech32>(hrp(&prefix), &bytes).ok().as_deref() != Some(&text.to_ascii_lowercase()) {
        return Err("ends in bits that belong to nothing".to_owned());
    }
    let all = || exactly(&bytes, "content");
    match prefix.as_str() {
        NPUB => Ok(Nip19::PublicKey(PublicKey(all()?))),
        NSEC => SecretKey::from_bytes(all()?).map(Nip19::SecretKey).ok_or_else(|| "is no key of the curve".to_owned()),
        NOTE => Ok(Nip19::Note(EventId(all()?))),
        NPROFILE => Parts::split(&bytes)?.profile().map(Nip19::Profile),
        NEVENT => Parts::split(&bytes)?.event().map(Nip19::Event),
        NADDR => Parts::split(&bytes)?.address().map(Nip19::Address),
        _ => Err(format!("has the prefix `{prefix}`, which NIP-19 does not know")),
    }
}

fn no_bech32(error: CheckedHrpstringError) -> String {
    match error {
        CheckedHrpstringError::Checksum(_) => {
            "has a wrong checksum: a character is mistyped or missing, or it was cut off".to_owned()
        }
        error => format!("is no bech32 text: {error}"),
    }
}

fn exactly<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("holds {} bytes as {what}, not {N}", bytes.len()))
}

/// The parts of an `nprofile`, `nevent` or `naddr`: type, length, value. Of those that stand once the first counts.
#[derive(Default)]
struct Parts<'a> {
    special: Option<&'a [u8]>,
    author: Option<PublicKey>,
    kind: Option<u16>,
    relays: Vec<String>,
}

impl<'a> Parts<'a> {
    fn split(mut bytes: &'a [u8]) -> Result<Self, String> {
        let mut parts = Self::default();
        while let [sort, len, rest @ ..] = bytes {
            let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else {
                return Err(format!("ends inside a part of {len} bytes"));
            };
            parts.take(*sort, value)?;
            bytes = rest;
        }
        if bytes.is_empty() { Ok(parts) } else { Err("ends inside a part".to_owned()) }
    }

    fn take(&mut self, sort: u8, value: &'a [u8]) -> Result<(), String> {
        match sort {
            SPECIAL if self.special.is_none() => self.special = Some(value),
            AUTHOR if self.author.is_none() => self.author = Some(PublicKey(exactly(value, "author")?)),
            KIND if self.kind.is_none() => {
                let kind = u32::from_be_bytes(exactly(value, "kind")?);
                let kind = u16::try_from(kind).map_err(|_| format!("names kind {kind}, more than 65535"))?;
                self.kind = Some(kind);
            }
            // A hint that is no text is no hint.
            RELAY => self.relays.extend(str::from_utf8(value).map(str::to_owned)),
            _ => {}
        }
        Ok(())
    }

    fn profile(self) -> Result<Profile, String> {
        let pubkey = self.special.ok_or("names no public key")?;
        Ok(Profile { pubkey: PublicKey(exactly(pubkey, "public key")?), relays: self.relays })
    }

    fn event(self) -> Result<EventPointer, String> {
        let id = self.special.ok_or("names no event")?;
        Ok(EventPointer {
            id: EventId(exactly(id, "event id")?),
            relays: self.relays,
            author: self.author,
            kind: self.kind,
        })
    }

    fn address(self) -> Result<Address, String> {
        let identifier = str::from_utf8(self.special.ok_or("has no identifier")?);
        Ok(Address {
            identifier: identifier.map_err(|_| "has an identifier that is no UTF-8")?.to_owned(),
            pubkey: self.author.ok_or("names no author")?,
            kind: self.kind.ok_or("names no kind")?,
            relays: self.relays,
        })
    }
}

/// Writes parts in the order of their types, relays last but for what is optional: as the reference tools do.
struct Writer(Vec<u8>);

impl Writer {
    fn part(mut self, sort: u8, value: &[u8]) -> Result<Self, String> {
        let len =
            u8::try_from(value.len()).map_err(|_| format!("a part of {} bytes is longer than 255", value.len()))?;
        self.0.extend([sort, len]);
        self.0.extend(value);
        Ok(self)
    }

    fn kind(self, kind: u16) -> Result<Self, String> {
        self.part(KIND, &u32::from(kind).to_be_bytes())
    }

    fn relays(self, relays: &[String]) -> Result<Vec<u8>, String> {
        relays.iter().try_fold(self, |parts, relay| parts.part(RELAY, relay.as_bytes())).map(|parts| parts.0)
    }
}

impl Profile {
    fn parts(&self) -> Result<Vec<u8>, String> {
        Writer(Vec::new()).part(SPECIAL, &self.pubkey.0)?.relays(&self.relays)
    }
}

impl EventPointer {
    fn parts(&self) -> Result<Vec<u8>, String> {
        let mut parts = Writer(Vec::new()).part(SPECIAL, &self.id.0)?;
        if let Some(author) = &self.author {
            parts = parts.part(AUTHOR, &author.0)?;
        }
        if let Some(kind) = self.kind {
            parts = parts.kind(kind)?;
        }
        parts.relays(&self.relays)
    }
}

impl Address {
    fn parts(&self) -> Result<Vec<u8>, String> {
        let parts = Writer(Vec::new()).part(SPECIAL, self.identifier.as_bytes())?.part(AUTHOR, &self.pubkey.0)?;
        parts.kind(self.kind)?.relays(&self.relays)
    }
}

#[cfg(test)]
mod tests;
