//! What both logs hold to before they write: topic names and counts, record times, where a record goes.

use std::collections::HashMap;

use crate::partitioner::partition_for_key;
use crate::{Error, ErrorKind, Record, Result, TopicSpec};

/// Longest topic name that Kafka takes.
const NAME_BYTES_MAX: usize = 249;

/// Largest record either log takes, key, value and headers together. A topic on Kafka may hold less
/// (`max.message.bytes`, 1 MiB unless it was created otherwise).
pub(crate) const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Checks name and partition count of a topic to be created.
pub(crate) fn check_spec(spec: &TopicSpec) -> Result<()> {
    let name = &spec.name;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    if !fits || name == "." || name == ".." {
        let message = format!(
            "`{name}` is not a topic name: use 1 to {NAME_BYTES_MAX} letters, digits, dots, underscores and dashes"
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    if spec.partitions < 1 {
        let message = format!("topic `{name}` needs at least one partition, not {}", spec.partitions);
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

/// Checks size and time of a record to be written to `topic`, and returns its size in bytes.
pub(crate) fn check_record(topic: &str, record: &Record) -> Result<usize> {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    let bytes =
        record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len()) + headers;
    if bytes > RECORD_BYTES_MAX {
        let message = format!("record of {bytes} bytes for topic `{topic}` is larger than {RECORD_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::Data, message));
    }
    // Kafka's client would read 0 as "now", and brokers refuse what is below.
    if let Some(time) = record.timestamp_ms.filter(|time| *time < 1) {
        let message = format!("record time {time} for topic `{topic}` is before 1970-01-01T00:00:00.001Z");
        return Err(Error::new(ErrorKind::Data, message));
    }
    Ok(bytes)
}

/// Error for a partition that `topic` has not.
pub(crate) fn no_partition(topic: &str, partition: i32, partitions: i32) -> Error {
    let message = format!("topic `{topic}` has no partition {partition}, it has {partitions}");
    Error::new(ErrorKind::NotFound, message)
}

/// Error for a topic that is not there.
pub(crate) fn no_topic(topic: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("topic `{topic}` does not exist"))
}

/// Error for an offset that a partition does not hold.
pub(crate) fn out_of_range(topic: &str, partition: i32, offset: i64, start: i64, end: i64) -> Error {
    let message =
        format!("offset {offset} of topic `{topic}` partition {partition} lies outside its range [{start}, {end})");
    Error::new(ErrorKind::Data, message)
}

/// Where the records of one writer go: fixed partition, the key's, or partitions by turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    next: HashMap<String, u32>,
}

impl Turns {
    /// Partition of `record` in `topic`, which has `partitions`.
    pub(crate) fn partition_of(&mut self, topic: &str, record: &Record, partitions: i32) -> Result<i32> {
        if let Some(partition) = record.partition {
            return match (0..partitions).contains(&partition) {
                true => Ok(partition),
                false => Err(no_partition(topic, partition, partitions)),
            };
        }
        if let Some(key) = &record.key {
            return Ok(partition_for_key(key, partitions));
        }
        let turn = match self.next.get_mut(topic) {
            Some(turn) => turn,
            None => self.next.entry(topic.to_owned()).or_default(),
        };
        let partition = *turn % partitions.unsigned_abs();
        *turn = turn.wrapping_add(1);
        Ok(i32::try_from(partition).expect("less than a partition count, which is an i32"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, partitions: i32) -> TopicSpec {
        TopicSpec { name: name.to_owned(), partitions, config: Vec::new() }
    }

    #[test]
    fn names_as_kafka_has_them() {
        for name in ["a", "nostr-event", "OpenSeaRawEvents", "__jobs", "x.rejected", &"n".repeat(249)] {
            assert!(check_spec(&spec(name, 1)).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", &"n".repeat(250)] {
            assert!(check_spec(&spec(name, 1)).is_err_and(|e| e.kind() == ErrorKind::Config), "{name}");
        }
        assert!(check_spec(&spec("a", 0)).is_err());
    }

    #[test]
    fn without_a_key_partitions_take_turns() {
        let mut turns = Turns::default();
        let record = Record::default();
        let got: Vec<_> = (0..5).map(|_| turns.partition_of("t", &record, 3).expect("in range")).collect();
        assert_eq!(got, [0, 1, 2, 0, 1]);
        let fixed = Record { partition: Some(3), ..Record::default() };
        assert!(turns.partition_of("t", &fixed, 3).is_err_and(|e| e.kind() == ErrorKind::NotFound));
    }
}
