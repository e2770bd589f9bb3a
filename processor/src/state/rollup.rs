//! Merged runs of panes, so that a window of many panes is not merged from all of them each time it slides.
//!
//! A node of level l covers `FAN^l` aligned panes. It is built from its children when the first closing window wants
//! it, and forgotten when a row comes to one of its panes or when no window can want it any more. A window of n panes is
//! covered by about `2 × (FAN - 1) × log(n)` nodes. (Feldera's radix trees keep the same nodes per key; here a node holds
//! all groups.)

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use crate::stream::window::WindowSpec;

/// Children of a node.
const FAN: i64 = 4;
/// Windows of fewer panes are merged from the panes.
const PANES_MIN: i64 = 8;

/// What a window, or a node, is merged from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// 0 is a pane.
    pub(super) level: usize,
    pub(super) start: i64,
}

/// The nodes of one cut.
#[derive(Debug)]
pub(super) struct RollUp {
    origin: i64,
    width: i64,
    size: i64,
    /// By level, from 1 on, then by start.
    nodes: Vec<BTreeMap<i64, RecordBatch>>,
    bytes: usize,
}

impl RollUp {
    /// None where windows have too few panes to gain anything.
    pub(super) fn new(spec: WindowSpec) -> Option<Self> {
        let (width, size) = (spec.pane_width(), spec.size());
        if size / width < PANES_MIN {
            return None;
        }
        let levels = std::iter::successors(Some(FAN), |run| run.checked_mul(FAN)).take_while(|run| run * width <= size);
        let nodes = levels.map(|_| BTreeMap::new()).collect();
        Some(Self { origin: spec.origin(), width, size, nodes, bytes: 0 })
    }

    /// Length of what a part covers.
    pub(super) const fn span(&self, level: usize) -> i64 {
        let mut span = self.width;
        let mut at = 0;
        while at < level {
            span *= FAN;
            at += 1;
        }
        span
    }

    /// The fewest parts that cover `[start, end)`, in order of time.
    pub(super) fn cover(&self, start: i64, end: i64) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut at = start;
        while at < end {
            let fits = |level: &usize| {
                let span = self.span(*level);
                (at - self.origin).rem_euclid(span) == 0 && at + span <= end
            };
            let level = (0..=self.nodes.len()).rev().find(fits).unwrap_or(0);
            parts.push(Part { level, start: at });
            at += self.span(level);
        }
        parts
    }

    /// The parts that a node is merged from.
    pub(super) fn children(&self, node: Part) -> impl Iterator<Item = Part> {
        let level = node.level - 1;
        let span = self.span(level);
        (0..FAN).map(move |at| Part { level, start: node.start + at * span })
    }

    pub(super) fn get(&self, node: Part) -> Option<&RecordBatch> {
        self.nodes.get(node.level.checked_sub(1)?)?.get(&node.start)
    }

    /// Keeps a node that was not there.
    pub(super) fn put(&mut self, node: Part, state: RecordBatch) {
        if let Some(nodes) = node.level.checked_sub(1).and_then(|level| self.nodes.get_mut(level)) {
            self.bytes += state.get_array_memory_size();
            nodes.insert(node.start, state);
        }
    }

    /// Forgets the nodes that hold the pane at `pane`: it has changed.
    pub(super) fn forget(&mut self, pane: i64) {
        for level in 0..self.nodes.len() {
            let span = self.span(level + 1);
            if let Some(gone) = self.nodes[level].remove(&(pane - (pane - self.origin).rem_euclid(span))) {
                self.bytes -= gone.get_array_memory_size();
            }
        }
    }

    /// Forgets the nodes that no window which ends after `closed` begins before or with.
    pub(super) fn drop_until(&mut self, closed: i64) {
        let tail = closed.saturating_sub(self.size);
        for nodes in &mut self.nodes {
            let kept = nodes.split_off(&tail.saturating_add(1));
            let gone = std::mem::replace(nodes, kept);
            self.bytes -= gone.values().map(RecordBatch::get_array_memory_size).sum::<usize>();
        }
    }

    pub(super) fn clear(&mut self) {
        self.nodes.iter_mut().for_each(BTreeMap::clear);
        self.bytes = 0;
    }

    /// Bytes of the nodes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_of_a_window_tile_it(panes in 8..2_000_i64, slide in 1..50_i64, start in -500..500_i64) {
            let slide = slide.min(panes);
            let spec = WindowSpec::try_new(panes * 60, slide * 60, 0).expect("a window");
            let Some(rolled) = RollUp::new(spec) else { return Ok(()) };
            let start = start * slide * 60;
            let parts = rolled.cover(start, start + spec.size());
            let mut at = start;
            for part in &parts {
                prop_assert_eq!(part.start, at);
                prop_assert_eq!((at - spec.origin()).rem_euclid(rolled.span(part.level)), 0);
                at += rolled.span(part.level);
            }
            prop_assert_eq!(at, start + spec.size());
            let levels = usize::try_from((spec.size() / spec.pane_width()).ilog(FAN)).expect("few") + 1;
            prop_assert!(parts.len() <= 2 * 3 * levels + 1, "{} parts", parts.len());
        }
    }
}
