//! One channel over all connections: whether it is joined, and what is proven of the time in which it was.
//!
//! Nothing can be asked for afterwards, so that what counts is when we listened. A frame comes after every frame that the
//! server sent before it. An answer to a heartbeat therefore proves, up to the moment at which the heartbeat was *sent*,
//! that everything has come; and once all of it has its place in the log, the ledger says so (`proof` is `heard`). What lies
//! between the last proven second and the next join may be missing, and is a gap, after a `kill -9` as well: it is counted
//! from what the ledger holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::coverage::{Band, Gap, GapReason, LastPage, Ledger, Line, Page, Proof};
use crate::relay::HEALTHY;

/// A refused channel is tried again this much later, since its collection may come to be.
const REFUSED_AGAIN: Duration = Duration::from_secs(600);

/// Where a channel stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be joined at this time.
    Waiting(Instant),
    /// Asked for under this reference; answered by then, or asked for again.
    Joining(u64, Instant),
    /// Joined under this reference.
    Joined(u64),
    /// Not allowed; to be joined at this time nevertheless.
    Refused(Instant),
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) topic: String,
    pub(super) state: State,
    /// Joins in a row that came to nothing, or did not last.
    failures: u32,
    joined_at: Option<Instant>,
    heard: Heard,
}

impl Channel {
    /// The channel `topic` of the server at `relay`; `now` is in seconds since 1970.
    pub(super) fn new(topic: String, relay: &Arc<str>, ledger: &Arc<Ledger>, now: i64) -> Self {
        let line = Line { relay: Arc::clone(relay), kinds: topic.clone() };
        let heard = Heard::new(ledger, line, now);
        Self { topic, state: State::Waiting(Instant::now()), failures: 0, joined_at: None, heard }
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    pub(super) fn is_joining(&self) -> bool {
        matches!(self.state, State::Joining(..))
    }

    /// Whether it is asked for, or joined, under this reference.
    pub(super) fn is_under(&self, wanted: &str) -> bool {
        match self.state {
            State::Joining(reference, _) | State::Joined(reference) => reference.to_string() == wanted,
            State::Waiting(_) | State::Refused(_) => false,
        }
    }

    /// When something is to be done about it.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Refused(at) | State::Joining(_, at) => Some(at),
            State::Joined(_) => None,
        }
    }

    /// The server has let us in; whether something may have been missed since we last listened.
    pub(super) fn joined(&mut self, now: i64) -> bool {
        if let State::Joining(reference, _) = self.state {
            self.state = State::Joined(reference);
            self.joined_at = Some(Instant::now());
            return self.heard.begin(now);
        }
        false
    }

    pub(super) fn refused(&mut self) {
        self.state = State::Refused(Instant::now() + REFUSED_AGAIN);
    }

    /// It came to nothing or has ended: how often it did in a row; one that lasted was healthy.
    pub(super) fn failed(&mut self) -> u32 {
        let lasted = self.joined_at.take().is_some_and(|at| at.elapsed() >= HEALTHY);
        self.failures = if lasted { 1 } else { self.failures + 1 };
        self.failures
    }

    /// It is to be joined again after `wait`.
    pub(super) fn again(&mut self, wait: Duration) {
        self.heard.lost();
        self.state = State::Waiting(Instant::now() + wait);
    }

    /// The connection is another one, or none: what went wrong on the one before says nothing.
    pub(super) fn anew(&mut self) {
        (self.failures, self.joined_at) = (0, None);
        self.again(Duration::ZERO);
    }

    /// The answer to a heartbeat that was sent at the second `sent_at`.
    pub(super) fn beat(&mut self, sent_at: i64) {
        if self.is_joined() {
            self.heard.prove(sent_at);
        }
    }

    /// For what comes on it to hold on to.
    pub(super) fn page(&self) -> Option<&Page> {
        self.heard.page.as_ref()
    }
}

/// What of a channel's time is proven.
#[derive(Debug)]
struct Heard {
    ledger: Arc<Ledger>,
    line: Line,
    key: Arc<str>,
    /// The last second that is proven, in this run or one before; none before the first join ever.
    until: Option<i64>,
    /// Seconds at which this stretch began, and from which on it is not proven yet.
    begun: i64,
    from: i64,
    /// What has come since then.
    page: Option<Page>,
    last: LastPage,
}

impl Heard {
    fn new(ledger: &Arc<Ledger>, line: Line, now: i64) -> Self {
        let until = ledger.bands(&line).as_slice().last().map(|band| band.to);
        let key = ledger.open(&line);
        if until.is_none() {
            // From now on it is known that somebody wanted to listen.
            ledger.enter(&key, &[Band { from: now, to: now, proven_at: now, proof: Proof::Heard }], Vec::new());
        }
        let (ledger, last) = (Arc::clone(ledger), LastPage::default());
        Self { ledger, line, key, until, begun: now, from: now, page: None, last }
    }

    /// We listen from now on; whether something may have been missed before.
    fn begin(&mut self, now: i64) -> bool {
        let gap = self.until.map(|from| Gap {
            relay: self.line.relay.to_string(),
            kinds: self.line.kinds.clone(),
            from,
            to: now.max(from),
            reason: GapReason::NotLive,
            found_at: now,
        });
        (self.begun, self.from) = (now, now);
        // Should this run come to prove nothing, the time before it is in a gap all the same.
        self.until.get_or_insert(now);
        self.open_page();
        let missed = gap.is_some();
        self.ledger.enter(&self.key, &[], gap.into_iter().collect());
        missed
    }

    /// All that was sent before the second `to`, and in it before some moment, has come.
    fn prove(&mut self, to: i64) {
        let to = to.max(self.from);
        if let Some(page) = self.page.take() {
            // Alike what was proven before in this stretch, so that the stretch is one band.
            page.prove(vec![Band { from: self.from, to, proven_at: self.begun, proof: Proof::Heard }], Vec::new());
            (self.until, self.from) = (Some(to), to);
            self.open_page();
        }
    }

    fn lost(&mut self) {
        self.page = None;
    }

    fn open_page(&mut self) {
        let page = Page::new(&self.ledger, &self.key);
        page.follow(&mut self.last);
        self.page = Some(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(ledger: &Arc<Ledger>, now: i64) -> Channel {
        Channel::new("collection:*".to_owned(), &"wss://stream.example.org".into(), ledger, now)
    }

    fn join(channel: &mut Channel, now: i64) -> bool {
        channel.state = State::Joining(1, Instant::now());
        channel.joined(now)
    }

    type Seconds = Vec<(i64, i64)>;

    /// Bands and gaps that the ledger holds.
    fn held(ledger: &Ledger, channel: &Channel) -> (Seconds, Seconds) {
        let bands = ledger.bands(&channel.heard.line).as_slice().iter().map(|band| (band.from, band.to)).collect();
        let gaps = ledger.take_unwritten().1;
        let gap = |record: &topic::Record| {
            let gap: Gap = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("a gap");
            (gap.from, gap.to)
        };
        (bands, gaps.iter().map(gap).collect())
    }

    #[test]
    fn a_heartbeat_proves_the_time_up_to_it_once_what_came_is_settled() {
        let ledger = Arc::new(Ledger::default());
        let mut channel = channel(&ledger, 100);
        assert_eq!(held(&ledger, &channel), (vec![(100, 100)], vec![]));
        assert!(!join(&mut channel, 103), "nothing was listened to before");
        let event = channel.page().expect("it listens").clone();
        channel.beat(130);
        assert_eq!(held(&ledger, &channel).0, [(100, 100)], "an event is on its way");
        drop(event);
        assert_eq!(held(&ledger, &channel).0, [(100, 100), (103, 130)]);
        channel.beat(160);
        assert_eq!(held(&ledger, &channel), (vec![(100, 100), (103, 160)], vec![]), "a stretch is one band");
    }

    #[test]
    fn what_is_not_proven_is_a_gap_in_this_run_and_in_the_next() {
        let ledger = Arc::new(Ledger::default());
        let mut first = channel(&ledger, 100);
        assert!(!join(&mut first, 100));
        first.beat(130);
        first.anew();
        first.beat(140);
        assert!(join(&mut first, 150));
        assert_eq!(held(&ledger, &first), (vec![(100, 130)], vec![(130, 150)]));
        first.beat(170);
        drop(first);
        // Killed at any time after, and begun again.
        let mut next = channel(&ledger, 500);
        assert!(join(&mut next, 501));
        assert_eq!(held(&ledger, &next), (vec![(100, 130), (150, 170)], vec![(170, 501)]));
    }

    #[test]
    fn a_channel_that_does_not_last_waits_longer_and_longer() {
        let mut channel = channel(&Arc::new(Ledger::default()), 100);
        for failures in 1..4 {
            join(&mut channel, 100);
            assert_eq!(channel.failed(), failures);
        }
        join(&mut channel, 100);
        channel.joined_at = channel.joined_at.and_then(|at| at.checked_sub(HEALTHY));
        assert_eq!(channel.failed(), 1);
        assert_eq!(channel.failed(), 2);
        channel.anew();
        assert_eq!(channel.failed(), 1);
    }

    #[test]
    fn a_run_that_is_killed_before_its_first_heartbeat_leaves_a_gap() {
        let ledger = Arc::new(Ledger::default());
        let mut first = channel(&ledger, 100);
        assert!(!join(&mut first, 101));
        drop(first);
        let mut next = channel(&ledger, 105);
        assert!(join(&mut next, 106));
        assert_eq!(held(&ledger, &next).1, [(100, 106)]);
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_gap_that_ends_before_it_begins() {
        let ledger = Arc::new(Ledger::default());
        let mut channel = channel(&ledger, 100);
        join(&mut channel, 100);
        channel.beat(130);
        channel.anew();
        assert!(join(&mut channel, 90));
        channel.beat(95);
        let (bands, gaps) = held(&ledger, &channel);
        assert_eq!(gaps, [(130, 130)]);
        assert!(bands.contains(&(90, 95)) || bands.iter().any(|(from, to)| *from <= 90 && *to >= 95), "{bands:?}");
    }
}
