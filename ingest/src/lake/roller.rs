//! When an object is complete: rows, bytes, age. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Bounds of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roller {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) age_max: Duration,
}

impl Roller {
    /// Whether an object takes no further row.
    pub(super) const fn is_full(&self, rows: usize, bytes: usize) -> bool {
        rows >= self.rows_max || bytes >= self.bytes_max
    }

    /// Whether an object has waited long enough.
    pub(super) fn is_old(&self, opened_at: Instant, now: Instant) -> bool {
        now.duration_since(opened_at) >= self.age_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_bytes_or_age_complete_an_object() {
        let roller = Roller { rows_max: 3, bytes_max: 100, age_max: Duration::from_secs(60) };
        assert!(!roller.is_full(2, 99));
        assert!(roller.is_full(3, 0));
        assert!(roller.is_full(0, 100));
        let now = Instant::now();
        assert!(!roller.is_old(now, now + Duration::from_secs(59)));
        assert!(roller.is_old(now, now + Duration::from_secs(60)));
    }
}
