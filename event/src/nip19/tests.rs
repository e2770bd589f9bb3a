//! The examples of NIP-19, the `nostr` crate as oracle in both directions, and what is refused in which words.

use nostr::nips::nip19 as theirs;
use nostr::nips::nip19::{FromBech32 as _, ToBech32 as _};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

mod oracle;

use oracle::{fields_of_ours, fields_of_theirs};

/// The examples of NIP-19.
const NPUB_TEXT: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
const NPUB_HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
const NSEC_TEXT: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
const NSEC_HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";
const NPROFILE_TEXT: &str = "nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7mgpz4mhxue69uhkg6nzv9ejuumpv34kytnrdaksjlyr9p";
const NPROFILE_HEX: &str = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d";

fn config() -> ProptestConfig {
    ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn the_examples_of_nip_19_are_read_and_written() {
    let key = public_key(NPUB_TEXT).expect("a key");
    assert_eq!((key.to_string().as_str(), npub(&key).as_str()), (NPUB_HEX, NPUB_TEXT));
    let secret = secret_key(NSEC_TEXT).expect("a key");
    assert_eq!((secret.reveal(), nsec(&secret).as_str()), (EventId::from_hex(NSEC_HEX).expect("hex").0, NSEC_TEXT));
    let Ok(Nip19::Profile(profile)) = Nip19::parse(NPROFILE_TEXT) else { panic!("a profile") };
    assert_eq!(profile.pubkey.to_string(), NPROFILE_HEX);
    assert_eq!(profile.relays, ["wss://r.x.com", "wss://djbas.sadkb.com"]);
    assert_eq!(Nip19::Profile(profile).to_text().as_deref(), Ok(NPROFILE_TEXT));
}

#[test]
fn a_key_is_named_in_any_of_its_spellings() {
    let key = PublicKey::from_hex(NPUB_HEX);
    let upper = NPUB_TEXT.to_uppercase();
    for text in [NPUB_HEX, NPUB_TEXT, &upper, &format!(" nostr:{NPUB_TEXT}\n"), &format!("NOSTR:{NPUB_TEXT}")] {
        assert_eq!(public_key(text).ok(), key, "{text}");
    }
    assert_eq!(public_key(&NPUB_HEX.to_uppercase()).ok(), key);
    assert_eq!(public_key(NPROFILE_TEXT).ok(), PublicKey::from_hex(NPROFILE_HEX));
    let note = Nip19::Note(EventId([7; 32])).to_text().expect("a note");
    for text in [&note, &"07".repeat(32), &format!("nostr:{note}")] {
        assert_eq!(event_id(text), Ok(EventId([7; 32])));
    }
    assert_eq!(secret_key(&format!("{NSEC_HEX}\n")).expect("a key").reveal()[0], 0x67);
}

#[test]
fn what_is_wrong_is_said() {
    let note = Nip19::Note(EventId([7; 32])).to_text().expect("a note");
    let address = Address { identifier: "a".into(), pubkey: PublicKey([7; 32]), kind: 30_023, relays: vec![] };
    let naddr = Nip19::Address(address).to_text().expect("an address");
    let mistyped = NPUB_TEXT.replace("npub10", "npub1q");
    let bech32m = bech32::encode::<bech32::Bech32m>(hrp(NPUB), &[7; 32]).expect("bech32m");
    let short = bech32::encode::<Bech32>(hrp(NPUB), &[7; 31]).expect("bech32");
    let torn = bech32::encode::<Bech32>(hrp(NEVENT), &[0, 32, 7]).expect("bech32");
    let nameless = bech32::encode::<Bech32>(hrp(NEVENT), &[3, 4, 0, 0, 0, 1]).expect("bech32");
    let unknown = bech32::encode::<Bech32>(hrp("nrelay"), &[7; 32]).expect("bech32");
    let kind = bech32::encode::<Bech32>(hrp(NEVENT), &[3, 4, 0, 1, 0, 0]).expect("bech32");
    for (text, said) in [
        (note.as_str(), "is a note (the id of an event); a public key belongs here"),
        (&naddr, "is an naddr (kind, author and name of an event, not its id); a public key"),
        (&mistyped, "has a wrong checksum"),
        (&NPUB_TEXT[..60], "has a wrong checksum"),
        (&bech32m, "has a wrong checksum"),
        (&short, "holds 31 bytes as content, not 32"),
        (&torn, "ends inside a part of 32 bytes"),
        (&nameless, "names no event"),
        (&unknown, "has the prefix `nrelay`, which NIP-19 does not know"),
        (&kind, "names kind 65536, more than 65535"),
        ("jack1 b", "is no bech32 text"),
        ("jack", "`jack` is 4 characters long and no key or id"),
        (&NPUB_HEX[1..], "is 63 characters long and no key or id"),
        ("", "`` is 0 characters long"),
    ] {
        let why = public_key(text).expect_err(text);
        assert!(why.contains(said), "{text}: {why}");
        assert!(why.contains("a public key belongs here: an npub, an nprofile or 64 hex digits"), "{why}");
    }
    assert!(event_id(NPUB_TEXT).is_err_and(|why| why.contains("is an npub (a public key); the id of an event")));
}

#[test]
fn a_secret_is_never_repeated() {
    let mistyped = NSEC_TEXT.replace("nsec1v", "nsec1q");
    let cut = &NSEC_TEXT[..50];
    for text in [NSEC_TEXT, &mistyped, cut, &format!("nostr:{NSEC_TEXT}"), &NSEC_TEXT.to_uppercase()] {
        let said = [
            public_key(text).expect_err("refused"),
            event_id(text).expect_err("refused"),
            format!("{:?}", Nip19::parse(text)),
            secret_key(text).map_or_else(|why| why, |key| format!("{key:?}")),
        ];
        for said in said {
            let lower = said.to_lowercase();
            assert!(!lower.contains(&NSEC_TEXT[6..16]) && !lower.contains(&NSEC_HEX[..8]), "{said}");
        }
    }
    for text in [NPUB_TEXT, "no key at all", &NSEC_HEX[2..]] {
        let why = secret_key(text).expect_err("refused");
        assert!(why.contains("a secret key belongs here: an nsec or 64 hex digits"), "{why}");
        assert!(!why.contains(text), "{why}");
    }
}

#[test]
fn bits_that_are_left_over_are_zero() {
    // The last of the 52 characters of 32 bytes has four bits to spare; one of them set, and the checksum made anew.
    use bech32::Fe32;
    use bech32::primitives::iter::{ByteIterExt as _, Fe32IterExt as _};
    let mut fes: Vec<Fe32> = [7_u8; 32].into_iter().bytes_to_fes().collect();
    let last = fes.last_mut().expect("characters");
    *last = Fe32::try_from(last.to_u8() | 1).expect("five bits");
    let prefix = hrp(NPUB);
    let text: String = fes.into_iter().with_checksum::<Bech32>(&prefix).chars().collect();
    assert!(theirs::Nip19::from_bech32(&text).is_ok(), "the oracle lets them pass, so the checksum is right");
    assert!(public_key(&text).is_err_and(|why| why.contains("bits that belong to nothing")));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let profile = |relays: Vec<String>| Nip19::Profile(Profile { pubkey: PublicKey([7; 32]), relays }).to_text();
    assert!(profile(vec!["x".repeat(256)]).is_err_and(|why| why.contains("256 bytes")));
    assert!(profile(vec!["x".repeat(200); 4]).is_err());
    assert!(profile(vec!["x".repeat(100); 4]).is_ok());
}

fn relays() -> impl Strategy<Value = Vec<String>> {
    vec("wss://[a-z]{1,12}\\.example(/[a-z]{1,8})?", 0..4)
}

/// The fields that the longest of them have.
fn fields() -> impl Strategy<Value = ([u8; 32], [u8; 32], bool, Option<u16>, Vec<String>, String)> {
    (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<bool>(), option::of(any::<u16>()), relays(), "\\PC{0,40}")
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_we_write_they_read_and_what_they_write_we_read((one, two, named, kind, relays, identifier) in fields()) {
        let pubkey = PublicKey(two);
        let author = named.then_some(pubkey);
        let number = kind.unwrap_or(30_023);
        for ours in [
            Nip19::PublicKey(pubkey),
            Nip19::Note(EventId(one)),
            Nip19::Profile(Profile { pubkey, relays: relays.clone() }),
            Nip19::Event(EventPointer { id: EventId(one), relays: relays.clone(), author, kind }),
            Nip19::Address(Address { identifier, pubkey, kind: number, relays: relays.clone() }),
        ] {
            let text = ours.to_text().expect("it fits");
            let read = theirs::Nip19::from_bech32(&text).expect("they read it");
            prop_assert_eq!(&fields_of_theirs(&read), &fields_of_ours(&ours));
            // They write their own way; we read the same out of it.
            let written = read.to_bech32().expect("they write it");
            let again = Nip19::parse(&written).expect("we read it");
            prop_assert_eq!(fields_of_ours(&again), fields_of_ours(&ours));
        }
    }

    #[test]
    fn secret_keys_agree(bytes in any::<[u8; 32]>()) {
        let Some(key) = SecretKey::from_bytes(bytes) else { return Ok(()) };
        let theirs = nostr::key::SecretKey::from_slice(&bytes).expect("a key");
        prop_assert_eq!(nsec(&key), theirs.to_bech32().expect("an nsec"));
        prop_assert_eq!(key.public_key().to_string(), nostr::key::Keys::new(theirs).public_key().to_hex());
    }

    /// One wrong character is always found: that is what the checksum is for.
    #[test]
    fn one_wrong_character_is_refused(at in 5..63_usize, other in proptest::sample::select(b"qpzry9x8gf2tvdw0s3jn54khce6mua7l".to_vec())) {
        let mut text = NPUB_TEXT.as_bytes().to_vec();
        prop_assume!(text[at] != other);
        text[at] = other;
        let text = String::from_utf8(text).expect("ascii");
        prop_assert!(public_key(&text).is_err());
        prop_assert!(theirs::Nip19::from_bech32(&text).is_err());
    }

    #[test]
    fn no_text_panics(text in "(nostr:)?(n(pub|sec|ote|event|profile|addr)1)?\\PC{0,80}") {
        drop((Nip19::parse(&text), public_key(&text), event_id(&text), secret_key(&text)));
    }

    /// Bytes of any sort behind a right checksum: we never panic, and what both take means the same to both.
    #[test]
    fn parts_of_any_sort_are_read_alike(
        prefix in proptest::sample::select(vec![NPROFILE, NEVENT, NADDR]),
        parts in vec((0..6_u8, prop_oneof![Just(32_usize), Just(4), 0..40_usize], any::<u8>()), 0..5),
        cut in 0..3_usize,
    ) {
        let mut bytes = Vec::new();
        for (sort, len, fill) in parts {
            bytes.extend([sort, u8::try_from(len).expect("short")]);
            bytes.extend(std::iter::repeat_n(if sort == RELAY { b'x' } else { fill & 0x7f }, len));
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let text = bech32::encode::<Bech32>(hrp(prefix), &bytes).expect("short");
        oracle::agrees(&text);
    }
}
