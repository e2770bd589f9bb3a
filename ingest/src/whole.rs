//! What is known of input that is longer than what is held of it: its length and hash.

use sha2::{Digest, Sha256};

/// Longest value of a rejected record; what is longer is cut, and `full_len` says so.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// Hash and length of input that may have been cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) sha256: [u8; 32],
    pub(crate) len: u64,
}

impl Whole {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::digest(bytes).into(), len: bytes.len() as u64 }
    }
}
