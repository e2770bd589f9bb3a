//! Where a writer stands with its transaction: the order of calls that both logs hold to.
//!
//! ```text
//!             begin            begin_commit            end_commit: ok
//! Outside ───────────▶ Open ─────────────────▶ InDoubt ──────────────▶ Outside
//!                       │ end (aborted)           │ outcome not known, or the call was cancelled: stays
//! ```

use crate::{Error, ErrorKind, Result};

/// A writer's transaction, if it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// The writer has no transactional id.
    Never,
    /// None is open.
    Outside,
    /// One is open.
    Open,
    /// A commit was begun and its outcome is not known.
    InDoubt,
}

impl Transaction {
    pub(crate) fn new(transactional: bool) -> Self {
        if transactional { Self::Outside } else { Self::Never }
    }

    pub(crate) fn begin(&mut self) -> Result<()> {
        match self {
            Self::Never => Err(internal("could not begin a transaction: the writer has no transactional id")),
            Self::Open => Err(internal("could not begin a transaction: one is open")),
            Self::InDoubt => Err(in_doubt("begin a transaction")),
            Self::Outside => {
                *self = Self::Open;
                Ok(())
            }
        }
    }

    /// Records may be sent within a transaction, or by a writer that has none.
    pub(crate) fn check_send(self) -> Result<()> {
        if self == Self::Never { Ok(()) } else { self.check_open("send records") }
    }

    pub(crate) fn check_open(self, tried: &str) -> Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::InDoubt => Err(in_doubt(tried)),
            Self::Never | Self::Outside => Err(internal(&format!("could not {tried} outside a transaction"))),
        }
    }

    pub(crate) fn begin_commit(&mut self) -> Result<()> {
        self.check_open("commit")?;
        *self = Self::InDoubt;
        Ok(())
    }

    /// Takes note of a commit's outcome and passes it on.
    pub(crate) fn end_commit(&mut self, done: Result<()>) -> Result<()> {
        match &done {
            Ok(()) => *self = Self::Outside,
            // Whether it is on disk is not known.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Stopped) => {}
            // Certainly not committed: it can be aborted.
            Err(_) => *self = Self::Open,
        }
        done
    }

    /// After an abort.
    pub(crate) fn end(&mut self) {
        *self = Self::Outside;
    }

    /// After a failed commit that certainly did not happen.
    pub(crate) fn reopen(&mut self) {
        *self = Self::Open;
    }
}

fn internal(message: &str) -> Error {
    Error::new(ErrorKind::Internal, message)
}

fn in_doubt(tried: &str) -> Error {
    let message = format!(
        "could not {tried}: the outcome of the last commit is not known; open a new writer of the same transactional id"
    );
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_out_of_order_are_refused() {
        let mut outside = Transaction::new(true);
        assert!(outside.check_send().is_err_and(|e| e.kind() == ErrorKind::Internal));
        assert!(outside.begin_commit().is_err());
        assert!(outside.begin().is_ok());
        assert!(outside.begin().is_err());
        assert!(Transaction::new(false).begin().is_err());
        assert!(Transaction::new(false).check_send().is_ok());
    }

    #[test]
    fn a_commit_that_was_cancelled_is_neither_open_nor_done() {
        let mut transaction = Transaction::Open;
        transaction.begin_commit().expect("open");
        assert!(transaction.check_open("abort").is_err_and(|e| e.kind() == ErrorKind::Unavailable));
        assert!(transaction.begin().is_err());
        let refused = transaction.end_commit(Err(Error::new(ErrorKind::Fenced, "fenced")));
        assert!(refused.is_err());
        assert_eq!(transaction, Transaction::Open);
    }
}
