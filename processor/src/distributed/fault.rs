//! Errors on their way from a worker to the client.
//!
//! Between processes an error is text. Ours keep their kind and hint in it, and the worker that they come from; what
//! arrives without is of the network or of the engine, and means that a worker could not do its part.

use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Before an error of ours.
const MARK: &str = "tidegate error ";

#[derive(Serialize, Deserialize)]
struct Told {
    kind: String,
    message: String,
    hint: Option<String>,
}

/// Kinds as they are told. Of `Fenced` and `Checkpoint` a batch knows nothing.
const KINDS: [(&str, ErrorKind); 4] = [
    ("config", ErrorKind::Config),
    ("job", ErrorKind::Job),
    ("unavailable", ErrorKind::Unavailable),
    ("data", ErrorKind::Data),
];

/// An error of a worker, as text for the client.
pub(super) fn told(error: &Error, worker: &str) -> DataFusionError {
    let kind = KINDS.iter().find(|(_, kind)| *kind == error.kind()).map_or("internal", |(name, _)| name);
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(why) = cause {
        let text = why.to_string();
        // What has come from another worker says where it was.
        if let Some(first) = parsed(&text) {
            return told(&first, worker);
        }
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = why.source();
    }
    if !message.starts_with("worker ") {
        message = format!("worker {worker}: {message}");
    }
    let told = Told { kind: kind.to_owned(), message, hint: error.hint().map(str::to_owned) };
    let text = serde_json::to_string(&told).unwrap_or_default();
    DataFusionError::Execution(format!("{MARK}{text}"))
}

/// What a worker told; else that one was lost.
pub(super) fn heard(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) if inner.is::<Error>() => Error::from(DataFusionError::External(inner)),
        error => {
            let text = error.strip_backtrace();
            parsed(&text).unwrap_or_else(|| {
                Error::new(ErrorKind::Unavailable, "a worker was lost, or could not do its part").with_source(text)
            })
        }
    }
}

fn parsed(text: &str) -> Option<Error> {
    let (_, json) = text.split_once(MARK)?;
    let told: Told = serde_json::Deserializer::from_str(json).into_iter().next()?.ok()?;
    let kind = KINDS.iter().find(|(name, _)| *name == told.kind).map_or(ErrorKind::Internal, |(_, kind)| *kind);
    let error = Error::new(kind, told.message);
    Some(match told.hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_says_where_it_was() {
        let first = Error::new(ErrorKind::Data, "object `x` is damaged").with_source("no footer").with_hint("look");
        let once = told(&first, "a:1");
        let again = told(&heard(DataFusionError::Context("stage 1".into(), Box::new(once))), "b:2");
        let end = heard(DataFusionError::Execution(again.strip_backtrace()));
        assert_eq!(end.kind(), ErrorKind::Data);
        assert_eq!(end.to_string(), "worker a:1: object `x` is damaged: no footer");
        assert_eq!(end.hint(), Some("look"));
    }

    #[test]
    fn what_is_not_of_a_worker_means_that_one_is_lost() {
        let lost = heard(DataFusionError::Execution("transport error".into()));
        assert_eq!(lost.kind(), ErrorKind::Unavailable);
    }
}
