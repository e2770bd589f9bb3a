//! Rejection: why input is not believed. A value that is counted and kept, not an error of ours.

use std::fmt;
use std::str::FromStr;

use crate::id::EventId;

/// Longest detail in bytes: it travels in a record header.
const DETAIL_BYTES_MAX: usize = 200;

/// Input that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What sort of fault it is.
    pub reason: Reason,
    /// What exactly was wrong, in a few words; at most 200 bytes.
    pub detail: String,
    /// The id that the input claims, where one could be found; nobody has checked it.
    pub id: Option<EventId>,
}

impl Rejection {
    /// A rejection without an id; `detail` is cut to 200 bytes.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { reason, detail, id: None }
    }

    /// The same for the input that claims `id`.
    #[must_use]
    pub fn with_id(mut self, id: Option<EventId>) -> Self {
        self.id = id;
        self
    }
}

impl fmt::Display for Rejection {
    /// `wrong_type: tags is null, not an array`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Every reason for which input is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not JSON (RFC 8259).
    MalformedJson,
    /// Not UTF-8.
    InvalidUtf8,
    /// A lone surrogate: a character without a UTF-8 form, so without an id.
    InvalidUnicode,
    /// A top-level key stands twice; of a market's frame any key that is read.
    DuplicateKey,
    /// Arrays and objects lie in each other too deep.
    TooDeep,
    /// JSON, but not an object.
    NotObject,
    /// One of the seven fields of NIP-01 is missing; or what a market event cannot do without.
    MissingField,
    /// A field has another type than NIP-01 says; or a market's frame another form than it can have.
    WrongType,
    /// `id`, `pubkey` or `sig` is not lower-case hex of its length.
    BadHex,
    /// `kind`, `created_at`, or a quantity or price of the market, is a number that we cannot hold.
    OutOfRange,
    /// `id` is not the hash of the event.
    IdMismatch,
    /// `sig` is not the author's signature of the id.
    BadSignature,
    /// Dated further ahead than is believable.
    Future,
    /// Longer than the limit.
    TooLarge,
    /// More tags than the limit.
    TooManyTags,
    /// Sent by a relay although it does not match what was asked for.
    FilterMismatch,
    /// A frame that is no relay message we know; or that is no event, where only events are.
    FrameUnknown,
    /// The broker refused the record for good.
    BrokerRefused,
}

impl Reason {
    /// All reasons, in the order of their declaration: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 18] = [
        Self::MalformedJson,
        Self::InvalidUtf8,
        Self::InvalidUnicode,
        Self::DuplicateKey,
        Self::TooDeep,
        Self::NotObject,
        Self::MissingField,
        Self::WrongType,
        Self::BadHex,
        Self::OutOfRange,
        Self::IdMismatch,
        Self::BadSignature,
        Self::Future,
        Self::TooLarge,
        Self::TooManyTags,
        Self::FilterMismatch,
        Self::FrameUnknown,
        Self::BrokerRefused,
    ];

    /// The code: what stands in headers, metrics and the output of `tidegate verify`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidUnicode => "invalid_unicode",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::NotObject => "not_object",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::BadHex => "bad_hex",
            Self::OutOfRange => "out_of_range",
            Self::IdMismatch => "id_mismatch",
            Self::BadSignature => "bad_signature",
            Self::Future => "future",
            Self::TooLarge => "too_large",
            Self::TooManyTags => "too_many_tags",
            Self::FilterMismatch => "filter_mismatch",
            Self::FrameUnknown => "frame_unknown",
            Self::BrokerRefused => "broker_refused",
        }
    }
}

impl FromStr for Reason {
    type Err = String;

    /// Reads the code.
    fn from_str(code: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == code);
        known.ok_or_else(|| format!("`{code}` is not a reason: there are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_stand_at_their_own_place_with_their_own_code() {
        let codes: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }

    #[test]
    fn what_is_no_reason_is_named() {
        assert!(
            "late"
                .parse::<Reason>()
                .is_err_and(|why| why.starts_with("`late` is not a reason: there are malformed_json, "))
        );
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let rejection = Rejection::new(Reason::WrongType, "é".repeat(150) + "x");
        assert_eq!(rejection.detail.len(), 200);
        let rejection = Rejection::new(Reason::WrongType, format!("x{}", "é".repeat(150)));
        assert_eq!(rejection.detail.len(), 199);
        assert_eq!(Rejection::new(Reason::NotObject, "null").to_string(), "not_object: null");
    }
}
