//! A relay that behaves as a test tells it to: the other side of every fault that a client has to outlive.
//!
//! Left alone it is a plain NIP-01 relay with a store and a cap. A [`Plot`] changes it at two places, and everything
//! else stays honest, so that a test shows one fault at a time: the *door* decides what becomes of a connection before
//! the handshake is done, the *script* is asked at every cue (a message, a live event, a new connection) and returns
//! what is done instead of what an honest relay would do.
//!
//! ```text
//! client ──▶ door ──▶ cue ──▶ honest acts ──▶ script ──▶ acts, one after the other ──▶ socket
//! ```
//!
//! It keeps record of what it was asked and, to the byte, of the events whose frames went out whole: what an audit may
//! demand. Read in this order: `plot` (what can be told), `store`, `connection`, `door`, `frame` (raw bytes).

mod connection;
pub(crate) mod door;
mod frame;
mod plot;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use frame::{Opcode, frame, frame_head};
pub use plot::{Act, Cue, Door, Plot, Scene, closed, eose, notice, torn_event};
pub use store::Store;

/// Live events that may wait for a connection; a test publishes fewer at once.
const LIVE_WAITING_MAX: usize = 65_536;

/// Something that a client did.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// On which connection, counted from 0.
    pub connection: usize,
    /// What.
    pub what: What,
}

/// What a client did.
#[derive(Clone, Debug)]
pub enum What {
    /// Began a handshake, or something else: the first bytes it sent, up to the end of an HTTP head.
    Head(String),
    /// Sent a message.
    Message(Value),
}

impl Asked {
    /// The message, if it is one with this label.
    pub fn message(&self, label: &str) -> Option<&Value> {
        match &self.what {
            What::Message(message) if message[0] == label => Some(message),
            _ => None,
        }
    }
}

/// What connections share.
struct State {
    plot: Plot,
    store: Mutex<Store>,
    live: broadcast::Sender<Arc<str>>,
    asked: Mutex<Vec<Asked>>,
    served: Mutex<BTreeMap<Arc<str>, u64>>,
    turns: Mutex<BTreeMap<&'static str, usize>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl State {
    /// Counts a websocket as open for as long as the value lives.
    fn stay(self: &Arc<Self>) -> Stay {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        Stay(Arc::clone(self))
    }

    /// Cues of the same sort before this one.
    fn turn_of(&self, cue: &Cue) -> usize {
        let mut turns = lock(&self.turns);
        let turn = turns.entry(cue.sort()).or_default();
        *turn += 1;
        *turn - 1
    }

    fn note(&self, connection: usize, what: What) {
        lock(&self.asked).push(Asked { at: Instant::now(), connection, what });
    }

    fn note_served(&self, event: &Arc<str>) {
        *lock(&self.served).entry(Arc::clone(event)).or_default() += 1;
    }
}

/// An open websocket.
struct Stay(Arc<State>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A relay at work on loopback; it ends with the value.
pub struct ScriptedRelay {
    address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

impl ScriptedRelay {
    /// Starts a relay on a free port.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(plot: Plot) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let store = Store::new(&plot.events);
        let state = Arc::new(State {
            plot,
            store: Mutex::new(store),
            live: broadcast::Sender::new(LIVE_WAITING_MAX),
            asked: Mutex::default(),
            served: Mutex::default(),
            turns: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _serving: serving }
    }

    /// A relay without any fault.
    pub async fn honest(events: &[String]) -> Self {
        Self::start(Plot::of(events)).await
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `ws://host:port`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Stores an event and sends it to whoever has a matching subscription, as if somebody had published it.
    pub fn publish(&self, event: &str) {
        let event: Arc<str> = event.into();
        lock(&self.state.store).insert(&event);
        // Without a listener it is only stored.
        let _ = self.state.live.send(event);
    }

    /// Everything in the store, newest first.
    pub fn holds(&self) -> Vec<Arc<str>> {
        lock(&self.state.store).all()
    }

    /// Empties the store.
    pub fn forget_all(&self) {
        *lock(&self.state.store) = Store::new(&[]);
    }

    /// Everything that clients did, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// Messages of one label, in order.
    pub fn messages(&self, label: &str) -> Vec<Value> {
        self.asked().iter().filter_map(|asked| asked.message(label).cloned()).collect()
    }

    /// How many subscriptions with `limit:0`, which is how live ones are asked for, it was asked for.
    pub fn live_requests(&self) -> usize {
        self.messages("REQ").iter().filter(|request| request[2]["limit"] == 0).count()
    }

    /// Connections so far on which something was said, whatever became of them; those for the information document
    /// (NIP-11) aside.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Websockets that are open.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Websockets that were ever open at the same time.
    pub fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }

    /// Events whose frames went out whole, byte for byte, and how often each did.
    pub fn served(&self) -> BTreeMap<Arc<str>, u64> {
        lock(&self.state.served).clone()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(door::enter(stream, Arc::clone(&state)));
        // What has ended is of no interest.
        while connections.try_join_next().is_some() {}
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
    use crate::signed;

    /// Asks for everything; the labels of what came, until EOSE or the end.
    async fn labels(relay: &ScriptedRelay) -> Vec<String> {
        let (mut socket, _) = connect_async(relay.url()).await.expect("a connection");
        socket.send(Message::text(r#"["REQ","all",{"limit":10}]"#)).await.expect("sent");
        let mut labels = Vec::new();
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            labels.push(message[0].as_str().expect("a label").to_owned());
            if message[0] == "EOSE" {
                break;
            }
        }
        labels
    }

    #[tokio::test]
    async fn left_alone_it_is_an_honest_relay_that_keeps_record() {
        let relay = ScriptedRelay::honest(&signed::events(1, 3)).await;
        assert_eq!(labels(&relay).await, ["EVENT", "EVENT", "EVENT", "EOSE"]);
        assert_eq!(relay.served().len(), 3);
        assert_eq!((relay.connections(), relay.messages("REQ").len(), relay.live_requests()), (1, 1, 0));
        assert_eq!(relay.most_open(), 1);
    }

    #[tokio::test]
    async fn only_what_went_out_whole_is_served() {
        let events = signed::events(2, 3);
        let plot = Plot::of(&events).script(|scene, mut honest| {
            if let Some((sub, _)) = scene.stored() {
                honest.splice(1.., [torn_event(sub, &scene.store.all()[1]), Act::Cut]);
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        assert_eq!(labels(&relay).await, ["EVENT"]);
        assert_eq!(relay.served().into_keys().collect::<Vec<_>>(), [events[2].as_str().into()]);
    }
}
