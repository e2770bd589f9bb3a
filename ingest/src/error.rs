//! What can go wrong while events are landed, sorted by what the operator should do.

use std::error::Error as StdError;
use std::fmt;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Fix the settings.
    Config,
    /// A relay, the log or the lake does not answer: retry later.
    Unavailable,
    /// Stored bytes are not what they should be.
    Data,
    /// Another process took over: stop.
    Fenced,
    /// The log takes nothing more in this process, as after a disk was full: end, remove the cause, start again.
    Stopped,
    /// A defect of ours.
    Internal,
}

/// We could not do our work. Input that is not believed is no error but a [`event::Rejection`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; the message is lower-case, without a full stop, and names the object and its sort.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the error beneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was tried on the log, and the log's own error beneath; the kind is the log's.
    pub(crate) fn of_log(message: impl Into<String>, source: topic::Error) -> Self {
        let kind = match source.kind() {
            topic::ErrorKind::Config | topic::ErrorKind::NotFound => ErrorKind::Config,
            topic::ErrorKind::Unavailable => ErrorKind::Unavailable,
            topic::ErrorKind::Data => ErrorKind::Data,
            topic::ErrorKind::Fenced => ErrorKind::Fenced,
            topic::ErrorKind::Stopped => ErrorKind::Stopped,
            topic::ErrorKind::Internal => ErrorKind::Internal,
        };
        Self::new(kind, message).with_source(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
