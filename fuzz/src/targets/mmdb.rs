//! An operator's database of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::geo::Database;

/// A `.mmdb` file.
pub fn mmdb(bytes: &[u8]) {
    let Ok(database) = Database::read(bytes.to_vec()) else { return };
    let _ = database.places_something();
    let seeds = [[81, 2, 69, 160], [89, 160, 20, 1], [175, 16, 0, 1], [202, 196, 224, 1], [216, 160, 83, 1]];
    let ends = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST].map(IpAddr::from);
    let six = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Ipv6Addr::from([0xff; 16])].map(IpAddr::from);
    for ip in seeds.map(IpAddr::from).into_iter().chain(ends).chain(six) {
        let Ok(Some(spot)) = database.lookup(ip) else { continue };
        assert!(spot.country.is_some() || spot.at.is_some());
        assert!(spot.country.is_none_or(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())));
        assert!(spot.at.is_none_or(|(lat, lon)| lat.abs() <= 90.0 && lon.abs() <= 180.0));
    }
}
