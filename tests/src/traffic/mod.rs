//! Made-up traffic of OpenSea's stream, by seed: frames of all eleven types as the service sends them, and what makes
//! them hard to count.
//!
//! Bids and offers are far ahead, collections are as unequal as real ones, sales bring transfers along. Some quantities
//! are large or missing, some rates are null, "0" or missing, some collections and decimals too; every tenth frame was
//! sent before. The events lie around the turn to 2026, from which on orders' prices mean something else, and mostly in
//! order. What the frames must come to is computed elsewhere, from the frames.

mod goods;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};

use event::EventTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use goods::{Collection, collections, hex, price_of, token_of};

/// 2025-12-29T12:00:00Z, the middle of the first day.
const START_MICROS: i64 = 1_767_009_600_000_000;
/// Time that a run's events are spread over: five days.
const SPAN_MICROS: i64 = 5 * 86_400_000_000;
/// From here on `eth_price` and `usd_price` of an order are its worth.
const NEW_YEAR_MICROS: i64 = 1_767_225_600_000_000;
/// Events that may be sent again, and orders that may be cancelled.
const RECENT: usize = 2_000;

/// Types, and how many of a thousand events are of each.
const MIX: [(&str, u32); 10] = [
    ("item_received_bid", 270),
    ("collection_offer", 230),
    ("trait_offer", 90),
    ("item_received_offer", 20),
    ("item_listed", 150),
    ("item_cancelled", 50),
    ("item_sold", 60),
    ("item_transferred", 60),
    ("item_metadata_updated", 40),
    ("order_invalidate", 18),
];

/// Frames by seed, without end but within five days for as many as were asked for.
#[derive(Debug)]
pub struct Traffic {
    random: StdRng,
    collections: Vec<Collection>,
    count: usize,
    made: usize,
    /// What comes next in any case: the transfers of a sale.
    next: VecDeque<Event>,
    recent: Vec<Event>,
    orders: Vec<(String, usize)>,
}

/// An event as its frames have it.
#[derive(Clone, Debug)]
struct Event {
    event_type: &'static str,
    slug: String,
    sent_at: i64,
    payload: String,
}

/// The time of a frame, with six digits of the second, and a zone as the services of several years write it.
fn timestamp(micros: i64, zone: &str) -> String {
    let seconds = EventTime::from_secs(micros.div_euclid(1_000_000)).expect("a time of our own");
    let text = seconds.to_string();
    format!("{}.{:06}{zone}", text.trim_end_matches('Z'), micros.rem_euclid(1_000_000))
}

impl Traffic {
    /// The first `count` frames of a seed; another count spreads them differently.
    #[must_use]
    pub fn new(seed: u64, count: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let collections = collections(&mut random);
        Self { random, collections, count, made: 0, next: VecDeque::new(), recent: Vec::new(), orders: Vec::new() }
    }

    /// Writes them, one a line.
    ///
    /// # Errors
    /// When `out` does not take them.
    pub fn write(seed: u64, count: usize, out: &mut impl Write) -> io::Result<()> {
        Self::new(seed, count).try_for_each(|frame| writeln!(out, "{frame}"))
    }

    fn chance(&mut self, of_a_thousand: u32) -> bool {
        self.random.random_range(0..1_000) < of_a_thousand
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    fn hash(&mut self) -> String {
        hex(&mut self.random, 32)
    }

    fn account(&mut self) -> String {
        // Few enough to meet again.
        format!("0x{:040x}", 0x00c0_ffee_0000_u64 + u64::from(self.random.random_range(0..5_000_u32)))
    }

    /// When an event happened: mostly in order, now and then far behind.
    fn time(&mut self) -> i64 {
        let progress = self.made.min(self.count) as i64;
        let due = START_MICROS + SPAN_MICROS / (self.count.max(1) as i64) * progress;
        let behind = match self.random.random_range(0..100) {
            0 => self.random.random_range(0..7_200_000_000),
            1..10 => self.random.random_range(0..90_000_000),
            _ => self.random.random_range(0..3_000_000),
        };
        (due - behind).max(START_MICROS)
    }

    fn event(&mut self) -> Event {
        let draw = self.random.random_range(0..1_000);
        let mut below = 0;
        let of_draw = MIX.iter().find(|(_, share)| {
            below += share;
            draw < below
        });
        let event_type = of_draw.map_or("order_revalidate", |(event_type, _)| *event_type);
        let at = self.time();
        let of_order = matches!(event_type, "order_invalidate" | "order_revalidate" | "item_cancelled");
        let known = if of_order && !self.orders.is_empty() {
            let order = self.random.random_range(0..self.orders.len());
            Some(self.orders[order].clone())
        } else {
            None
        };
        // The square of what is even: a few collections have most of the events.
        let even: f64 = self.random.random();
        let of_all = self.collections.len() as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below the number of collections")]
        let drawn = (even.powi(3) * of_all) as usize;
        let (order_hash, collection) = known.unwrap_or_else(|| (self.hash(), drawn));
        let payload = self.payload(event_type, at, &order_hash, collection);
        if matches!(event_type, "item_listed" | "item_received_bid" | "collection_offer") {
            if self.orders.len() < RECENT {
                self.orders.push((order_hash, collection));
            } else {
                let oldest = self.made % RECENT;
                self.orders[oldest] = (order_hash, collection);
            }
        }
        let sent_at = at + self.random.random_range(20_000..22_000_000);
        Event { event_type, slug: self.collections[collection].slug.clone(), sent_at, payload }
    }

    /// The payload of an event.
    fn payload(&mut self, event_type: &'static str, at: i64, order_hash: &str, number: usize) -> String {
        let collection = self.collections[number].clone();
        let mut out = String::with_capacity(2_048);
        out.push('{');
        self.push_place(&mut out, event_type, at, &collection);
        let is_offer = matches!(event_type, "collection_offer" | "trait_offer");
        let is_state = matches!(event_type, "order_invalidate" | "order_revalidate");
        let token = self.random.random_range(0..collection.items);
        let nft_id = format!("{}/{}", collection.contract, collection.token_id(token));
        if is_offer || is_state {
            out.push_str(self.pick(&[",\"item\":{}", ",\"item\":null", ""]));
        } else {
            self.push_item(&mut out, event_type, at, &collection, token, &nft_id);
        }
        if event_type == "item_metadata_updated" {
            out.push('}');
            return out;
        }
        if event_type == "item_transferred" {
            let (from, to, hash) = (self.account(), self.account(), self.hash());
            let quantity = self.quantity(&collection);
            let from = if self.chance(150) { format!("0x{:040}", 0) } else { from };
            push_transfer(&mut out, &from, &to, &hash, &quantity);
            return out;
        }
        write!(out, ",\"order_hash\":\"{order_hash}\"").expect("text");
        if is_state {
            out.push('}');
            return out;
        }
        let quantity = self.quantity(&collection);
        let (maker, taker, hash) = (self.account(), self.account(), self.hash());
        self.push_price(&mut out, event_type, at, &collection, &quantity);
        out.push_str(&quantity);
        write!(out, ",\"maker\":{{\"address\":\"{maker}\"}}").expect("text");
        match event_type {
            "item_sold" => {
                let seconds = at / 1_000_000;
                write!(
                    out,
                    ",\"taker\":{{\"address\":\"{taker}\"}},\"closing_date\":\"{}\",\"transaction\":{{\"hash\":\"{hash}\",\"timestamp\":\"{seconds}\"}}",
                    timestamp(at, "Z")
                )
                .expect("text");
                self.move_sold(at, &collection, &nft_id, (&maker, &taker, &hash), &quantity);
            }
            _ => {
                out.push_str(",\"taker\":null");
                let until = at + 1_000_000 * self.random.random_range(600..2_592_000_i64);
                write!(out, ",\"expiration_date\":\"{}\"", timestamp(until, "Z")).expect("text");
            }
        }
        out.push_str(self.pick(&[
            ",\"is_private\":false",
            ",\"is_private\":true,\"listing_type\":\"dutch\"",
            ",\"listing_type\":null",
        ]));
        self.push_protocol_data(&mut out, &maker, &collection, token);
        out.push('}');
        out
    }

    /// A sale moves the item too.
    fn move_sold(
        &mut self,
        at: i64,
        collection: &Collection,
        nft_id: &str,
        (from, to, hash): (&str, &str, &str),
        quantity: &str,
    ) {
        if self.chance(300) {
            return;
        }
        // One transaction may move items of one token to several accounts.
        let receivers = if self.chance(20) { 3 } else { 1 };
        for receiver in 0..receivers {
            let to = if receiver == 0 { to.to_owned() } else { self.account() };
            let mut out = format!(
                "{{\"event_timestamp\":\"{}\",\"collection\":{{\"slug\":\"{}\"}},\"chain\":\"{}\",\"item\":{{\"nft_id\":\"{nft_id}\"}}",
                timestamp(at, "Z"),
                collection.slug,
                collection.chain()
            );
            push_transfer(&mut out, from, &to, hash, quantity);
            let sent_at = at + self.random.random_range(20_000..22_000_000);
            self.next.push_back(Event {
                event_type: "item_transferred",
                slug: collection.slug.clone(),
                sent_at,
                payload: out,
            });
        }
    }

    /// Time, collection and chain.
    fn push_place(&mut self, out: &mut String, event_type: &str, at: i64, collection: &Collection) {
        let zone = self.pick(&["Z", "Z", "Z", "Z", "Z", "Z", "Z", "Z", "+00:00", ""]);
        if event_type == "item_metadata_updated" {
            out.push_str("\"refreshed\":true");
        } else {
            write!(out, "\"event_timestamp\":\"{}\"", timestamp(at, zone)).expect("text");
        }
        match self.random.random_range(0..1_000) {
            0..5 => {}
            5..10 => out.push_str(",\"collection\":null"),
            10..15 => out.push_str(",\"collection\":{\"slug\":null}"),
            _ => write!(out, ",\"collection\":{{\"slug\":\"{}\"}}", collection.slug).expect("text"),
        }
        match self.random.random_range(0..10) {
            0 => {}
            1 => write!(out, ",\"chain\":{{\"name\":\"{}\"}}", collection.chain()).expect("text"),
            _ => write!(out, ",\"chain\":\"{}\"", collection.chain()).expect("text"),
        }
    }

    fn push_item(
        &mut self,
        out: &mut String,
        event_type: &str,
        at: i64,
        collection: &Collection,
        token: u32,
        nft_id: &str,
    ) {
        // Bids of 2026 may leave the token to the order.
        let is_bid = matches!(event_type, "item_received_bid" | "item_received_offer");
        let sent = if is_bid && at >= NEW_YEAR_MICROS && self.chance(300) { &collection.contract } else { nft_id };
        write!(out, ",\"item\":{{\"nft_id\":\"{sent}\",\"permalink\":\"https://opensea.io/item/{sent}\"")
            .expect("text");
        match self.random.random_range(0..10) {
            0 => {}
            1 => out.push_str(",\"metadata\":{\"name\":null,\"image_url\":null,\"animation_url\":null}"),
            _ => write!(
                out,
                ",\"metadata\":{{\"name\":\"{} #{token}\",\"image_url\":\"https://i.seadn.io/{}/{token}.png\",\"animation_url\":null}}",
                collection.title, collection.slug
            )
            .expect("text"),
        }
        out.push('}');
    }

    /// `,"quantity":…`, or nothing.
    fn quantity(&mut self, collection: &Collection) -> String {
        let several = self.random.random_range(1..50);
        match self.random.random_range(0..10_000) {
            0..200 => String::new(),
            200..300 => ",\"quantity\":null".to_owned(),
            300..310 => ",\"quantity\":0".to_owned(),
            310..312 => ",\"quantity\":1180591620717411303424".to_owned(),
            312..700 if collection.editions => format!(",\"quantity\":\"{several}\""),
            _ if collection.editions => format!(",\"quantity\":{several}"),
            _ => ",\"quantity\":1".to_owned(),
        }
    }

    fn push_price(&mut self, out: &mut String, event_type: &str, at: i64, collection: &Collection, quantity: &str) {
        let token = token_of(&mut self.random, collection);
        let digits: String = quantity.chars().filter(char::is_ascii_digit).take(3).collect();
        let (price, worth) = price_of(&mut self.random, collection, &token, digits.parse().unwrap_or(1));
        let name = if event_type == "item_sold" { "sale_price" } else { "base_price" };
        write!(out, ",\"{name}\":\"{price}\"").expect("text");
        let of_order = event_type != "item_sold" && at >= NEW_YEAR_MICROS;
        let (eth, usd) = match of_order {
            true => (format!("{:.18}", worth * token.eth), format!("{:.6}", worth * token.usd)),
            false => (format!("{:.15}", token.eth), format!("{:.18}", token.usd)),
        };
        write!(out, ",\"payment_token\":{{\"address\":\"{}\",\"symbol\":\"{}\"", token.address, token.symbol)
            .expect("text");
        if !self.chance(5) {
            write!(out, ",\"decimals\":{}", token.decimals).expect("text");
        }
        match self.random.random_range(0..1_000) {
            0..20 => out.push_str(",\"eth_price\":null,\"usd_price\":null"),
            20..30 => out.push_str(",\"eth_price\":\"0\",\"usd_price\":\"0\""),
            30..40 => write!(out, ",\"usd_price\":\"{usd}\"").expect("text"),
            40..50 => write!(out, ",\"eth_price\":\"{eth}\",\"usd_price\":\"0.000000000000000000\"").expect("text"),
            _ => write!(out, ",\"eth_price\":\"{eth}\",\"usd_price\":\"{usd}\"").expect("text"),
        }
        out.push('}');
    }

    /// As much of a Seaport order as there is in every one, so that frames have the size of real ones.
    fn push_protocol_data(&mut self, out: &mut String, maker: &str, collection: &Collection, token: u32) {
        let (salt, conduit) = (self.hash(), self.hash());
        let contract = collection.contract.split('/').next_back().unwrap_or_default();
        write!(
            out,
            ",\"protocol_address\":\"0x00000000000000adc04c56bf30ac9d3c0aaf14dc\",\"protocol_data\":{{\"parameters\":{{\"conduitKey\":\"{conduit}\",\"consideration\":[{{\"endAmount\":\"1\",\"identifierOrCriteria\":\"{}\",\"itemType\":{},\"recipient\":\"{maker}\",\"startAmount\":\"1\",\"token\":\"{contract}\"}},{{\"endAmount\":\"4474975000000000\",\"identifierOrCriteria\":\"0\",\"itemType\":1,\"recipient\":\"0x0000a26b00c1F0DF003000390027140000fAa719\",\"startAmount\":\"4474975000000000\",\"token\":\"0x7ceB23fD6bC0adD59E62ac25578270cFf1b9f619\"}}],\"counter\":0,\"endTime\":\"1709832557\",\"offerer\":\"{maker}\",\"orderType\":0,\"salt\":\"{salt}\",\"startTime\":\"1709828957\",\"totalOriginalConsiderationItems\":2,\"zone\":\"0x0000000000000000000000000000000000000000\"}},\"signature\":null}}",
            collection.token_id(token),
            if collection.editions { 3 } else { 2 },
        )
        .expect("text");
    }

    /// The event in a frame of one version or the other, now and then alone.
    fn frame(&mut self, event: &Event) -> String {
        let Event { event_type, slug, sent_at, payload } = event;
        let sent_at = timestamp(*sent_at, "Z");
        let channel = if self.chance(500) { "*" } else { slug };
        let inner = |version: &str| {
            format!("{{\"event_type\":\"{event_type}\",{version}\"sent_at\":\"{sent_at}\",\"payload\":{payload}}}")
        };
        match self.random.random_range(0..100) {
            0..3 => inner(""),
            3..45 => format!(
                "{{\"event\":\"{event_type}\",\"payload\":{},\"ref\":null,\"topic\":\"collection:{channel}\"}}",
                inner("")
            ),
            _ => format!("[\"1\",null,\"collection:{channel}\",\"{event_type}\",{}]", inner("\"version\":2,")),
        }
    }
}

fn push_transfer(out: &mut String, from: &str, to: &str, hash: &str, quantity: &str) {
    write!(
        out,
        ",\"from_account\":{{\"address\":\"{from}\"}},\"to_account\":{{\"address\":\"{to}\"}}{quantity},\"transaction\":{{\"hash\":\"{hash}\"}}}}"
    )
    .expect("text");
}

impl Iterator for Traffic {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.made >= self.count {
            return None;
        }
        self.made += 1;
        if self.chance(2) {
            return Some(
                self.pick(&[
                    r#"["1","1","collection:*","phx_reply",{"status":"ok","response":{}}]"#,
                    r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":7}"#,
                ])
                .to_owned(),
            );
        }
        if self.chance(100) && !self.recent.is_empty() {
            let again = self.random.random_range(0..self.recent.len());
            let later = self.random.random_range(0..600_000_000);
            let mut event = self.recent[again].clone();
            event.sent_at += later;
            return Some(self.frame(&event));
        }
        let event = match self.next.pop_front() {
            Some(event) => event,
            None => self.event(),
        };
        let frame = self.frame(&event);
        if self.recent.len() < RECENT {
            self.recent.push(event);
        } else {
            let oldest = self.made % RECENT;
            self.recent[oldest] = event;
        }
        Some(frame)
    }
}
