//! The wall clock: the only place in the house that reads it.
//!
//! Everything else is handed a [`Clock`], so that tests can own the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in whole milliseconds since 1970, UTC: the system's, or one that a test moves.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    mock: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ms` until [`Clock::set`] moves it.
    #[must_use]
    pub fn mock(now_ms: i64) -> Self {
        Self { mock: Some(Arc::new(AtomicI64::new(now_ms))) }
    }

    /// Moves a mock clock; does nothing to the system's.
    pub fn set(&self, now_ms: i64) {
        if let Some(mock) = &self.mock {
            mock.store(now_ms, Ordering::SeqCst);
        }
    }

    /// Now, milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.mock {
            Some(mock) => mock.load(Ordering::SeqCst),
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            None => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
            },
        }
    }
}
