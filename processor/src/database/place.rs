//! Where a database is: a URL as libpq takes it, without what must not be told.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use url::Url;

use super::tls::{Tls, Trust};
use crate::error::{Error, ErrorKind, Result};

/// A person who mistyped the port should not wait for half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that no longer answers is given up after so long.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A PostgreSQL database, and how to get in. Neither text of it has the password.
#[derive(Clone)]
pub struct Database {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

impl Database {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`. As with libpq, `disable` means no TLS, `prefer`
    /// (the default) TLS where the server has it, `require` always, both whatever the certificate says, and
    /// `verify-full` one of the roots of the web or of the PEM file that `sslrootcert` names.
    ///
    /// # Errors
    /// `Config` when it is no such URL; what it says has no part of the URL but names of parameters.
    pub fn parse(url: &str) -> Result<Self> {
        let mut url = Url::parse(url.trim()).map_err(|why| refused(&why.to_string()))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(refused(&format!("the scheme `{}` is not known", url.scheme())));
        }
        let (mut mode, mut roots) = (None, None);
        let mut rest = Vec::new();
        for (name, value) in url.query_pairs().into_owned() {
            match name.as_str() {
                "sslmode" => mode = Some(value),
                "sslrootcert" => roots = Some(value),
                _ => rest.push((name, value)),
            }
        }
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
            // Its own parser knows no plus signs.
            let query = url.query().map(|query| query.replace('+', "%20"));
            url.set_query(query.as_deref());
        }
        let mut config: Config =
            url.as_str().parse().map_err(|why: tokio_postgres::Error| refused(&super::error::chain(&why)))?;
        let (mode, trust) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anyone),
            None | Some("prefer" | "allow") => (SslMode::Prefer, Trust::Anyone),
            Some("require") => (SslMode::Require, Trust::Anyone),
            Some("verify-full") => (SslMode::Require, Trust::Roots(roots)),
            Some(_) => return Err(refused("sslmode is none of disable, prefer, require, verify-full")),
        };
        config.ssl_mode(mode).connect_timeout(CONNECT_TIMEOUT);
        config.keepalives_idle(SILENCE_MAX).tcp_user_timeout(SILENCE_MAX);
        if config.get_application_name().is_none() {
            config.application_name("tidegate");
        }
        if config.get_hosts().is_empty() {
            return Err(refused("the host is missing"));
        }
        Ok(Self { config, tls: Tls::new(trust)? })
    }

    /// What a password is looked up by, where the URL has none: host, port, database and user.
    #[must_use]
    pub fn lacks_password(&self) -> Option<[String; 4]> {
        if self.config.get_password().is_some() {
            return None;
        }
        let user = self.config.get_user().unwrap_or_default().to_owned();
        let (host, port) = self.host_and_port();
        let database = self.config.get_dbname().map_or_else(|| user.clone(), str::to_owned);
        Some([host, port.to_string(), database, user])
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    fn host_and_port(&self) -> (String, u16) {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        (host, self.config.get_ports().first().copied().unwrap_or(5_432))
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the address of the database cannot be used: {why}"))
        .with_hint("use postgres://user@host:5432/database, with the password in PGPASSWORD or in a pgpass file")
}

impl fmt::Display for Database {
    /// `user@host:port/database`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.host_and_port();
        let user = self.config.get_user().unwrap_or_default();
        write!(f, "{user}@{host}:{port}/{}", self.config.get_dbname().unwrap_or(user))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_libpq_reads_it_and_its_password_is_not_told() {
        let url = "postgresql://me:hush%21@db.example:5433/rows?sslmode=require&options=-c%20search_path%3Done";
        let database = Database::parse(url).expect("a URL");
        assert_eq!(database.to_string(), "me@db.example:5433/rows");
        assert_eq!(database.config.get_password(), Some(&b"hush!"[..]));
        assert_eq!(database.config.get_options(), Some("-c search_path=one"));
        assert_eq!(database.config.get_ssl_mode(), SslMode::Require);
        assert!(!format!("{database:?}").contains("hush"));
        assert_eq!(database.lacks_password(), None);
        let socket = Database::parse("postgres:///rows?host=/run/postgresql&user=me").expect("a URL");
        let wanted = ["/run/postgresql", "5432", "rows", "me"].map(str::to_owned);
        assert_eq!(socket.lacks_password(), Some(wanted));
    }

    #[test]
    fn what_is_no_address_is_refused_without_a_word_of_its_secret() {
        for url in [
            "mysql://me:hush@host/rows",
            "postgres://me:hush@host:port/rows",
            "postgres://me:hush@host/rows?sslmode=maybe",
            "postgres://me:hush@host/rows?no_such=1",
            "me:hush@host",
            "hush",
        ] {
            let error = Database::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!super::super::error::chain(&error).contains("hush"), "{error}");
        }
    }
}
