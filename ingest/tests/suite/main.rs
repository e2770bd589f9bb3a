//! The crate from outside: real sockets on loopback, relays that behave and relays that do not, the embedded log.

#![allow(clippy::print_stderr, clippy::cast_possible_truncation, reason = "tests say what they saw, and count little")]

mod auth;
mod coverage;
mod file;
mod harness;
mod known;
mod lake;
#[path = "../../../tests/src/lake_contract.rs"]
mod lake_contract;
mod nostr;
mod puppet;
mod rejected;
mod scripted;
