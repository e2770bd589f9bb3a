//! Where a relay stands: by the geohash of a monitor's report, or by an operator's `.mmdb` file.
//!
//! No database comes with us and no service is asked. Vendors write two shapes of records: MaxMind's (`country.iso_code`,
//! `location.latitude`) and a flat one (`country_code` or `country`, `latitude` or `lat`, as numbers or as text).

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{Reader, WithinOptions};
use serde::Deserialize;

use crate::directory::document::{Place, PlaceSource, RelayDocument, Report};
use crate::error::{Error, ErrorKind, Result};

/// A shorter geohash is a cell of more than 600 km, and its middle may lie in another country.
const GEOHASH_LEN_MIN: usize = 3;
/// Records among which a database must place one: an ASN database of the wrong name should not go unnoticed.
const PROBED_RECORDS: usize = 10_000;

/// Latitude and longitude of the middle of a geohash's cell.
pub(crate) fn of_geohash(hash: &str) -> Option<(f64, f64)> {
    // The crate counts bytes where it means characters.
    let plain = hash.len() >= GEOHASH_LEN_MIN && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (middle, ..) = geohash::decode(plain.then_some(hash)?).ok()?;
    Some((middle.y, middle.x))
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

/// Places a relay: a report's geohash first, then the database, else what an earlier database said.
pub(crate) fn settle(document: &mut RelayDocument, database: Option<&GeoDatabase>) {
    if let Some(place) = document.reports.iter().find_map(of_report) {
        document.place = Some(place);
    } else if let Some(database) = database {
        let resolved = document.address.as_ref().map(|address| &address.ip);
        let ip = [Some(&document.host), resolved].into_iter().flatten().find_map(|ip| ip.parse().ok());
        document.place = ip.and_then(|ip| database.lookup(ip));
    } else if document.place.as_ref().is_some_and(|place| place.source == PlaceSource::Nip66) {
        document.place = None;
    }
}

fn of_report(report: &Report) -> Option<Place> {
    let (lat, lon) = of_geohash(report.geohash.as_deref()?)?;
    let (lat, lon) = (Some(rounded(lat)), Some(rounded(lon)));
    Some(Place { country: report.country.clone(), lat, lon, source: PlaceSource::Nip66, database_built: None })
}

fn rounded(degrees: f64) -> f64 {
    (degrees * 1e4).round() / 1e4
}

/// An operator's database of addresses and places.
pub struct GeoDatabase {
    reader: Reader<Vec<u8>>,
    built: i64,
}

impl GeoDatabase {
    /// Reads and checks a `.mmdb` file; all of it is kept in memory.
    ///
    /// # Errors
    /// `Config` when the file cannot be read or places nothing, `Data` when it is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let bytes = std::fs::read(path).map_err(|source| {
            Error::new(ErrorKind::Config, format!("could not read geo database `{name}`")).with_source(source)
        })?;
        let damaged = |source: maxminddb::MaxMindDbError| {
            let message = format!("geo database `{name}` is no MaxMind DB file, or is damaged; fetch it again");
            Error::new(ErrorKind::Data, message).with_source(source)
        };
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        reader.verify().map_err(damaged)?;
        let built = i64::try_from(reader.metadata().build_epoch).unwrap_or(i64::MAX);
        let database = Self { reader, built };
        if !database.places_something().map_err(damaged)? {
            let sort = &database.reader.metadata().database_type;
            let message = format!("geo database `{name}` ({sort}) holds neither countries nor coordinates");
            return Err(Error::new(ErrorKind::Config, format!("{message}; use one by city or country")));
        }
        Ok(database)
    }

    /// Places an address; none when the database does not know it.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Option<Place> {
        // An IPv6 address in a database of IPv4 is an error to the crate; damage was looked for at the start.
        let row = self.reader.lookup(ip).ok()?.decode::<Row>();
        match row {
            Ok(row) => self.place(&row?),
            Err(error) => {
                tracing::warn!(%ip, %error, "the geo database holds a record that cannot be read");
                None
            }
        }
    }

    fn places_something(&self) -> std::result::Result<bool, maxminddb::MaxMindDbError> {
        for network in self.reader.networks(WithinOptions::default())?.take(PROBED_RECORDS) {
            if network?.decode::<Row>().ok().flatten().is_some_and(|row| self.place(&row).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn place(&self, row: &Row) -> Option<Place> {
        let code = match &row.country {
            Some(Country::Nested { iso_code }) => iso_code.as_deref(),
            Some(Country::Code(code)) => Some(code.as_str()),
            _ => None,
        };
        let country = row.country_code.as_deref().and_then(country).or_else(|| code.and_then(country));
        let (lat, lon) = row.coordinates().map(|(lat, lon)| (rounded(lat), rounded(lon))).unzip();
        let known = country.is_some() || lat.is_some();
        known.then_some(Place { country, lat, lon, source: PlaceSource::Mmdb, database_built: Some(self.built) })
    }
}

impl fmt::Debug for GeoDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = &self.reader.metadata().database_type;
        f.debug_struct("GeoDatabase").field("type", sort).field("built", &self.built).finish()
    }
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
