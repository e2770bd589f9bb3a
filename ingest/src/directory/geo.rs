//! What an operator's `.mmdb` file says of an address. Pure: bytes come in, spots go out.
//!
//! Vendors write two shapes of records: MaxMind's (`country.iso_code`, `location.latitude`) and a flat one
//! (`country_code` or `country`, `latitude` or `lat`, as numbers or as text).

use std::net::IpAddr;

use maxminddb::{MaxMindDbError, Metadata, Reader, WithinOptions};
use serde::Deserialize;

/// Records among which a database must place one: an ASN database of the wrong name should not go unnoticed.
const PROBED_RECORDS: usize = 10_000;

/// What a record says, one of both at least.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spot {
    /// ISO 3166-1 alpha-3.
    pub(crate) country: Option<String>,
    /// Degrees north and east.
    pub(crate) at: Option<(f64, f64)>,
}

/// A database of addresses and places, held in memory.
pub(crate) struct Database(Reader<Vec<u8>>);

impl Database {
    /// Reads and checks all of a file.
    ///
    /// # Errors
    /// When it is no MaxMind DB file, or is damaged.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, MaxMindDbError> {
        let reader = Reader::from_source(bytes)?;
        reader.verify()?;
        Ok(Self(reader))
    }

    /// What the file says of itself.
    pub(crate) fn metadata(&self) -> &Metadata {
        self.0.metadata()
    }

    /// Where an address is; none when the database does not know it.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Result<Option<Spot>, MaxMindDbError> {
        // An IPv6 address in a database of IPv4 is an error to the crate; damage was looked for at the start.
        let Ok(found) = self.0.lookup(ip) else { return Ok(None) };
        Ok(found.decode::<Row>()?.and_then(|row| row.spot()))
    }

    /// Whether it is a database of places at all.
    ///
    /// # Errors
    /// When the file is damaged.
    pub(crate) fn places_something(&self) -> Result<bool, MaxMindDbError> {
        for network in self.0.networks(WithinOptions::default())?.take(PROBED_RECORDS) {
            if network?.decode::<Row>().ok().flatten().is_some_and(|row| row.spot().is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A country's alpha-3 code from its alpha-2 or alpha-3 code (ISO 3166-1), in any case.
pub(crate) fn country(code: &str) -> Option<String> {
    let code = code.trim().to_ascii_uppercase();
    let country = match code.len() {
        2 => rust_iso3166::from_alpha2(&code),
        3 => rust_iso3166::from_alpha3(&code),
        _ => None,
    };
    country.map(|country| country.alpha3.to_owned())
}

/// To some ten metres.
pub(crate) fn rounded(degrees: f64) -> f64 {
    (degrees * 1e4).round() / 1e4
}

/// A record in either shape.
#[derive(Debug, Deserialize)]
struct Row {
    country: Option<Country>,
    country_code: Option<String>,
    location: Option<Location>,
    latitude: Option<Number>,
    longitude: Option<Number>,
    lat: Option<Number>,
    lon: Option<Number>,
    lng: Option<Number>,
}

impl Row {
    fn spot(&self) -> Option<Spot> {
        let code = match &self.country {
            Some(Country::Nested { iso_code }) => iso_code.as_deref(),
            Some(Country::Code(code)) => Some(code.as_str()),
            _ => None,
        };
        let country = self.country_code.as_deref().and_then(country).or_else(|| code.and_then(country));
        let at = self.coordinates().map(|(lat, lon)| (rounded(lat), rounded(lon)));
        (country.is_some() || at.is_some()).then_some(Spot { country, at })
    }

    /// Latitude and longitude, both or none.
    fn coordinates(&self) -> Option<(f64, f64)> {
        let nested = match &self.location {
            Some(Location::Point { latitude, longitude }) => latitude.zip(*longitude),
            _ => None,
        };
        let number = |names: [&Option<Number>; 3]| names.into_iter().flatten().find_map(Number::value);
        let flat = || number([&self.latitude, &self.lat, &None]).zip(number([&self.longitude, &self.lon, &self.lng]));
        let within = |(lat, lon): &(f64, f64)| lat.abs() <= 90.0 && lon.abs() <= 180.0;
        nested.or_else(flat).filter(within)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Country {
    Nested { iso_code: Option<String> },
    Code(String),
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Location {
    Point { latitude: Option<f64>, longitude: Option<f64> },
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Float(f64),
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl Number {
    fn value(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Other(_) => None,
        }
    }
}
