//! MarketEvent: what happened on OpenSea's market, out of a frame of its stream, and its id.
//!
//! In come a frame's bytes; out goes an event with exact amounts, a control frame, or a [`Rejection`]. A frame has one of
//! three forms (`frame`); what one event says stays the same in each of them, and so does its id. Where a field is
//! missing or of another type than the documentation says, its column is null; only what is counted and paid
//! (`quantity`, `sale_price`, `base_price`) has to be readable exactly. Nothing here goes through a float.
//!
//! docs/market.md says what each column is and why; docs/decisions/0021-market-table.md what the id is worth.

mod amount;
mod fields;
mod frame;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use arrow::datatypes::i256;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use self::amount::Worth;
use self::fields::{
    Item, Named, Payload, Raw, Token, account, address, chain, is_digits, nft_id, rate, text, time, unquoted, whole,
};
use self::frame::{Envelope, object, open};
use crate::id::EventId;
use crate::json::push_string;
use crate::rejection::{Reason, Rejection};
use crate::table::Row;
use crate::time::EventTime;

pub(crate) use rows::MarketBatchBuilder;

/// The address that nobody has: as a taker it means that the order is open to all.
const ZERO_ADDRESS: &str = "0x0000000000000000000000000000000000000000";
/// From this event time on, 2026-01-01T00:00:00Z, `eth_price` and `usd_price` of orders are the whole order's worth.
const ORDER_BASIS_FROM_MICROS: i64 = 1_767_225_600_000_000;

/// Digits of a quantity: anybody can make a token and move 10^75 of it, and a column of 76 digits has to hold sums.
const QUANTITY_DIGITS_MAX: usize = 57;
/// Digits of a price: as many as its column has.
const PRICE_DIGITS_MAX: usize = 76;

/// What a frame of the stream is.
#[derive(Clone, Debug, PartialEq)]
pub enum MarketFrame<'a> {
    /// Something happened on the market.
    Event(Box<MarketEvent<'a>>),
    /// A message of the channel itself (Phoenix): a reply, a heartbeat, a join; its name.
    Control(Cow<'a, str>),
}

/// What `eth_price` and `usd_price` are the worth of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceBasis {
    /// Of one whole token.
    Rate,
    /// Of the whole order.
    Order,
}

impl PriceBasis {
    /// As the column has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Order => "order",
        }
    }

    /// The basis of a type's prices at a time; none for types that are not known to have any.
    fn of(event_type: &str, at: EventTime) -> Option<Self> {
        match event_type {
            "item_sold" => Some(Self::Rate),
            "item_listed"
            | "item_received_bid"
            | "item_received_offer"
            | "collection_offer"
            | "trait_offer"
            | "item_cancelled" => Some(if at.micros() < ORDER_BASIS_FROM_MICROS { Self::Rate } else { Self::Order }),
            _ => None,
        }
    }
}

type Text<'a> = Option<Cow<'a, str>>;

/// An event of the market.
#[derive(Clone, Debug, PartialEq)]
pub struct MarketEvent<'a> {
    id: EventId,
    /// Type, as sent; there may be types that we do not know.
    pub event_type: Cow<'a, str>,
    /// When it happened on the market: `event_timestamp`, else when it was sent.
    pub event_time: EventTime,
    /// When OpenSea sent it.
    pub sent_at: Option<EventTime>,
    /// Slug of the collection.
    pub collection: Text<'a>,
    /// Name of the chain.
    pub chain: Text<'a>,
    /// `chain/contract/token id`; `chain/contract` where the token could not be told.
    pub nft_id: Text<'a>,
    /// Name of the item.
    pub item_name: Text<'a>,
    /// The item's page.
    pub item_url: Text<'a>,
    /// The item's image.
    pub image_url: Text<'a>,
    /// Who gave the item; the zero address where it was minted.
    pub from_account: Text<'a>,
    /// Who got the item; the zero address where it was burnt.
    pub to_account: Text<'a>,
    /// Who made the order.
    pub maker: Text<'a>,
    /// Who took the order, or alone may take it.
    pub taker: Text<'a>,
    /// How many items; 1 where nothing is said.
    pub quantity: i256,
    /// What all of them cost, in the smallest unit of the token.
    pub price: Option<i256>,
    /// Address of the token that is paid with.
    pub payment_token: Text<'a>,
    /// Its symbol.
    pub payment_symbol: Text<'a>,
    /// Its decimal places, 0 to 255.
    pub payment_decimals: Option<i32>,
    /// `eth_price` as sent, in 10^-18 ETH.
    pub eth_price: Option<i128>,
    /// `usd_price` as sent, in 10^-18 USD.
    pub usd_price: Option<i128>,
    /// What the two are the worth of.
    pub price_basis: Option<PriceBasis>,
    /// The price in whole tokens, times 10^36.
    pub amount: Option<i256>,
    /// The price in ETH, times 10^36.
    pub amount_eth: Option<i256>,
    /// The price in USD, times 10^36.
    pub amount_usd: Option<i256>,
    /// Hash of the order.
    pub order_hash: Text<'a>,
    /// Hash of the transaction on the chain.
    pub transaction_hash: Text<'a>,
    /// Sort of the listing.
    pub listing_type: Text<'a>,
    /// Whether only one account may buy.
    pub is_private: Option<bool>,
    /// When the order ends.
    pub expires_at: Option<EventTime>,
}

impl<'a> MarketEvent<'a> {
    /// Reads one frame, or an event without one.
    ///
    /// # Errors
    /// `InvalidUtf8`, `MalformedJson`, `DuplicateKey` for a key that we read and that stands twice, `NotObject` and
    /// `WrongType` when it is neither a frame nor an event, `MissingField` without an event type, a payload, or any
    /// time, `OutOfRange` when quantity, price or an amount cannot be held exactly.
    pub fn parse(raw: &'a [u8]) -> Result<MarketFrame<'a>, Rejection> {
        match open(raw)? {
            Envelope::Control(name) => Ok(MarketFrame::Control(name)),
            Envelope::Event { event_type, sent_at, payload } => {
                let event = Self::of(event_type, sent_at.and_then(|sent_at| time(&sent_at)), payload)?;
                Ok(MarketFrame::Event(Box::new(event)))
            }
        }
    }

    /// The event, where nothing else is of use.
    ///
    /// # Errors
    /// As [`MarketEvent::parse`], and `FrameUnknown` for a control frame.
    pub fn parse_event(raw: &'a [u8]) -> Result<Self, Rejection> {
        match Self::parse(raw)? {
            MarketFrame::Event(event) => Ok(*event),
            MarketFrame::Control(name) => {
                Err(Rejection::new(Reason::FrameUnknown, format!("a control frame ({name}), no event")))
            }
        }
    }

    /// SHA-256 over what makes two deliveries one event: the JSON text
    /// `[event_type,order_hash,transaction_hash,nft_id,event_timestamp,from,to,quantity]`, the quantity as sent and null
    /// for what is absent, where there is an `event_timestamp` and one of the hashes; else over `[event_type,payload]`,
    /// the payload byte for byte.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    pub(crate) const fn row(&self) -> Row {
        Row { time: self.event_time, id: Some(self.id) }
    }

    fn of(event_type: Cow<'a, str>, sent_at: Option<EventTime>, raw: &'a RawValue) -> Result<Self, Rejection> {
        let payload: Payload<'a> = object(Some(raw))?;
        let item: Item<'a> = object(payload.item)?;
        let metadata: Named<'a> = object(item.metadata)?;
        let token: Token<'a> = object(payload.payment_token)?;
        let happened = text(payload.event_timestamp);
        let event_time = happened.as_deref().and_then(time).or(sent_at).ok_or_else(|| {
            Rejection::new(Reason::MissingField, "neither event_timestamp nor sent_at says when it happened")
        })?;
        let quantity = whole("quantity", payload.quantity, QUANTITY_DIGITS_MAX)?.unwrap_or(i256::ONE);
        let price = match whole("sale_price", payload.sale_price, PRICE_DIGITS_MAX)? {
            None => whole("base_price", payload.base_price, PRICE_DIGITS_MAX)?,
            sold => sold,
        };
        let decimals = token.decimals.map(|raw| unquoted(raw.get())).filter(|places| is_digits(places));
        let decimals = decimals.and_then(|places| places.parse().ok());
        let payment_decimals = decimals.filter(|places| (0..=255).contains(places));
        let (eth, usd) = (rate(token.eth_price), rate(token.usd_price));
        let price_basis = price.and_then(|_| PriceBasis::of(&event_type, event_time));
        let worth = Worth { price, decimals: payment_decimals, basis: price_basis };
        let nft_id = nft_id(&item, payload.protocol_data)?;
        let mut event = Self {
            id: EventId([0; 32]),
            event_type,
            event_time,
            sent_at,
            collection: text(object::<Named<'a>>(payload.collection)?.slug),
            chain: chain(&payload, &item, nft_id.as_deref())?,
            nft_id,
            item_name: text(metadata.name),
            item_url: text(item.permalink),
            image_url: text(metadata.image_url),
            from_account: account(payload.from_account)?,
            to_account: account(payload.to_account)?,
            maker: account(payload.maker)?,
            taker: account(payload.taker)?.filter(|taker| taker != ZERO_ADDRESS),
            quantity,
            price,
            payment_token: text(token.address).map(address),
            payment_symbol: text(token.symbol),
            payment_decimals,
            eth_price: eth.as_ref().map(|rate| rate.column),
            usd_price: usd.as_ref().map(|rate| rate.column),
            price_basis,
            amount: worth.amount()?,
            amount_eth: worth.at("ETH", eth.as_ref())?,
            amount_usd: worth.at("USD", usd.as_ref())?,
            order_hash: text(payload.order_hash),
            transaction_hash: text(object::<Named<'a>>(payload.transaction)?.hash),
            listing_type: text(payload.listing_type),
            is_private: payload.is_private.and_then(|raw| raw.get().parse().ok()),
            expires_at: text(payload.expiration_date).and_then(|at| time(&at)),
        };
        event.id = event.identify(happened.as_deref(), payload.quantity, raw);
        Ok(event)
    }

    fn identify(&self, happened: Option<&str>, quantity: Raw<'_>, payload: &RawValue) -> EventId {
        let mut key = String::with_capacity(512);
        key.push('[');
        push_string(&mut key, &self.event_type);
        let hashes = [&self.order_hash, &self.transaction_hash];
        match happened.filter(|_| hashes.iter().any(|hash| hash.is_some())) {
            Some(happened) => {
                let parts = [
                    self.order_hash.as_deref(),
                    self.transaction_hash.as_deref(),
                    self.nft_id.as_deref(),
                    Some(happened),
                    self.from_account.as_deref(),
                    self.to_account.as_deref(),
                ];
                for part in parts {
                    key.push(',');
                    match part {
                        Some(part) => push_string(&mut key, part),
                        None => key.push_str("null"),
                    }
                }
                key.push(',');
                key.push_str(quantity.map_or("null", RawValue::get));
            }
            None => {
                key.push(',');
                key.push_str(payload.get());
            }
        }
        key.push(']');
        EventId(Sha256::digest(&key).into())
    }
}
