//! Events from files: JSON lines, plain, gzip (of several members) or zstd, by the name's ending.
//!
//! In go paths, out come entries in file order, the lines byte for byte. A line that is no event is skipped, counted and
//! named in a warning. Signatures are checked only when asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use event::{Event, Limits, Rejection, verify};
use flate2::read::MultiGzDecoder;
use tracing::{info, warn};

use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};

/// Lines skipped that are named in the log; beyond them only the count is.
const WARNINGS_MAX: usize = 10;

/// What came of loading files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Events held.
    pub events: usize,
    /// Lines that are no event, or under [`crate::Settings::nip01`] not a verified one.
    pub skipped: usize,
    /// Events that the rules of NIP-01 did not keep: copies, replaced, ephemeral, deleted, expired.
    pub ruled_out: usize,
}

/// Reads `path` line by line and hands each event to `keep`; returns the number of lines skipped.
pub(crate) fn read_file(path: &Path, verified: bool, mut keep: impl FnMut(Entry)) -> Result<usize> {
    let failed =
        |e| Error::new(ErrorKind::Unavailable, format!("could not read file `{}`", path.display())).with_source(e);
    let mut lines = open(path).map_err(failed)?;
    let (mut line, mut number, mut events, mut skipped) = (Vec::new(), 0_u64, 0_usize, 0_usize);
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        number += 1;
        let bytes = line.trim_ascii();
        if bytes.is_empty() {
            continue;
        }
        match entry(bytes, verified) {
            Ok(entry) => {
                events += 1;
                keep(entry);
            }
            Err(why) => {
                skipped += 1;
                if skipped <= WARNINGS_MAX {
                    warn!(file = %path.display(), line = number, %why, "line skipped");
                }
            }
        }
    }
    info!(file = %path.display(), events, skipped, "file of events read");
    Ok(skipped)
}

fn entry(bytes: &[u8], verified: bool) -> std::result::Result<Entry, Rejection> {
    let event = Event::parse(bytes, &Limits::default())?;
    let event = if verified { verify::verify(event)?.into_event() } else { event };
    // What was parsed is UTF-8, so nothing is replaced here.
    Ok(Entry::new(&event, String::from_utf8_lossy(bytes)))
}

fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let plain: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(file)),
        Some("zst" | "zstd") => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => return Ok(Box::new(file)),
    };
    Ok(Box::new(BufReader::with_capacity(1 << 16, plain)))
}
