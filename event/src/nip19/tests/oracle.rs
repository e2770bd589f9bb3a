//! The `nostr` crate as the judge of what a text of NIP-19 names; the fuzzer asks it, too.

use nostr::nips::nip19 as theirs;
use nostr::nips::nip19::FromBech32 as _;

use crate::nip19::Nip19;

/// What both take means the same to both.
///
/// # Panics
/// Where the two do not agree.
pub(crate) fn agrees(text: &str) {
    if let (Ok(ours), Ok(theirs)) = (Nip19::parse(text), theirs::Nip19::from_bech32(text)) {
        let (mut ours, mut theirs) = (fields_of_ours(&ours), fields_of_theirs(&theirs));
        // They drop relays that are no URL; we hand on what stands there.
        (ours.2, theirs.2) = (vec![], vec![]);
        assert_eq!(ours, theirs);
    }
}

/// Sort, key or id, relays, author, kind, identifier.
pub(crate) type Fields = (&'static str, String, Vec<String>, Option<String>, Option<u16>, String);

pub(crate) fn fields_of_ours(entity: &Nip19) -> Fields {
    let none = (vec![], None, None, String::new());
    let (sort, name, (relays, author, kind, identifier)) = match entity {
        Nip19::PublicKey(pubkey) => ("npub", pubkey.to_string(), none),
        Nip19::SecretKey(_) => ("nsec", String::new(), none),
        Nip19::Note(id) => ("note", id.to_string(), none),
        Nip19::Profile(one) => ("nprofile", one.pubkey.to_string(), (one.relays.clone(), None, None, String::new())),
        Nip19::Event(one) => {
            let author = one.author.map(|author| author.to_string());
            ("nevent", one.id.to_string(), (one.relays.clone(), author, one.kind, String::new()))
        }
        Nip19::Address(one) => {
            ("naddr", one.pubkey.to_string(), (one.relays.clone(), None, Some(one.kind), one.identifier.clone()))
        }
    };
    (sort, name, relays, author, kind, identifier)
}

pub(crate) fn fields_of_theirs(entity: &theirs::Nip19) -> Fields {
    use theirs::Nip19 as Theirs;
    let texts = |relays: &[nostr::types::RelayUrl]| relays.iter().map(|relay| relay.as_str().to_owned()).collect();
    match entity {
        Theirs::Secret(_) => ("nsec", String::new(), vec![], None, None, String::new()),
        Theirs::Pubkey(pubkey) => ("npub", pubkey.to_hex(), vec![], None, None, String::new()),
        Theirs::EventId(id) => ("note", id.to_hex(), vec![], None, None, String::new()),
        Theirs::Profile(one) => ("nprofile", one.public_key.to_hex(), texts(&one.relays), None, None, String::new()),
        Theirs::Event(one) => {
            let author = one.author.map(|author| author.to_hex());
            let kind = one.kind.map(|kind| kind.as_u16());
            ("nevent", one.event_id.to_hex(), texts(&one.relays), author, kind, String::new())
        }
        Theirs::Coordinate(one) => {
            let kind = Some(one.coordinate.kind.as_u16());
            let (pubkey, identifier) = (one.coordinate.public_key.to_hex(), one.coordinate.identifier.clone());
            ("naddr", pubkey, texts(&one.relays), None, kind, identifier)
        }
    }
}
