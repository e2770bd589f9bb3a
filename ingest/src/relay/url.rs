//! The address of a relay in one spelling, so that a relay named twice is connected to once. Pure.

use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// URL of a relay in normal form: scheme and host in lower case, host in ASCII, no default port, no fragment, no lone
/// slash at the end; the path as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RelayUrl(Arc<str>);

impl RelayUrl {
    /// Parses `ws://` and `wss://` URLs.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::new(ErrorKind::Config, format!("`{text}` is not a relay url: {why}, as in wss://relay.example.org"))
        };
        let mut url = Url::parse(text.trim()).map_err(|source| refused("it does not parse").with_source(source))?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(refused("it must begin with ws:// or wss://"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(refused("it names no host"));
        }
        // The URL is written to every record's header: no place for a password.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it must not hold a user or password"));
        }
        url.set_fragment(None);
        let text = url.as_str();
        let bare = url.path() == "/" && url.query().is_none();
        Ok(Self(if bare { text.trim_end_matches('/') } else { text }.into()))
    }

    /// Parses many; spellings of one relay count once, the first place is kept.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Self>> {
        let mut urls = Vec::with_capacity(texts.len());
        for text in texts {
            let url = Self::parse(text)?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        match urls.is_empty() {
            true => Err(Error::new(ErrorKind::Config, "no relay is named: give at least one wss:// url")),
            false => Ok(urls),
        }
    }

    /// The text, shared.
    pub(crate) const fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edit;

    #[test]
    fn spellings_of_one_relay_are_one() {
        let same = [
            "wss://relay.example.org",
            "wss://relay.example.org/",
            "WSS://Relay.Example.ORG:443",
            " wss://relay.example.org/# ",
        ];
        let urls = RelayUrl::parse_all(&same.map(str::to_owned)).expect("relay urls");
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), ["wss://relay.example.org"]);
    }

    #[test]
    fn what_differs_stays_apart() {
        let normal = |text: &str| RelayUrl::parse(text).expect(text).to_string();
        assert_eq!(normal("wss://X.org/Path/"), "wss://x.org/Path/");
        assert_eq!(normal("wss://x.org/path"), "wss://x.org/path");
        assert_eq!(normal("wss://x.org/?a=B"), "wss://x.org/?a=B");
        assert_eq!(normal("ws://127.0.0.1:80"), "ws://127.0.0.1");
        assert_eq!(normal("ws://127.0.0.1:443"), "ws://127.0.0.1:443");
        assert_eq!(normal("wss://bücher.example"), "wss://xn--bcher-kva.example");
    }

    #[test]
    fn a_bad_url_is_named() {
        for text in
            ["", "relay.example.org", "https://x.org", "wss://", "wss://a:b@x.org", "wss://x.org:99999", "not a url"]
        {
            let error = RelayUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        assert!(RelayUrl::parse_all(&[]).is_err());
    }

    #[test]
    fn the_addresses_people_collect_never_panic() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nostr/relays/relay_urls_2025-09.txt");
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("SKIPPED: {path} is not there");
            return;
        };
        let good = text.lines().filter(|line| RelayUrl::parse(line).is_ok()).count();
        assert!(good > text.lines().count() / 2, "only {good} urls parse");
    }

    const URLS: [&str; 4] = [
        "wss://relay.example.org/",
        "WS://127.0.0.1:80/a%20b?x=Y#z",
        "wss://bücher.example:443",
        "ws://[::1]:7777/path/",
    ];
    const PARTS: &[&str] = &[
        "/", "//", ":", "@", "#", "?", "%00", "%", "..", "[", "]", " ", "\\", "ws://", "https:", "é", "\u{0}", "443",
        "\n",
    ];

    proptest! {
        #[test]
        fn a_url_in_normal_form_stays_as_it_is(bytes in edit::bytes(URLS.map(|url| url.as_bytes().to_vec()).to_vec(), PARTS)) {
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(url) = RelayUrl::parse(&text) {
                prop_assert!(url.text().starts_with("ws://") || url.text().starts_with("wss://"));
                prop_assert!(!url.text().contains(['#', ' ', '\n', '\0', '@']) || url.text().contains("/"), "{}", url);
                prop_assert_eq!(RelayUrl::parse(url.text()).map_err(|error| error.to_string()), Ok(url));
            }
        }
    }
}
