//! A relay that says what a test tells it to: for behaviour that no ordinary relay shows on demand.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

/// What is answered to a message; the number counts the messages of all connections, from 0.
pub(crate) type Script = dyn Fn(usize, &Value) -> Vec<String> + Send + Sync;

/// Starts a puppet in `tasks`; returns its URL.
pub(crate) async fn puppet(
    tasks: &mut JoinSet<()>,
    script: impl Fn(usize, &Value) -> Vec<String> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let script: Arc<Script> = Arc::new(script);
    tasks.spawn(async move {
        let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&turns)));
        }
    });
    url
}

async fn serve(stream: TcpStream, script: Arc<Script>, turns: Arc<std::sync::atomic::AtomicUsize>) {
    let mut socket = accept_async(stream).await.expect("a handshake");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).expect("a client's message");
        let turn = turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        for answer in script(turn, &message) {
            if socket.send(Message::text(answer)).await.is_err() {
                return;
            }
        }
    }
}

/// `["EVENT",sub,event]` for each event, then EOSE.
pub(crate) fn answer(request: &Value, events: &[&String]) -> Vec<String> {
    let sub = &request[1];
    let events = events.iter().map(|event| format!("[\"EVENT\",{sub},{event}]"));
    events.chain([format!("[\"EOSE\",{sub}]")]).collect()
}

/// The events a filter asks for, newest first; `until` may be taken as exclusive.
pub(crate) fn matching<'a>(request: &Value, events: &'a [String], exclusive: bool) -> Vec<&'a String> {
    let filter = &request[2];
    let until = filter["until"].as_i64().unwrap_or(i64::MAX);
    let time =
        |event: &str| serde_json::from_str::<Value>(event).expect("json")["created_at"].as_i64().expect("a time");
    let mut found: Vec<_> = events.iter().map(|event| (time(event), event)).collect();
    found.retain(|(at, _)| if exclusive { *at < until } else { *at <= until });
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    found.truncate(usize::try_from(filter["limit"].as_u64().unwrap_or(500)).expect("small"));
    found.into_iter().map(|(_, event)| event).collect()
}
