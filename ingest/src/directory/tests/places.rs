//! Where relays stand: geohashes, and databases in both shapes, whole and damaged.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::{A, Said, after, of, rules, written};
use crate::directory::PlaceSource;
use crate::directory::geo::country;
use crate::directory::mmdb::{BUILT, database};
use crate::directory::place::{GeoDatabase, of_geohash};
use crate::directory::state::{Directory, Rules};
use crate::error::ErrorKind;

/// Public examples: the one of the article on geohashes, and of the crate of another language's documentation.
#[test]
fn geohashes_are_decoded_to_the_middle_of_their_cell() {
    let near = |hash: &str, lat: f64, lon: f64| {
        let (found_lat, found_lon) = of_geohash(hash).expect(hash);
        assert!((found_lat - lat).abs() < 0.03 && (found_lon - lon).abs() < 0.03, "{hash}: {found_lat}, {found_lon}");
    };
    near("ezs42", 42.605, -5.603);
    near("u4pruydqqvj", 57.64911, 10.40744);
    for hash in ["", "g", "ge", "a33", "u33 ", "ü33", "u33db2mu33db2", "ailo"] {
        assert_eq!(of_geohash(hash), None, "{hash}");
    }
}

#[test]
fn countries_have_three_letters() {
    assert_eq!(
        ["DE", "us", "ZAF", "XX", "Germany", ""].map(country),
        [Some("DEU".to_owned()), Some("USA".to_owned()), Some("ZAF".to_owned()), None, None, None]
    );
}

/// Records as MaxMind writes them, as flat ones with numbers, and as flat ones with text.
fn shapes() -> Vec<u8> {
    database(&[
        (
            [81, 2, 69, 0],
            24,
            json!({
                "country": {"iso_code": "GB", "geoname_id": 2_635_167, "names": {"en": "United Kingdom"}},
                "location": {"latitude": 51.5142, "longitude": -0.0931, "time_zone": "Europe/London"},
            }),
        ),
        ([89, 160, 20, 0], 22, json!({"country_code": "SE", "latitude": 58.4167, "longitude": 15.6167})),
        ([175, 16, 0, 0], 16, json!({"country": "CN", "lat": "43.88", "lng": "125.3228"})),
        ([202, 196, 224, 0], 20, json!({"country": "Philippines", "country_code": "PH", "lat": "north", "lon": "120"})),
        ([216, 160, 83, 0], 24, json!({"country": {"iso_code": "US"}})),
    ])
}

fn file(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("test.mmdb");
    std::fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn both_shapes_of_databases_are_read() {
    let dir = TempDir::new().expect("a directory");
    let database = GeoDatabase::open(&file(&dir, &shapes())).expect("a database");
    let place = |ip: &str| {
        let place = database.lookup(ip.parse::<IpAddr>().expect(ip))?;
        assert_eq!((place.source, place.database_built), (PlaceSource::Mmdb, Some(BUILT)));
        Some((place.country.unwrap_or_default(), place.lat, place.lon))
    };
    assert_eq!(place("81.2.69.160"), Some(("GBR".to_owned(), Some(51.5142), Some(-0.0931))));
    assert_eq!(place("89.160.21.1"), Some(("SWE".to_owned(), Some(58.4167), Some(15.6167))));
    assert_eq!(place("175.16.199.1"), Some(("CHN".to_owned(), Some(43.88), Some(125.3228))));
    assert_eq!(place("202.196.224.1"), Some(("PHL".to_owned(), None, None)));
    assert_eq!(place("216.160.83.56"), Some(("USA".to_owned(), None, None)));
    assert_eq!(place("81.2.70.1"), None);
    assert_eq!(place("2606:4700::1"), None);
}

#[test]
fn a_relay_is_placed_by_a_monitor_first_then_by_the_database() {
    let dir = TempDir::new().expect("a directory");
    let database = Arc::new(GeoDatabase::open(&file(&dir, &shapes())).expect("a database"));
    let (known, unknown) = ("wss://81.2.69.160", "wss://8.8.8.8");
    let said = [
        Said::list(1, 1, &[&[known], &[unknown], &[A]]),
        Said::report(9, 2, &[&["d", "wss://89.160.20.1"], &["g", "u33db"]]),
    ];
    let with = Rules { database: Some(database), ..rules() };
    let documents = written(&mut after(with.clone(), &said));
    let source = |url: &str| documents[url].place.as_ref().map(|place| place.source);
    assert_eq!(source(known), Some(PlaceSource::Mmdb));
    assert_eq!(source("wss://89.160.20.1"), Some(PlaceSource::Nip66));
    assert_eq!((source(unknown), source(A)), (None, None));
    // Documents from before there was a database are placed when they are read back.
    let stored: BTreeMap<String, Bytes> = of(&said)
        .into_iter()
        .map(|(url, document)| (url, serde_json::to_vec(&document).expect("json").into()))
        .collect();
    let restored = Directory::restore(with, &stored, &BTreeMap::new());
    assert!(restored.has_changed());
    assert!(restored.documents().any(|document| document.url == known && document.place.is_some()));
}

#[test]
fn a_database_that_is_none_is_refused_with_its_name() {
    let dir = TempDir::new().expect("a directory");
    let refused = |bytes: &[u8]| {
        let error = GeoDatabase::open(&file(&dir, bytes)).expect_err("no database");
        assert!(error.to_string().contains("test.mmdb"), "{error}");
        error.kind()
    };
    let whole = shapes();
    for bytes in [&b""[..], b"<html>", &whole[..whole.len() / 2], &whole[..whole.len() - 40]] {
        assert_eq!(refused(bytes), ErrorKind::Data);
    }
    let networks = database(&[([81, 2, 69, 0], 24, json!({"autonomous_system_number": 20_712}))]);
    assert_eq!(refused(&networks), ErrorKind::Config);
    let missing = GeoDatabase::open(&dir.path().join("none")).expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::Config);
}

proptest! {
    /// Whatever is done to a file, it opens or it is refused, and lookups end.
    #[test]
    fn a_damaged_database_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        ips in prop::collection::vec(any::<u32>(), 4),
    ) {
        let mut bytes = shapes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = TempDir::new().expect("a directory");
        if let Ok(database) = GeoDatabase::open(&file(&dir, &bytes)) {
            let known = [[81, 2, 69, 160], [89, 160, 20, 1], [175, 16, 0, 1], [202, 196, 224, 1], [216, 160, 83, 1]];
            let ips = ips.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from(bits))).chain(known.map(IpAddr::from));
            for ip in ips {
                let _ = database.lookup(ip);
            }
        }
    }
}
