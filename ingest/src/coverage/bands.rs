//! Which stretches of `created_at` are proven complete, and which are not. Pure.
//!
//! A band says: every event of these seconds that the relay would have served when it was asked is in the raw topic, or
//! was there before. What a relay gets later is not in it; a band is proven anew to find that.

use crate::coverage::Band;

/// Bands kept of one relay and filter; beyond it the two oldest neighbours become one.
const BANDS_MAX: usize = 64;
/// Bands kept where holes part them; beyond it the oldest is forgotten, and asked for again.
const APART_MAX: usize = 4_096;

/// Bands of one relay and filter: by second, none over another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bands(Vec<Band>);

impl Bands {
    /// Bands as they were kept; one that lies over others takes their place, an empty one is left out.
    pub(crate) fn of(bands: Vec<Band>) -> Self {
        let mut all = Self::default();
        bands.into_iter().for_each(|band| all.prove(band));
        all
    }

    /// Enters a band; where it lies over others it takes their place, and the rest of them stays.
    pub(crate) fn prove(&mut self, band: Band) {
        if band.from > band.to {
            return;
        }
        self.forget(band.from, band.to);
        let at = self.0.partition_point(|other| other.to < band.from);
        self.0.insert(at, band);
        self.join_alike();
        while self.0.len() > BANDS_MAX && self.join_oldest() {}
        self.0.drain(..self.0.len().saturating_sub(APART_MAX));
    }

    /// Takes the seconds `from..=to` out.
    pub(crate) fn forget(&mut self, from: i64, to: i64) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for band in self.0.drain(..) {
            if band.to < from || band.from > to {
                left.push(band);
                continue;
            }
            if band.from < from {
                left.push(Band { to: from - 1, ..band });
            }
            if band.to > to {
                left.push(Band { from: to + 1, ..band });
            }
        }
        self.0 = left;
    }

    /// Seconds of `from..=to` in no band, newest first.
    pub(crate) fn holes(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let (mut holes, mut top) = (Vec::new(), to);
        for band in self.0.iter().rev().filter(|band| band.from <= to && band.to >= from) {
            if band.to < top {
                holes.push((band.to + 1, top));
            }
            top = top.min(band.from.saturating_sub(1));
        }
        if top >= from {
            holes.push((from, top));
        }
        holes
    }

    /// By second, oldest first.
    pub(crate) fn as_slice(&self) -> &[Band] {
        &self.0
    }

    /// Neighbours without a hole between them that were proven alike are one.
    fn join_alike(&mut self) {
        self.0.dedup_by(|next, band| {
            let alike = band.to + 1 == next.from && (band.proven_at, band.proof) == (next.proven_at, next.proof);
            if alike {
                band.to = next.to;
            }
            alike
        });
    }

    /// Joins the oldest neighbours without a hole between them; what is joined counts as proven when the first of them
    /// was. `false` when there are none.
    fn join_oldest(&mut self) -> bool {
        let Some(at) = self.0.windows(2).position(|two| two[0].to + 1 == two[1].from) else { return false };
        let next = self.0.remove(at + 1);
        let band = &mut self.0[at];
        band.to = next.to;
        if next.proven_at < band.proven_at {
            (band.proven_at, band.proof) = (next.proven_at, next.proof);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::coverage::Proof;

    fn paged(from: i64, to: i64, proven_at: i64) -> Band {
        Band { from, to, proven_at, proof: Proof::Paged }
    }

    /// When each second was proven, the dumb way.
    fn seconds(bands: &[Band]) -> BTreeMap<i64, i64> {
        let mut seconds = BTreeMap::new();
        for band in bands {
            seconds.extend((band.from..=band.to).map(|second| (second, band.proven_at)));
        }
        seconds
    }

    proptest! {
        #[test]
        fn a_second_was_proven_when_it_was_last_proven(
            steps in prop::collection::vec((0..60_i64, 0..20_i64, any::<bool>()), 0..40), from in -5..70_i64, long in 0..40_i64
        ) {
            let (mut bands, mut dumb) = (Bands::default(), BTreeMap::new());
            for (at, (start, length, prove)) in (0..).zip(steps) {
                let seconds = start..=start + length;
                if prove {
                    bands.prove(paged(start, start + length, at));
                    dumb.extend(seconds.map(|second| (second, at)));
                } else {
                    bands.forget(start, start + length);
                    dumb.retain(|second, _| !seconds.contains(second));
                }
                prop_assert!(bands.0.windows(2).all(|two| two[0].to < two[1].from));
            }
            prop_assert_eq!(&seconds(bands.as_slice()), &dumb);
            let holes = bands.holes(from, from + long);
            prop_assert!(holes.windows(2).all(|two| two[0].0 > two[1].1 + 1), "newest first and apart: {:?}", holes);
            let open: Vec<i64> = holes.iter().rev().flat_map(|(from, to)| *from..=*to).collect();
            let want: Vec<i64> = (from..=from + long).filter(|second| !dumb.contains_key(second)).collect();
            prop_assert_eq!(open, want);
        }
    }

    #[test]
    fn many_bands_become_few_and_claim_no_newer_proof() {
        let mut bands = Bands::default();
        for at in 0..500 {
            bands.prove(paged(at * 10, at * 10 + 9, 1_000 + at));
        }
        assert_eq!(bands.as_slice().len(), BANDS_MAX);
        assert_eq!(bands.holes(0, 4_999), []);
        assert_eq!(bands.as_slice()[0].proven_at, 1_000);
        let mut apart = Bands::default();
        for at in 0..500 {
            apart.prove(paged(at * 10, at * 10 + 5, at));
        }
        assert_eq!(apart.holes(0, 4_999).len(), 500, "what is not proven is never claimed");
        for at in 0..10_000 {
            apart.prove(paged(at * 10, at * 10 + 5, at));
        }
        assert_eq!((apart.as_slice().len(), apart.as_slice()[APART_MAX - 1].to), (APART_MAX, 99_995));
    }

    #[test]
    fn bands_are_kept_as_they_are() {
        let mut bands = Bands::default();
        bands.prove(paged(10, 20, 5));
        bands.prove(Band { from: 15, to: 15, proven_at: 9, proof: Proof::Reconciled });
        assert_eq!(Bands::of(bands.as_slice().to_vec()), bands);
        assert_eq!(bands.as_slice().len(), 3);
    }
}
