//! What comes before the websocket: the head of the HTTP request, and the relay's document of NIP-11 for those who ask
//! for it with a plain GET.

use std::io;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::settings::Settings;

/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// The head of the request, in lower case, left unread on the socket so that the websocket library can have it.
pub(crate) async fn peek_head(stream: &TcpStream) -> io::Result<String> {
    let mut head = vec![0; HEAD_BYTES_MAX];
    loop {
        let bytes = stream.peek(&mut head).await?;
        let seen = &head[..bytes];
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes == head.len() || seen.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(String::from_utf8_lossy(seen).to_ascii_lowercase());
        }
        // Peeking does not consume, so the socket stays readable while the rest of the head is on its way.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether the request asks for a websocket.
pub(crate) fn wants_websocket(head: &str) -> bool {
    header(head, "upgrade").is_some_and(|value| value.contains("websocket"))
}

/// Answers a request that is not for a websocket, and closes.
pub(crate) async fn answer(stream: &mut TcpStream, head: &str, settings: &Settings) -> io::Result<()> {
    // What was only peeked at must be read, or closing the socket resets it before the answer is out.
    let end = head.find("\r\n\r\n").map_or(head.len(), |at| at + 4);
    stream.read_exact(&mut vec![0; end]).await?;
    let asked = header(head, "accept").is_some_and(|value| value.contains("application/nostr+json"));
    let (sort, body) = match asked {
        true => ("application/nostr+json", document(settings)),
        false => ("text/plain", "a nostr relay: connect with a websocket\n".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {sort}\r\ncontent-length: {}\r\naccess-control-allow-origin: *\r\n\
         access-control-allow-headers: *\r\naccess-control-allow-methods: GET\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn document(settings: &Settings) -> String {
    let mut nips = vec![1, 11];
    nips.extend(if settings.nip01 { &[9, 40][..] } else { &[] });
    nips.extend(settings.auth_to_publish.then_some(42));
    nips.extend(settings.compares.then_some(77));
    nips.sort_unstable();
    let mut limitation = json!({
        "max_message_length": settings.message_bytes_max,
        "max_subscriptions": settings.subscriptions_max,
        "max_subid_length": 64,
        "auth_required": false,
        "payment_required": false,
    });
    for (name, limit) in [("default_limit", settings.default_limit), ("max_limit", settings.max_limit)] {
        if limit > 0 {
            limitation[name] = json!(limit);
        }
    }
    json!({
        "name": "tidegate relay",
        "description": "a relay for tests, demos and load",
        "supported_nips": nips,
        "software": "tidegate",
        "version": env!("CARGO_PKG_VERSION"),
        "limitation": limitation,
    })
    .to_string()
}

/// Value of a header of a lower-case head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (header, value) = line.split_once(':')?;
        (header.trim() == name).then(|| value.trim())
    })
}
