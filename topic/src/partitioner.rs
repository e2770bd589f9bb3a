//! Which partition a key belongs to: Kafka's murmur2, so that every client of a topic agrees.
//!
//! Both logs and every reader that looks for one key call this; nothing here knows a topic.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// Partition of `key` among `partitions` (at least one), as Kafka's Java client computes it:
/// `toPositive(murmur2(key)) % partitions`.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).expect("the sign bit is masked out");
    positive % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    // The length of a key is far below 4 GiB; Java's array length is 32 bits as well.
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `org.apache.kafka.common.utils.UtilsTest#testMurmur2`.
    const VECTORS: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn murmur2_agrees_with_apache_kafka() {
        for (key, hash) in VECTORS {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_the_positive_hash_modulo_the_count() {
        for (key, hash) in VECTORS {
            assert_eq!(partition_for_key(key.as_bytes(), 7), (hash & i32::MAX) % 7, "{key}");
        }
        assert_eq!(partition_for_key(b"", 1), 0);
    }
}
