//! Which process this is, in words for people: what one that was taken over says of the other.

/// `process 4711 on myhost`.
#[must_use]
pub fn place() -> String {
    let host = std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned()).unwrap_or_default();
    format!("process {} on {}", std::process::id(), if host.is_empty() { "this host" } else { &host })
}
