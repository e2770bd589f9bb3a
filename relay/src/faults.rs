//! Misbehaviour on demand: which faults a relay shows, and what its junk looks like.
//!
//! Plain data and pure functions; `outbox` applies them to a connection.

use std::time::Duration;

use serde_json::Value;

/// Faults that a relay shows to every connection, unless said otherwise. By default none.
///
/// A *frame* is one websocket message from the relay, of any sort; junk that a fault adds is not counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Closes the first so many connections before the handshake; `u64::MAX` = all of them.
    pub refuse: u64,
    /// Drops the connection, without a close frame, after so many frames.
    pub drop_after: Option<u64>,
    /// Drops the connection, without a close frame, after it was open for so long.
    pub drop_every: Option<Duration>,
    /// Ends both kinds of drop after so many of them over all connections; `None` = never.
    pub drops_max: Option<u64>,
    /// Falls silent after so many frames: nothing is sent or read any more, pings included, and the socket stays open.
    pub stall_after: Option<u64>,
    /// Sends a junk frame after every so many frames: not JSON, wrong shapes, unknown labels, binary.
    pub garbage_every: Option<u64>,
    /// Sends one frame of so many bytes (a NOTICE), once, before anything else on the first connection.
    pub huge_frame_bytes: Option<usize>,
    /// Never sends EOSE.
    pub no_eose: bool,
    /// Waits so long before each EOSE.
    pub eose_delay: Duration,
    /// Ends each subscription with CLOSED right after its EOSE.
    pub closed_after_eose: bool,
    /// Sends, before every so many-th EVENT, a forged copy of it: the same id and signature, another content.
    pub forge_every: Option<u64>,
}

/// One frame of junk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Junk {
    Text(&'static str),
    Binary(&'static [u8]),
}

/// Junk in turn; every sort has been seen on the network or in a client's bug tracker.
const JUNK: [Junk; 10] = [
    Junk::Text("<html><body>502 Bad Gateway</body></html>"),
    Junk::Text(""),
    Junk::Text("[]"),
    Junk::Text("[\"EVENT\"]"),
    Junk::Text("{\"EVENT\":1}"),
    Junk::Text("[\"LIMITS\",{\"max_limit\":500}]"),
    Junk::Text("[\"EVENT\",\"never-asked\",{\"id\":\"00\",\"kind\":\"one\"}]"),
    Junk::Text("[\"EOSE\"]"),
    Junk::Binary(b"\x00\xff\xfe"),
    Junk::Text("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
];

/// The `turn`-th frame of junk.
pub(crate) fn junk(turn: u64) -> Junk {
    let turns = u64::try_from(JUNK.len()).unwrap_or(1);
    usize::try_from(turn % turns).map_or(Junk::Text(""), |index| JUNK[index].clone())
}

/// A NOTICE of exactly `bytes` bytes (at least its own frame of brackets).
pub(crate) fn huge_frame(bytes: usize) -> String {
    let (head, tail) = ("[\"NOTICE\",\"", "\"]");
    let fill = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(fill))
}

/// A copy of the event `raw` with another content under the same id and signature; `None` when it is no object.
pub(crate) fn forged_copy(raw: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(raw).ok()?;
    let content = event.get_mut("content")?;
    *content = Value::String(format!("{} (forged)", content.as_str()?));
    Some(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_frame_has_the_size_asked_for() {
        assert_eq!(huge_frame(10_000).len(), 10_000);
        assert!(serde_json::from_str::<Value>(&huge_frame(64)).is_ok());
    }

    #[test]
    fn a_forged_copy_keeps_the_id_and_changes_the_content() {
        let copy = forged_copy(r#"{"id":"aa","content":"gm","sig":"bb"}"#).expect("an object");
        assert_eq!(copy, r#"{"content":"gm (forged)","id":"aa","sig":"bb"}"#);
        assert_eq!(forged_copy("[]"), None);
    }
}
