//! Ids and keys as people type them.

use bech32::{Bech32, Hrp};
use event::nip19::{Nip19, event_id, public_key, secret_key};

#[path = "../../../event/src/nip19/tests/oracle.rs"]
mod oracle;

const PREFIXES: [&str; 7] = ["npub", "nsec", "note", "nprofile", "nevent", "naddr", "nrelay"];

/// A text; or, behind a first byte below seven, what such a text is to hold, since no fuzzer comes upon a checksum.
pub fn nip19(bytes: &[u8]) {
    match bytes.split_first() {
        Some((sort, parts)) if usize::from(*sort) < PREFIXES.len() => {
            let prefix = Hrp::parse_unchecked(PREFIXES[usize::from(*sort)]);
            let Ok(text) = bech32::encode::<Bech32>(prefix, parts) else { return };
            read(&text);
        }
        _ => read(&String::from_utf8_lossy(bytes)),
    }
}

fn read(text: &str) {
    oracle::agrees(text);
    let refusals = [Nip19::parse(text).err(), public_key(text).err(), event_id(text).err(), secret_key(text).err()];
    let bare = text.trim();
    let bare = bare.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case("nostr:")).map_or(bare, |_| &bare[6..]);
    // Refusals are words: one of theirs that is as long has blanks, which no secret has.
    let is_secret = bare.len() > 20 && !bare.contains(' ');
    if is_secret && bare.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nsec1")) {
        assert!(refusals.iter().flatten().all(|why| !why.contains(&bare[5..])), "a secret is repeated");
    }
    let Ok(named) = Nip19::parse(text) else { return };
    let fields = oracle::fields_of_ours(&named);
    // Parts that mean nothing are not written again, so that it is never longer than it was.
    let again = named.to_text().expect("what was read can be written");
    assert_eq!(oracle::fields_of_ours(&Nip19::parse(&again).expect("what was written can be read")), fields);
    assert!(again.len() <= bare.len());
}
