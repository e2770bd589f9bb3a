//! From a plan to the seven fields: kind, date, tags and content as that sort of event has them on the network.
//!
//! Sizes are chosen so that over the whole mix a content has about 357 bytes and the tags about 290, as counted over
//! the network.

use event::{EventId, PublicKey};
use serde_json::json;

use super::keys::Signer;
use super::plan::{Plan, Sort};
use super::random::Random;
use super::{Fault, Generator, words};

/// An event before its id and signature.
pub(crate) struct Draft {
    pub(crate) signer: Signer,
    pub(crate) created_at: i64,
    pub(crate) kind: u16,
    pub(crate) tags: Vec<Vec<String>>,
    pub(crate) content: String,
}

/// What an answer has to know about the event it answers.
pub(crate) struct Answered {
    pub(crate) id: EventId,
    pub(crate) author: PublicKey,
    pub(crate) kind: u16,
    /// The whole signed event, for those who quote it.
    pub(crate) json: Option<String>,
}

macro_rules! tag {
    ($($item:expr),+ $(,)?) => { vec![$($item.to_string()),+] };
}

/// Writes the event that `plan` asks for.
pub(crate) fn compose(generator: &mut Generator, plan: &Plan) -> Draft {
    let mut random = Random::of(generator.settings().seed, plan.index, 2);
    let created_at = created_at(generator.at_ms(plan.index), plan, &mut random);
    let answered = answered(generator, plan, &mut random);
    let signer = plan.signer;
    let (kind, tags, content) = match plan.sort {
        Sort::Root | Sort::Reply => note(&mut random, answered),
        Sort::Reaction | Sort::Repost | Sort::Deletion | Sort::Comment => answer(&mut random, plan.sort, answered),
        Sort::ZapReceipt => zap_receipt(generator, &mut random, created_at, answered),
        Sort::JobResult | Sort::JobFeedback => job_answer(&mut random, plan.sort, answered),
        Sort::JobRequest(kind) => job_request(&mut random, kind),
        Sort::Profile => profile(&mut random),
        Sort::Follows => follows(generator, &mut random),
        Sort::DirectMessage => encrypted(generator, &mut random, 4, 260),
        Sort::GiftWrap => encrypted(generator, &mut random, 1_059, 2_800),
        Sort::RelayList => relay_list(&mut random),
        Sort::Article => article(&mut random),
        Sort::Other(kind) => other(generator, &mut random, kind),
    };
    Draft { signer, created_at, kind, tags, content }
}

/// Seconds since 1970: a moment before it is delivered, or what the plan's fault makes of it.
fn created_at(at_ms: i64, plan: &Plan, random: &mut Random) -> i64 {
    const DAY: u64 = 86_400;
    let jitter = random.below(2_000).cast_signed();
    let secs = (at_ms - jitter).div_euclid(1_000);
    let moved = match plan.fault {
        Fault::Late => secs - random.log_uniform(120, 3 * DAY).cast_signed(),
        Fault::Future => secs + random.log_uniform(DAY, 365 * DAY).cast_signed(),
        // Gift wraps are dated up to two days back on purpose (NIP-59).
        _ if plan.sort == Sort::GiftWrap => secs - random.below(2 * DAY).cast_signed(),
        _ => secs,
    };
    moved.max(0)
}

fn answered(generator: &mut Generator, plan: &Plan, random: &mut Random) -> Option<Answered> {
    let quotes = matches!(plan.sort, Sort::Repost | Sort::JobResult);
    let Some(target) = plan.target else {
        if !plan.sort.answers() || plan.sort == Sort::Reply {
            return None;
        }
        // The first events of a seed, and now and then a later one, answer what nobody here has seen.
        let (id, author) = (EventId(thirty_two(random)), PublicKey(thirty_two(random)));
        return Some(Answered { id, author, kind: 1, json: None });
    };
    Some(generator.answered(target, quotes))
}

fn thirty_two(random: &mut Random) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_be_bytes()));
    bytes
}

type Body = (u16, Vec<Vec<String>>, String);

fn note(random: &mut Random, answered: Option<Answered>) -> Body {
    let mut tags = Vec::new();
    if let Some(answered) = answered {
        tags.push(tag!["e", answered.id, words::relay(random), "root"]);
        tags.push(tag!["p", answered.author]);
    }
    let size = random.size(200, 1.15, 12_000);
    let mut content = words::prose(random, size);
    if random.chance(0.15) {
        for _ in 0..random.log_uniform(1, 8) {
            let hashtag = words::hashtag(random);
            content.push_str(&format!(" #{hashtag}"));
            tags.push(tag!["t", hashtag]);
        }
    }
    if random.chance(0.05) {
        tags.push(tag!["client", "tidegate"]);
    }
    (1, tags, content)
}

fn answer(random: &mut Random, sort: Sort, answered: Option<Answered>) -> Body {
    let Some(Answered { id, author, kind, json }) = answered else { return note(random, None) };
    match sort {
        Sort::Reaction => {
            let content = random.pick(&["+", "+", "+", "+", "❤️", "🤙", "🔥", "😂", "-", ":gm:"]);
            let mut tags = vec![tag!["e", id], tag!["p", author]];
            if random.chance(0.5) {
                tags.push(tag!["k", kind]);
            }
            (7, tags, content.to_owned())
        }
        Sort::Repost => (6, vec![tag!["e", id, words::relay(random)], tag!["p", author]], json.unwrap_or_default()),
        Sort::Deletion => {
            let reason = if random.chance(0.5) { "" } else { "posted by mistake" };
            (5, vec![tag!["e", id], tag!["k", kind]], reason.to_owned())
        }
        _ => {
            let root = [tag!["E", id, words::relay(random), author], tag!["K", kind], tag!["P", author]];
            let parent = [tag!["e", id, words::relay(random), author], tag!["k", kind], tag!["p", author]];
            let size = random.size(120, 1.0, 4_000);
            (1_111, [root, parent].concat(), words::prose(random, size))
        }
    }
}

fn zap_receipt(generator: &mut Generator, random: &mut Random, created_at: i64, answered: Option<Answered>) -> Body {
    let Some(Answered { id, author, .. }) = answered else { return note(random, None) };
    let sats = random.pick(&[21, 21, 21, 100, 100, 210, 500, 1_000, 2_100, 5_000, 21_000, 100_000]);
    let sender = Signer::Author(random.zipf(generator.settings().authors));
    let size = random.size(10, 1.0, 200);
    let content = if random.chance(0.6) { String::new() } else { words::prose(random, size) };
    let relays = tag!["relays", words::relay(random), words::relay(random), words::relay(random)];
    let tags = vec![relays, tag!["amount", sats * 1_000], tag!["p", author], tag!["e", id]];
    let request = generator.sign(Draft { signer: sender, created_at, kind: 9_734, tags, content });
    let invoice = format!("lnbc{}n1p{}", sats * 10, words::bech32(random, 280));
    let tags = vec![
        tag!["p", author],
        tag!["e", id],
        tag!["P", request.pubkey],
        tag!["bolt11", invoice],
        tag!["preimage", random.hex(32)],
        tag!["description", request.to_json()],
    ];
    (9_735, tags, String::new())
}

fn job_request(random: &mut Random, kind: u16) -> Body {
    let input = random.size(60, 0.8, 1_000);
    let mut tags = vec![tag!["i", words::prose(random, input), "text"], tag!["output", "application/json"]];
    tags.push(tag!["param", "max_results", random.pick(&[20, 50, 200])]);
    if random.chance(0.7) {
        tags.push(tag!["relays", words::relay(random), words::relay(random)]);
    }
    if random.chance(0.3) {
        tags.push(tag!["bid", random.log_uniform(1_000, 1_000_000)]);
    }
    (kind, tags, String::new())
}

fn job_answer(random: &mut Random, sort: Sort, answered: Option<Answered>) -> Body {
    let Some(Answered { id, author, kind, json }) = answered else { return note(random, None) };
    let mut tags = vec![tag!["e", id, words::relay(random)], tag!["p", author]];
    if sort == Sort::JobFeedback {
        let statuses = ["processing", "processing", "payment-required", "success", "partial", "error"];
        tags.push(tag!["status", random.pick(&statuses), "working on it"]);
        return (7_000, tags, String::new());
    }
    if let Some(json) = json {
        tags.push(tag!["request", json]);
    }
    tags.push(tag!["amount", random.log_uniform(1_000, 500_000)]);
    let ids: Vec<_> = (0..random.below(12)).map(|_| json!(["e", random.hex(32)])).collect();
    // A result whose request is not known keeps to the commonest sort of job.
    let result = if (5_000..6_000).contains(&kind) { kind + 1_000 } else { 6_300 };
    (result, tags, json!(ids).to_string())
}

fn profile(random: &mut Random) -> Body {
    let name = format!("{}{}", words::word(random), random.below(10_000));
    let size = random.size(90, 0.9, 2_000);
    let profile = json!({
        "name": name,
        "display_name": name,
        "about": words::prose(random, size),
        "picture": format!("https://media.example/{}.png", random.hex(32)),
        "banner": format!("https://media.example/{}.jpg", random.hex(32)),
        "nip05": format!("{name}@names.example"),
        "lud16": format!("{name}@wallet.example"),
    });
    (0, Vec::new(), profile.to_string())
}

fn follows(generator: &mut Generator, random: &mut Random) -> Body {
    let count = random.size(24, 1.1, 2_000);
    let tags = (0..count).map(|_| tag!["p", person(generator, random)]).collect();
    let relays: serde_json::Map<_, _> =
        words::RELAYS.iter().map(|relay| ((*relay).to_owned(), json!({"read": true, "write": true}))).collect();
    let content = if random.chance(0.3) { json!(relays).to_string() } else { String::new() };
    (3, tags, content)
}

fn encrypted(generator: &mut Generator, random: &mut Random, kind: u16, median: u64) -> Body {
    let size = random.size(median, 0.5, 20_000).next_multiple_of(4);
    let mut content = words::base64(random, size);
    if kind == 4 {
        content.push_str(&format!("?iv={}==", words::base64(random, 22)));
    }
    (kind, vec![tag!["p", person(generator, random)]], content)
}

fn relay_list(random: &mut Random) -> Body {
    let relays = (0..random.log_uniform(2, 9)).map(|_| match random.below(3) {
        0 => tag!["r", words::relay(random), "read"],
        1 => tag!["r", words::relay(random), "write"],
        _ => tag!["r", words::relay(random)],
    });
    (10_002, relays.collect(), String::new())
}

fn article(random: &mut Random) -> Body {
    let mut tags = vec![tag!["d", random.hex(8)], tag!["title", words::prose(random, 40)]];
    tags.push(tag!["summary", words::prose(random, 140)]);
    tags.push(tag!["image", format!("https://media.example/{}.jpg", random.hex(16))]);
    tags.extend((0..random.below(6)).map(|_| tag!["t", words::hashtag(random)]));
    let size = random.size(4_500, 0.7, 60_000);
    (30_023, tags, words::prose(random, size))
}

fn other(generator: &mut Generator, random: &mut Random, kind: u16) -> Body {
    let size = random.size(150, 0.9, 4_000);
    let (tags, content) = match kind {
        42 => (vec![tag!["e", random.hex(32), words::relay(random), "root"]], words::prose(random, size)),
        1_063 => {
            let url = format!("https://media.example/{}.mp4", random.hex(32));
            (vec![tag!["url", url], tag!["m", "video/mp4"], tag!["x", random.hex(32)]], words::prose(random, size))
        }
        1_984 => (vec![tag!["p", person(generator, random), "spam"]], String::new()),
        10_000 | 30_000 => {
            let mut tags = vec![tag!["d", random.pick(&["mute", "friends", "devs"])]];
            tags.extend((0..random.size(10, 1.0, 200)).map(|_| tag!["p", person(generator, random)]));
            (tags, String::new())
        }
        10_050 => (vec![tag!["relay", words::relay(random)]], String::new()),
        20_001 => (vec![tag!["g", words::bech32(random, 6)]], words::prose(random, size / 2)),
        24_133 => (vec![tag!["p", person(generator, random)]], words::base64(random, size.next_multiple_of(4))),
        30_166 => {
            let rtt = random.log_uniform(20, 2_000);
            (vec![tag!["d", words::relay(random)], tag!["n", "clearnet"], tag!["rtt-open", rtt]], "{}".to_owned())
        }
        31_990 => {
            let tags = vec![tag!["d", random.hex(8)], tag!["k", random.pick(&[5_050, 5_100, 5_300])]];
            (tags, json!({"name": words::word(random), "about": words::prose(random, size)}).to_string())
        }
        _ => {
            let settings = json!({"settings": words::base64(random, size * 2)}).to_string();
            (vec![tag!["d", random.hex(8)]], settings)
        }
    };
    (kind, tags, content)
}

fn person(generator: &mut Generator, random: &mut Random) -> PublicKey {
    let rank = random.zipf(generator.settings().authors);
    generator.public_key(Signer::Author(rank))
}
