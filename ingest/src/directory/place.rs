//! Where a relay stands: by the geohash of a monitor's report, or by an operator's `.mmdb` file.
//!
//! No database comes with us and no service is asked.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::directory::document::{Place, PlaceSource, RelayDocument, Report};
use crate::directory::geo::{Database, Spot, rounded};
use crate::error::{Error, ErrorKind, Result};

/// A shorter geohash is a cell of more than 600 km, and its middle may lie in another country.
const GEOHASH_LEN_MIN: usize = 3;

/// Latitude and longitude of the middle of a geohash's cell.
pub(crate) fn of_geohash(hash: &str) -> Option<(f64, f64)> {
    // The crate counts bytes where it means characters.
    let plain = hash.len() >= GEOHASH_LEN_MIN && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (middle, ..) = geohash::decode(plain.then_some(hash)?).ok()?;
    Some((middle.y, middle.x))
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

/// An operator's database of addresses and places.
pub struct GeoDatabase(Database);

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
        let database = Database::read(bytes).map_err(damaged)?;
        if !database.places_something().map_err(damaged)? {
            let sort = &database.metadata().database_type;
            let message = format!("geo database `{name}` ({sort}) holds neither countries nor coordinates");
            return Err(Error::new(ErrorKind::Config, format!("{message}; use one by city or country")));
        }
        Ok(Self(database))
    }

    /// Places an address; none when the database does not know it.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Option<Place> {
        match self.0.lookup(ip) {
            Ok(spot) => {
                let Spot { country, at } = spot?;
                let (lat, lon) = at.unzip();
                Some(Place { country, lat, lon, source: PlaceSource::Mmdb, database_built: Some(self.built()) })
            }
            Err(error) => {
                tracing::warn!(%ip, %error, "the geo database holds a record that cannot be read");
                None
            }
        }
    }

    /// When the file was built, seconds since 1970.
    fn built(&self) -> i64 {
        i64::try_from(self.0.metadata().build_epoch).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for GeoDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = &self.0.metadata().database_type;
        f.debug_struct("GeoDatabase").field("type", sort).field("built", &self.built()).finish()
    }
}
