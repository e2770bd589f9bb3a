//! Lines of a file or of standard input for commands that read events: plain, gzip or zstd, of bounded length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use event::Limits;

use crate::error::{Code, Failure};

/// Reads to the next line feed into `bytes`; of a line beyond the limit only as much as shows that it is too long.
pub(crate) fn next_line(input: &mut impl BufRead, limits: &Limits, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    let keep = limits.event_bytes_max as u64 + 2;
    if input.by_ref().take(keep).read_until(b'\n', bytes)? == 0 {
        return Ok(false);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 == keep {
        input.skip_until(b'\n')?;
    }
    Ok(true)
}

/// Lines to be read.
pub(crate) type Input = BufReader<Box<dyn Read + Send>>;

/// Opens a file, or standard input for `-`: plain, gzip or zstd, told by its first bytes.
pub(crate) fn open(path: &Path) -> Result<Input, Failure> {
    let raw: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(|why| {
            Failure::new(Code::Unavailable, format!("could not open file `{}`: {why}", path.display()))
        })?;
        Box::new(file)
    };
    unpacked(raw)
        .map_err(|why| Failure::new(Code::Unavailable, format!("could not read file `{}`: {why}", path.display())))
}

fn unpacked(raw: Box<dyn Read + Send>) -> io::Result<Input> {
    let mut raw = BufReader::new(raw);
    let head = raw.fill_buf()?;
    let inner: Box<dyn Read + Send> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(raw)?)
    } else {
        Box::new(raw)
    };
    Ok(BufReader::with_capacity(64 << 10, inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_long_is_one_line_and_the_next_one_is_whole() {
        let limits = Limits { event_bytes_max: 4, tags_max: 1 };
        let mut input = &b"123456789\nab\n\nlast"[..];
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        while next_line(&mut input, &limits, &mut bytes).expect("memory is readable") {
            lines.push(String::from_utf8(bytes.clone()).expect("text"));
        }
        assert_eq!(lines, ["123456", "ab", "", "last"]);
    }
}
