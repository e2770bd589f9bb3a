//! Text that looks like the network's: words, hashtags, and the characters on which canonical forms differ.

use super::random::Random;

const WORDS: [&str; 96] = [
    "the",
    "to",
    "and",
    "a",
    "of",
    "is",
    "in",
    "it",
    "that",
    "you",
    "for",
    "on",
    "this",
    "we",
    "are",
    "with",
    "be",
    "not",
    "just",
    "have",
    "bitcoin",
    "nostr",
    "my",
    "so",
    "but",
    "what",
    "like",
    "at",
    "can",
    "all",
    "people",
    "if",
    "from",
    "will",
    "relay",
    "they",
    "one",
    "time",
    "about",
    "more",
    "zap",
    "good",
    "new",
    "how",
    "out",
    "by",
    "up",
    "now",
    "don't",
    "as",
    "was",
    "there",
    "get",
    "when",
    "morning",
    "think",
    "work",
    "today",
    "note",
    "client",
    "some",
    "would",
    "see",
    "world",
    "freedom",
    "money",
    "make",
    "need",
    "want",
    "know",
    "really",
    "still",
    "open",
    "protocol",
    "event",
    "key",
    "sats",
    "lightning",
    "build",
    "never",
    "always",
    "coffee",
    "love",
    "first",
    "great",
    "looking",
    "running",
    "node",
    "fix",
    "release",
    "thanks",
    "learn",
    "music",
    "market",
    "privacy",
    "block",
];

/// Pieces that a careless serialiser gets wrong: escapes, line ends, scripts, emoji beyond the basic plane, markup.
const ODD: [&str; 20] = [
    "\n\n",
    "\n",
    "\"quoted\"",
    "back\\slash",
    "\ttab",
    "<b>&amp;</b>",
    "🤙",
    "🫡",
    "⚡️",
    "👨‍👩‍👧‍👦",
    "おはようございます",
    "今日はいい天気です",
    "доброе утро",
    "صباح الخير",
    "café",
    "naïve",
    "\u{2028}",
    "\u{7f}",
    "—",
    "…",
];

const TAGS: [&str; 48] = [
    "bitcoin",
    "nostr",
    "asknostr",
    "grownostr",
    "zap",
    "introductions",
    "art",
    "photography",
    "foodstr",
    "plebchain",
    "coffeechain",
    "news",
    "music",
    "memes",
    "lightning",
    "siamstr",
    "privacy",
    "travel",
    "gardening",
    "nature",
    "Bitcoin",
    "btc",
    "dogstr",
    "catstr",
    "bookstr",
    "gm",
    "opensource",
    "linux",
    "technology",
    "ai",
    "economics",
    "freedom",
    "homesteading",
    "health",
    "fitness",
    "chess",
    "gaming",
    "podcast",
    "tunestr",
    "bookclub",
    "cycling",
    "runstr",
    "cooking",
    "mining",
    "austrich",
    "日本",
    "brasil",
    "deutsch",
];

pub(crate) const RELAYS: [&str; 12] = [
    "wss://relay.one.example/",
    "wss://relay.two.example",
    "wss://nos.example",
    "wss://relay.primary.example/",
    "wss://nostr.wine.example",
    "wss://offchain.example/",
    "wss://relay.snort.example",
    "wss://purple.example/inbox",
    "wss://eden.example",
    "wss://nostr.mom.example",
    "wss://relay.band.example/",
    "wss://relay.land.example",
];

/// Some `bytes` bytes of prose.
pub(crate) fn prose(random: &mut Random, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 32);
    while text.len() < bytes {
        if !text.is_empty() {
            text.push(' ');
        }
        match random.below(1_000) {
            0..40 => text.push_str(random.pick(&ODD)),
            40..48 => text.push_str(&format!("https://media.example/{}.jpg", random.hex(16))),
            48..54 => text.push_str(&format!("#{}", hashtag(random))),
            _ => text.push_str(word(random)),
        }
    }
    text
}

pub(crate) fn word(random: &mut Random) -> &'static str {
    pick_by_zipf(random, &WORDS)
}

/// A hashtag: a few are everywhere, most are rare.
pub(crate) fn hashtag(random: &mut Random) -> String {
    let rank = random.zipf(500);
    match usize::try_from(rank).ok().and_then(|rank| TAGS.get(rank)) {
        Some(tag) => (*tag).to_owned(),
        None => format!("topic{rank}"),
    }
}

pub(crate) fn base64(random: &mut Random, len: usize) -> String {
    random.characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", len)
}

pub(crate) fn bech32(random: &mut Random, len: usize) -> String {
    random.characters(b"qpzry9x8gf2tvdw0s3jn54khce6mua7l", len)
}

pub(crate) fn relay(random: &mut Random) -> &'static str {
    pick_by_zipf(random, &RELAYS)
}

fn pick_by_zipf(random: &mut Random, from: &[&'static str]) -> &'static str {
    let rank = random.zipf(from.len() as u64);
    from[usize::try_from(rank).expect("below the length of a slice")]
}
