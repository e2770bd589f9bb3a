//! A relay's document about itself (NIP-11): asked for over HTTP, politely, and read leniently.
//!
//! The relay is chosen by strangers, so the way to it is narrow: a GET without redirects, proxies or cookies, 5 seconds,
//! 64 KiB, and only to addresses of the internet, whatever its name resolves to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::ACCEPT;
use reqwest::{Client, redirect};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::directory::{Limitation, is_public};
use crate::error::{Error, ErrorKind, Result};
use crate::relay::tls;

/// Longest document, bytes.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// From the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `software` and `version`, bytes.
const TEXT_BYTES_MAX: usize = 200;

/// What a document says that others ask for often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) software: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) limits: Option<Limitation>,
}

/// Reads a document; what is not as NIP-11 has it is left out.
pub(crate) fn read(document: &str) -> Described {
    let Ok(document) = serde_json::from_str::<Value>(document) else { return Described::default() };
    let text = |name: &str| {
        let text = document.get(name)?.as_str()?.trim();
        (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned())
    };
    let limits = document.get("limitation").filter(|limits| limits.is_object()).map(limitation);
    Described { software: text("software"), version: text("version"), limits }
}

fn limitation(limits: &Value) -> Limitation {
    let number = |name: &str| limits.get(name).and_then(Value::as_u64);
    let flag = |name: &str| limits.get(name).and_then(Value::as_bool);
    Limitation {
        max_message_length: number("max_message_length"),
        max_subscriptions: number("max_subscriptions"),
        max_limit: number("max_limit"),
        default_limit: number("default_limit"),
        max_subid_length: number("max_subid_length"),
        max_event_tags: number("max_event_tags"),
        max_content_length: number("max_content_length"),
        min_pow_difficulty: number("min_pow_difficulty"),
        auth_required: flag("auth_required"),
        payment_required: flag("payment_required"),
        restricted_writes: flag("restricted_writes"),
        created_at_lower_limit: number("created_at_lower_limit"),
        created_at_upper_limit: number("created_at_upper_limit"),
    }
}

/// Lower-case hex of a document's SHA-256.
pub(crate) fn sha256(document: &str) -> String {
    hex::encode(Sha256::digest(document))
}

/// Asks relays for their documents. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    client: Client,
}

impl Asker {
    /// `allow_local` also takes addresses that are not of the internet: for relays that the operator named.
    ///
    /// # Errors
    /// `Internal` when there is no usable TLS.
    pub(crate) fn new(user_agent: &str, allow_local: bool) -> Result<Self> {
        let tls = Arc::unwrap_or_clone(tls()?);
        let client = Client::builder()
            .use_preconfigured_tls(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent(user_agent)
            .dns_resolver(Arc::new(Resolver { allow_local }))
            .build();
        let failed = |source| Error::new(ErrorKind::Internal, "could not make an http client").with_source(source);
        Ok(Self { client: client.map_err(failed)? })
    }

    /// The document of the relay at `url`, as its bytes are; or, for people, why there is none.
    pub(crate) async fn ask(&self, url: &str) -> std::result::Result<String, String> {
        // ws: is http:, wss: is https:.
        let url = url.replacen("ws", "http", 1);
        let request = self.client.get(url).header(ACCEPT, "application/nostr+json");
        let failed = |error: reqwest::Error| chain(&error.without_url());
        let mut response = request.send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("http status {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("more than {DOCUMENT_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let document = String::from_utf8(body).map_err(|_| "no utf-8".to_owned())?;
        match serde_json::from_str::<Value>(&document) {
            Ok(Value::Object(_)) => Ok(document),
            _ => Err("no json object".to_owned()),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The system's resolver, without addresses that are not of the internet.
#[derive(Clone, Copy, Debug)]
struct Resolver {
    allow_local: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_local = self.allow_local;
        Box::pin(async move {
            let found = addresses(name.as_str(), allow_local).await?;
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

/// Addresses of a host, at least one.
pub(crate) async fn addresses(host: &str, allow_local: bool) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    let public: Vec<IpAddr> = found.map(|at| at.ip()).filter(|ip| allow_local || is_public(*ip)).collect();
    match public.is_empty() {
        true => Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "no address on the internet")),
        false => Ok(public),
    }
}
