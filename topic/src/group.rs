//! Membership in a group: the log shares the partitions of a topic out among the processes that have joined, and gives
//! those of a member that is gone to the others.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use async_trait::async_trait;

use crate::Result;

/// Which group is joined, and for which topic.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Name of the group.
    pub group: String,
    /// The topic whose partitions are shared out.
    pub topic: String,
    /// Silence after which a member counts as gone, and its partitions go to others. Brokers allow 6 s to 30 min unless
    /// they are told otherwise.
    pub session_timeout: Duration,
}

/// What has changed of the partitions that a member holds.
#[derive(Debug)]
pub enum Change {
    /// These are the member's from now on.
    Taken(Vec<i32>),
    /// Others are to have these: no other member gets them before the turn is dropped, unless that takes too long.
    Given(Vec<i32>, Turn),
    /// The member was away, and others may have these already.
    Lost(Vec<i32>),
}

/// Holds a hand-over up for as long as it lives.
#[derive(Debug)]
pub struct Turn {
    _over: SyncSender<()>,
}

impl Turn {
    /// A turn, and what hears of its end.
    pub(crate) fn new() -> (Self, TurnEnd) {
        let (over, ended) = sync_channel(1);
        (Self { _over: over }, TurnEnd(ended))
    }
}

/// The other end of a [`Turn`].
pub(crate) struct TurnEnd(Receiver<()>);

impl TurnEnd {
    /// Blocks until the turn is over, or for so long.
    pub(crate) fn wait(self, most: Duration) {
        // Either outcome ends the wait.
        let _over = self.0.recv_timeout(most);
    }
}

/// A process's place in a group; it is given up when this is dropped, which does not wait for it.
#[async_trait]
pub trait Membership: Send + fmt::Debug {
    /// The next change. Cancelling loses none.
    ///
    /// # Errors
    /// `Config` when the group may not be joined, `Unavailable` when membership has come to an end.
    async fn changed(&mut self) -> Result<Change>;

    /// Leaves: what the member holds goes to the others at once, without a [`Change`].
    async fn leave(self: Box<Self>);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_turn_is_waited_for_until_it_is_dropped_and_no_longer_than_told() {
        let (turn, end) = Turn::new();
        drop(turn);
        end.wait(Duration::from_secs(3_600));
        let (_turn, end) = Turn::new();
        let begun = Instant::now();
        end.wait(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
