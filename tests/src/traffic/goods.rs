//! What is traded in made-up traffic, and for how much.

use std::fmt::Write as _;

use rand::Rng;
use rand::rngs::StdRng;

/// Collections that there are.
const COLLECTIONS: u32 = 400;

/// A collection.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) slug: String,
    /// First part of the items' names, as JSON has it.
    pub(super) title: String,
    /// `chain/contract`.
    pub(super) contract: String,
    /// Whether an item has many owners (ERC-1155).
    pub(super) editions: bool,
    pub(super) items: u32,
    /// What an item costs, ETH.
    ether: f64,
    /// Prices are round, so that sums tie.
    round: bool,
}

impl Collection {
    pub(super) fn chain(&self) -> &str {
        self.contract.split('/').next().unwrap_or_default()
    }

    /// Some collections number their items by hashes of 77 digits.
    pub(super) fn token_id(&self, token: u32) -> String {
        match self.editions && self.items.is_multiple_of(2) {
            true => format!("1047904451125684328897650221740098734122087654321098765432109876543210{:07}", token),
            false => token.to_string(),
        }
    }
}

/// Money, and what one of it is worth.
pub(super) struct Token {
    pub(super) address: &'static str,
    pub(super) symbol: &'static str,
    pub(super) decimals: u32,
    pub(super) eth: f64,
    pub(super) usd: f64,
}

const TOKENS: [(&str, &str, u32, f64); 6] = [
    ("0x0000000000000000000000000000000000000000", "ETH", 18, 1.0),
    ("0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2", "WETH", 18, 1.000_863_124_510_729),
    ("0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", "USDC", 6, 0.000_334_1),
    ("0x0000000000000000000000000000000000001010", "MATIC", 18, 0.000_299_56),
    ("0x4d224452801aced8b2f0aebe155379bb5d594381", "APE", 18, 0.000_41),
    ("So11111111111111111111111111111111111111112", "SOL", 9, 0.052),
];

/// Bytes in hex, behind 0x.
pub(super) fn hex(random: &mut StdRng, bytes: usize) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes);
    out.push_str("0x");
    for _ in 0..bytes / 8 {
        write!(out, "{:016x}", random.random::<u64>()).expect("text");
    }
    out
}

pub(super) fn collections(random: &mut StdRng) -> Vec<Collection> {
    let titles = ["Normal", "Söl \\\"Quoted\\\"", "月 🐧", "RG Byte", "A\\u0026B"];
    let chains = ["ethereum", "ethereum", "ethereum", "matic", "base", "arbitrum", "avalanche", "solana"];
    let one = |number: u32| {
        let editions = random.random_range(0..4) == 0;
        let chain = chains[random.random_range(0..chains.len())];
        let contract = format!("{chain}/0x{:040x}", 0xabc0_0000_0000_u64 + u64::from(number));
        Collection {
            slug: format!("collection-{number}"),
            title: titles[random.random_range(0..titles.len())].to_owned(),
            contract,
            editions,
            items: [3, 30, 1_000, 9_999][random.random_range(0..4)],
            ether: 10_f64.powf(random.random_range(-3.0..1.0)),
            round: random.random_range(0..4) == 0,
        }
    };
    (0..COLLECTIONS).map(one).collect()
}

/// What an order is paid in.
pub(super) fn token_of(random: &mut StdRng, collection: &Collection) -> Token {
    let number = match random.random_range(0..100) {
        0..40 => 0,
        40..75 => 1,
        75..85 => 2,
        85..92 => 3,
        92..97 => 4,
        _ => 5,
    };
    let (address, symbol, decimals, eth) = TOKENS[number];
    // A rate that moves a little, or is the same for ties.
    let drift = if collection.round { 1.0 } else { random.random_range(0.98..1.02) };
    Token { address, symbol, decimals, eth, usd: eth * 2_990.279_999 * drift }
}

/// A price for so many items in the token's smallest unit, and how many whole tokens that is.
pub(super) fn price_of(random: &mut StdRng, collection: &Collection, token: &Token, quantity: u32) -> (String, f64) {
    match random.random_range(0..20_000) {
        0 => return (format!("1{}", "0".repeat(30)), 1e12),
        1 => return ("0".to_owned(), 0.0),
        _ => {}
    }
    let ether = match collection.round {
        true => f64::from(random.random_range(1..6_u8)) / 10.0,
        false => collection.ether * random.random_range(0.5..2.0),
    };
    let whole = ether * f64::from(quantity.max(1)) / token.eth;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands of millions at most")]
    let millionths = (whole * 1e6) as u128;
    let unit = 10_u128.pow(token.decimals - 6);
    // Some prices are uneven to the last digit.
    let uneven = if collection.round { 0 } else { random.random_range(0..unit) };
    (((millionths + 1) * unit + uneven).to_string(), whole)
}
