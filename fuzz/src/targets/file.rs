//! Files of events: lines or arrays, plain, gzip or zstd.

use std::io::Cursor;

use serde_json::value::RawValue;

use crate::file::lines::{Line, Texts, plain};
use crate::frame::event_in;
use crate::whole::{VALUE_BYTES_MAX, Whole};

/// A file; its first byte is the longest text that is held whole.
pub fn file(bytes: &[u8]) {
    let Some((limit, input)) = bytes.split_first() else { return };
    let limit = usize::from(*limit) * 16;
    let Ok(reader) = plain(Box::new(Cursor::new(input.to_vec()))) else { return };
    let Ok(mut texts) = Texts::open(reader, limit) else { return };
    let array = !matches!(texts, Texts::Lines(_));
    let mut read = Vec::new();
    let ended = loop {
        match texts.next() {
            Ok(Some(text)) => read.push(text),
            other => break other.is_ok(),
        }
    };
    for text in &read {
        assert!(!text.bytes.is_empty() && text.bytes.len() <= VALUE_BYTES_MAX);
        assert!(text.cut.is_some() || text.bytes.len() <= limit);
        let event = event_in(&text.bytes);
        assert!(text.bytes.windows(event.len()).any(|window| window == event));
    }
    // What was compressed somebody else unpacks.
    if input.starts_with(&[0x1f, 0x8b]) || input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return;
    }
    if !array {
        assert!(ended, "lines can always be read");
        let wanted = input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        same(&read, wanted, limit);
    } else if let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(input) {
        assert!(ended, "an array can always be read");
        same(&read, elements.iter().map(|element| element.get().as_bytes()), limit);
    }
}

fn same<'a>(read: &[Line], wanted: impl Iterator<Item = &'a [u8]>, limit: usize) {
    let wanted: Vec<&[u8]> = wanted.collect();
    assert_eq!(read.len(), wanted.len());
    for (line, wanted) in read.iter().zip(wanted) {
        if wanted.len() <= limit {
            assert_eq!((&line.bytes[..], line.cut), (wanted, None));
        } else {
            let cut = line.cut.expect("it is not held whole");
            assert!(wanted.starts_with(&line.bytes) || line.bytes.starts_with(wanted));
            // Blanks behind an element that is too long count as its own.
            assert!(cut == Whole::of(wanted) || cut.len > wanted.len() as u64);
        }
    }
}
