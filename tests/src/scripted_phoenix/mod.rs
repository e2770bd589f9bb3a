//! A server of Phoenix channels that behaves as a test tells it to: the other side of the market's stream, and of every
//! fault of it that a client has to outlive.
//!
//! Left alone it lets everybody join every channel, answers heartbeats, and sends what is published about a collection on
//! `collection:<slug>` and on `collection:*`. A [`Plot`] changes it at two places, as that of a
//! [`ScriptedRelay`](crate::scripted_relay::ScriptedRelay) does: the *door* before the handshake is done, and the *script*
//! at every cue. It keeps record of what it was sent, and of the events whose frames went out whole, with the time at
//! which each went.

mod connection;
mod frame;
mod plot;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use frame::{Frame, Version};
pub use plot::{Act, Cue, News, Plot, Scene};

use crate::scripted_relay::{Door, door};

/// Events and orders that may wait for a connection; a test publishes fewer at once.
const WAITING_MAX: usize = 1 << 18;

/// A frame of a client.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// On which connection, counted from 0.
    pub connection: usize,
    /// The frame.
    pub frame: Frame,
}

/// An event whose frame went out whole.
#[derive(Clone, Debug)]
pub struct Served {
    /// When it was about to be sent, milliseconds since 1970.
    pub at_ms: i64,
    /// On which channel.
    pub topic: Arc<str>,
    /// The event's own bytes.
    pub event: Arc<str>,
    /// All bytes of the frame.
    pub frame: String,
}

/// What every connection is told.
#[derive(Clone, Debug)]
enum Order {
    News(News),
    Act(Act),
}

/// What connections share.
struct State {
    plot: Plot,
    clock: Clock,
    orders: broadcast::Sender<Order>,
    asked: Mutex<Vec<Asked>>,
    heads: Mutex<Vec<String>>,
    served: Mutex<Vec<Served>>,
    turns: Mutex<BTreeMap<&'static str, usize>>,
    connections: AtomicUsize,
}

impl State {
    fn turn_of(&self, cue: &Cue) -> usize {
        let mut turns = lock(&self.turns);
        let turn = turns.entry(cue.sort()).or_default();
        *turn += 1;
        *turn - 1
    }

    fn note(&self, connection: usize, frame: &Frame) {
        lock(&self.asked).push(Asked { at: Instant::now(), connection, frame: frame.clone() });
    }

    fn note_served(&self, at_ms: i64, topic: &Arc<str>, news: &News, frame: String) {
        let (topic, event) = (Arc::clone(topic), Arc::clone(&news.text));
        lock(&self.served).push(Served { at_ms, topic, event, frame });
    }
}

/// Channels on which an event about a collection is sent.
fn topics_of(slug: &str) -> [Arc<str>; 2] {
    ["collection:*".into(), format!("collection:{slug}").into()]
}

/// A server at work on loopback; it ends with the value.
pub struct ScriptedPhoenix {
    address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

impl ScriptedPhoenix {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(plot: Plot) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            plot,
            clock: Clock::system(),
            orders: broadcast::Sender::new(WAITING_MAX),
            asked: Mutex::default(),
            heads: Mutex::default(),
            served: Mutex::default(),
            turns: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _serving: serving }
    }

    /// A server without any fault.
    pub async fn honest() -> Self {
        Self::start(Plot::default()).await
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `ws://host:port/socket/websocket`.
    pub fn url(&self) -> String {
        format!("ws://{}/socket/websocket", self.address)
    }

    /// Sends an event on every connection, on each of the channels that it has joined.
    pub fn publish(&self, news: News) {
        // Without a listener nobody hears of it, as it is there.
        let _ = self.state.orders.send(Order::News(news));
    }

    /// Has every connection do this, after what it is doing.
    pub fn everywhere(&self, act: Act) {
        let _ = self.state.orders.send(Order::Act(act));
    }

    /// Frames of clients, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// Those frames with this event: `phx_join`, `heartbeat`.
    pub fn asked_for(&self, event: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.frame.event == event).collect()
    }

    /// Heads of handshakes, in order.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.state.heads).clone()
    }

    /// Connections so far on which something was said, whatever became of them.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Events whose frames went out whole, in order.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.state.served).clone()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(enter(stream, Arc::clone(&state)));
        // What has ended is of no interest.
        while connections.try_join_next().is_some() {}
    }
}

async fn enter(mut stream: TcpStream, state: Arc<State>) {
    // It works without, a little slower.
    let _ = stream.set_nodelay(true);
    let Some(head) = door::head(&stream).await else { return };
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let version = Version::of_head(&head);
    lock(&state.heads).push(head);
    match (state.plot.door)(number) {
        Door::Open => {
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                connection::serve(socket, number, version, state).await;
            }
        }
        Door::Answer(answer) => door::answer_with(&mut stream, &answer).await,
        Door::Silent => std::future::pending().await,
        Door::Shut => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::connect_async;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    fn news(slug: &str) -> News {
        News { slug: slug.into(), event: "item_sold".into(), text: r#"{"event_type":"item_sold"}"#.into() }
    }

    /// Joins both channels of a collection, and reads so many frames.
    async fn heard(phoenix: &ScriptedPhoenix, query: &str, joins: [&str; 2], frames: usize) -> Vec<String> {
        let (mut socket, _) = connect_async(format!("{}{query}", phoenix.url())).await.expect("a connection");
        for join in joins {
            socket.send(Message::text(join)).await.expect("sent");
        }
        let mut texts = Vec::new();
        while texts.len() < frames {
            let Some(Ok(Message::Text(text))) = socket.next().await else { break };
            texts.push(text.to_string());
            if texts.len() == 2 {
                phoenix.publish(news("apes"));
                phoenix.publish(news("punks"));
            }
        }
        texts
    }

    #[tokio::test]
    async fn left_alone_it_serves_both_channels_in_the_form_that_was_asked_for() {
        let phoenix = ScriptedPhoenix::honest().await;
        let joins = [r#"["7","7","collection:*","phx_join",{}]"#, r#"["8","8","collection:apes","phx_join",{}]"#];
        let texts = heard(&phoenix, "?token=k&vsn=2.0.0", joins, 5).await;
        let pushes = [
            r#"["7",null,"collection:*","item_sold",{"event_type":"item_sold"}]"#,
            r#"["8",null,"collection:apes","item_sold",{"event_type":"item_sold"}]"#,
            r#"["7",null,"collection:*","item_sold",{"event_type":"item_sold"}]"#,
        ];
        assert_eq!(texts[2..], pushes);
        let joins = [
            r#"{"topic":"collection:*","event":"phx_join","payload":{},"ref":1}"#,
            r#"{"topic":"collection:apes","event":"phx_join","payload":{},"ref":2}"#,
        ];
        let texts = heard(&phoenix, "?token=k", joins, 3).await;
        let push = r#"{"event":"item_sold","payload":{"event_type":"item_sold"},"ref":null,"topic":"collection:*"}"#;
        assert_eq!(texts[2], push);
        assert_eq!((phoenix.connections(), phoenix.asked_for("phx_join").len()), (2, 4));
        assert!(phoenix.heads()[0].starts_with("GET /socket/websocket?token=k&vsn=2.0.0 "));
        assert!(phoenix.served().len() >= 4);
    }
}
