//! The rules of NIP-01, NIP-09 and NIP-40 in either order of arrival, and the archive without them.

use super::*;
use crate::generate::signed;

fn entry(author: u64, kind: u16, created_at: i64, tags: &[&[&str]], content: &str) -> Arc<Entry> {
    let event = signed(author, kind, created_at, tags, content);
    Arc::new(Entry::new(&event, event.to_json()))
}

fn ids(store: &Store, filter: &Filter) -> Vec<EventId> {
    store.query(filter, usize::MAX, Some(1_000)).into_iter().map(|(_, entry)| entry.id).collect()
}

fn apply(store: &mut Store, entry: &Arc<Entry>) -> Verdict {
    store.apply(entry, 1_000, None)
}

#[test]
fn the_newest_of_a_replaceable_kind_stays_in_either_order() {
    let (old, new) = (entry(1, 0, 100, &[], "old"), entry(1, 0, 200, &[], "new"));
    for (first, second, verdict) in [(&old, &new, Verdict::Stored), (&new, &old, Verdict::Replaced)] {
        let mut store = Store::default();
        assert_eq!((apply(&mut store, first), apply(&mut store, second)), (Verdict::Stored, verdict));
        assert_eq!(ids(&store, &Filter::default()), [new.id]);
        assert_eq!(apply(&mut store, &new), Verdict::Duplicate);
    }
}

#[test]
fn in_the_same_second_the_lowest_id_stays() {
    let (a, b) = (entry(1, 10_002, 100, &[], "a"), entry(1, 10_002, 100, &[], "b"));
    for order in [[&a, &b], [&b, &a]] {
        let mut store = Store::default();
        order.iter().for_each(|entry| {
            apply(&mut store, entry);
        });
        assert_eq!(ids(&store, &Filter::default()), [a.id.min(b.id)]);
    }
}

#[test]
fn addressable_events_are_replaced_by_author_kind_and_d() {
    let mut store = Store::default();
    let x1 = entry(1, 30_023, 100, &[&["d", "x"]], "1");
    let y = entry(1, 30_023, 100, &[&["d", "y"]], "y");
    let other = entry(2, 30_023, 100, &[&["d", "x"]], "other");
    let x2 = entry(1, 30_023, 101, &[&["d", "x"]], "2");
    for entry in [&x1, &y, &other, &x2] {
        assert_eq!(apply(&mut store, entry), Verdict::Stored);
    }
    let held: HashSet<_> = ids(&store, &Filter::default()).into_iter().collect();
    assert_eq!(held, HashSet::from([y.id, other.id, x2.id]));
}

#[test]
fn ephemeral_and_expired_events_are_not_kept() {
    let mut store = Store::default();
    assert_eq!(apply(&mut store, &entry(1, 20_001, 100, &[], "")), Verdict::Ephemeral);
    assert_eq!(apply(&mut store, &entry(1, 1, 100, &[&["expiration", "1000"]], "")), Verdict::Expired);
    let later = entry(1, 1, 100, &[&["expiration", "1001"]], "");
    assert_eq!(apply(&mut store, &later), Verdict::Stored);
    assert_eq!(store.query(&Filter::default(), 10, Some(1_000)).len(), 1);
    assert_eq!(store.query(&Filter::default(), 10, Some(1_001)).len(), 0);
}

#[test]
fn a_deletion_removes_its_authors_events_before_and_after_it_arrives() {
    let note = entry(1, 1, 100, &[], "regretted");
    let foreign = entry(2, 1, 100, &[], "not yours");
    let (note_id, foreign_id) = (note.id.to_string(), foreign.id.to_string());
    let deletion = entry(1, 5, 200, &[&["e", &note_id], &["e", &foreign_id]], "");
    for order in [[&note, &foreign, &deletion], [&deletion, &note, &foreign]] {
        let mut store = Store::default();
        order.iter().for_each(|entry| {
            apply(&mut store, entry);
        });
        assert_eq!(ids(&store, &Filter::default()), [deletion.id, foreign.id]);
    }
}

#[test]
fn a_deletion_by_address_reaches_up_to_its_date_and_no_deletion_is_deleted() {
    let old = entry(1, 30_023, 100, &[&["d", "x:y"]], "old");
    let new = entry(1, 30_023, 300, &[&["d", "x:y"]], "new");
    let address = format!("30023:{}:x:y", old.pubkey);
    let deletion = entry(1, 5, 200, &[&["a", &address]], "");
    let mut store = Store::default();
    assert_eq!(apply(&mut store, &old), Verdict::Stored);
    assert_eq!(apply(&mut store, &deletion), Verdict::Stored);
    assert_eq!(ids(&store, &Filter::default()), [deletion.id]);
    let between = entry(1, 30_023, 150, &[&["d", "x:y"]], "between");
    assert_eq!(apply(&mut store, &between), Verdict::Deleted);
    assert_eq!(apply(&mut store, &new), Verdict::Stored);
    let deletion_id = deletion.id.to_string();
    assert_eq!(apply(&mut store, &entry(1, 5, 400, &[&["e", &deletion_id]], "")), Verdict::Stored);
    assert!(store.holds(&deletion.id) && store.holds(&new.id));
}

#[test]
fn an_archive_keeps_everything_and_gives_way_only_among_live_events() {
    let mut store = Store::default();
    let stored = entry(1, 0, 100, &[], "1");
    store.keep(Arc::clone(&stored));
    store.keep(Arc::clone(&stored));
    store.keep(entry(1, 0, 200, &[], "2"));
    assert_eq!(store.len(), 3);
    let live: Vec<_> = (0..5).map(|at| entry(2, 1, 500 - at, &[], "live")).collect();
    for entry in &live {
        store.keep_live(Arc::clone(entry), 2);
    }
    assert_eq!(store.len(), 5);
    assert!(store.holds(&live[4].id) && store.holds(&live[3].id) && !store.holds(&live[2].id));
    assert!(store.holds(&stored.id));
}

#[test]
fn a_query_by_ids_keeps_order_and_the_other_conditions() {
    let mut store = Store::default();
    let all: Vec<_> = (0..6).map(|at| entry(at % 2, 1, 100 + i64::try_from(at).expect("small"), &[], "x")).collect();
    all.iter().for_each(|entry| store.keep(Arc::clone(entry)));
    let wanted = [0, 2, 3, 5].map(|at: usize| all[at].id);
    let filter = Filter { ids: Some(wanted.into()), since: Some(102), ..Filter::default() };
    assert_eq!(ids(&store, &filter), [all[5].id, all[3].id, all[2].id]);
    assert_eq!(store.query(&filter, 2, None).len(), 2);
}
