//! Puts objects under names that are free, and finds out whose an object is that was there first.
//!
//! Tries for as long as the store does not answer: an object is neither dropped nor skipped, and the records after it
//! wait in the topic meanwhile. What the object holds, and what follows from another's, is decided elsewhere.

use std::collections::HashSet;
use std::time::Duration;

use event::layout::LakeKey;
use object_store::path::Path;
use object_store::{PutMode, PutPayload};
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::object::Finished;
use super::resume::{self, Landed};
use crate::Backoff;
use crate::error::{Error, ErrorKind, Result};

/// Waiting times while store or log do not answer.
pub(super) const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10) };
/// Tries to reach the store once draining; a lander that follows its topic never gives up.
const DRAIN_TRIES: u32 = 8;

/// How long what is known of the lake's end holds. A name that was taken becomes free again when its object was
/// compacted and the grace is over, an hour at the least; who was asleep for that long has to look first.
const KNOWN_MS: i64 = 10 * 60 * 1_000;

/// Writes the objects of one lander.
pub(super) struct ObjectWriter {
    pub(super) catalog: Catalog,
    pub(super) drain: CancellationToken,
}

/// Whose object lies under the name now.
pub(super) enum Outcome {
    /// Ours.
    Written,
    /// Another lander's, put before; it may end elsewhere.
    Taken(Landed),
}

impl ObjectWriter {
    /// Puts an object unless its name is taken.
    ///
    /// # Errors
    /// `Config` when the store cannot put conditionally, `Data` when what has the name is no object of a lander,
    /// `Unavailable` when the store still did not answer after some tries while draining.
    pub(super) async fn put(&self, key: &LakeKey, finished: &Finished, mut known_at_ms: i64) -> Result<Outcome> {
        let path = &self.catalog.path(&key.to_string());
        let mut failures = 0;
        let mut drain_failures = 0;
        loop {
            let draining = self.drain.is_cancelled();
            let now_ms = self.catalog.clock.now_ms();
            let known = (0..KNOWN_MS).contains(&now_ms.saturating_sub(known_at_ms));
            let tried = if known { self.try_put(path, finished).await.map(Some) } else { self.landed_since(key).await };
            let error = match tried {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {
                    known_at_ms = now_ms;
                    continue;
                }
                Err(error) => error,
            };
            failures += 1;
            drain_failures += u32::from(draining);
            if error.kind() != ErrorKind::Unavailable || drain_failures >= DRAIN_TRIES {
                return Err(error);
            }
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(object = %path, failures, cause, "could not write a lake object; trying again");
            let pause = tokio::time::sleep(BACKOFF.delay(failures, rand::random()));
            tokio::select! {
                () = pause => {}
                // Who asks to stop does not wait for a pause that grew long; the pauses start anew.
                () = self.drain.cancelled(), if !draining => failures = 0,
            }
        }
    }

    /// Whether the lake has come to end further on meanwhile.
    async fn landed_since(&self, key: &LakeKey) -> Result<Option<Outcome>> {
        let mut ends = resume::ends(&self.catalog, &HashSet::from([key.partition])).await?;
        Ok(ends.remove(&key.partition).filter(|landed| landed.end > key.start).map(Outcome::Taken))
    }

    async fn try_put(&self, path: &Path, finished: &Finished) -> Result<Outcome> {
        let payload = PutPayload::from(finished.bytes.clone());
        match self.catalog.store.put_opts(path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Outcome::Written),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let theirs = resume::landed(self.catalog.store.as_ref(), path).await?;
                // The answer to an earlier try of ours may have been lost: then what lies there is ours. Where the
                // form keeps no hash, the same start and end mean the same rows.
                let ours =
                    theirs.end == finished.end && theirs.sha256.as_deref().is_none_or(|sha| sha == finished.sha256);
                Ok(if ours { Outcome::Written } else { Outcome::Taken(theirs) })
            }
            Err(error @ (object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })) => {
                let message = "the lake's store cannot put an object only if its name is free, which landing needs";
                Err(Error::new(ErrorKind::Config, message).with_source(error))
            }
            Err(error) => {
                Err(Error::new(ErrorKind::Unavailable, format!("could not write lake object `{path}`"))
                    .with_source(error))
            }
        }
    }
}
