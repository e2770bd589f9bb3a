//! One connection, from its first byte to its end: NIP-11 or handshake, then requests in and events out.
//!
//! One task a connection. While it writes the stored part of a subscription it reads nothing, and live events wait in
//! its bounded queue; when that overflows, or the relay shuts down, the task is told from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event::{Event, EventId, Limits, Rejection, verify};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, error::CapacityError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::auth::Door;
use crate::compare::Comparison;
use crate::entry::Entry;
use crate::filter::Filter;
use crate::hub::{Listener, Live};
use crate::message::{self, Request};
use crate::nip11;
use crate::outbox::{End, Outbox};
use crate::server::Shared;
use crate::settings::CLOSE_WAIT;
use crate::store::Verdict;

/// Live events sent in one go; after them requests get their turn, however fast events come.
const BURST: usize = 256;
/// How long a client may take for its handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Serves one connection until it ends or `shutdown` fires.
pub(crate) async fn run(stream: TcpStream, shared: Arc<Shared>, shutdown: CancellationToken) {
    let peer = stream.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
    let port = stream.local_addr().map_or(0, |local| local.port());
    let socket = tokio::select! {
        opened = tokio::time::timeout(HANDSHAKE_WAIT, handshake(stream, &shared)) => match opened {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(_) => return debug!(%peer, "no handshake in time"),
        },
        () = shutdown.cancelled() => return,
    };
    let Listener { number, live, overrun } = shared.hub.join();
    let outbox = Outbox::new(socket, Arc::clone(&shared));
    let challenge = format!("{number}-{peer}-{}", shared.clock.now_ms());
    let door = shared.settings.auth_to_publish.then(|| Door::new(challenge, port));
    let mut connection = Connection {
        shared: Arc::clone(&shared),
        outbox,
        live,
        subscriptions: HashMap::new(),
        comparisons: HashMap::new(),
        door,
    };
    let drop_every = shared.settings.faults.drop_every;
    let end = tokio::select! {
        end = connection.serve() => Some(end),
        () = drop_time(drop_every, &shared) => Some(End::Dropped),
        () = overrun.cancelled() => {
            warn!(%peer, waiting = shared.settings.live_waiting_max, "reader too slow for its live events, disconnected");
            return;
        }
        () = shutdown.cancelled() => None,
    };
    shared.hub.leave(number);
    match end {
        None => connection.close(CloseCode::Away, "the relay shuts down").await,
        Some(End::Stalled) => {
            info!(%peer, "stalled, as asked");
            shutdown.cancelled().await;
        }
        Some(End::Dropped) => info!(%peer, "dropped, as asked"),
        Some(End::Closed) => debug!(%peer, "closed by the client"),
        Some(End::Failed(tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
            debug!(%peer, size, "message too long");
            connection.close(CloseCode::Size, "message too long").await;
        }
        Some(End::Failed(error)) => debug!(%peer, %error, "connection failed"),
    }
}

/// The websocket; `None` when the client wanted something else or gave up.
async fn handshake(mut stream: TcpStream, shared: &Shared) -> Option<tokio_tungstenite::WebSocketStream<TcpStream>> {
    stream.set_nodelay(true).ok()?;
    let head = nip11::peek_head(&stream).await.ok()?;
    if !nip11::wants_websocket(&head) {
        if let Err(error) = nip11::answer(&mut stream, &head, &shared.settings).await {
            debug!(%error, "could not answer over HTTP");
        }
        return None;
    }
    let bytes_max = shared.settings.message_bytes_max;
    let config = WebSocketConfig::default().max_message_size(Some(bytes_max)).max_frame_size(Some(bytes_max));
    let opened = accept_async_with_config(stream, Some(config)).await;
    opened.inspect_err(|error| debug!(%error, "handshake failed")).ok()
}

async fn drop_time(every: Option<Duration>, shared: &Shared) {
    match every {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
    if !shared.may_drop() {
        std::future::pending::<()>().await;
    }
}

struct Subscription {
    /// Start of its EVENT messages.
    head: String,
    filters: Vec<Filter>,
    /// Live events before this number were in its stored part.
    from: u64,
}

struct Connection {
    shared: Arc<Shared>,
    outbox: Outbox,
    live: tokio::sync::mpsc::Receiver<Live>,
    subscriptions: HashMap<String, Subscription>,
    comparisons: HashMap<String, Comparison>,
    /// Shut before events of clients that have not said who they are.
    door: Option<Door>,
}

impl Connection {
    async fn serve(&mut self) -> End {
        if let Err(end) = self.begin().await {
            return end;
        }
        loop {
            let step = tokio::select! {
                message = self.outbox.socket.next() => match message {
                    Some(Ok(message)) => self.take(message).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(End::Closed),
                },
                Some(live) = self.live.recv() => self.deliver(live).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn begin(&mut self) -> Result<(), End> {
        self.outbox.open().await?;
        if let Some(door) = &self.door {
            self.outbox.text(message::auth(door.challenge())).await?;
            self.outbox.flush().await?;
        }
        Ok(())
    }

    async fn close(mut self, code: CloseCode, why: &'static str) {
        let frame = CloseFrame { code, reason: why.into() };
        // Whether the client takes the close frame is up to the client; the connection ends either way.
        if !matches!(tokio::time::timeout(CLOSE_WAIT, self.outbox.socket.close(Some(frame))).await, Ok(Ok(()))) {
            debug!("client did not take the close frame");
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => self.answer(text.as_str()).await?,
            Message::Binary(_) => self.outbox.text(message::notice("invalid: binary messages are not known")).await?,
            Message::Close(_) => {
                // The library has put the answering close frame in its buffer.
                self.outbox.flush().await?;
                return Err(End::Closed);
            }
            // Pings are answered by the library when it reads or writes next; this flush is that.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        self.outbox.flush().await
    }

    async fn answer(&mut self, text: &str) -> Result<(), End> {
        match message::parse(text) {
            Ok(Request::Publish { raw }) => self.publish(raw).await,
            Ok(Request::Auth { raw }) => self.admit(raw).await,
            Ok(Request::Close { subscription }) => {
                self.subscriptions.remove(&subscription);
                Ok(())
            }
            Ok(Request::Open { subscription, filters: Ok(filters) }) => self.open(subscription, filters).await,
            Ok(Request::Open { subscription, filters: Err(why) }) => {
                // The id is now of no subscription, whatever it was before.
                self.subscriptions.remove(&subscription);
                self.outbox.text(message::closed(&subscription, &format!("invalid: {why}"))).await
            }
            Ok(Request::Compare { subscription, filter, step }) if self.shared.settings.compares => {
                let begun = filter.map_err(|why| format!("invalid: {why}")).and_then(|filter| self.comparison(*filter));
                match begun {
                    Ok(begun) => drop(self.comparisons.insert(subscription.clone(), begun)),
                    Err(why) => return self.outbox.text(message::neg_err(&subscription, &why)).await,
                }
                self.step(&subscription, &step).await
            }
            Ok(Request::Compare { .. }) => {
                self.outbox.text(message::notice("error: negentropy is not known here")).await
            }
            Ok(Request::Step { subscription, step }) => self.step(&subscription, &step).await,
            Ok(Request::EndCompare { subscription }) => {
                self.comparisons.remove(&subscription);
                Ok(())
            }
            Err(why) => self.outbox.text(message::notice(&format!("invalid: {why}"))).await,
        }
    }

    fn comparison(&self, filter: Filter) -> Result<Comparison, String> {
        if self.comparisons.len() >= self.shared.settings.subscriptions_max {
            return Err("blocked: too many comparisons".to_owned());
        }
        // Sets are whole: limits are for pages.
        let limit = filter.limit.unwrap_or(usize::MAX);
        let (stored, _) = self.shared.hub.query(&[(filter, limit)], self.shared.now_secs());
        Comparison::new(&stored)
    }

    async fn step(&mut self, subscription: &str, step: &str) -> Result<(), End> {
        let answered = match self.comparisons.get_mut(subscription) {
            Some(comparison) => comparison.answer(step),
            None => Err("closed: no such comparison".to_owned()),
        };
        self.outbox
            .text(match answered {
                Ok(step) => message::neg_msg(subscription, &step),
                Err(why) => message::neg_err(subscription, &why),
            })
            .await
    }

    async fn open(&mut self, id: String, filters: Vec<Filter>) -> Result<(), End> {
        let max = self.shared.settings.subscriptions_max;
        self.subscriptions.remove(&id);
        if self.subscriptions.len() >= max {
            let why = format!("error: this connection has {max} subscriptions already");
            return self.outbox.text(message::closed(&id, &why)).await;
        }
        let settings = &self.shared.settings;
        let with_limit = |filter: Filter| {
            let limit = settings.limit(filter.limit);
            (filter, limit)
        };
        let asked: Vec<_> = filters.into_iter().map(with_limit).collect();
        let (stored, from) = self.shared.hub.query(&asked, self.shared.now_secs());
        let head = message::event_head(&id);
        for entry in stored {
            self.outbox.event(&head, &entry.raw).await?;
        }
        self.end_of_stored(&id).await?;
        if self.shared.settings.faults.closed_after_eose {
            return self.outbox.text(message::closed(&id, "error: closed as asked")).await;
        }
        let filters = asked.into_iter().map(|(filter, _)| filter).collect();
        self.subscriptions.insert(id, Subscription { head, filters, from });
        Ok(())
    }

    async fn end_of_stored(&mut self, id: &str) -> Result<(), End> {
        let (delay, silent) = (self.shared.settings.faults.eose_delay, self.shared.settings.faults.no_eose);
        if !delay.is_zero() {
            self.outbox.flush().await?;
            tokio::time::sleep(delay).await;
        }
        if silent { Ok(()) } else { self.outbox.text(message::eose(id)).await }
    }

    /// Sends a live event, and some of those that wait behind it, to every subscription that wants it.
    async fn deliver(&mut self, first: Live) -> Result<(), End> {
        let (mut number, mut entry) = first;
        for left in (0..BURST).rev() {
            for subscription in self.subscriptions.values() {
                if number >= subscription.from && subscription.filters.iter().any(|filter| filter.matches(&entry)) {
                    self.outbox.event(&subscription.head, &entry.raw).await?;
                }
            }
            // What is taken from the queue must be sent, so nothing is taken in the last turn.
            if left == 0 {
                break;
            }
            let Ok(next) = self.live.try_recv() else { break };
            (number, entry) = next;
        }
        self.outbox.flush().await
    }

    async fn publish(&mut self, raw: &str) -> Result<(), End> {
        let answer = match Event::parse(raw.as_bytes(), &Limits::default()).and_then(verify::verify) {
            Ok(verified) if self.door.as_ref().is_some_and(|door| !door.is_open()) => {
                message::ok(&verified.id, false, "auth-required: say who you are first (NIP-42)")
            }
            Ok(verified) => {
                let entry = Entry::new(&verified, raw);
                let (accepted, why) = outcome(self.shared.hub.publish(entry, self.shared.now_secs()));
                message::ok(&verified.id, accepted, why)
            }
            Err(rejection) => refusal(raw, &rejection),
        };
        self.outbox.text(answer).await
    }

    /// Takes the answer to the challenge; without one, whoever introduces himself is welcome.
    async fn admit(&mut self, raw: &str) -> Result<(), End> {
        let now_secs = self.shared.now_secs();
        let answer = match Event::parse(raw.as_bytes(), &Limits::default()).and_then(verify::verify) {
            Ok(event) => match self.door.as_mut().map_or(Ok(()), |door| door.enter(&event, now_secs)) {
                Ok(()) => message::ok(&event.id, true, ""),
                Err(why) => message::ok(&event.id, false, &format!("restricted: {why}")),
            },
            Err(rejection) => refusal(raw, &rejection),
        };
        self.outbox.text(answer).await
    }
}

/// The answer to what is no event.
fn refusal(raw: &str, rejection: &Rejection) -> String {
    let why = format!("invalid: {}: {}", rejection.reason.as_str(), rejection.detail);
    match rejection.id.or_else(|| EventId::scan(raw.as_bytes())) {
        Some(id) => message::ok(&id, false, &why),
        None => message::notice(&why),
    }
}

/// What OK says about a published event.
const fn outcome(verdict: Verdict) -> (bool, &'static str) {
    match verdict {
        Verdict::Stored | Verdict::Ephemeral => (true, ""),
        Verdict::Duplicate => (true, "duplicate: have this event"),
        Verdict::Replaced => (false, "duplicate: have a newer version of this event"),
        Verdict::Deleted => (false, "blocked: its author deleted this event"),
        Verdict::Expired => (false, "invalid: this event has expired"),
    }
}
