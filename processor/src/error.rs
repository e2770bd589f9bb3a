//! What can go wrong with a job, sorted by what the operator should do.

use std::error::Error as StdError;
use std::fmt;

use datafusion::error::DataFusionError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Fix the settings.
    Config,
    /// Fix the SQL; the hint says how.
    Job,
    /// The topic or the lake cannot be reached: retry later.
    Unavailable,
    /// Stored bytes are not what was written, or are gone.
    Data,
    /// The checkpoint belongs to another job: restart it, or name another checkpoint.
    Checkpoint,
    /// Another process took over: stop.
    Fenced,
    /// The log takes nothing more in this process, as after a disk was full: end, remove the cause, start again.
    Stopped,
    /// A defect of ours.
    Internal,
}

/// We could not do our work.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    caret: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; the message is lower-case, without a full stop, and names the object and its sort.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, caret: None, source: None }
    }

    pub(crate) fn job(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Job, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_caret(mut self, caret: Option<String>) -> Self {
        self.caret = caret.or(self.caret);
        self
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

    /// What the person might do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The line of SQL with a caret below the place, ready to print.
    #[must_use]
    pub fn caret(&self) -> Option<&str> {
        self.caret.as_deref()
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

impl From<topic::Error> for Error {
    fn from(error: topic::Error) -> Self {
        let kind = match error.kind() {
            topic::ErrorKind::Config | topic::ErrorKind::NotFound => ErrorKind::Config,
            topic::ErrorKind::Unavailable => ErrorKind::Unavailable,
            topic::ErrorKind::Data => ErrorKind::Data,
            topic::ErrorKind::Fenced => ErrorKind::Fenced,
            topic::ErrorKind::Stopped => ErrorKind::Stopped,
            topic::ErrorKind::Internal => ErrorKind::Internal,
        };
        let mut wrapped = Self::new(kind, error.to_string());
        wrapped.source = std::error::Error::source(&error).map(|source| source.to_string().into());
        wrapped
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::new(ErrorKind::Unavailable, "could not use the object store").with_source(error)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::new(ErrorKind::Data, "could not run the query").with_source(other),
            },
            other => Self::new(ErrorKind::Data, "could not run the query").with_source(other.strip_backtrace()),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::new(ErrorKind::Internal, "could not compute on rows").with_source(error)
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
