//! How the rows of a case are handed to an engine: which rows of which partition in which epoch. Pure.
//!
//! In: how many rows each table has, and a seed where chance has a part. Out: epochs. Within a partition rows keep the
//! order of their file, as in a log; everything else may be in any order.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Partitions of a table in the shuffled variant.
pub(super) const SHUFFLED_PARTITIONS: i32 = 3;

/// Rows that are handed over before the watermark moves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) parts: Vec<Part>,
    /// Partitions that hold no further row, as (table, partition).
    pub(super) drained: Vec<(usize, i32)>,
}

/// Rows of one partition, by their place in the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) table: usize,
    pub(super) partition: i32,
    pub(super) rows: Vec<u32>,
}

/// One partition a table, rows in the order of the file; at most `epochs_max` epochs, of three rows of the longest
/// table or more.
pub(super) fn in_order(lengths: &[u32], epochs_max: u32) -> Vec<Epoch> {
    const ROWS_MIN: u32 = 3;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let count = longest.div_ceil(ROWS_MIN).clamp(1, epochs_max);
    let bound = |length: u32, epoch: u32| u64::from(length) * u64::from(epoch) / u64::from(count);
    let mut epochs = Vec::new();
    for epoch in 0..count {
        let mut parts = Vec::new();
        for (table, length) in lengths.iter().enumerate() {
            // Tables of unlike lengths advance alike, for their times mostly do.
            let range = bound(*length, epoch)..bound(*length, epoch + 1);
            let rows: Vec<u32> = range.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
            if !rows.is_empty() {
                parts.push(Part { table, partition: 0, rows });
            }
        }
        epochs.push(Epoch { parts, drained: Vec::new() });
    }
    epochs
}

/// Each row in a partition, and each epoch of rows from partitions, that `seed` says.
pub(super) fn shuffled(lengths: &[u32], seed: u64) -> Vec<Epoch> {
    /// Of many rows an epoch takes about this part, so that a long case has not too many.
    const EPOCHS: u32 = 100;
    let mut random = StdRng::seed_from_u64(seed);
    let mut waiting: BTreeMap<(usize, i32), VecDeque<u32>> = BTreeMap::new();
    for (table, length) in lengths.iter().enumerate() {
        for row in 0..*length {
            waiting.entry((table, random.random_range(0..SHUFFLED_PARTITIONS))).or_default().push_back(row);
        }
    }
    let most = (lengths.iter().sum::<u32>() / EPOCHS * 2).max(6);
    let mut epochs = Vec::new();
    while !waiting.is_empty() {
        epochs.push(epoch(&mut waiting, random.random_range(1..=most), &mut random));
    }
    epochs
}

fn epoch(waiting: &mut BTreeMap<(usize, i32), VecDeque<u32>>, rows: u32, random: &mut StdRng) -> Epoch {
    let mut epoch = Epoch::default();
    for _ in 0..rows {
        if waiting.is_empty() {
            break;
        }
        let at = random.random_range(0..waiting.len());
        let Some((&(table, partition), queue)) = waiting.iter_mut().nth(at) else { break };
        if let Some(row) = queue.pop_front() {
            match epoch.parts.iter_mut().find(|part| (part.table, part.partition) == (table, partition)) {
                Some(part) => part.rows.push(row),
                None => epoch.parts.push(Part { table, partition, rows: vec![row] }),
            }
        }
        if queue.is_empty() {
            waiting.remove(&(table, partition));
            epoch.drained.push((table, partition));
        }
    }
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows by table and partition, in the order in which they are handed over.
    fn handed_over(epochs: &[Epoch]) -> BTreeMap<(usize, i32), Vec<u32>> {
        let mut all: BTreeMap<(usize, i32), Vec<u32>> = BTreeMap::new();
        for part in epochs.iter().flat_map(|epoch| &epoch.parts) {
            all.entry((part.table, part.partition)).or_default().extend(&part.rows);
        }
        all
    }

    #[test]
    fn every_row_is_handed_over_once_and_in_order_within_its_partition() {
        for seed in 0..50 {
            for lengths in [vec![1_000, 7], vec![0, 3], vec![1], vec![]] {
                let epochs = shuffled(&lengths, seed);
                let mut rows = vec![Vec::new(); lengths.len()];
                for ((table, partition), part) in handed_over(&epochs) {
                    assert!((0..SHUFFLED_PARTITIONS).contains(&partition));
                    assert!(part.is_sorted(), "seed {seed}: {part:?}");
                    rows[table].extend(part);
                }
                for (rows, length) in rows.iter_mut().zip(&lengths) {
                    rows.sort_unstable();
                    assert_eq!(*rows, (0..*length).collect::<Vec<_>>(), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_drained_partition_hands_over_nothing_more() {
        let epochs = shuffled(&[200, 100], 7);
        let mut drained = Vec::new();
        for epoch in &epochs {
            assert!(epoch.parts.iter().all(|part| !drained.contains(&(part.table, part.partition))));
            drained.extend(&epoch.drained);
        }
        assert_eq!(drained.len(), 6);
    }

    #[test]
    fn one_seed_gives_one_order_and_another_gives_another() {
        assert_eq!(shuffled(&[100], 1), shuffled(&[100], 1));
        assert_ne!(shuffled(&[100], 1), shuffled(&[100], 2));
    }

    #[test]
    fn epochs_in_order_are_few_and_short() {
        let epochs = in_order(&[7, 2], 200);
        assert_eq!(epochs.len(), 3);
        assert_eq!(handed_over(&epochs), BTreeMap::from([((0, 0), (0..7).collect()), ((1, 0), vec![0, 1])]));
        assert_eq!(in_order(&[8_000], 30).len(), 30);
        assert_eq!(in_order(&[0], 30), vec![Epoch::default()]);
    }
}
