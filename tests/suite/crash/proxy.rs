//! A door before the object store: says when something is put, and answers late, or with an error, while it is told to.
//!
//! It passes bytes on as they are. It knows of HTTP only that a client's request begins with its method and that it
//! waits for the answer before the next one, which is how our client behaves.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
struct State {
    upstream: String,
    /// Status of the answer to every request; 0 where they are passed on.
    status: AtomicU16,
    refused: AtomicU64,
    slow_ms: AtomicU64,
    puts: Mutex<u64>,
    put: Condvar,
    stop: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    state: Arc<State>,
    address: String,
}

impl Proxy {
    /// Opens a door to `endpoint`, `http://host:port`.
    pub(crate) fn start(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let upstream = endpoint.strip_prefix("http://").expect("the tests' store speaks plain HTTP").to_owned();
        let state = Arc::new(State { upstream, ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                // A connection that breaks is the client's business, and the reason why there is a test.
                std::thread::spawn(move || drop(serve(client, &state)));
            }
        });
        Self { state, address }
    }

    /// `http://host:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every request is refused with this HTTP status, or none is.
    pub(crate) fn refuse_with(&self, status: Option<u16>) {
        self.state.status.store(status.unwrap_or_default(), Ordering::SeqCst);
    }

    /// From now on whatever is fetched takes so much longer.
    pub(super) fn set_slow(&self, by: Duration) {
        self.state.slow_ms.store(u64::try_from(by.as_millis()).expect("short"), Ordering::SeqCst);
    }

    /// Requests that were refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Waits for the next object that is put; `false` when none is in that time.
    pub(super) fn next_put(&self, timeout: Duration) -> bool {
        let puts = self.state.puts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *puts;
        let waited = self.state.put.wait_timeout_while(puts, timeout, |puts| *puts == before);
        *waited.unwrap_or_else(PoisonError::into_inner).0 > before
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // Wakes the listener; if it is gone, it needs no waking.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(mut client: TcpStream, state: &State) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(&state.upstream)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        // Ends when either side does.
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 16 * 1024];
    loop {
        let read = client.read(&mut bytes)?;
        if read == 0 {
            return upstream.shutdown(Shutdown::Both);
        }
        let status = state.status.load(Ordering::SeqCst);
        if status != 0 {
            state.refused.fetch_add(1, Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(answer.as_bytes())?;
            upstream.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
        }
        if bytes.starts_with(b"PUT ") {
            *state.puts.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            state.put.notify_all();
        }
        if bytes.starts_with(b"GET ") {
            std::thread::sleep(Duration::from_millis(state.slow_ms.load(Ordering::SeqCst)));
        }
        upstream.write_all(&bytes[..read])?;
    }
}
