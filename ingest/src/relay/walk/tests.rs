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

/// Later than every event here.
const NOW: i64 = 5_000;

fn newest(since: Option<i64>, limit: usize) -> Walk {
    Walk::newest(since, NOW, limit, Learned::default())
}

struct Walked {
    seen: HashSet<usize>,
    /// Seconds that are proven.
    proven: Vec<(i64, i64)>,
    /// Events of the largest page.
    largest: usize,
    pages: usize,
    gaps: Vec<i64>,
    end: Next,
}

fn walk(relay: &Listed, walk: &mut Walk) -> Walked {
    let mut walked =
        Walked { seen: HashSet::new(), proven: Vec::new(), largest: 0, pages: 0, gaps: Vec::new(), end: Next::Page };
    while walked.end == Next::Page {
        let answer = relay.answer(walk.question());
        walked.largest = walked.largest.max(answer.len());
        for (id, at) in answer {
            walk.saw(Some(Listed::id(id)), Some(at));
            walked.seen.insert(id);
        }
        let turn = walk.turn();
        walked.pages += 1;
        walked.gaps.extend(turn.gap);
        walked.proven.extend(turn.proven);
        walked.end = turn.next;
        assert!(walked.pages < 10_000, "the walk turns in a circle");
    }
    walked
}

#[test]
fn ties_at_the_edge_of_a_page_are_not_lost() {
    let relay = Listed::new([9, 8, 7, 7, 7, 7, 6, 5, 5, 5, 1], 500);
    let walked = walk(&relay, &mut newest(None, 5));
    assert_eq!((walked.seen.len(), walked.end), (11, Next::Drained));
    assert_eq!(walked.gaps, [] as [i64; 0]);
}

#[test]
fn an_empty_relay_is_one_page() {
    let walked = walk(&Listed::new([], 500), &mut newest(None, 500));
    assert_eq!((walked.pages, walked.end), (1, Next::Drained));
}

#[test]
fn a_relay_smaller_than_a_page_ends_soon_and_without_a_gap() {
    for seconds in [vec![5], vec![5, 5, 5], vec![9, 5, 5]] {
        let count = seconds.len();
        let walked = walk(&Listed::new(seconds, 500), &mut newest(None, 500));
        assert_eq!((walked.seen.len(), walked.end), (count, Next::Drained));
        assert!(walked.pages <= 3 && walked.gaps.is_empty());
    }
}

#[test]
fn a_second_that_holds_more_than_a_page_is_a_gap_and_not_a_circle() {
    let relay = Listed::new((0..300).map(|_| 50).chain([60, 40, 30]), 100);
    let walked = walk(&relay, &mut newest(None, 500));
    assert_eq!((walked.end, walked.gaps), (Next::Drained, vec![50]));
    assert!([300, 301, 302].iter().all(|id| walked.seen.contains(id)), "what lies around it is seen");
    let only = walk(&Listed::new((0..300).map(|_| 50), 100), &mut newest(None, 100));
    assert_eq!((only.end, only.gaps), (Next::Drained, vec![50]));
    let at_zero = walk(&Listed::new((0..300).map(|_| 0), 100), &mut newest(None, 100));
    assert_eq!((at_zero.end, at_zero.gaps), (Next::Drained, vec![0]));
}

#[test]
fn dense_seconds_in_a_row_are_each_a_gap() {
    let relay = Listed::new((0..2_000).map(|at| 1_000 + at / 10), 5);
    let walked = walk(&relay, &mut newest(None, 5));
    assert_eq!((walked.end, walked.gaps.len()), (Next::Drained, 200));
}

#[test]
fn a_relay_with_an_exclusive_until_is_seen_whole() {
    let relay = Listed { exclusive: true, ..Listed::new([9, 8, 7, 7, 7, 7, 6, 5, 5, 5, 1], 500) };
    let walked = walk(&relay, &mut newest(None, 5));
    assert_eq!((walked.seen.len(), walked.end), (11, Next::Drained));
}

#[test]
fn a_relay_that_ignores_until_is_unpageable() {
    let mut walk = newest(None, 3);
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
    let mut walk = newest(None, 3);
    walk.saw(None, None);
    walk.saw(Some(Listed::id(1)), Some(-5));
    assert_eq!(walk.turn().next, Next::Unpageable);
}

#[test]
fn a_band_ends_at_its_floor() {
    let relay = Listed::new([9, 8, 7, 6, 5, 4], 500);
    let walked = walk(&relay, &mut newest(Some(7), 2));
    assert_eq!((walked.seen, walked.end), (HashSet::from([0, 1, 2]), Next::Drained));
}

#[test]
fn a_torn_page_is_asked_for_again() {
    let mut walk = newest(None, 100);
    walk.saw(Some(Listed::id(1)), Some(5));
    walk.forget_page();
    assert_eq!(walk.page_events(), 0);
    assert_eq!(walk.question(), (None, None, 100));
    assert!(walk.shrink() && walk.question().2 == 50);
    while walk.shrink() {}
    assert_eq!(walk.question().2, PAGE_EVENTS_MIN);
}

#[test]
fn what_comes_oldest_first_is_all_or_cannot_be_paged() {
    let all = |walk: &mut Walk, seconds: &[i64]| {
        for at in seconds {
            walk.saw(Some(Listed::id(usize::try_from(*at).expect("small"))), Some(*at));
        }
        walk.turn()
    };
    let mut walk = newest(None, 100);
    assert_eq!(all(&mut walk, &[4, 5, 9]), Turn { next: Next::Page, gap: None, proven: None });
    assert_eq!(walk.question(), (Some(10), Some(NOW), 100), "is there more above it?");
    assert_eq!(all(&mut walk, &[]), Turn { next: Next::Page, gap: None, proven: Some((5, NOW)) });
    assert_eq!(walk.question(), (None, Some(4), 100), "it was the newest part");
    assert_eq!(all(&mut walk, &[1, 2, 4]).next, Next::Page);
    assert_eq!(all(&mut walk, &[]), Turn { next: Next::Page, gap: None, proven: Some((2, 4)) });
    let mut walk = newest(None, 3);
    all(&mut walk, &[1, 5, 9]);
    assert_eq!(all(&mut walk, &[10, 11, 12]), Turn { next: Next::Unpageable, gap: None, proven: None });
}

#[test]
fn a_relay_that_says_that_it_is_through_is_believed() {
    let mut walk = newest(Some(3), 100);
    walk.saw(Some(Listed::id(1)), Some(7));
    assert_eq!(walk.finish(), Turn { next: Next::Drained, gap: None, proven: Some((3, NOW)) });
}

proptest! {
    #[test]
    fn what_is_proven_was_seen_and_the_rest_is_a_gap(
        seconds in proptest::collection::vec(0_i64..40, 0..120),
        limit in 1_usize..30,
        cap in 1_usize..30,
        exclusive in any::<bool>(),
        from in prop::option::of(0_i64..40),
        long in prop::option::of(0_i64..45),
    ) {
        let relay = Listed { exclusive, ..Listed::new(seconds.clone(), cap) };
        let first = from.unwrap_or(0);
        let until = long.map(|long| first + long);
        let last = until.unwrap_or(NOW);
        let mut way = match until {
            None => newest(from, limit),
            Some(until) => Walk::between(first, until, limit, Learned::default()),
        };
        let walked = walk(&relay, &mut way);
        prop_assert_ne!(walked.end, Next::Page);
        let wanted = |at: &i64| first <= *at && *at <= last;
        let proven = |at: &i64| walked.proven.iter().any(|(from, to)| from <= at && at <= to);
        for (id, at) in seconds.iter().enumerate().filter(|(_, at)| wanted(at)) {
            let seen = walked.seen.contains(&id);
            prop_assert!(seen || !proven(at), "event {id} of second {at} is proven and was not seen: {:?}", walked.proven);
            // A second that filled a whole page with nothing below it may be all there is, and is asked for again.
            let bottom = seconds.iter().filter(|other| wanted(other)).all(|other| other >= at);
            prop_assert!(seen || walked.gaps.contains(at) || bottom, "event {id} of second {at}");
        }
        if walked.end == Next::Drained {
            for second in (first..=last).filter(|second| !proven(second)) {
                let held = seconds.iter().filter(|at| **at == second).count();
                prop_assert!(held >= limit.min(walked.largest) || walked.gaps.contains(&second),
                    "second {second} with {held} events is not proven: {:?}", walked.proven);
            }
        }
        prop_assert!(walked.proven.iter().all(|(from, to)| first <= *from && from <= to && *to <= last));
    }
}
