//! The walk against relays made of a list: every event is seen once it can be, and no relay keeps it going for ever.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// A relay as a list of seconds; the event's place in the list is its id.
struct Listed {
    seconds: Vec<i64>,
    cap: usize,
    exclusive: bool,
}

impl Listed {
    fn new(seconds: impl IntoIterator<Item = i64>, cap: usize) -> Self {
        Self { seconds: seconds.into_iter().collect(), cap, exclusive: false }
    }

    fn id(at: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        EventId(bytes)
    }

    /// Newest first, equal times lowest id first, as NIP-01 has it.
    fn answer(&self, (since, until, limit): (Option<i64>, Option<i64>, usize)) -> Vec<(usize, i64)> {
        let below = |at: i64| until.is_none_or(|until| if self.exclusive { at < until } else { at <= until });
        let matching = |at: &i64| since.is_none_or(|since| *at >= since) && below(*at);
        let mut found: Vec<_> = self.seconds.iter().copied().enumerate().filter(|(_, at)| matching(at)).collect();
        found.sort_by_key(|(id, at)| (std::cmp::Reverse(*at), *id));
        found.truncate(limit.min(self.cap));
        found
    }
}

struct Walked {
    seen: HashSet<usize>,
    pages: usize,
    gaps: Vec<i64>,
    end: Next,
}

fn walk(relay: &Listed, walk: &mut Walk) -> Walked {
    let mut walked = Walked { seen: HashSet::new(), pages: 0, gaps: Vec::new(), end: Next::Page };
    while walked.end == Next::Page {
        for (id, at) in relay.answer(walk.question()) {
            walk.saw(Some(Listed::id(id)), Some(at));
            walked.seen.insert(id);
        }
        let turn = walk.turn();
        walked.pages += 1;
        walked.gaps.extend(turn.gap);
        walked.end = turn.next;
        assert!(walked.pages < 10_000, "the walk turns in a circle");
    }
    walked
}

#[test]
fn ties_at_the_edge_of_a_page_are_not_lost() {
    let relay = Listed::new([9, 8, 7, 7, 7, 7, 6, 5, 5, 5, 1], 500);
    let walked = walk(&relay, &mut Walk::new(None, 5));
    assert_eq!((walked.seen.len(), walked.end), (11, Next::Drained));
    assert_eq!(walked.gaps, [] as [i64; 0]);
}

#[test]
fn an_empty_relay_is_one_page() {
    let walked = walk(&Listed::new([], 500), &mut Walk::new(None, 500));
    assert_eq!((walked.pages, walked.end), (1, Next::Drained));
}

#[test]
fn a_relay_smaller_than_a_page_ends_soon_and_without_a_gap() {
    for seconds in [vec![5], vec![5, 5, 5], vec![9, 5, 5]] {
        let count = seconds.len();
        let walked = walk(&Listed::new(seconds, 500), &mut Walk::new(None, 500));
        assert_eq!((walked.seen.len(), walked.end), (count, Next::Drained));
        assert!(walked.pages <= 3 && walked.gaps.is_empty());
    }
}

#[test]
fn a_second_that_holds_more_than_a_page_is_a_gap_and_not_a_circle() {
    let relay = Listed::new((0..300).map(|_| 50).chain([60, 40, 30]), 100);
    let walked = walk(&relay, &mut Walk::new(None, 500));
    assert_eq!((walked.end, walked.gaps), (Next::Drained, vec![50]));
    assert!([300, 301, 302].iter().all(|id| walked.seen.contains(id)), "what lies around it is seen");
    let only = walk(&Listed::new((0..300).map(|_| 50), 100), &mut Walk::new(None, 100));
    assert_eq!((only.end, only.gaps), (Next::Drained, vec![50]));
    let at_zero = walk(&Listed::new((0..300).map(|_| 0), 100), &mut Walk::new(None, 100));
    assert_eq!((at_zero.end, at_zero.gaps), (Next::Drained, vec![0]));
}

#[test]
fn dense_seconds_in_a_row_are_each_a_gap() {
    let relay = Listed::new((0..2_000).map(|at| 1_000 + at / 10), 5);
    let walked = walk(&relay, &mut Walk::new(None, 5));
    assert_eq!((walked.end, walked.gaps.len()), (Next::Drained, 200));
}

#[test]
fn a_relay_with_an_exclusive_until_is_seen_whole() {
    let relay = Listed { exclusive: true, ..Listed::new([9, 8, 7, 7, 7, 7, 6, 5, 5, 5, 1], 500) };
    let walked = walk(&relay, &mut Walk::new(None, 5));
    assert_eq!((walked.seen.len(), walked.end), (11, Next::Drained));
}

#[test]
fn a_relay_that_ignores_until_is_unpageable() {
    let mut walk = Walk::new(None, 3);
    let mut turns = Vec::new();
    while turns.last() != Some(&Next::Unpageable) {
        for at in [9, 8, 7] {
            walk.saw(Some(Listed::id(at)), Some(i64::try_from(at).expect("small")));
        }
        turns.push(walk.turn().next);
        assert!(turns.len() < 10);
    }
}

#[test]
fn what_has_no_date_or_a_negative_one_moves_nothing() {
    let mut walk = Walk::new(None, 3);
    walk.saw(None, None);
    walk.saw(Some(Listed::id(1)), Some(-5));
    assert_eq!(walk.turn().next, Next::Unpageable);
}

#[test]
fn a_band_ends_at_its_floor() {
    let relay = Listed::new([9, 8, 7, 6, 5, 4], 500);
    let walked = walk(&relay, &mut Walk::new(Some(7), 2));
    assert_eq!((walked.seen, walked.end), (HashSet::from([0, 1, 2]), Next::Drained));
}

#[test]
fn a_torn_page_is_asked_for_again() {
    let mut walk = Walk::new(None, 100);
    walk.saw(Some(Listed::id(1)), Some(5));
    walk.forget_page();
    assert_eq!(walk.page_events(), 0);
    assert!(!walk.has_begun() && walk.question() == (None, None, 100));
    assert!(walk.shrink() && walk.question().2 == 50);
    while walk.shrink() {}
    assert_eq!(walk.question().2, PAGE_EVENTS_MIN);
}

#[test]
fn after_a_reconnect_the_newest_band_comes_first_and_the_old_walk_goes_on() {
    let mut history = History::new(100, 2);
    history.begin_session(1_000);
    let first = history.current().expect("a walk");
    first.saw(Some(Listed::id(1)), Some(900));
    first.turn();
    history.begin_session(2_000);
    assert_eq!(history.current().expect("a walk").question(), (Some(900), None, 2));
    history.begin_session(3_000);
    assert_eq!(history.current().expect("a walk").question(), (Some(900), None, 2), "it had not begun");
    history.end_walk();
    assert_eq!(history.current().expect("the old walk").question(), (None, Some(900), 2));
    history.end_walk();
    assert!(history.current().is_none());
    history.begin_session(4_000);
    assert_eq!(history.current().expect("a walk").question(), (Some(2_900), None, 2));
}

#[test]
fn a_run_that_ends_with_what_is_stored_only_goes_on() {
    let mut history = History::new(100, 2);
    history.resume_session();
    let walk = history.current().expect("a walk");
    walk.saw(Some(Listed::id(1)), Some(900));
    walk.turn();
    history.resume_session();
    assert_eq!(history.current().expect("a walk").question(), (None, Some(900), 2));
    history.end_walk();
    history.resume_session();
    assert!(history.current().is_none());
}

proptest! {
    #[test]
    fn every_event_is_seen_unless_a_gap_says_so(
        seconds in proptest::collection::vec(0_i64..40, 0..120),
        limit in 1_usize..30,
        cap in 1_usize..30,
        exclusive in any::<bool>(),
    ) {
        let relay = Listed { exclusive, ..Listed::new(seconds.clone(), cap) };
        let walked = walk(&relay, &mut Walk::new(None, limit));
        prop_assert_ne!(walked.end, Next::Page);
        for (id, at) in seconds.iter().enumerate() {
            // The bottom-most second behind a cap that never showed is what paging cannot prove.
            let excused = walked.gaps.contains(at) || seconds.iter().all(|other| other >= at);
            prop_assert!(walked.seen.contains(&id) || excused, "event {id} of second {at}");
        }
    }
}
