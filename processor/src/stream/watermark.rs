//! How far a stream's time has come: one mark a partition, and the job's watermark over them.
//!
//! The mark of a partition is the greatest `min(event time, received time)` seen; the job's watermark is the least
//! mark over the partitions that are not idle, less the delay, and never goes back. The received time bounds what an
//! author can claim: an event dated a year ahead moves nothing past the present.

use std::collections::BTreeMap;

/// Marks of the partitions of one job, microseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Watermarks {
    delay: i64,
    marks: BTreeMap<i32, Option<i64>>,
    current: Option<i64>,
}

impl Watermarks {
    /// Registers every partition before its first row, so that one not yet heard from holds the watermark back.
    pub(crate) fn new(delay: i64, partitions: impl IntoIterator<Item = i32>) -> Self {
        Self { delay, marks: partitions.into_iter().map(|partition| (partition, None)).collect(), current: None }
    }

    /// Takes up where a checkpoint left off.
    pub(crate) fn restore(&mut self, current: Option<i64>, marks: impl IntoIterator<Item = (i32, Option<i64>)>) {
        self.current = current;
        for (partition, mark) in marks {
            self.marks.insert(partition, mark);
        }
    }

    /// Notes a row: its event time and the record's received time.
    pub(crate) fn observe(&mut self, partition: i32, event_time: i64, received_at: i64) {
        let bounded = event_time.min(received_at);
        let mark = self.marks.entry(partition).or_default();
        *mark = Some(mark.map_or(bounded, |mark| mark.max(bounded)));
    }

    /// Recomputes the watermark at the end of an epoch. All partitions idle: it stays.
    pub(crate) fn advance(&mut self, idle: impl Fn(i32) -> bool) -> Option<i64> {
        let active = self.marks.iter().filter(|(partition, _)| !idle(**partition));
        let least = active.map(|(_, mark)| *mark).reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b)));
        if let Some(Some(least)) = least {
            let reached = least.saturating_sub(self.delay);
            self.current = Some(self.current.map_or(reached, |current| current.max(reached)));
        }
        self.current
    }

    /// The watermark as of the last [`Watermarks::advance`]: no row older than this is expected.
    pub(crate) const fn current(&self) -> Option<i64> {
        self.current
    }

    /// The mark of every partition.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (i32, Option<i64>)> {
        self.marks.iter().map(|(partition, mark)| (*partition, *mark))
    }

    /// The partition that holds the watermark back: the least mark among those not idle, one without a row first.
    pub(crate) fn held_by(&self, idle: impl Fn(i32) -> bool) -> Option<i32> {
        self.marks()
            .filter(|(partition, _)| !idle(*partition))
            .min_by_key(|(_, mark)| *mark)
            .map(|(partition, _)| partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stranger_cannot_move_time() {
        let mut marks = Watermarks::new(10, [0]);
        marks.observe(0, 1_000_000, 100);
        assert_eq!(marks.advance(|_| false), Some(90));
    }

    #[test]
    fn a_partition_not_heard_from_holds_the_watermark_until_it_is_idle() {
        let mut marks = Watermarks::new(0, [0, 1]);
        marks.observe(0, 50, 50);
        assert_eq!(marks.advance(|_| false), None);
        assert_eq!(marks.held_by(|_| false), Some(1));
        assert_eq!(marks.advance(|partition| partition == 1), Some(50));
        assert_eq!(marks.advance(|_| true), Some(50));
    }

    proptest! {
        #[test]
        fn the_watermark_never_goes_back(rows in prop::collection::vec((0..3_i32, -500..500_i64, -500..500_i64, any::<bool>()), 0..80)) {
            let mut marks = Watermarks::new(7, 0..3);
            let mut before = None;
            for (partition, event, received, idle) in rows {
                marks.observe(partition, event, received);
                let now = marks.advance(|p| idle && p == 2);
                prop_assert!(now >= before);
                before = now;
            }
        }
    }
}
