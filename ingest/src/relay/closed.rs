//! What to do when a relay ends a subscription: the machine-readable prefix of its CLOSED message decides. Pure.

use std::time::Duration;

/// Shortest wait after `rate-limited:`.
const RATE_LIMITED: Duration = Duration::from_secs(60);
/// Wait before a relay that refused us is asked again: asking sooner gets addresses blocked.
pub(crate) const REFUSED: Duration = Duration::from_secs(6 * 3600);

/// Whether a relay says that it is asked too much.
pub(crate) fn is_rate_limited(text: &str) -> bool {
    text.trim_start().get(.."rate-limited:".len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case("rate-limited:"))
}

/// What a CLOSED asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Ask the same again, after the usual backoff and not before this wait.
    Retry(Duration),
    /// Say who we are, then ask the same again (NIP-42).
    Auth,
    /// Our filter is the problem: ask in a simpler form.
    Simpler,
    /// We may not read here: leave, and come back after this wait.
    Refused(Duration),
}

impl Closed {
    /// Reads the prefix of `text`; what is unknown is tried again.
    pub(crate) fn of(text: &str) -> Self {
        let lower = text.trim_start().to_ascii_lowercase();
        // Older relays write `ERROR: bad req: …`, the fault behind the generic prefix.
        if lower.contains("bad req") {
            return Self::Simpler;
        }
        match lower.split_once(':').map_or("", |(prefix, _)| prefix) {
            "rate-limited" => Self::Retry(RATE_LIMITED),
            "auth-required" => Self::Auth,
            "restricted" | "blocked" | "mute" | "pow" => Self::Refused(REFUSED),
            "invalid" | "unsupported" => Self::Simpler,
            _ => Self::Retry(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_is_a_complaint() {
        assert!(is_rate_limited("rate-limited: slow down there") && is_rate_limited(" RATE-LIMITED:"));
        for text in ["", "rate-limited", "error: rate-limited: no", "é-limited: you are asking too much"] {
            assert!(!is_rate_limited(text), "{text}");
        }
    }

    #[test]
    fn the_prefix_decides() {
        assert_eq!(Closed::of("rate-limited: slow down there"), Closed::Retry(RATE_LIMITED));
        assert_eq!(Closed::of("auth-required: we serve members"), Closed::Auth);
        assert_eq!(Closed::of("restricted: we do not serve you"), Closed::Refused(REFUSED));
        assert_eq!(Closed::of("BLOCKED: you"), Closed::Refused(REFUSED));
        assert_eq!(Closed::of("invalid: too many kinds"), Closed::Simpler);
        assert_eq!(Closed::of("ERROR: bad req: limit too big"), Closed::Simpler);
        for text in ["", "error: shutting down", "bye", "é:"] {
            assert_eq!(Closed::of(text), Closed::Retry(Duration::ZERO), "{text}");
        }
    }
}
