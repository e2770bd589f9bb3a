//! How far a stream's time has come: one mark a partition, and the job's watermark over them.
//!
//! The mark of a partition is the greatest `min(event time, received time)` seen; the job's watermark is the least
//! mark over the partitions that are not idle, less the delay, and never goes back. The received time bounds what an
//! author can claim: an event dated a year ahead moves nothing past the present.

use std::collections::BTreeMap;

/// A partition of one of a job's tables: the table's number and the partition's.
pub(crate) type Source = (usize, i32);

/// Marks of the partitions of one job, microseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Watermarks {
    /// By table.
    delays: Vec<i64>,
    marks: BTreeMap<Source, Option<i64>>,
    current: Option<i64>,
}

impl Watermarks {
    /// Registers every partition before its first row, so that one not yet heard from holds the watermark back.
    /// `delays` has how far the watermark trails, by table.
    pub(crate) fn new(delays: Vec<i64>, sources: impl IntoIterator<Item = Source>) -> Self {
        Self { delays, marks: sources.into_iter().map(|source| (source, None)).collect(), current: None }
    }

    /// Registers a partition that was not there before; its first row is still to come.
    pub(crate) fn register(&mut self, source: Source) {
        self.marks.entry(source).or_default();
    }

    /// Takes up where a checkpoint left off.
    pub(crate) fn restore(&mut self, current: Option<i64>, marks: impl IntoIterator<Item = (Source, Option<i64>)>) {
        self.current = current;
        self.marks.extend(marks);
    }

    /// Notes a row: its event time, and the record's received time where it has one.
    pub(crate) fn observe(&mut self, source: Source, event_time: i64, received_at: Option<i64>) {
        let bounded = received_at.map_or(event_time, |received_at| event_time.min(received_at));
        let mark = self.marks.entry(source).or_default();
        *mark = Some(mark.map_or(bounded, |mark| mark.max(bounded)));
    }

    /// Recomputes the watermark at the end of an epoch. All partitions idle: it stays.
    pub(crate) fn advance(&mut self, idle: impl Fn(Source) -> bool) -> Option<i64> {
        let active = self.marks.iter().filter(|(source, _)| !idle(**source));
        let reached = active.map(|(source, mark)| mark.map(|mark| mark.saturating_sub(self.delay(source.0))));
        if let Some(Some(least)) = reached.reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))) {
            self.current = Some(self.current.map_or(least, |current| current.max(least)));
        }
        self.current
    }

    fn delay(&self, table: usize) -> i64 {
        self.delays.get(table).copied().unwrap_or_default()
    }

    /// The watermark as of the last [`Watermarks::advance`]: no row older than this is expected.
    pub(crate) const fn current(&self) -> Option<i64> {
        self.current
    }

    /// The mark of every partition.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (Source, Option<i64>)> {
        self.marks.iter().map(|(source, mark)| (*source, *mark))
    }

    /// The partition that holds the watermark back: the least mark less its delay among those not idle, one without a
    /// row first.
    pub(crate) fn held_by(&self, idle: impl Fn(Source) -> bool) -> Option<Source> {
        let active = self.marks().filter(|(source, _)| !idle(*source));
        active
            .min_by_key(|(source, mark)| mark.map(|mark| mark.saturating_sub(self.delay(source.0))))
            .map(|(source, _)| source)
    }

    /// Partitions whose mark is ahead of the least one by more than `drift`; none while one has no row yet.
    pub(crate) fn ahead(&self, drift: i64, idle: impl Fn(Source) -> bool) -> Vec<Source> {
        let least = self.marks().filter(|(source, _)| !idle(*source)).map(|(_, mark)| mark).min().flatten();
        let Some(least) = least else { return Vec::new() };
        let limit = least.saturating_add(drift);
        self.marks().filter(|(_, mark)| mark.is_some_and(|mark| mark > limit)).map(|(source, _)| source).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stranger_cannot_move_time() {
        let mut marks = Watermarks::new(vec![10], [(0, 0)]);
        marks.observe((0, 0), 1_000_000, Some(100));
        assert_eq!(marks.advance(|_| false), Some(90));
    }

    #[test]
    fn a_partition_not_heard_from_holds_the_watermark_until_it_is_idle() {
        let mut marks = Watermarks::new(vec![0], [(0, 0), (0, 1)]);
        marks.observe((0, 0), 50, Some(50));
        assert_eq!(marks.advance(|_| false), None);
        assert_eq!(marks.held_by(|_| false), Some((0, 1)));
        assert_eq!(marks.advance(|source| source == (0, 1)), Some(50));
        assert_eq!(marks.advance(|_| true), Some(50));
    }

    #[test]
    fn the_slowest_table_decides_each_by_its_own_delay() {
        let mut marks = Watermarks::new(vec![10, 30], [(0, 0), (1, 0)]);
        marks.observe((0, 0), 100, None);
        marks.observe((1, 0), 110, None);
        assert_eq!(marks.advance(|_| false), Some(80));
        assert_eq!(marks.held_by(|_| false), Some((1, 0)));
        assert_eq!(marks.ahead(5, |_| false), [(1, 0)]);
        assert_eq!(marks.ahead(10, |_| false), []);
    }

    proptest! {
        #[test]
        fn the_watermark_never_goes_back(rows in prop::collection::vec((0..3_i32, -500..500_i64, -500..500_i64, any::<bool>()), 0..80)) {
            let mut marks = Watermarks::new(vec![7], (0..3).map(|partition| (0, partition)));
            let mut before = None;
            for (partition, event, received, idle) in rows {
                marks.observe((0, partition), event, Some(received));
                let now = marks.advance(|(_, p)| idle && p == 2);
                prop_assert!(now >= before);
                before = now;
            }
        }
    }
}
