//! A wire to the database that loses the answer to a COMMIT, or the COMMIT itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Cuts every connection at its first COMMIT after `spared` of them: by turns before the server has it, and after; the
/// first one before if it is to be `kept` from the server.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: String,
    /// COMMITs that were kept from the server, and those whose answer was kept from the client.
    pub(super) cut: Arc<[AtomicU64; 2]>,
    /// Whether connections are cut at all.
    pub(super) cutting: Arc<AtomicBool>,
}

impl Proxy {
    pub(super) fn start(server: &str, spared: u64, kept: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let parity = (spared + u64::from(!kept)) % 2;
        let (cut, cutting) = (Arc::new([AtomicU64::new(0), AtomicU64::new(0)]), Arc::new(AtomicBool::new(true)));
        let (server, counts, on) = (server.to_owned(), Arc::clone(&cut), Arc::clone(&cutting));
        std::thread::spawn(move || {
            let seen = Arc::new(AtomicU64::new(0));
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let back = (upstream.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                std::thread::spawn(move || pass(back.0, back.1));
                let (counts, on, seen) = (Arc::clone(&counts), Arc::clone(&on), Arc::clone(&seen));
                std::thread::spawn(move || watch(client, upstream, (spared, parity), &seen, &counts, &on));
            }
        });
        Self { address, cut, cutting }
    }

    pub(super) fn cuts(&self) -> (u64, u64) {
        (self.cut[0].load(Ordering::Relaxed), self.cut[1].load(Ordering::Relaxed))
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Either side may go away at any time.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn watch(
    mut client: TcpStream,
    mut server: TcpStream,
    (spared, parity): (u64, u64),
    seen: &AtomicU64,
    cut: &[AtomicU64; 2],
    on: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..read];
        // A simple query, as the client sends it, in a packet of its own.
        let commit = bytes.windows(7).any(|part| part == b"COMMIT\0");
        let number = if commit { seen.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let cutting = commit && number >= spared && on.load(Ordering::Relaxed);
        let kept = number % 2 == parity;
        if cutting && kept {
            cut[0].fetch_add(1, Ordering::Relaxed);
            break;
        }
        if cutting {
            // Nothing more reaches the client; the server does what it was told.
            cut[1].fetch_add(1, Ordering::Relaxed);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.write_all(bytes);
            std::thread::sleep(Duration::from_millis(200));
            break;
        }
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
