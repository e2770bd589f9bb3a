//! The elements of JSON arrays, one after the other and each by itself, so that a file of any length needs no more
//! memory than its longest element.
//!
//! Elements are cut at commas and brackets outside of strings; whether one is JSON is for whoever parses it. Arrays may
//! follow each other. What ends inside an array, or has anything else between arrays, is an error.

use std::io::{self, BufRead, BufReader, Read};

use super::lines::{Held, Line};

/// Reads elements.
#[derive(Debug)]
pub(super) struct Elements<R> {
    reader: R,
    bytes_max: usize,
    /// Whether an array has been opened and not closed.
    inside: bool,
}

/// Where a byte stands within an element.
#[derive(Debug, Default)]
struct Place {
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Place {
    /// Goes past `byte`; `true` when the element ended before it.
    const fn ends_at(&mut self, byte: u8) -> bool {
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl<R: Read> Elements<BufReader<R>> {
    pub(super) const fn new(reader: BufReader<R>, bytes_max: usize) -> Self {
        Self { reader, bytes_max, inside: false }
    }

    /// Whether the next element may have to be waited for: whether the buffer holds all of it is not known before.
    pub(super) fn may_wait(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    /// The next element that is not empty; none at the end of the input.
    ///
    /// # Errors
    /// What the reader says; `UnexpectedEof` inside an array, `InvalidData` for what stands between arrays.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if !self.inside && !self.open()? {
                return Ok(None);
            }
            let line = self.element()?;
            if !line.bytes.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Goes into the next array; `false` where there is none.
    fn open(&mut self) -> io::Result<bool> {
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            let Some(at) = chunk.iter().position(|byte| !is_blank(*byte)) else {
                let len = chunk.len();
                if len == 0 {
                    return Ok(false);
                }
                self.reader.consume(len);
                continue;
            };
            if chunk[at] != b'[' {
                let found = char::from(chunk[at]).escape_default().to_string();
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the JSON array is followed by `{found}`, which is no further array"),
                ));
            }
            self.reader.consume(at + 1);
            self.inside = true;
            return Ok(true);
        }
    }

    /// The bytes up to the next comma or the end of the array, without blanks around them.
    fn element(&mut self) -> io::Result<Line> {
        let mut held = Held::new(self.bytes_max);
        let mut place = Place::default();
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends inside a JSON array"));
            }
            let start = if held.is_empty() { chunk.iter().take_while(|byte| is_blank(**byte)).count() } else { 0 };
            let end = (start..chunk.len()).find(|at| place.ends_at(chunk[*at]));
            held.push(&chunk[start..end.unwrap_or(chunk.len())]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.inside = end.is_none_or(|end| chunk[end] == b',');
            self.reader.consume(used);
            if end.is_some() {
                return Ok(held.finish().trimmed());
            }
        }
    }
}

pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn elements(text: &[u8], buffer: usize) -> io::Result<Vec<String>> {
        let mut elements = Elements::new(BufReader::with_capacity(buffer, text), 1_000);
        let mut all = Vec::new();
        while let Some(line) = elements.next()? {
            all.push(String::from_utf8_lossy(&line.bytes).into_owned());
        }
        Ok(all)
    }

    #[test]
    fn elements_are_cut_where_they_end() {
        for buffer in [1, 2, 7, 1_000] {
            let text = b" [ {\"a\":\"],[\\\"\"} ,[1,[2]],\n \"x\" , nope} ]\n[]\t[{\"b\":{}}]\n";
            let wanted = [r#"{"a":"],[\""}"#, "[1,[2]]", "\"x\"", "nope}", r#"{"b":{}}"#];
            assert_eq!(elements(text, buffer).expect("elements"), wanted, "{buffer}");
        }
    }

    #[test]
    fn a_torn_array_is_an_error_after_what_came_before() {
        for torn in ["[{\"a\":1}", "[{\"a\":1},", "[{\"a\":1},{\"b", "[{\"a\":1},\"x]"] {
            let mut elements = Elements::new(BufReader::new(torn.as_bytes()), 1_000);
            assert!(
                torn == "[{\"a\":1}"
                    || elements.next().expect("the first").is_some_and(|line| line.bytes == "{\"a\":1}")
            );
            assert_eq!(elements.next().expect_err(torn).kind(), io::ErrorKind::UnexpectedEof);
        }
        let error = elements(b"[1] {}", 9).expect_err("more");
        assert_eq!(error.to_string(), "the JSON array is followed by `{`, which is no further array");
    }

    #[test]
    fn an_element_beyond_the_limit_is_hashed_whole() {
        let long = format!("\"{}\"", "x".repeat(5_000));
        let text = format!("[1,{long},2]");
        let mut elements = Elements::new(BufReader::with_capacity(64, text.as_bytes()), 1_000);
        let lines: Vec<Line> = std::iter::from_fn(|| elements.next().expect("an element")).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].cut, Some(crate::whole::Whole::of(long.as_bytes())));
        assert!(lines[0].cut.is_none() && lines[2].cut.is_none());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), "\\PC{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[\\[\\]{},\"\\\\a]{0,4}", inner), 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_elements_are_those_of_the_array(values in proptest::collection::vec(json(), 0..6), buffer in 1..40_usize, pretty in any::<bool>()) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let text = write(&values).expect("json");
            let read = elements(text.as_bytes(), buffer).expect("elements");
            let read: Vec<Value> = read.iter().map(|text| serde_json::from_str(text).expect("json")).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(elements(&bytes, 16));
        }
    }
}
