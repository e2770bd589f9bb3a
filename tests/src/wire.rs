//! A faulty wire: a TCP proxy on loopback that stalls, throttles, swallows, cuts and resets.
//!
//! It knows nothing of what it carries. A *course* holds for every connection from now on until another is set; a *blow*
//! hits the connections that stand at this moment, and those after it are whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

/// Carried at once where nothing is throttled.
const CHUNK: usize = 16 << 10;
/// A throttled wire carries its share so often.
const TICK: Duration = Duration::from_millis(50);
/// Blows that may wait for a connection.
const BLOWS_MAX: usize = 16;

/// How the wire carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// As they come.
    Through,
    /// Not at all, until the course changes; nothing is lost.
    Stalled,
    /// So many bytes a second from the far side; requests are carried as they come.
    Throttled(u64),
    /// Requests arrive, answers do not: at the first byte of one the connection is reset.
    AnswersLost,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Its end, as when the other side's process ends.
    Cut,
    /// A reset: what is under way is lost.
    Reset,
    /// From now on everything vanishes, and neither side hears of it.
    BlackHole,
}

/// A proxy at work; it ends with the value.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    course: watch::Sender<Course>,
    blows: broadcast::Sender<Blow>,
    carried: Arc<AtomicU64>,
    _carrying: JoinSet<()>,
}

impl Wire {
    /// A wire to `far`, `host:port`.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn to(far: impl ToString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (course, blows) = (watch::Sender::new(Course::Through), broadcast::Sender::new(BLOWS_MAX));
        let carried = Arc::new(AtomicU64::new(0));
        let line = Line { far: far.to_string(), course: course.subscribe(), carried: Arc::clone(&carried) };
        let mut carrying = JoinSet::new();
        carrying.spawn(accept(listener, line, blows.clone()));
        Self { address, course, blows, carried, _carrying: carrying }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets how bytes are carried from now on.
    pub fn set(&self, course: Course) {
        self.course.send_replace(course);
    }

    /// Hits every connection that stands.
    pub fn strike(&self, blow: Blow) {
        // Without a connection there is nothing to hit.
        let _ = self.blows.send(blow);
    }

    /// Bytes from the far side that were carried so far.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}

/// What every connection is made of.
#[derive(Clone, Debug)]
struct Line {
    far: String,
    course: watch::Receiver<Course>,
    carried: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, line: Line, blows: broadcast::Sender<Blow>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (line, blows) = (line.clone(), blows.subscribe());
        connections.spawn(line.connect(near, blows));
        while connections.try_join_next().is_some() {}
    }
}

impl Line {
    async fn connect(self, near: TcpStream, mut blows: broadcast::Receiver<Blow>) {
        let Ok(far) = TcpStream::connect(&self.far).await else { return };
        for stream in [&near, &far] {
            // It works without, a little slower.
            let _ = stream.set_nodelay(true);
        }
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = far.into_split();
        let blow = tokio::select! {
            () = self.requests(&mut near_in, &mut far_out) => Blow::Cut,
            blow = self.answers(&mut far_in, &mut near_out) => blow,
            blow = blows.recv() => blow.unwrap_or(Blow::Cut),
        };
        match blow {
            // Both sides are closed when they go out of scope.
            Blow::Cut => {}
            Blow::Reset => {
                for half in [near_out.as_ref(), far_out.as_ref()] {
                    // It is closed in any case.
                    let _ = half.set_zero_linger();
                }
            }
            Blow::BlackHole => tokio::join!(swallow(&mut near_in), swallow(&mut far_in), std::future::pending()).2,
        }
    }

    async fn requests(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
        let mut bytes = vec![0; CHUNK];
        loop {
            let Some(read) = from.read(&mut bytes).await.ok().filter(|read| *read > 0) else { return };
            self.wait_for_movement().await;
            if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn answers(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Blow {
        let mut bytes = vec![0; CHUNK];
        loop {
            let share = match *self.course.borrow() {
                Course::Throttled(a_second) => usize::try_from(a_second / 20).unwrap_or(CHUNK).clamp(1, CHUNK),
                _ => CHUNK,
            };
            let Some(read) = from.read(&mut bytes[..share]).await.ok().filter(|read| *read > 0) else {
                return Blow::Cut;
            };
            let course = *self.course.borrow();
            match course {
                Course::AnswersLost => return Blow::Reset,
                Course::Throttled(_) => sleep(TICK).await,
                Course::Stalled | Course::Through => self.wait_for_movement().await,
            }
            if to.write_all(&bytes[..read]).await.is_err() {
                return Blow::Cut;
            }
            self.carried.fetch_add(read as u64, Ordering::SeqCst);
        }
    }

    async fn wait_for_movement(&self) {
        // An error means that the wire itself is gone.
        let _ = self.course.clone().wait_for(|course| *course != Course::Stalled).await;
    }
}

async fn swallow(from: &mut OwnedReadHalf) {
    let mut bytes = vec![0; CHUNK];
    while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A far side that sends back what it gets.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (address, tasks)
    }

    async fn said_back(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<bool> {
        stream.write_all(text).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        Ok(back == text)
    }

    #[tokio::test]
    async fn a_wire_carries_stalls_and_breaks() {
        let (far, _tasks) = echo().await;
        let wire = Wire::to(far).await;
        let connect = || TcpStream::connect(wire.address());
        let mut one = connect().await.expect("a connection");
        assert!(said_back(&mut one, b"hello").await.expect("it is carried"));

        wire.set(Course::Stalled);
        one.write_all(b"wait").await.expect("sent");
        let mut back = [0; 4];
        let nothing = tokio::time::timeout(TICK, one.read_exact(&mut back)).await;
        assert!(nothing.is_err(), "a stalled wire carries nothing");
        wire.set(Course::Through);
        one.read_exact(&mut back).await.expect("nothing was lost");
        assert_eq!(&back, b"wait");

        wire.strike(Blow::BlackHole);
        let mut other = connect().await.expect("a connection");
        assert!(said_back(&mut other, b"later").await.expect("it came after the blow"));
        let hole = tokio::time::timeout(4 * TICK, said_back(&mut one, b"gone")).await;
        assert!(hole.is_err(), "a black hole says nothing, not even that it is one");

        wire.strike(Blow::Reset);
        assert!(other.read_exact(&mut back).await.is_err());
        wire.set(Course::AnswersLost);
        let mut lost = connect().await.expect("a connection");
        assert!(said_back(&mut lost, b"lost").await.is_err());
        assert_eq!(wire.carried(), 14);
    }
}
