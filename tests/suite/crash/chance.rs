//! Dice with a seed that is printed, so that a run that went wrong can be tried again: the same delays, not the same
//! moments, since real processes do not keep step.

use std::time::Duration;

use super::say;

/// Splitmix64: small, and good enough for delays.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From `TIDEGATE_SEED`, or else from the clock.
    pub(crate) fn of(test: &str) -> Self {
        let given = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos();
        let seed = given.unwrap_or_else(|| u64::from(now));
        say(&format!("{test}: TIDEGATE_SEED={seed}"));
        Self(seed)
    }

    /// Other dice that follow from these.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A time between two, whole microseconds.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_micros()).expect("short");
        least + Duration::from_micros(self.below(span.max(1)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
