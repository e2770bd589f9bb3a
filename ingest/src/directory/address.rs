//! What is a relay's URL, and which addresses lead out of this machine and its network. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::directory::document::Network;
use crate::relay::normal_relay_url;

/// Longest URL that is taken; real ones with a token in their path have 200 bytes.
const URL_BYTES_MAX: usize = 512;
/// Names that are never on the internet: RFC 6761, RFC 6762, RFC 8375, and what routers give out.
const LOCAL_SUFFIXES: [&str; 11] = [
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "home.arpa",
    "test",
    "invalid",
    "example",
];

/// The URL of a relay that somebody named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// In normal form.
    pub(crate) url: String,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) network: Network,
}

/// Why a name is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is no URL of a relay.
    Junk,
    /// Only a local network knows it.
    Local,
}

/// Reads the name of a relay.
pub(crate) fn read(text: &str, allow_local: bool) -> Result<Named, Dropped> {
    if text.len() > URL_BYTES_MAX {
        return Err(Dropped::Junk);
    }
    let url = normal_relay_url(text).map_err(|_| Dropped::Junk)?;
    let parsed = Url::parse(&url).map_err(|_| Dropped::Junk)?;
    // A blank in the path is a second address or a remark behind the first.
    if url.len() > URL_BYTES_MAX || parsed.path().contains("%20") {
        return Err(Dropped::Junk);
    }
    let (host, network, local) = match parsed.host().ok_or(Dropped::Junk)? {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            (name.to_owned(), network_of(name), is_local_name(name))
        }
        Host::Ipv4(ip) => of_ip(ip.into()),
        Host::Ipv6(ip) => of_ip(ip.into()),
    };
    if local && !allow_local { Err(Dropped::Local) } else { Ok(Named { url, host, network }) }
}

fn of_ip(ip: IpAddr) -> (String, Network, bool) {
    let network = if ip.is_loopback() { Network::Loopback } else { Network::Clear };
    (ip.to_string(), network, !is_public(ip))
}

fn network_of(name: &str) -> Network {
    match name.rsplit('.').next() {
        Some("onion") => Network::Tor,
        Some("i2p") => Network::I2p,
        Some("localhost") => Network::Loopback,
        _ => Network::Clear,
    }
}

fn is_local_name(name: &str) -> bool {
    let within = |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.ends_with('.'));
    !name.contains('.') || LOCAL_SUFFIXES.iter().any(within)
}

/// Whether an address leads to the internet, by the special-purpose registries of RFC 6890.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        // "This network", shared by carriers (and by private overlays), protocol assignments, benchmarks, reserved.
        [0, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] | [240..=255, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        _ => false,
    };
    !(special
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    // An IPv4 address in an IPv6 one: mapped, or translated (NAT64, 6to4).
    let embedded = match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    match embedded {
        Some(ip) => is_public_v4(ip),
        // 2000::/3 is all that is given out; documentation, and what 2001::/23 keeps for protocols, are not.
        None => {
            let [first, second, ..] = ip.segments();
            let special = first == 0x2001 && (second < 0x200 || second == 0xdb8) || first == 0x3fff;
            first & 0xe000 == 0x2000 && !special
        }
    }
}
