//! How the embedded log lays records and its own books into bytes, and back.
//!
//! A record's key is `partition` (u32) and `offset` (u64), big-endian, so that byte order is offset order within a
//! partition. Its value, version 1, little-endian, lengths as LEB128:
//!
//! ```text
//! version u8 = 1 | flags u8 (1: has key, 2: has value) | time i64 | greatest time of the partition so far i64
//! [key length, key] | header count | (name length, name, value length, value)* | [value: the rest]
//! ```
//!
//! The greatest time so far never falls along a partition, so the first record at or after a time is found by
//! bisection. Decoding copies nothing but header names: keys and values are slices of the stored bytes.

use bytes::Bytes;

use crate::{Header, Record, StoredRecord};

const VERSION: u8 = 1;
const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;
/// Version, flags and both times.
const FIXED_BYTES: usize = 18;

/// Key of a record: also bounds of ranges.
pub(super) fn record_key(partition: i32, offset: i64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// Offset out of a record's key.
pub(super) fn key_offset(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(4..12)?.try_into().ok()?))
}

/// Bytes of a record.
pub(super) fn encode(record: &Record, timestamp_ms: i64, time_max: i64) -> Vec<u8> {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len() + 8).sum();
    let key_len = record.key.as_ref().map_or(0, |key| key.len() + 5);
    let value_len = record.value.as_ref().map_or(0, |value| value.len());
    let mut out = Vec::with_capacity(FIXED_BYTES + key_len + 5 + headers + value_len);
    out.push(VERSION);
    out.push(if record.key.is_some() { HAS_KEY } else { 0 } | if record.value.is_some() { HAS_VALUE } else { 0 });
    out.extend_from_slice(&timestamp_ms.to_le_bytes());
    out.extend_from_slice(&time_max.to_le_bytes());
    if let Some(key) = &record.key {
        put_bytes(&mut out, key);
    }
    put_len(&mut out, record.headers.len());
    for header in &record.headers {
        put_bytes(&mut out, header.name.as_bytes());
        put_bytes(&mut out, &header.value);
    }
    if let Some(value) = &record.value {
        out.extend_from_slice(value);
    }
    out
}

/// The record whose bytes these are; `None` when they are not what [`encode`] writes.
pub(super) fn decode(partition: i32, offset: i64, bytes: &Bytes) -> Option<StoredRecord> {
    let (flags, timestamp_ms) = (flags(bytes)?, time_at(bytes, 2)?);
    let mut cursor = Cursor { bytes, at: FIXED_BYTES };
    let key = if flags & HAS_KEY == 0 { None } else { Some(cursor.bytes()?) };
    let count = cursor.len()?;
    // A large count may be damage, and must not reserve memory.
    let mut headers = Vec::with_capacity(count.min(16));
    for _ in 0..count {
        let name = std::str::from_utf8(&cursor.bytes()?).ok()?.to_owned();
        headers.push(Header { name, value: cursor.bytes()? });
    }
    let rest = bytes.slice(cursor.at..);
    let value = match flags & HAS_VALUE {
        0 if rest.is_empty() => None,
        0 => return None,
        _ => Some(rest),
    };
    Some(StoredRecord { partition, offset, timestamp_ms, key, value, headers })
}

/// The greatest time up to and with the record whose bytes these are.
pub(super) fn time_max(bytes: &[u8]) -> Option<i64> {
    flags(bytes)?;
    time_at(bytes, 10)
}

/// Whether the record whose bytes these are has `key`.
pub(super) fn has_key(bytes: &Bytes, key: &[u8]) -> Option<bool> {
    if flags(bytes)? & HAS_KEY == 0 {
        return Some(false);
    }
    Cursor { bytes, at: FIXED_BYTES }.bytes().map(|found| found == key)
}

fn flags(bytes: &[u8]) -> Option<u8> {
    let (version, flags) = (*bytes.first()?, *bytes.get(1)?);
    (version == VERSION && flags <= HAS_KEY | HAS_VALUE).then_some(flags)
}

fn time_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_len(out: &mut Vec<u8>, mut len: usize) {
    loop {
        let [low, ..] = len.to_le_bytes();
        len >>= 7;
        if len == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn len(&mut self) -> Option<usize> {
        let mut len = 0usize;
        // Five groups of seven bits hold any length of a record.
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(len);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let len = self.len()?;
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        let bytes = self.bytes.slice(self.at..end);
        self.at = end;
        Some(bytes)
    }
}

/// Keys of the log's own books, in a keyspace of their own. Names are preceded by their length, so that no pair of
/// names reads as another pair.
pub(super) mod books {
    /// Format version of the whole log.
    pub(in crate::embedded) const FORMAT: &[u8] = b"format";
    /// Prefix of topics: the rest is the name; the value is the partition count, u32 big-endian.
    pub(in crate::embedded) const TOPIC: u8 = b't';
    /// Prefix of writer epochs: the rest is the transactional id; the value is u64 big-endian.
    pub(in crate::embedded) const EPOCH: u8 = b'e';
    /// Prefix of committed offsets; the value is i64 big-endian.
    pub(in crate::embedded) const OFFSET: u8 = b'o';

    /// Key of a topic or an epoch.
    pub(in crate::embedded) fn named(prefix: u8, name: &str) -> Vec<u8> {
        [&[prefix], name.as_bytes()].concat()
    }

    /// Key of a committed offset.
    pub(in crate::embedded) fn offset(group: &str, topic: &str, partition: i32) -> Vec<u8> {
        let group_len = u32::try_from(group.len()).expect("a group name is far below 4 GiB");
        [&[OFFSET], &group_len.to_be_bytes()[..], group.as_bytes(), topic.as_bytes(), &partition.to_be_bytes()].concat()
    }

    /// Group, topic and partition out of [`offset`]'s key.
    pub(in crate::embedded) fn parse_offset(key: &[u8]) -> Option<(&str, &str, i32)> {
        let (head, rest) = key.get(1..)?.split_at_checked(4)?;
        let group_len = u32::from_be_bytes(head.try_into().ok()?) as usize;
        let (group, rest) = rest.split_at_checked(group_len)?;
        let (topic, partition) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
        let partition = i32::from_be_bytes(partition.try_into().ok()?);
        Some((std::str::from_utf8(group).ok()?, std::str::from_utf8(topic).ok()?, partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static str>, value: Option<&'static str>, headers: &[(&str, &'static str)]) -> Record {
        Record {
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: headers.iter().map(|(n, v)| Header { name: (*n).to_owned(), value: Bytes::from(*v) }).collect(),
            ..Record::default()
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let long: &'static str = "x".repeat(20_000).leak();
        for record in [
            record(None, None, &[]),
            record(Some(""), Some(""), &[("", "")]),
            record(Some("key"), None, &[("a", "1"), ("a", "2")]),
            record(Some(long), Some(long), &[(long, long), ("b", "")]),
        ] {
            let bytes = Bytes::from(encode(&record, 1_700_000_000_123, 1_700_000_000_456));
            let back = decode(3, 99, &bytes).expect("what encode writes");
            assert_eq!((back.partition, back.offset, back.timestamp_ms), (3, 99, 1_700_000_000_123));
            assert_eq!((&back.key, &back.value, &back.headers), (&record.key, &record.value, &record.headers));
            assert_eq!(time_max(&bytes), Some(1_700_000_000_456));
            assert_eq!(has_key(&bytes, b"key"), Some(record.key.as_deref() == Some(b"key")));
        }
    }

    #[test]
    fn damage_is_found_or_harmless_but_never_panics() {
        let bytes = encode(&record(Some("key"), Some("value"), &[("name", "value")]), 5, 5);
        for cut in 0..bytes.len() - "value".len() {
            assert_eq!(decode(0, 0, &Bytes::copy_from_slice(&bytes[..cut])), None, "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let damaged = Bytes::from(damaged);
                let _whatever = (decode(0, 0, &damaged), time_max(&damaged), has_key(&damaged, b"key"));
            }
        }
    }

    #[test]
    fn keys_sort_by_partition_and_offset() {
        let mut keys = [record_key(1, 0), record_key(0, 256), record_key(0, 255), record_key(0, i64::MAX)];
        keys.sort_unstable();
        assert_eq!(keys, [record_key(0, 255), record_key(0, 256), record_key(0, i64::MAX), record_key(1, 0)]);
        assert_eq!(key_offset(&record_key(7, 77)), Some(77));
        assert_eq!(books::parse_offset(&books::offset("g", "topic", 9)), Some(("g", "topic", 9)));
    }
}
