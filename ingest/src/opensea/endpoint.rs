//! Where the stream is, and the key to it. The key travels in the URL's query, so that a URL is shown without one, and
//! what others say of it is looked through.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::opensea::frame::Version;

/// The stream of all main chains; OpenSea's own SDK connects here since its version 0.3.1.
const MAIN: &str = "wss://stream-api.opensea.io/socket/websocket";
/// The stream of all test chains, as it was documented last.
const TEST: &str = "wss://testnets-stream.openseabeta.com/socket/websocket";
/// A key is some dozens of characters; what is longer than this is something else.
const KEY_BYTES_MAX: usize = 1_024;

/// A server of the stream: its URL without a query, and the form of frames that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Arc<str>,
    pub(crate) version: Version,
}

impl Endpoint {
    /// The stream of all main chains.
    #[must_use]
    pub fn main() -> Self {
        Self { url: MAIN.into(), version: Version::V2 }
    }

    /// The stream of all test chains, which wants no key.
    #[must_use]
    pub fn test() -> Self {
        Self { url: TEST.into(), version: Version::V2 }
    }

    /// Whether a key is needed.
    #[must_use]
    pub fn wants_key(&self) -> bool {
        &*self.url != TEST
    }

    /// The URL as it may be shown, without a query.
    pub(crate) const fn shown(&self) -> &Arc<str> {
        &self.url
    }

    /// The URL that is asked for, with the key.
    pub(crate) fn with_key(&self, key: Option<&ApiKey>) -> Result<String> {
        let parsed = Url::parse(&self.url);
        let mut url =
            parsed.map_err(|error| Error::new(ErrorKind::Internal, "a url was changed").with_source(error))?;
        let mut query = url.query_pairs_mut();
        if let Some(key) = key {
            query.append_pair("token", &key.secret);
        }
        query.append_pair("vsn", self.version.as_str());
        drop(query);
        Ok(url.into())
    }

    /// Whether what is sent can be read on its way.
    pub(crate) fn is_plain(&self) -> bool {
        let local = |url: &Url| match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Url::parse(&self.url).is_ok_and(|url| url.scheme() == "ws" && !local(&url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// `main` (or `production`), `test` (or `development`), or a `wss://` URL; `vsn=1.0.0` in its query asks for frames of
    /// the first form.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "main" | "production" => return Ok(Self::main()),
            "test" | "development" => return Ok(Self::test()),
            _ => {}
        }
        // What stands behind the question mark, or before the host, may be a key.
        let shown =
            if text.contains('@') { "wss://…" } else { text.split(['?', '#']).next().unwrap_or_default().trim() };
        let refused = |why: &str| {
            let message = format!("`{shown}` is no endpoint: {why}; use main, test or a wss:// url");
            Error::new(ErrorKind::Config, message)
        };
        let mut url = Url::parse(text.trim()).map_err(|_| refused("it does not parse"))?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(refused("it does not begin with wss://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it must not hold a user or password"));
        }
        let mut version = Version::V2;
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("vsn", "1.0.0") => version = Version::V1,
                ("vsn", "2.0.0") => version = Version::V2,
                ("vsn", _) => return Err(refused("vsn is 1.0.0 or 2.0.0")),
                ("token", _) => return Err(refused("everybody on this machine can read a key that stands in it")),
                _ => return Err(refused("its query may hold vsn alone")),
            }
        }
        url.set_query(None);
        url.set_fragment(None);
        // As Phoenix's own client has it, and OpenSea's documentation of that.
        if url.path().ends_with("/socket") {
            let path = format!("{}/websocket", url.path());
            url.set_path(&path);
        }
        Ok(Self { url: url.as_str().into(), version })
    }
}

/// A key to the stream. It shows where it came from, and never what it is.
#[derive(Clone)]
pub struct ApiKey {
    secret: Arc<str>,
    /// The same as a URL's query has it.
    encoded: Arc<str>,
    origin: Arc<str>,
}

impl ApiKey {
    /// The key that `text` holds; `origin` says where it stood, as `variable OPENSEA_API_KEY`.
    ///
    /// # Errors
    /// What is wrong with it, without the text.
    pub fn new(text: &str, origin: &str) -> std::result::Result<Self, String> {
        let secret = text.trim();
        if secret.is_empty() {
            return Err(format!("{origin} is empty, not an API key"));
        }
        if secret.len() > KEY_BYTES_MAX || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{origin} holds no API key, which is one word of letters, digits and signs"));
        }
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        Ok(Self { secret: secret.into(), encoded: encoded.into(), origin: origin.into() })
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// A text of others without the key.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(&*self.encoded, "<key>").replace(&*self.secret, "<key>")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey(of {})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ApiKey {
        ApiKey::new(text, "variable OPENSEA_API_KEY").expect("a key")
    }

    #[test]
    fn endpoints_have_names_and_urls() {
        let of = |text: &str| text.parse::<Endpoint>().expect(text);
        assert_eq!((of("main"), of("test")), (of("production"), of("development")));
        assert_eq!(of("main").to_string(), MAIN);
        assert!(of("main").wants_key() && !of("test").wants_key() && of("wss://x.org/socket").wants_key());
        assert_eq!(of("wss://stream.openseabeta.com/socket"), of("wss://stream.openseabeta.com/socket/websocket"));
        assert_eq!(of("ws://127.0.0.1:4000/?vsn=1.0.0").version, Version::V1);
        assert_eq!(of("ws://127.0.0.1:4000/?vsn=1.0.0").to_string(), "ws://127.0.0.1:4000/");
        assert!(of("ws://x.org/").is_plain() && !of("wss://x.org/").is_plain());
        assert!(
            !of("ws://127.0.0.1/").is_plain() && !of("ws://[::1]/").is_plain() && !of("ws://localhost/").is_plain()
        );
    }

    #[test]
    fn a_bad_endpoint_is_named_without_what_may_be_a_key() {
        for text in [
            "",
            "mainnet",
            "https://x.org",
            "wss://x.org/?token=geheim",
            "wss://a:geheim@x.org",
            "wss://x.org/?a=geheim",
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(!error.contains("geheim"), "{error}");
            assert!(error.contains("is no endpoint"), "{error}");
        }
    }

    #[test]
    fn the_key_is_in_the_url_that_is_asked_for_and_nowhere_else() {
        let (endpoint, key) = (Endpoint::main(), key(" a+b/c=\n"));
        let url = endpoint.with_key(Some(&key)).expect("a url");
        assert_eq!(url, format!("{MAIN}?token=a%2Bb%2Fc%3D&vsn=2.0.0"));
        assert_eq!(
            key.redact(&format!("could not reach {url}, a+b/c=")),
            format!("could not reach {MAIN}?token=<key>&vsn=2.0.0, <key>")
        );
        assert_eq!(format!("{key:?}"), "ApiKey(of variable OPENSEA_API_KEY)");
        assert_eq!(Endpoint::test().with_key(None).expect("a url"), format!("{TEST}?vsn=2.0.0"));
        for text in ["", " \n", "two words", "é", &"x".repeat(2_000)] {
            let why = ApiKey::new(text, "file `key`").expect_err("no key");
            assert!(why.starts_with("file `key` ") && (text.trim().is_empty() || !why.contains(text)), "{why}");
        }
    }
}
