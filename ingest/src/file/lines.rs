//! Texts of a file, plain, gzip or zstd, told by its first bytes: the elements of JSON arrays where the first array
//! begins with an object, else lines. Lines are split at 0x0A only: other bytes, NUL included, are the line's own. A
//! text beyond the limit is hashed as it passes and not held.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::elements::{Elements, is_blank};
use crate::whole::{VALUE_BYTES_MAX, Whole};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 256 * 1024;
/// Blanks before anything else; a file that begins with more is one of lines.
const BLANKS_MAX: usize = 64 * 1024;

/// One line without its line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Bytes,
    /// Where the line was too long and `bytes` holds only its beginning: what all of it was.
    pub(crate) cut: Option<Whole>,
}

impl Line {
    /// Without blanks at the end, where it is held whole.
    pub(super) fn trimmed(mut self) -> Self {
        if self.cut.is_none() {
            self.bytes.truncate(self.bytes.trim_ascii_end().len());
        }
        self
    }
}

/// A text as it is read: held up to the limit, hashed beyond it.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    passed: Option<(Sha256, u64)>,
    bytes_max: usize,
}

impl Held {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), passed: None, bytes_max }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn push(&mut self, part: &[u8]) {
        match &mut self.passed {
            Some((hash, len)) => {
                hash.update(part);
                *len += part.len() as u64;
            }
            None => self.bytes.extend_from_slice(part),
        }
        if self.passed.is_none() && self.bytes.len() > self.bytes_max {
            self.passed = Some((Sha256::new_with_prefix(&self.bytes), self.bytes.len() as u64));
            self.bytes.truncate(VALUE_BYTES_MAX);
            self.bytes.shrink_to_fit();
        }
    }

    pub(super) fn finish(self) -> Line {
        let cut = self.passed.map(|(hash, len)| Whole { sha256: hash.finalize().into(), len });
        Line { bytes: self.bytes.into(), cut }
    }
}

/// Reads texts one after the other: what a file of this shape holds.
#[derive(Debug)]
pub(crate) enum Texts<R> {
    Lines(Lines<R>),
    Elements(Elements<R>),
}

impl Texts<BufReader<Box<dyn Read + Send>>> {
    /// Looks at the first bytes, and no further.
    pub(crate) fn open(mut reader: impl BufRead + Send + 'static, bytes_max: usize) -> io::Result<Self> {
        let head = head(&mut reader)?;
        let mut signs = head.iter().filter(|byte| !is_blank(**byte));
        let array = signs.next() == Some(&b'[') && matches!(signs.next(), Some(b'{' | b']'));
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(reader));
        let reader = BufReader::with_capacity(BUFFER_BYTES, whole);
        Ok(match array {
            true => Self::Elements(Elements::new(reader, bytes_max)),
            false => Self::Lines(Lines::new(reader, bytes_max)),
        })
    }

    /// Whether the next text may have to be waited for.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.may_wait(),
            Self::Elements(elements) => elements.may_wait(),
        }
    }

    /// The next text that is not wholly empty; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Elements(elements) => elements.next(),
        }
    }
}

/// Takes bytes up to the second that is not blank, or up to the first where that tells enough.
fn head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut signs = 0;
    while signs < 2 && head.len() < BLANKS_MAX {
        let byte = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk?.first().copied(),
        };
        let Some(byte) = byte else { break };
        reader.consume(1);
        head.push(byte);
        signs += usize::from(!is_blank(byte));
        if signs == 1 && byte != b'[' && !is_blank(byte) {
            break;
        }
    }
    Ok(head)
}

/// Reads lines one after the other.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    line_bytes_max: usize,
}

/// Opens the file at `path`, or standard input for `-`.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    Ok(if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) })
}

/// What `input` holds, decompressed if its first bytes say so.
pub(crate) fn plain(mut input: Box<dyn Read + Send>) -> io::Result<BufReader<Box<dyn Read + Send>>> {
    let mut head = [0; ZSTD.len()];
    let mut len = 0;
    while len < head.len() {
        match input.read(&mut head[len..])? {
            0 => break,
            count => len += count,
        }
    }
    let whole = Cursor::new(head).take(len as u64).chain(input);
    let plain: Box<dyn Read + Send> = if head[..len].starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
    } else if head[..len] == ZSTD {
        Box::new(zstd::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, plain))
}

impl<R: Read> Lines<BufReader<R>> {
    const fn new(reader: BufReader<R>, line_bytes_max: usize) -> Self {
        Self { reader, line_bytes_max }
    }

    /// Whether the next line may have to be waited for.
    fn may_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// The next line that is not wholly empty; none at the end.
    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            match self.line()? {
                Some(line) if line.bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        let mut held = Held::new(self.line_bytes_max);
        let mut any = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            held.push(part);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(any.then(|| held.finish()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn lines(input: Vec<u8>, line_bytes_max: usize) -> Vec<Line> {
        let reader = plain(Box::new(Cursor::new(input))).expect("a reader");
        let mut lines = Lines::new(reader, line_bytes_max);
        std::iter::from_fn(|| lines.next().expect("a line")).collect()
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_lines() {
        let text = b"{\"a\":1}\n\n\x00\xff \r\nlast".to_vec();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("gzip");
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("zstd");
        for input in [text, gzip.finish().expect("gzip"), zstd] {
            let bytes: Vec<Bytes> = lines(input, 100).into_iter().map(|line| line.bytes).collect();
            assert_eq!(bytes, [&b"{\"a\":1}"[..], b"\x00\xff \r", b"last"]);
        }
    }

    #[test]
    fn two_gzip_members_are_one_file_and_a_torn_one_is_an_error() {
        let member = |text: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text).expect("gzip");
            gzip.finish().expect("gzip")
        };
        let both = [member(b"a\n"), member(b"b\n")].concat();
        assert_eq!(lines(both.clone(), 9).len(), 2);
        let reader = plain(Box::new(Cursor::new(both[..both.len() - 9].to_vec()))).expect("a reader");
        let mut lines = Lines::new(reader, 9);
        let torn = std::iter::from_fn(|| lines.next().transpose()).any(|line| line.is_err());
        assert!(torn);
    }

    #[test]
    fn a_line_beyond_the_limit_is_hashed_whole() {
        let long = vec![b'x'; 3 * BUFFER_BYTES];
        let input = [b"a\n", long.as_slice(), b"\nb\n"].concat();
        let lines = lines(input, 1_000);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].cut, Some(Whole::of(&long)));
        assert!(lines[1].bytes.len() <= VALUE_BYTES_MAX && lines[0].cut.is_none());
        assert_eq!(lines[2].bytes, "b");
    }

    #[test]
    fn arrays_of_objects_are_told_from_lines_by_their_first_bytes() {
        let texts = |input: &str| {
            let mut texts =
                Texts::open(BufReader::with_capacity(1, Cursor::new(input.as_bytes().to_vec())), 100).expect("texts");
            let all: Vec<Line> = std::iter::from_fn(|| texts.next().expect("a text")).collect();
            (
                matches!(texts, Texts::Elements(_)),
                all.into_iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect::<Vec<_>>(),
            )
        };
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(" [\n{\"a\":1} ,\n {\"b\":2}\n]\n"), (true, owned(&["{\"a\":1}", "{\"b\":2}"])));
        assert_eq!(texts("[]"), (true, vec![]));
        assert_eq!(texts("[\"EVENT\",{}]\n[\"EOSE\"]"), (false, owned(&["[\"EVENT\",{}]", "[\"EOSE\"]"])));
        assert_eq!(texts(" \n\n{\"a\":1}\n"), (false, owned(&[" ", "{\"a\":1}"])));
        assert_eq!(texts("[\n"), (false, owned(&["["])));
        assert_eq!(texts(""), (false, vec![]));
    }

    proptest! {
        #[test]
        fn every_byte_but_line_feeds_comes_back(input in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400)) {
            prop_assume!(!input.starts_with(&GZIP) && !input.starts_with(&ZSTD));
            let wanted: Vec<&[u8]> = input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            let lines = lines(input.clone(), 1_000);
            prop_assert_eq!(lines.iter().map(|line| &line.bytes[..]).collect::<Vec<_>>(), wanted);
        }
    }
}
