//! Relays of other people's making, as processes on loopback: what is fetched from our own relay proves little.
//!
//! The relay of rust-nostr speaks NIP-77 and gives out 500 stored events at once; the Python relay takes `until` as
//! exclusive. They are ended when they go out of scope.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::machine::{nostr_relay, relay_builder};

/// By then a relay serves, and has answered.
const SOON: Duration = Duration::from_secs(60);
/// Events that wait for their OK at most.
const UNANSWERED_MAX: usize = 100;

/// A relay at work.
#[derive(Debug)]
pub struct RealRelay {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl RealRelay {
    /// The relay of rust-nostr (nostr-relay-builder); none, loudly, where it is not.
    ///
    /// # Panics
    /// When it does not start.
    pub fn rust() -> Option<Self> {
        let mut command = Command::new(relay_builder()?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the relay starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("it says where it listens");
        Some(Self { child, url: url.trim().to_owned(), _dir: TempDir::new().expect("a directory") })
    }

    /// The Python relay (nostr-relay); none, loudly, where it is not.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn python() -> Option<Self> {
        let command = nostr_relay()?;
        let dir = TempDir::new().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        std::fs::write(dir.path().join("config.yaml"), python_config(port)).expect("a file");
        let mut serve = Command::new(&command);
        serve.args(["-c", "config.yaml", "serve", "--use-uvicorn"]).current_dir(dir.path());
        // It starts tools of its own environment by name.
        serve.env("PATH", path_with(command.parent().expect("it lies in a directory")));
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let relay = Self { child: child.expect("the relay starts"), url: format!("ws://127.0.0.1:{port}"), _dir: dir };
        let deadline = Instant::now() + SOON;
        while connect_async(relay.url()).await.is_err() {
            assert!(Instant::now() < deadline, "the Python relay does not serve");
            sleep(Duration::from_millis(50)).await;
        }
        Some(relay)
    }

    /// `ws://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes events, and demands that the relay takes each.
    ///
    /// # Panics
    /// When it refuses one, or does not answer.
    pub async fn publish(&self, events: &[String]) {
        let (mut socket, _) = connect_async(self.url()).await.expect("the relay serves");
        let mut waiting = 0;
        for (sent, event) in (1..).zip(events) {
            socket.send(Message::text(format!("[\"EVENT\",{event}]"))).await.expect("it reads");
            waiting += 1;
            while waiting > 0 && (waiting >= UNANSWERED_MAX || sent == events.len()) {
                let answer = tokio::time::timeout(SOON, socket.next()).await.expect("it answers");
                let Some(Ok(answer)) = answer else { panic!("the relay went away: {answer:?}") };
                let Message::Text(text) = answer else { continue };
                let message: Value = serde_json::from_str(&text).expect("it speaks JSON");
                assert_ne!(message[2], false, "the relay refuses an event: {message}");
                waiting -= usize::from(message[0] == "OK");
            }
        }
    }
}

impl Drop for RealRelay {
    fn drop(&mut self) {
        // It may have ended before; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())
}

/// Signatures are all that is checked: by default events of a year ago are refused.
fn python_config(port: u16) -> String {
    format!(
        "relay_name: other side\n\
         storage:\n  sqlalchemy.url: sqlite+aiosqlite:///nostr.sqlite3\n  validators:\n    - nostr_relay.validators.is_signed\n\
         gunicorn:\n  bind: 127.0.0.1:{port}\n  loglevel: warning\n\
         authentication:\n  enabled: false\n"
    )
}
