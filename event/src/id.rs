//! Ids and keys: 32 bytes each, written as lower-case hex; the canonical form of an event and its hash.
//!
//! [`canonical`] gives the bytes that the network hashes, [`EventId::of`] hashes them, [`EventId::scan`] finds the id
//! that unread bytes claim. Nothing here says whether an event is to be believed: see [`crate::verify`].

use std::fmt;

use sha2::{Digest, Sha256};

use crate::json::{plain_len, push_string};

/// Id of an event: SHA-256 of its canonical form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 32]);

impl EventId {
    /// The id of the event with this canonical form.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(Sha256::digest(canonical).into())
    }

    /// Reads 64 lower-case hex digits; anything else is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text.as_bytes()).map(Self)
    }

    /// The id that a JSON object claims in its top-level key `id`, without reading the object as a whole.
    ///
    /// `None` when there is none or when it cannot be told this way (a key with escapes, say); then only
    /// [`crate::Event::parse`] knows. An id that is found is a claim: neither it nor the rest of the object is checked.
    #[must_use]
    pub fn scan(json: &[u8]) -> Option<Self> {
        let mut scan = Scan { json, at: 0 };
        scan.take(b'{')?;
        loop {
            let key = scan.plain_string()?;
            scan.take(b':')?;
            if key == b"id" {
                return decode_hex(scan.plain_string()?).map(Self);
            }
            scan.value()?;
            scan.take(b',')?;
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// Public key of an author: x-only, as BIP-340 has it. Not every one is a point of the curve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 64 lower-case hex digits; anything else is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The bytes whose SHA-256 is the id: `[0,pubkey,created_at,kind,tags,content]` without blanks, with the escapes that
/// the network uses: `\n \" \\ \r \t \b \f`, other characters below U+0020 as `\u00xx`, everything else verbatim.
#[must_use]
pub fn canonical(pubkey: &PublicKey, created_at: i64, kind: u16, tags: &[Vec<String>], content: &str) -> Vec<u8> {
    let tags_len: usize = tags.iter().map(|tag| 3 + tag.iter().map(|value| value.len() + 3).sum::<usize>()).sum();
    // Exact but for escapes: the fixed part is at most 103 bytes.
    let mut out = String::with_capacity(112 + tags_len + content.len() + content.len() / 16);
    out.push_str("[0,\"");
    push_hex(&mut out, &pubkey.0);
    out.push_str("\",");
    push_integer(&mut out, created_at);
    out.push(',');
    push_integer(&mut out, i64::from(kind));
    out.push(',');
    push_tags(&mut out, tags);
    out.push(',');
    push_string(&mut out, content);
    out.push(']');
    out.into_bytes()
}

pub(crate) fn push_tags(out: &mut String, tags: &[Vec<String>]) {
    out.push('[');
    for (index, tag) in tags.iter().enumerate() {
        out.push_str(if index == 0 { "[" } else { ",[" });
        for (index, value) in tag.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(out, value);
        }
        out.push(']');
    }
    out.push(']');
}

pub(crate) fn push_integer(out: &mut String, number: i64) {
    use fmt::Write as _;
    write!(out, "{number}").expect("writing to a String does not fail");
}

pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes);
    out
}

/// `N` bytes from 2·`N` lower-case hex digits. Upper case is refused: NIP-01 wants one spelling for one id.
pub(crate) fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    let mut bytes = [0; N];
    let mut wrong = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        wrong |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (wrong < 0x10).then_some(bytes)
}

/// Value of each lower-case hex digit; 0xff for any other byte.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

/// A place in bytes that are perhaps a JSON object.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Consumes blanks and then `wanted`.
    fn take(&mut self, wanted: u8) -> Option<()> {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        (*self.json.get(self.at)? == wanted).then(|| self.at += 1)
    }

    /// A string without escapes.
    fn plain_string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain_len(&self.json[start..]);
        let string = &self.json[start..self.at];
        self.take(b'"')?;
        Some(string)
    }

    /// Goes past a value: to the comma behind it. Brackets are counted, not matched.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        loop {
            match *self.json.get(self.at)? {
                b'"' => self.string()?,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.checked_sub(1)?,
                b',' if depth == 0 => return Some(()),
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Goes from the opening quote of a string to its closing one.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += plain_len(&self.json[self.at..]);
            match *self.json.get(self.at)? {
                b'"' => return Some(()),
                b'\\' if self.at + 1 < self.json.len() => self.at += 2,
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn scan(json: &str) -> Option<EventId> {
        EventId::scan(json.as_bytes())
    }

    #[test]
    fn hex_is_read_in_one_spelling_and_printed_in_it() {
        let id = EventId::from_hex(HEX).expect("hex");
        assert_eq!(id.0[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(id.to_string(), HEX);
        assert_eq!(format!("{:?}", PublicKey(id.0)), format!("PublicKey({HEX})"));
        for wrong in [&HEX[1..], &HEX[2..], "", &HEX.to_uppercase(), &HEX.replace('0', "g"), &HEX.replace("01", "é")] {
            assert_eq!(EventId::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(PublicKey::from_hex(&format!("{HEX}00")), None);
    }

    #[test]
    fn every_byte_that_is_no_lower_case_hex_digit_is_refused() {
        for byte in 0..=u8::MAX {
            let good = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert_eq!(decode_hex::<1>(&[byte, b'0']).is_some(), good, "{byte:#x}");
            assert_eq!(decode_hex::<1>(&[b'f', byte]).is_some(), good, "{byte:#x}");
        }
    }

    #[test]
    fn the_canonical_form_is_compact_and_escapes_only_what_it_must() {
        let tags = [vec!["e".to_owned(), "a\"b".to_owned()], vec![], vec![String::new()]];
        let pubkey = PublicKey::from_hex(HEX).expect("hex");
        let bytes = canonical(&pubkey, -1, 65_535, &tags, "/\u{7f}\u{1}\n");
        let wanted = format!("[0,\"{HEX}\",-1,65535,[[\"e\",\"a\\\"b\"],[],[\"\"]],\"/\u{7f}\\u0001\\n\"]");
        assert_eq!(String::from_utf8(bytes).as_deref(), Ok(wanted.as_str()));
        assert_eq!(EventId::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_claimed_id_is_found_wherever_it_stands_at_the_top() {
        let id = EventId::from_hex(HEX);
        assert_eq!(scan(&format!(r#"{{"id":"{HEX}"}}"#)), id);
        assert_eq!(
            scan(&format!(" {{ \"kind\" : 1 ,\n\"tags\": [[\"e\"]], \"x\":null, \"id\" : \"{HEX}\", rubbish")),
            id
        );
        assert_eq!(scan(&format!(r#"{{"content":"a\\\"id\":\\","x":{{"id":"0"}},"id":"{HEX}"}}"#)), id);
    }

    #[test]
    fn an_id_elsewhere_or_in_doubt_is_not_found() {
        for json in [
            format!(r#"{{"content":"\",\"id\":\"{HEX}\"","kind":1}}"#),
            format!(r#"{{"tags":[["id","{HEX}"]],"x":{{"id":"{HEX}"}}}}"#),
            format!(r#"{{"i\u0064":"{HEX}","id":"{HEX}"}}"#),
            format!(r#"["EVENT",{{"id":"{HEX}"}}]"#),
            format!(r#"{{"id":"{}"}}"#, HEX.to_uppercase()),
            format!(r#"{{"id":"{}"}}"#, &HEX[1..]),
            format!(r#"{{"kind":1]}},"id":"{HEX}"}}"#),
            r#"{"id":null}"#.to_owned(),
            r#"{"a":"\"#.to_owned(),
            r#"{"a":"#.to_owned(),
            String::new(),
        ] {
            assert_eq!(scan(&json), None, "{json}");
        }
    }
}
