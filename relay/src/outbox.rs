//! The sending side of one connection, with the faults it was told to show.
//!
//! In come whole messages, out go frames. What to send, and to whom, is decided elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::SinkExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::faults::{self, Junk};
use crate::message;
use crate::server::Shared;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed it.
    Closed,
    /// The socket failed, or the client broke the websocket protocol.
    Failed(tungstenite::Error),
    /// A fault: drop it without a word.
    Dropped,
    /// A fault: hold it open and do nothing any more.
    Stalled,
}

impl From<tungstenite::Error> for End {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            error => Self::Failed(error),
        }
    }
}

/// Sends frames and counts them.
pub(crate) struct Outbox {
    pub(crate) socket: WebSocketStream<TcpStream>,
    shared: Arc<Shared>,
    frames: u64,
    events: u64,
    junk: u64,
}

impl Outbox {
    pub(crate) fn new(socket: WebSocketStream<TcpStream>, shared: Arc<Shared>) -> Self {
        Self { socket, shared, frames: 0, events: 0, junk: 0 }
    }

    /// Sends what comes before anything else.
    pub(crate) async fn open(&mut self) -> Result<(), End> {
        let huge = self.shared.settings.faults.huge_frame_bytes;
        if let Some(bytes) = huge
            && !self.shared.huge_sent.swap(true, Ordering::Relaxed)
        {
            self.socket.send(Message::text(faults::huge_frame(bytes))).await?;
        }
        Ok(())
    }

    /// Sends an event to a subscription; buffered until [`Outbox::flush`].
    pub(crate) async fn event(&mut self, head: &str, raw: &str) -> Result<(), End> {
        self.events += 1;
        if let Some(every) = self.shared.settings.faults.forge_every
            && self.events.is_multiple_of(every.max(1))
            && let Some(copy) = faults::forged_copy(raw)
        {
            self.text(message::event(head, &copy)).await?;
        }
        self.text(message::event(head, raw)).await
    }

    /// Sends a message; buffered until [`Outbox::flush`].
    pub(crate) async fn text(&mut self, text: String) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let faults = &shared.settings.faults;
        self.socket.feed(Message::text(text)).await?;
        self.frames += 1;
        if faults.garbage_every.is_some_and(|every| self.frames.is_multiple_of(every.max(1))) {
            let junk = match faults::junk(self.junk) {
                Junk::Text(text) => Message::text(text),
                Junk::Binary(bytes) => Message::binary(bytes),
            };
            self.junk += 1;
            self.socket.feed(junk).await?;
        }
        if faults.stall_after.is_some_and(|after| self.frames >= after) {
            self.socket.flush().await?;
            return Err(End::Stalled);
        }
        if faults.drop_after.is_some_and(|after| self.frames >= after) && shared.may_drop() {
            self.socket.flush().await?;
            return Err(End::Dropped);
        }
        Ok(())
    }

    /// Sends what is buffered.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        Ok(self.socket.flush().await?)
    }
}
