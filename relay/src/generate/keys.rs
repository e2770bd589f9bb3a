//! Throw-away keys: each is derived from the seed alone, so that anybody can make them again. Never for real use.

use std::collections::HashMap;
use std::sync::Arc;

use event::SecretKey;

use super::random::Random;

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Signer {
    /// A person, by rank of activity.
    Author(u64),
    /// A service that signs zap receipts.
    Wallet(u64),
    /// A data vending machine.
    Dvm(u64),
    /// A key used for one event only, as gift wraps want it.
    OneTime(u64),
}

/// The keys of one seed, made when first wanted.
pub(crate) struct Keys {
    seed: u64,
    made: HashMap<Signer, Arc<SecretKey>>,
}

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, made: HashMap::new() }
    }

    pub(crate) fn get(&mut self, signer: Signer) -> Arc<SecretKey> {
        if let Signer::OneTime(_) = signer {
            return Arc::new(derive(self.seed, signer));
        }
        Arc::clone(self.made.entry(signer).or_insert_with(|| Arc::new(derive(self.seed, signer))))
    }
}

fn derive(seed: u64, signer: Signer) -> SecretKey {
    let (purpose, index) = match signer {
        Signer::Author(index) => (101, index),
        Signer::Wallet(index) => (102, index),
        Signer::Dvm(index) => (103, index),
        Signer::OneTime(index) => (104, index),
    };
    let mut random = Random::of(seed, index, purpose);
    loop {
        let mut secret = [0; 32];
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&random.next().to_be_bytes());
        }
        // Fails only for zero and for numbers at or past the curve's order: once in 2^128, and then the next will do.
        if let Some(key) = SecretKey::from_bytes(secret) {
            return key;
        }
    }
}
