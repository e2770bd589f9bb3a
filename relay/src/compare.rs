//! The relay's side of a comparison of sets (NIP-77): answers a client's steps from the ids that its filter matches.

use std::sync::Arc;

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::entry::Entry;

/// Bytes of an answer, about: ids that do not fit come with a later step.
const ANSWER_BYTES: u64 = 60_000;

/// A comparison that a client has begun.
#[derive(Debug)]
pub(crate) struct Comparison(Negentropy<'static, NegentropyStorageVector>);

impl Comparison {
    /// A comparison with `entries`; the error is for a NEG-ERR.
    pub(crate) fn new(entries: &[Arc<Entry>]) -> Result<Self, String> {
        let mut set = NegentropyStorageVector::with_capacity(entries.len());
        let mut sealed = Ok(());
        for entry in entries {
            let at = u64::try_from(entry.created_at).unwrap_or(0);
            // An id that is held twice, under two signatures, is one.
            sealed = sealed.and(set.insert(at, Id::from_byte_array(entry.id.0)));
        }
        let begun = sealed.and_then(|()| set.seal()).and_then(|()| Negentropy::owned(set, ANSWER_BYTES));
        begun.map(Self).map_err(|error| format!("error: {error}"))
    }

    /// The answer to a step, both in hex; the error is for a NEG-ERR.
    pub(crate) fn answer(&mut self, step: &str) -> Result<String, String> {
        let bytes = hex::decode(step).map_err(|error| format!("invalid: the step is no hex: {error}"))?;
        self.0.reconcile(&bytes).map(hex::encode).map_err(|error| format!("invalid: {error}"))
    }
}
