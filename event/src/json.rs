//! A strict JSON reader (RFC 8259) over borrowed text: no tree, no recursion beyond [`NESTING_MAX`].
//!
//! In comes text that is known to be UTF-8; out go keys, strings and number tokens in the order in which they stand.
//! What is no JSON ends the reading with a [`Fault`]. A lone surrogate is JSON but no Unicode: it is reported beside
//! the string, and the caller decides. What a value means is the caller's affair too.

use std::borrow::Cow;

use crate::rejection::Reason;

/// How deep arrays and objects may lie in each other: the event, its tags and a tag make three, one is to spare.
pub(crate) const NESTING_MAX: u32 = 4;

/// Why reading cannot go on.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// Sort of a value, as its first byte tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl Sort {
    /// The sort with its article, for messages.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A string, its escapes resolved.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    /// The characters; U+FFFD stands where a lone surrogate stood.
    pub(crate) value: Cow<'a, str>,
    /// Whether a `\u` escape was half a surrogate pair without the other half, for which UTF-8 has no form.
    pub(crate) lone_surrogate: bool,
}

/// A place in a JSON text.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Sort of the value that begins after the blanks here; nothing but blanks is consumed.
    pub(crate) fn peek(&mut self) -> Result<Sort, Fault> {
        self.blanks();
        Ok(match self.byte() {
            Some(b'{') => Sort::Object,
            Some(b'[') => Sort::Array,
            Some(b'"') => Sort::Text,
            Some(b'-' | b'0'..=b'9') => Sort::Number,
            Some(b't' | b'f') => Sort::Bool,
            Some(b'n') => Sort::Null,
            _ => return Err(self.malformed("a value is missing")),
        })
    }

    /// Consumes the bracket that [`Reader::peek`] saw; `depth` counts the brackets now open, this one included.
    pub(crate) fn open(&mut self, depth: u32) -> Result<(), Fault> {
        if depth > NESTING_MAX {
            let detail = format!("nested more than {NESTING_MAX} deep at byte {}", self.at);
            return Err(Fault { reason: Reason::TooDeep, detail });
        }
        self.at += 1;
        Ok(())
    }

    /// Goes to the next item of an open array or object; false at its end, whose bracket `close` is then consumed.
    pub(crate) fn item(&mut self, first: &mut bool, close: u8) -> Result<bool, Fault> {
        self.blanks();
        if self.byte() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.take(b',', "a comma or the closing bracket is missing")?;
            self.blanks();
        }
        Ok(true)
    }

    /// A key and its colon.
    pub(crate) fn key(&mut self) -> Result<Text<'a>, Fault> {
        let key = self.string()?;
        self.blanks();
        self.take(b':', "a colon is missing")?;
        Ok(key)
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Result<Text<'a>, Fault> {
        self.take(b'"', "a quoted string is missing")?;
        let start = self.at;
        self.at += plain_len(&self.text.as_bytes()[start..]);
        if self.byte() != Some(b'"') {
            return self.escaped(start);
        }
        let value = Cow::Borrowed(&self.text[start..self.at]);
        self.at += 1;
        Ok(Text { value, lone_surrogate: false })
    }

    /// A number, as it is written.
    pub(crate) fn number(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads past one value of any sort, inside of `depth` open brackets.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<(), Fault> {
        let sort = self.peek()?;
        let mut first = true;
        match sort {
            Sort::Object => {
                self.open(depth + 1)?;
                while self.item(&mut first, b'}')? {
                    self.key()?;
                    self.skip(depth + 1)?;
                }
            }
            Sort::Array => {
                self.open(depth + 1)?;
                while self.item(&mut first, b']')? {
                    self.skip(depth + 1)?;
                }
            }
            Sort::Text => drop(self.string()?),
            Sort::Number => drop(self.number()?),
            Sort::Bool | Sort::Null => self.literal()?,
        }
        Ok(())
    }

    /// Nothing but blanks may follow.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.blanks();
        if self.at < self.text.len() { Err(self.malformed("something follows the value")) } else { Ok(()) }
    }

    /// The rest of a string whose first bytes, from `run` on, need no change.
    fn escaped(&mut self, mut run: usize) -> Result<Text<'a>, Fault> {
        let mut value = String::with_capacity(self.at - run + 64);
        let mut lone_surrogate = false;
        loop {
            value.push_str(&self.text[run..self.at]);
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut value, &mut lone_surrogate)?,
                Some(_) => return Err(self.malformed("a control character in a string is not escaped")),
                None => return Err(self.malformed("a string does not end")),
            }
            run = self.at;
            self.at += plain_len(&self.text.as_bytes()[run..]);
        }
        self.at += 1;
        Ok(Text { value: Cow::Owned(value), lone_surrogate })
    }

    fn escape(&mut self, value: &mut String, lone_surrogate: &mut bool) -> Result<(), Fault> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(b'u') => return self.unicode_escape(value, lone_surrogate),
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            _ => return Err(self.malformed("JSON has no such escape")),
        };
        value.push(plain);
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self, value: &mut String, lone_surrogate: &mut bool) -> Result<(), Fault> {
        let high = self.code_unit()?;
        let mut code = high;
        if (0xD800..0xDC00).contains(&high) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            let second = self.at;
            let low = self.code_unit()?;
            if (0xDC00..0xE000).contains(&low) {
                code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            } else {
                self.at = second;
            }
        }
        let found = char::from_u32(code);
        *lone_surrogate |= found.is_none();
        value.push(found.unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    /// The four digits of the `\u` escape that begins here.
    fn code_unit(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6).unwrap_or_default();
        let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?));
        match unit {
            Some(unit) if digits.len() == 4 => {
                self.at += 6;
                Ok(unit)
            }
            _ => Err(self.malformed("a \\u escape has not four hex digits")),
        }
    }

    fn literal(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        match ["true", "false", "null"].iter().find(|word| rest.starts_with(word.as_bytes())) {
            Some(word) => self.at += word.len(),
            None => return Err(self.malformed("JSON has no such word")),
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.malformed("a digit is missing")) } else { Ok(()) }
    }

    fn take(&mut self, wanted: u8, otherwise: &str) -> Result<(), Fault> {
        if self.byte() != Some(wanted) {
            return Err(self.malformed(otherwise));
        }
        self.at += 1;
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed(&self, what: &str) -> Fault {
        Fault { reason: Reason::MalformedJson, detail: format!("{what} at byte {}", self.at) }
    }
}

/// Number of bytes at the front that stand for themselves inside a JSON string: neither `"` nor `\` nor below U+0020.
///
/// Eight bytes at a time; most of an event is such bytes. In each word the lowest byte found is exact, which is the
/// one that counts (a borrow can only reach upwards from a byte that was found).
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (ONES * b'"' as u64));
        let backslashes = zeros(word ^ (ONES * b'\\' as u64));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quotes | backslashes | controls) & HIGHS;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = tail.iter().take_while(|byte| **byte >= 0x20 && !matches!(**byte, b'"' | b'\\')).count();
    words.len() * 8 + plain
}

/// Appends `text` as a JSON string with the escapes of NIP-01, which are also those of the id: `\n \" \\ \r \t \b \f`,
/// other characters below U+0020 as `\u00xx` in lower case, everything else verbatim.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at(plain_len(rest.as_bytes()));
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next() {
            None => break,
            Some('\n') => out.push_str("\\n"),
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some(control) => {
                let code = u32::from(control);
                out.push_str(if code < 0x10 { "\\u000" } else { "\\u001" });
                out.extend(char::from_digit(code & 0xf, 16));
            }
        }
        rest = chars.as_str();
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(), Reason> {
        let mut reader = Reader::new(text);
        reader.skip(0).and_then(|()| reader.end()).map_err(|fault| fault.reason)
    }

    #[test]
    fn the_grammar_is_that_of_rfc_8259() {
        for good in
            ["0", "-0", "1.5e+3", "[]", " {} ", r#"{"a":[true,false,null,""]}"#, "\t\r\n1", r#""\/\u00E9\ud83d\ude00""#]
        {
            assert_eq!(read(good), Ok(()), "{good}");
        }
        let bad = [
            "", "   ", "01", "+1", "1.", ".5", "1e", "-", "NaN", "Infinity", "tru", "nulll", "[1,]", "[,1]", "{,}",
            "[1 2]",
        ];
        for bad in bad.into_iter().chain([
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            "{a:1}",
            "{'a':1}",
            r#"{1:2}"#,
            "[",
            "{",
            r#"{"a":"#,
            "\u{feff}1",
            "1 x",
        ]) {
            assert_eq!(read(bad), Err(Reason::MalformedJson), "{bad}");
        }
        for bad in [
            r#""\x41""#,
            r#""\u12g4""#,
            r#""\u+123""#,
            r#""\u12"#,
            "\"\t\"",
            "\"\0\"",
            "\"",
            r#""\"#,
            r#""\""#,
            "\u{a0}1",
        ] {
            assert_eq!(read(bad), Err(Reason::MalformedJson), "{bad}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit_whatever_follows() {
        assert_eq!(read("[[[[]]]]"), Ok(()));
        assert_eq!(read("[[[[[]]]]]"), Err(Reason::TooDeep));
        assert_eq!(read(&"[".repeat(1_000_000)), Err(Reason::TooDeep));
        assert_eq!(read(&r#"{"a":"#.repeat(1_000_000)), Err(Reason::TooDeep));
    }

    #[test]
    fn escapes_are_resolved_and_lone_surrogates_told() {
        let string =
            |text: &str| Reader::new(text).string().map(|t| (t.value.into_owned(), t.lone_surrogate)).expect(text);
        assert_eq!(string(r#""plain""#), ("plain".into(), false));
        assert_eq!(string(r#""a\n\t\r\b\f\"\\\/\u00e9\uD83D\uDE00z""#), ("a\n\t\r\u{8}\u{c}\"\\/é😀z".into(), false));
        assert_eq!(string(r#""\ud83d""#), ("\u{fffd}".into(), true));
        assert_eq!(string(r#""\ude00\ud83d""#), ("\u{fffd}\u{fffd}".into(), true));
        assert_eq!(string(r#""\ud83dx""#), ("\u{fffd}x".into(), true));
        assert_eq!(string(r#""\ud83d\ud83d\ude00""#), ("\u{fffd}😀".into(), true));
        assert_eq!(string(r#""\ud83d\n""#), ("\u{fffd}\n".into(), true));
        assert_eq!(string(r#""\ufffd\u0000""#), ("\u{fffd}\0".into(), false));
    }

    #[test]
    fn plain_len_agrees_with_looking_at_each_byte() {
        let slow = |bytes: &[u8]| bytes.iter().take_while(|b| **b >= 0x20 && **b != b'"' && **b != b'\\').count();
        for place in 0..20 {
            for byte in 0..=u8::MAX {
                for filler in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                    let mut bytes = [filler; 20];
                    bytes[place] = byte;
                    assert_eq!(plain_len(&bytes), slow(&bytes), "{byte:#x} at {place} among {filler:#x}");
                    bytes[19] = b'"';
                    assert_eq!(plain_len(&bytes), slow(&bytes), "{byte:#x} at {place} among {filler:#x}");
                }
            }
        }
    }

    #[test]
    fn strings_are_written_as_the_network_hashes_them() {
        let mut out = String::new();
        push_string(&mut out, "\n\"\\\r\t\u{8}\u{c}\u{1}\u{1f}\0\u{7f}\u{2028}/<é😀");
        assert_eq!(out, "\"\\n\\\"\\\\\\r\\t\\b\\f\\u0001\\u001f\\u0000\u{7f}\u{2028}/<é😀\"");
    }
}
