//! One connection: cues in, acts out, one after the other. While an act waits, messages are still read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::plot::{Act, Cue, Scene, event_text, notice};
use super::store::matches;
use super::{State, What, lock};

/// The connection is over.
struct Over;

impl From<tungstenite::Error> for Over {
    fn from(_: tungstenite::Error) -> Self {
        Self
    }
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

struct Connection {
    number: usize,
    state: Arc<State>,
    socket: WebSocketStream<TcpStream>,
    subs: HashMap<Arc<str>, Value>,
    acts: VecDeque<Act>,
    /// When the next act is due.
    due: Instant,
}

/// Serves a websocket until either side ends it.
pub(super) async fn serve(socket: WebSocketStream<TcpStream>, number: usize, state: Arc<State>) {
    let _stay = state.stay();
    let mut live = state.live.subscribe();
    let (subs, acts, due) = (HashMap::new(), VecDeque::new(), Instant::now());
    let mut connection = Connection { number, state, socket, subs, acts, due };
    connection.cue(&Cue::Connected);
    while connection.turn(&mut live).await.is_ok() {}
}

impl Connection {
    async fn turn(&mut self, live: &mut broadcast::Receiver<Arc<str>>) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = sleep_until(self.due), if !self.acts.is_empty() => match self.acts.pop_front() {
                Some(act) => self.perform(act).await,
                None => Ok(()),
            },
            message = self.socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    self.hear(&text);
                    Ok(())
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Over),
                Some(Ok(_)) => Ok(()),
            },
            event = live.recv() => {
                // A test that publishes more than fits would not know what was served.
                self.publish(&event.expect("the plot's publisher is not faster than its relay"));
                Ok(())
            }
        }
    }

    fn hear(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        self.state.note(self.number, What::Message(message.clone()));
        let sub: Arc<str> = message[1].as_str().unwrap_or_default().into();
        match message[0].as_str() {
            Some("REQ") => {
                let filter = message[2].clone();
                self.subs.insert(Arc::clone(&sub), filter.clone());
                self.cue(&Cue::Req { sub, filter });
            }
            Some("CLOSE") => {
                self.subs.remove(&sub);
                self.cue(&Cue::Close { sub });
            }
            _ => self.cue(&Cue::Other(message)),
        }
    }

    fn publish(&mut self, event: &Arc<str>) {
        let parsed: Value = serde_json::from_str(event).expect("what is published is JSON");
        let wanted = self.subs.iter().filter(|(_, filter)| matches(filter, &parsed));
        for sub in wanted.map(|(sub, _)| Arc::clone(sub)).collect::<Vec<_>>() {
            self.cue(&Cue::Live { sub, event: Arc::clone(event) });
        }
    }

    fn cue(&mut self, cue: &Cue) {
        let state = Arc::clone(&self.state);
        let store = lock(&state.store);
        let scene = Scene { cue, connection: self.number, turn: state.turn_of(cue), store: &store };
        let honest = match cue {
            Cue::Connected | Cue::Close { .. } => Vec::new(),
            Cue::Req { sub, filter } => scene.answer(sub, filter, state.plot.cap),
            Cue::Other(_) => vec![notice("ERROR: bad msg: unknown cmd")],
            Cue::Live { sub, event } => vec![Act::Event { sub: Arc::clone(sub), raw: Arc::clone(event) }],
        };
        self.acts.extend((state.plot.script)(&scene, honest));
    }

    async fn perform(&mut self, act: Act) -> Result<(), Over> {
        match act {
            Act::Event { sub, raw } => {
                self.socket.send(Message::text(event_text(&sub, &raw))).await?;
                self.state.note_served(&raw);
            }
            Act::Text(text) => {
                self.forget_closed(&text);
                self.socket.send(Message::text(text)).await?;
            }
            Act::Binary(bytes) => self.socket.send(Message::Binary(bytes)).await?,
            Act::Raw(bytes) => self.write(&bytes).await?,
            Act::Repeat(bytes, times) => {
                for _ in 0..times {
                    self.write(&bytes).await?;
                }
            }
            Act::Wait(time) => self.due = Instant::now() + time,
            Act::Silence => std::future::pending().await,
            Act::Goodbye(code, reason) => {
                let goodbye = CloseFrame { code: code.into(), reason: reason.into() };
                self.socket.close(Some(goodbye)).await?;
                // The client's own goodbye, or its end.
                while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
                return Err(Over);
            }
            Act::Cut => {
                self.socket.get_mut().shutdown().await?;
                return Err(Over);
            }
            Act::Reset => {
                self.socket.get_mut().set_zero_linger()?;
                return Err(Over);
            }
        }
        Ok(())
    }

    /// Every message before was flushed, so that what is written here follows it.
    async fn write(&mut self, bytes: &Bytes) -> Result<(), Over> {
        Ok(self.socket.get_mut().write_all(bytes).await?)
    }

    /// A subscription that the relay has closed gets no live events.
    fn forget_closed(&mut self, text: &str) {
        let Ok(Value::Array(message)) = serde_json::from_str(text) else { return };
        if let [label, Value::String(sub), ..] = &message[..]
            && *label == json!("CLOSED")
        {
            self.subs.remove(sub.as_str());
        }
    }
}
