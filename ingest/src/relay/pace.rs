//! How fast a relay is asked: a bucket of requests that fills at a rate, which halves when the relay says that it is too
//! much and doubles back while it says nothing. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that may follow each other at once, in seconds of the rate.
const BURST_SECS: f64 = 5.0;
/// A relay is asked this often, whatever it says: a request in 20 seconds.
const SLOWEST: f64 = 0.05;
/// Time without a complaint after which the rate doubles.
const QUIET: Duration = Duration::from_secs(600);

/// The pace of one relay.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Requests a second that it is never asked more of.
    most: f64,
    rate: f64,
    /// Requests that may be sent now.
    bucket: f64,
    filled_at: Instant,
    changed_at: Instant,
}

impl Pace {
    /// A pace of at most `most` requests a second.
    pub(crate) fn new(most: u32, now: Instant) -> Self {
        let most = f64::from(most.max(1));
        Self { most, rate: most, bucket: most * BURST_SECS, filled_at: now, changed_at: now }
    }

    /// Takes leave for one request; or says when to try again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        if self.bucket >= 1.0 {
            self.bucket -= 1.0;
            return Ok(());
        }
        // A little more than it takes: rounding must not make it wait twice.
        Err(now + Duration::from_secs_f64((1.0 - self.bucket) / self.rate) + Duration::from_millis(1))
    }

    /// The relay says that it is asked too much.
    pub(crate) fn slow_down(&mut self, now: Instant) {
        self.fill(now);
        self.rate = (self.rate / 2.0).max(SLOWEST);
        self.bucket = 0.0;
        self.changed_at = now;
    }

    /// Requests a second at present.
    pub(crate) const fn rate(&self) -> f64 {
        self.rate
    }

    fn fill(&mut self, now: Instant) {
        while self.rate < self.most && now.duration_since(self.changed_at) >= QUIET {
            self.rate = (self.rate * 2.0).min(self.most);
            self.changed_at += QUIET;
        }
        let filled = now.duration_since(self.filled_at).as_secs_f64() * self.rate;
        self.bucket = (self.bucket + filled).min((self.rate * BURST_SECS).max(1.0));
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that are let through in so many seconds by somebody who asks whenever he may.
    fn requests(pace: &mut Pace, begin: Instant, secs: u64) -> u32 {
        let end = begin + Duration::from_secs(secs);
        let (mut now, mut count) = (begin, 0);
        while now < end {
            match pace.take(now) {
                Ok(()) => count += 1,
                Err(at) => {
                    assert!(at > now, "who waits gets on");
                    now = at;
                }
            }
        }
        count
    }

    #[test]
    fn a_burst_then_the_rate() {
        let begin = Instant::now();
        let mut pace = Pace::new(10, begin);
        let count = requests(&mut pace, begin, 20);
        // 50 at once and 10 a second, less a millisecond of each wait.
        assert!((247..=250).contains(&count), "{count}");
    }

    #[test]
    fn a_complaint_halves_the_rate_and_quiet_brings_it_back() {
        let begin = Instant::now();
        let mut pace = Pace::new(8, begin);
        pace.slow_down(begin);
        pace.slow_down(begin);
        let count = requests(&mut pace, begin, 100);
        assert!((195..=200).contains(&count), "two a second and no burst: {count}");
        let _ = pace.take(begin + QUIET);
        assert!((pace.rate() - 4.0).abs() < 1e-9);
        let _ = pace.take(begin + 20 * QUIET);
        assert!((pace.rate() - 8.0).abs() < 1e-9, "and never more than at first");
    }

    #[test]
    fn however_often_a_relay_complains_it_is_asked_now_and_then() {
        let begin = Instant::now();
        let mut pace = Pace::new(1, begin);
        (0..100).for_each(|_| pace.slow_down(begin));
        assert_eq!(requests(&mut pace, begin, 61), 3);
    }
}
