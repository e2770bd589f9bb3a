//! How long to wait before a relay is tried again: exponential with full jitter. Pure; chance is an argument.

use std::time::Duration;

/// Waiting times: chance decides between zero and a bound that doubles with every failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound after the first failure. Default 1 second.
    pub first: Duration,
    /// Bound that is never passed. Default 60 seconds.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row; `chance` is even between 0 and 1.
    ///
    /// Full jitter spreads the clients of a relay that restarts over the whole span instead of letting them return
    /// in waves.
    #[must_use]
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        self.bound(failures).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The longest wait after `failures` failures in a row.
    #[must_use]
    pub fn bound(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(31));
        self.first.saturating_mul(doubled).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let backoff = Backoff::default();
        let bounds: Vec<u64> = (1..=8).map(|failures| backoff.bound(failures).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.bound(u32::MAX), Duration::from_secs(60));
        assert_eq!(backoff.bound(0), Duration::from_secs(1));
    }

    #[test]
    fn chance_covers_the_whole_span() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(4));
        assert_eq!(backoff.delay(3, f64::NAN.max(2.0)), Duration::from_secs(4));
    }
}
