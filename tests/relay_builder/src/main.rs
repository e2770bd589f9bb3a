//! A real relay of other people's making, for tests: in memory, on a free port of 127.0.0.1, with NIP-77 and a cap.
//!
//! Prints its URL, then serves until its standard input ends.

use std::io::Read;

use nostr_relay_builder::prelude::*;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // By default a client may publish 60 events a minute.
    let unlimited = RateLimit { notes_per_minute: u32::MAX, ..RateLimit::default() };
    let relay = LocalRelay::new(RelayBuilder::default().rate_limit(unlimited).max_filter_limit(500));
    relay.run().await?;
    println!("{}", relay.url().await);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    relay.shutdown();
    Ok(())
}
