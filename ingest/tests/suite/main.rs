//! The crate from outside: real sockets on loopback, relays that behave and relays that do not, the embedded log.

mod file;
mod harness;
mod nostr;
mod puppet;
