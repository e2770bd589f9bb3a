//! One connection: cues in, acts out, one after the other. While an act waits, messages are still read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::frame::{Frame, Version, text};
use super::plot::{Act, Cue, News, Scene};
use super::{Order, State, topics_of};

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
    version: Version,
    state: Arc<State>,
    socket: WebSocketStream<TcpStream>,
    /// Channels joined, with the reference of the join.
    joined: BTreeMap<Arc<str>, Value>,
    acts: VecDeque<Act>,
    /// When the next act is due.
    due: Instant,
}

/// Serves a websocket until either side ends it.
pub(super) async fn serve(socket: WebSocketStream<TcpStream>, number: usize, version: Version, state: Arc<State>) {
    let mut orders = state.orders.subscribe();
    let (joined, acts, due) = (BTreeMap::new(), VecDeque::new(), Instant::now());
    let mut connection = Connection { number, version, state, socket, joined, acts, due };
    connection.cue(&Cue::Connected);
    while connection.turn(&mut orders).await.is_ok() {}
}

impl Connection {
    async fn turn(&mut self, orders: &mut broadcast::Receiver<Order>) -> Result<(), Over> {
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
            order = orders.recv() => {
                // A test that publishes more than fits would not know what was served.
                match order.expect("the plot's publisher is not faster than its server") {
                    Order::News(news) => self.publish(&news),
                    Order::Act(act) => self.acts.push_back(act),
                }
                Ok(())
            }
        }
    }

    fn hear(&mut self, text: &str) {
        let Some(frame) = Frame::parse(text, self.version) else {
            return self.cue(&Cue::Other(text.to_owned()));
        };
        self.state.note(self.number, &frame);
        match (&*frame.topic, frame.event.as_str()) {
            ("phoenix", "heartbeat") => self.cue(&Cue::Heartbeat(frame)),
            (_, "phx_join") => self.cue(&Cue::Join(frame)),
            _ => self.cue(&Cue::Other(text.to_owned())),
        }
    }

    fn publish(&mut self, news: &News) {
        let mut topics = topics_of(&news.slug).to_vec();
        topics.retain(|topic| self.joined.contains_key(topic));
        for topic in topics {
            self.cue(&Cue::News { topic, news: news.clone() });
        }
    }

    fn cue(&mut self, cue: &Cue) {
        let state = Arc::clone(&self.state);
        let scene = Scene { cue, connection: self.number, turn: state.turn_of(cue) };
        let honest = match cue {
            Cue::Connected | Cue::Other(_) => Vec::new(),
            Cue::Join(frame) => vec![Act::Joined(frame.clone())],
            Cue::Heartbeat(frame) => vec![Act::Beat(frame.clone())],
            Cue::News { topic, news } => vec![Act::Push { topic: Arc::clone(topic), news: news.clone() }],
        };
        self.acts.extend((state.plot.script)(&scene, honest));
    }

    async fn perform(&mut self, act: Act) -> Result<(), Over> {
        let none = json!({});
        match act {
            Act::Joined(frame) => {
                // Without a reference of its own, as in the first form, a join is known by that of its frame.
                let own = if frame.join_ref.is_null() { &frame.reference } else { &frame.join_ref };
                self.joined.insert(Arc::clone(&frame.topic), own.clone());
                self.say(frame.reply(self.version, "ok", &none)).await?;
            }
            Act::Beat(frame) => self.say(frame.reply(self.version, "ok", &none)).await?,
            Act::Refused(frame, reason) => {
                self.say(frame.reply(self.version, "error", &json!({ "reason": reason }))).await?;
            }
            Act::Push { topic, news } => self.push(&topic, &news).await?,
            Act::Error(topic) => self.end(&topic, "phx_error").await?,
            Act::Close(topic) => self.end(&topic, "phx_close").await?,
            Act::Text(text) => self.say(text).await?,
            Act::Binary(bytes) => self.socket.send(Message::Binary(bytes)).await?,
            // Every message before was flushed, so that what is written here follows it.
            Act::Raw(bytes) => self.socket.get_mut().write_all(&bytes).await?,
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
        }
        Ok(())
    }

    async fn say(&mut self, text: String) -> Result<(), Over> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// An event on a channel, unless that has ended meanwhile.
    async fn push(&mut self, topic: &Arc<str>, news: &News) -> Result<(), Over> {
        let Some(join_ref) = self.joined.get(topic) else { return Ok(()) };
        let frame = text(self.version, join_ref, &Value::Null, topic, &news.event, &news.text);
        let at_ms = self.state.clock.now_ms();
        self.say(frame.clone()).await?;
        self.state.note_served(at_ms, topic, news, frame);
        Ok(())
    }

    async fn end(&mut self, topic: &Arc<str>, event: &str) -> Result<(), Over> {
        let Some(join_ref) = self.joined.remove(topic) else { return Ok(()) };
        // Phoenix repeats the reference of the join in both places.
        self.say(text(self.version, &join_ref, &join_ref, topic, event, "{}")).await
    }
}
