//! The directory without a broker: what is read of events, and that neither order nor restarts matter; in `places` where
//! relays stand, in `following` what is fetched and runs over a log.

mod following;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use topic::{Record, StoredRecord};

use super::address::{self, Dropped, is_public};
use super::document::Network;
use super::state::{Directory, Rules};
use super::{PlaceSource, RelayDocument};

/// An event that is verified as far as the directory is concerned: it reads what the raw topic holds.
#[derive(Clone, Debug)]
struct Said {
    author: u8,
    kind: u16,
    created_at: i64,
    id: u8,
    tags: Vec<Vec<String>>,
    content: String,
    received: i64,
}

impl Said {
    fn list(author: u8, created_at: i64, relays: &[&[&str]]) -> Self {
        let tag = |relay: &&[&str]| [&["r"], *relay].concat().iter().map(ToString::to_string).collect();
        Self {
            author,
            kind: 10_002,
            created_at,
            id: 0,
            tags: relays.iter().map(tag).collect(),
            content: String::new(),
            received: created_at,
        }
    }

    fn old_list(author: u8, created_at: i64, content: &Value) -> Self {
        Self { kind: 3, content: content.to_string(), ..Self::list(author, created_at, &[]) }
    }

    fn report(monitor: u8, created_at: i64, tags: &[&[&str]]) -> Self {
        let tags = tags.iter().map(|tag| tag.iter().map(ToString::to_string).collect()).collect();
        Self { kind: 30_166, tags, ..Self::list(monitor, created_at, &[]) }
    }

    fn json(&self) -> String {
        let key = format!("{:02x}", self.author).repeat(32);
        let id = format!("{:02x}{:04x}{:010x}{}", self.id, self.kind, self.created_at, &key[..48]);
        let sig = "0".repeat(128);
        json!({"id": id, "pubkey": key, "created_at": self.created_at, "kind": self.kind, "tags": self.tags,
               "content": self.content, "sig": sig})
        .to_string()
    }

    fn record(&self) -> StoredRecord {
        StoredRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: self.received * 1_000,
            key: None,
            value: Some(self.json().into()),
            headers: Vec::new(),
        }
    }
}

fn rules() -> Rules {
    Rules { allow_local: false, relays_max: 1_000, lists_max: 1_000, database: None }
}

fn after(rules: Rules, said: &[Said]) -> Directory {
    let mut directory = Directory::new(rules);
    said.iter().for_each(|said| directory.take(&said.record()));
    directory
}

/// Documents as they are written, by URL.
fn written(directory: &mut Directory) -> BTreeMap<String, RelayDocument> {
    directory.take_changed();
    directory.documents().map(|document| (document.url.clone(), document.clone())).collect()
}

fn of(said: &[Said]) -> BTreeMap<String, RelayDocument> {
    written(&mut after(rules(), said))
}

const A: &str = "wss://a.example.org";
const B: &str = "wss://b.example.org";

#[test]
fn the_policy_is_the_right_way_round() {
    let said = [
        Said::list(1, 100, &[&[A, "read"], &[B, "write"]]),
        Said::list(2, 100, &[&[A], &["WSS://B.example.org/", "write"]]),
    ];
    let documents = of(&said);
    let policy = |url: &str| (documents[url].policy.read, documents[url].policy.write);
    assert_eq!((policy(A), policy(B)), ((2, 1), (0, 2)));
    assert_eq!(documents.len(), 2);
}

#[test]
fn an_older_event_after_a_newer_one_changes_nothing() {
    let newer = [Said::list(1, 200, &[&[A, "read"]]), Said::report(9, 200, &[&["d", A], &["rtt-open", "50"]])];
    let older = [
        Said { received: 200, ..Said::list(1, 100, &[&[A], &[A, "write"]]) },
        Said { received: 200, ..Said::report(9, 100, &[&["d", A], &["rtt-open", "9"], &["g", "u33db"]]) },
    ];
    let mut directory = after(rules(), &newer);
    let before = written(&mut directory);
    older.iter().for_each(|said| directory.take(&said.record()));
    assert!(!directory.has_changed());
    assert_eq!(written(&mut directory), before);
    assert_eq!(before[A].policy.read, 1);
    assert_eq!((before[A].policy.write, before[A].rtt.open_ms), (0, Some(50)));
}

#[test]
fn of_one_second_the_lowest_id_counts() {
    let low = Said { id: 1, ..Said::list(1, 100, &[&[A]]) };
    let high = Said { id: 2, ..Said::list(1, 100, &[&[B]]) };
    for said in [[low.clone(), high.clone()], [high, low]] {
        let documents = of(&said);
        assert_eq!((documents[A].policy.read, documents[B].policy.read), (1, 0));
    }
}

#[test]
fn the_old_form_counts_where_there_is_no_new_one() {
    let old = Said::old_list(1, 500, &json!({A: {"read": true, "write": false}, B: {"write": true}}));
    let documents = of(std::slice::from_ref(&old));
    assert_eq!((documents[A].policy.read, documents[A].policy.write), (1, 0));
    assert_eq!((documents[B].policy.read, documents[B].policy.write), (0, 1));
    // Also an older list of the new form, and one that is empty.
    for new in [Said::list(1, 100, &[&[B, "read"]]), Said::list(1, 100, &[])] {
        let with = of(&[old.clone(), new.clone()]);
        assert_eq!((with[A].policy.read, with[B].policy.write), (0, 0), "{new:?}");
        assert_eq!((with[A].sources.kind_3, with[A].sources.kind_10002), (1, 0));
    }
}

#[test]
fn round_trips_are_the_median_of_the_monitors_newest_reports() {
    let reports: Vec<Said> =
        [(1, 100, "90"), (1, 200, "10"), (2, 50, "30.4"), (3, 70, "20"), (4, 80, "-1"), (5, 80, "1e9")]
            .map(|(monitor, at, rtt)| Said::report(monitor, at, &[&["d", A], &["rtt-open", rtt]]))
            .to_vec();
    let document = &of(&reports)[A];
    assert_eq!((document.rtt.open_ms, document.rtt.read_ms, document.rtt.reports), (Some(20), None, 3));
    assert_eq!(document.sources.kind_30166, 5);
    let even = of(&reports[1..3]);
    assert_eq!(even[A].rtt.open_ms, Some(10));
}

#[test]
fn sixteen_reports_are_kept_the_newest() {
    let reports: Vec<Said> =
        (1..=20).map(|monitor| Said::report(monitor, i64::from(monitor), &[&["d", A], &["rtt-open", "7"]])).collect();
    let dates: Vec<i64> = of(&reports)[A].reports.iter().map(|report| report.created_at).collect();
    assert_eq!(dates, (5..=20).rev().collect::<Vec<i64>>());
}

#[test]
fn a_monitors_report_is_read_as_monitors_write_it() {
    let tags: &[&[&str]] = &[
        &["d", A],
        &["n", "clearnet"],
        &["N", "11"],
        &["N", "1"],
        &["N", "%!d(float64=1)"],
        &["R", "!auth"],
        &["T", "PublicInbox"],
        &["s", "git+https://github.com/hoytech/strfry.git"],
        &["g", "u33db2m", "geohash"],
        &["g", "u33", "geohash"],
        &["g", "DE", "countryCode"],
        &["g", "Germany", "countryName"],
        &["rtt-write", "120"],
    ];
    let document = &of(&[Said::report(1, 100, tags)])[A];
    let report = &document.reports[0];
    assert_eq!((report.nips.as_slice(), report.requirements.as_slice()), (&[1, 11][..], &["!auth".to_owned()][..]));
    assert_eq!((report.geohash.as_deref(), report.country.as_deref()), (Some("u33db2m"), Some("DEU")));
    assert_eq!(document.software.as_deref(), Some("git+https://github.com/hoytech/strfry.git"));
    let place = document.place.as_ref().expect("a place");
    assert_eq!((place.source, place.country.as_deref()), (PlaceSource::Nip66, Some("DEU")));
    // Berlin; the cell is 153 m by 153 m.
    assert!((place.lat.unwrap() - 52.52).abs() < 0.2 && (place.lon.unwrap() - 13.40).abs() < 0.2, "{place:?}");
}

#[test]
fn what_is_no_relay_is_dropped_and_counted() {
    let junk =
        ["", "relay.example.org", "https://x.org", "wss://a b.org", "wss://a.org/%20wss://b.org", "wss://a:b@x.org"];
    let local = [
        "ws://127.0.0.1:7777",
        "ws://localhost",
        "wss://192.168.1.18:4848",
        "wss://umbrel.local:4848",
        "wss://10.0.10.21",
        "wss://feedback.localhost:1",
        "wss://100.73.251.113",
        "ws://[::1]:1",
        "ws://[fd00::1]",
        "ws://relay",
        "wss://a.nmp.test",
        "ws://169.254.169.254",
        "ws://[::ffff:10.0.0.1]",
        "ws://0.0.0.0",
    ];
    for text in junk {
        assert_eq!(address::read(text, true), Err(Dropped::Junk), "{text}");
    }
    assert_eq!(address::read(&format!("wss://x.org/{}", "a".repeat(600)), true), Err(Dropped::Junk));
    for text in local {
        assert_eq!(address::read(text, false), Err(Dropped::Local), "{text}");
        assert!(address::read(text, true).is_ok(), "{text}");
    }
    let list: Vec<Vec<&str>> = junk.iter().chain(&local).map(|url| vec![*url]).chain([vec![A]]).collect();
    let list: Vec<&[&str]> = list.iter().map(Vec::as_slice).collect();
    let mut directory = after(rules(), &[Said::list(1, 1, &list)]);
    let (_, _, counts) = directory.take_changed();
    assert_eq!((counts.junk, counts.local, counts.relays), (junk.len() as u64, local.len() as u64, 1));
}

#[test]
fn networks_are_told_by_the_host() {
    let network = |url: &str| address::read(url, true).expect(url).network;
    assert_eq!(network("wss://nos.lol"), Network::Clear);
    assert_eq!(network("wss://93.95.231.72"), Network::Clear);
    assert_eq!(network("ws://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"), Network::Tor);
    assert_eq!(network("ws://relay.i2p"), Network::I2p);
    assert_eq!(network("ws://[::1]:7777"), Network::Loopback);
    assert_eq!(address::read("ws://[2606:4700::1]:1", false).expect("public").host, "2606:4700::1");
}

/// Rows of the special-purpose registries, and their neighbours.
#[test]
fn only_addresses_of_the_internet_are_public() {
    let public = |text: &str| is_public(text.parse().expect(text));
    for text in
        ["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2001:4860::8"]
    {
        assert!(public(text), "{text}");
    }
    for text in [
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.9.9.9",
        "169.254.1.1",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001::1",
        "3fff::1",
    ] {
        assert!(!public(text), "{text}");
    }
}

#[test]
fn relays_and_lists_are_kept_up_to_a_bound() {
    let said: Vec<Said> = (1..=5).map(|author| Said::list(author, i64::from(author), &[&[A], &[B]])).collect();
    let mut directory = after(Rules { relays_max: 1, lists_max: 3, ..rules() }, &said);
    let (records, lists, counts) = directory.take_changed();
    assert_eq!((records.len(), counts.relays, counts.beyond), (1, 1, 5));
    assert_eq!(lists.iter().filter(|record| record.value.is_none()).count(), 2, "the oldest are deleted");
    assert_eq!(written(&mut directory)[A].policy.read, 3);
}

fn an_event() -> impl Strategy<Value = Said> {
    let relay = prop::sample::select(vec![A, B, "wss://c.example.org", "ws://localhost", "junk"]);
    let marker = prop::sample::select(vec!["read", "write", ""]);
    let relays = prop::collection::vec((relay, marker), 0..4);
    (0_u8..4, 0_u8..3, 0_i64..6, 0_u8..3, relays, 0_i64..50).prop_map(|(author, form, at, id, relays, received)| {
        let said = match form {
            0 => {
                let relays: Vec<[&str; 2]> = relays.iter().map(|(url, marker)| [*url, *marker]).collect();
                Said::list(author, at, &relays.iter().map(|relay| &relay[..]).collect::<Vec<_>>())
            }
            1 => {
                let marks = |marker: &str| json!({"read": marker != "write", "write": marker != "read"});
                Said::old_list(
                    author,
                    at,
                    &relays.iter().map(|(url, marker)| ((*url).to_owned(), marks(marker))).collect(),
                )
            }
            _ => {
                let url = relays.first().map_or(A, |(url, _)| *url);
                Said::report(author, at, &[&["d", url], &["rtt-read", &format!("{}", received + 1)], &["g", "u33d"]])
            }
        };
        Said { id, received, ..said }
    })
}

/// The same by brute force: for every author and kind sort all and take the first.
fn dumb_policy(said: &[Said], url: &str) -> (u64, u64) {
    let newest = |author: u8, kind: u16| {
        let mut lists: Vec<&Said> = said.iter().filter(|said| said.author == author && said.kind == kind).collect();
        lists.sort_by(|a, b| (b.created_at, a.id).cmp(&(a.created_at, b.id)));
        lists.first().copied()
    };
    let (mut read, mut write) = (0, 0);
    for author in 0..4 {
        let (mut reads, mut writes) = (false, false);
        if let Some(list) = newest(author, 10_002) {
            for tag in list.tags.iter().filter(|tag| tag[1] == url) {
                reads |= tag[2] != "write";
                writes |= tag[2] != "read";
            }
        } else if let Some(list) = newest(author, 3) {
            let content: Value = serde_json::from_str(&list.content).unwrap();
            reads = content[url]["read"] == true;
            writes = content[url]["write"] == true;
        }
        read += u64::from(reads);
        write += u64::from(writes);
    }
    (read, write)
}

proptest! {
    #[test]
    fn documents_do_not_depend_on_order_or_restarts(
        said in prop::collection::vec(an_event(), 0..40),
        seed in any::<u64>(),
        cut in 0_usize..40,
        lists_max in 1_usize..16,
    ) {
        // An id is of one event: what else it was made for is left out.
        let mut ids = BTreeSet::new();
        let said: Vec<Said> = said
            .into_iter()
            .filter(|said| ids.insert((said.author, said.kind, said.created_at, said.id)))
            .collect();
        let rules = Rules { lists_max, ..rules() };
        let straight = written(&mut after(rules.clone(), &said));
        // Four authors have eight lists at most.
        if lists_max >= 8 {
            for url in [A, B] {
                let policy = straight.get(url).map_or((0, 0), |document| (document.policy.read, document.policy.write));
                prop_assert_eq!(policy, dumb_policy(&said, url), "{}", url);
            }
        }
        let mut shuffled = said;
        let mut random = seed | 1;
        for at in (1..shuffled.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(at, (random >> 33) as usize % (at + 1));
        }
        let (first, rest) = shuffled.split_at(cut.min(shuffled.len()));
        let mut before = after(rules.clone(), first);
        let (documents, lists, _) = before.take_changed();
        let stored = |records: Vec<Record>| -> BTreeMap<String, Bytes> {
            let text = |key: Bytes| String::from_utf8(key.into()).unwrap();
            records.into_iter().filter_map(|record| Some((text(record.key?), record.value?))).collect()
        };
        let mut resumed = Directory::restore(rules, &stored(documents), &stored(lists));
        prop_assert!(!resumed.has_changed(), "reading back is no change");
        rest.iter().for_each(|said| resumed.take(&said.record()));
        prop_assert_eq!(written(&mut resumed), straight);
    }
}
