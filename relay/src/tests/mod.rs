//! Tests of the whole relay over real sockets: a client, a running relay, and events to serve.

mod compare;
mod conformance;
mod failing;
mod files;
mod matching;
mod traffic;

use std::net::SocketAddr;
use std::time::Duration;

use event::{Clock, Event};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::generate::signed;
use crate::{Server, Settings};

/// Noon of some day; the mock clock stands here.
const NOW_SECS: i64 = 1_780_000_000;
/// Longer than anything that should happen takes.
const SOON: Duration = Duration::from_secs(60);
/// Long enough to see that nothing comes.
const QUIET: Duration = Duration::from_millis(150);

struct Running {
    addr: SocketAddr,
    loaded: crate::Loaded,
    shutdown: CancellationToken,
    serving: JoinSet<crate::Result<()>>,
    _end: DropGuard,
}

async fn start_at(settings: Settings, clock: Clock) -> Running {
    let server = Server::bind(settings, clock).await.expect("binds");
    let (addr, loaded, shutdown) = (server.local_addr(), server.loaded(), CancellationToken::new());
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(shutdown.clone()));
    Running { addr, loaded, shutdown: shutdown.clone(), serving, _end: shutdown.drop_guard() }
}

async fn start(settings: Settings) -> Running {
    start_at(settings, Clock::mock(NOW_SECS * 1_000)).await
}

/// A relay that holds `events`.
async fn holding(events: &[Event], settings: Settings) -> Running {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().expect("a file");
    let lines: String = events.iter().map(|event| event.to_json() + "\n").collect();
    std::fs::write(file.path(), lines).expect("written");
    start(Settings { events: vec![file.path().to_owned()], ..settings }).await
}

/// `count` notes, a second apart, the last one the newest.
fn notes(count: i64) -> Vec<Event> {
    (0..count).map(|at| note(at % 3, 1_000 + at)).collect()
}

fn note(author: i64, created_at: i64) -> Event {
    signed(author.unsigned_abs(), 1, created_at, &[], &format!("note of {created_at}"))
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.expect("connects")
    }

    async fn try_connect(addr: SocketAddr) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(addr).await?;
        let (socket, _) = client_async(format!("ws://{addr}/"), stream).await?;
        Ok(Self { socket })
    }

    async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    async fn publish(&mut self, event: &Event) {
        self.send_text(&format!("[\"EVENT\",{}]", event.to_json())).await;
    }

    /// The next frame; `None` when the relay ended the connection.
    async fn frame(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(SOON, self.socket.next()).await.expect("a frame, or the end, in time");
        next.and_then(Result::ok)
    }

    async fn text(&mut self) -> String {
        match self.frame().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("a text frame expected, not {other:?}"),
        }
    }

    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("relays write JSON")
    }

    async fn quiet(&mut self) {
        let next = tokio::time::timeout(QUIET, self.socket.next()).await;
        assert!(next.is_err(), "silence expected, not {next:?}");
    }

    /// Events of a subscription up to its EOSE.
    async fn until_eose(&mut self, subscription: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let message = self.next().await;
            assert_eq!(message[1], subscription, "{message}");
            match message[0].as_str() {
                Some("EVENT") => events.push(message[2].clone()),
                Some("EOSE") => return events,
                _ => panic!("EVENT or EOSE expected, not {message}"),
            }
        }
    }

    /// Ids of the stored events that `filters` get, in order.
    async fn stored(&mut self, filters: &[Value]) -> Vec<String> {
        let mut request = vec![json!("REQ"), json!("stored")];
        request.extend_from_slice(filters);
        self.send(Value::Array(request)).await;
        let events = self.until_eose("stored").await;
        self.send(json!(["CLOSE", "stored"])).await;
        events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    }
}

/// Ids of `events` in the order in which a relay sends them.
fn in_order<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<String> {
    let mut events: Vec<_> = events.into_iter().collect();
    events.sort_by_key(|event| (-event.created_at, event.id));
    events.iter().map(|event| event.id.to_string()).collect()
}
