//! The way in: the first bytes of a connection are recorded, then the plot's door decides. Who only wants the information
//! document (NIP-11) gets it beside the door.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep};

use super::connection;
use super::plot::Door;
use super::{State, What};

/// Longest head that is waited for.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Serves a connection until it ends.
pub(super) async fn enter(mut stream: TcpStream, state: Arc<State>) {
    // It works without, a little slower.
    let _ = stream.set_nodelay(true);
    let Some(head) = head(&stream).await else { return };
    let lower = head.to_ascii_lowercase();
    let websocket = lower.contains("upgrade: websocket");
    if !websocket && lower.contains("application/nostr+json") {
        return answer_with(&mut stream, &information(state.plot.nip11.as_deref())).await;
    }
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    state.note(number, What::Head(head));
    match (state.plot.door)(number) {
        Door::Open if websocket => {
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                connection::serve(socket, number, state).await;
            }
        }
        Door::Open => answer_with(&mut stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await,
        Door::Answer(answer) => answer_with(&mut stream, &answer).await,
        Door::Silent => std::future::pending().await,
        Door::Shut => {}
    }
}

fn information(document: Option<&str>) -> String {
    match document {
        Some(json) => {
            let headers = format!("Content-Type: application/nostr+json\r\nContent-Length: {}", json.len());
            format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{json}")
        }
        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    }
}

pub(crate) async fn answer_with(stream: &mut TcpStream, answer: &str) {
    // The client may have gone; then nobody needs the answer.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    // Closing with unread bytes would reset the connection, and the answer might be lost with it.
    drain(stream).await;
}

async fn drain(stream: &TcpStream) {
    let mut bytes = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The first bytes, up to the end of an HTTP head; left in the socket. What is no HTTP is what has come first.
pub(crate) async fn head(stream: &TcpStream) -> Option<String> {
    let mut bytes = vec![0; HEAD_BYTES_MAX];
    loop {
        let read = stream.peek(&mut bytes).await.ok().filter(|read| *read > 0)?;
        let head = &bytes[..read];
        let whole = head.windows(4).any(|four| four == b"\r\n\r\n");
        let http = head.starts_with(&b"GET "[..read.min(4)]);
        if whole || !http || read == HEAD_BYTES_MAX {
            return Some(String::from_utf8_lossy(head).into_owned());
        }
        // Peeking returns at once what is there already.
        sleep(Duration::from_millis(1)).await;
    }
}
