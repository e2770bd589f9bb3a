//! The fields of a payload: where they stand, and what is read of each.
//!
//! Every field is kept as the text that it is until it is asked for, so that one of another type than it should have is
//! null and no fault, and numbers keep all their digits.

use std::borrow::Cow;

use arrow::datatypes::i256;
use chrono::DateTime;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Text;
use super::amount::Rate;
use super::frame::object;
use crate::rejection::{Reason, Rejection};
use crate::time::EventTime;

/// JSON that has not been looked into; null is none.
pub(super) type Raw<'a> = Option<&'a RawValue>;

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Payload<'a> {
    pub(super) event_timestamp: Raw<'a>,
    pub(super) collection: Raw<'a>,
    pub(super) chain: Raw<'a>,
    pub(super) item: Raw<'a>,
    pub(super) from_account: Raw<'a>,
    pub(super) to_account: Raw<'a>,
    pub(super) maker: Raw<'a>,
    pub(super) taker: Raw<'a>,
    pub(super) quantity: Raw<'a>,
    pub(super) sale_price: Raw<'a>,
    pub(super) base_price: Raw<'a>,
    pub(super) payment_token: Raw<'a>,
    pub(super) order_hash: Raw<'a>,
    pub(super) transaction: Raw<'a>,
    pub(super) listing_type: Raw<'a>,
    pub(super) is_private: Raw<'a>,
    pub(super) expiration_date: Raw<'a>,
    pub(super) protocol_data: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Item<'a> {
    pub(super) nft_id: Raw<'a>,
    pub(super) permalink: Raw<'a>,
    pub(super) chain: Raw<'a>,
    pub(super) metadata: Raw<'a>,
}

/// What stands alone in an object: a slug, a name, an address, a hash.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Named<'a> {
    pub(super) slug: Raw<'a>,
    pub(super) name: Raw<'a>,
    pub(super) address: Raw<'a>,
    pub(super) hash: Raw<'a>,
    pub(super) image_url: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Token<'a> {
    pub(super) address: Raw<'a>,
    pub(super) symbol: Raw<'a>,
    pub(super) decimals: Raw<'a>,
    pub(super) eth_price: Raw<'a>,
    pub(super) usd_price: Raw<'a>,
}

/// As much of a Seaport order as says which token a bid is for.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
pub(super) struct Order<'a> {
    pub(super) parameters: Raw<'a>,
    pub(super) consideration: Raw<'a>,
    pub(super) item_type: Raw<'a>,
    pub(super) identifier_or_criteria: Raw<'a>,
}

/// A string; anything else, one that is no Unicode among it, is none.
pub(super) fn text(raw: Raw<'_>) -> Text<'_> {
    let quoted = raw?.get();
    let plain = quoted.strip_prefix('"')?.strip_suffix('"')?;
    match plain.contains('\\') {
        false => Some(Cow::Borrowed(plain)),
        true => serde_json::from_str(quoted).ok().map(Cow::Owned),
    }
}

/// A string, or the `name` of an object.
pub(super) fn name(raw: Raw<'_>) -> Result<Text<'_>, Rejection> {
    match text(raw) {
        None => Ok(text(object::<Named<'_>>(raw)?.name)),
        name => Ok(name),
    }
}

pub(super) fn chain<'a>(payload: &Payload<'a>, item: &Item<'a>, nft_id: Option<&str>) -> Result<Text<'a>, Rejection> {
    let named = match name(payload.chain)? {
        None => name(item.chain)?,
        named => named,
    };
    let first = || nft_id?.split_once('/').map(|(chain, _)| Cow::Owned(chain.to_owned()));
    Ok(named.or_else(first))
}

pub(super) fn account(raw: Raw<'_>) -> Result<Text<'_>, Rejection> {
    Ok(text(object::<Named<'_>>(raw)?.address).map(address))
}

/// Hex has two spellings, and one is kept. Addresses of other chains than Ethereum's kin are no hex, and their case
/// counts.
pub(super) fn address(address: Cow<'_, str>) -> Cow<'_, str> {
    let is_hex = address.starts_with("0x") || address.starts_with("0X");
    match is_hex && address.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(address.to_ascii_lowercase()),
        false => address,
    }
}

/// The item's `chain/contract/token id`; where the token is missing, as in bids of 2026, the one that the order asks for.
pub(super) fn nft_id<'a>(item: &Item<'a>, protocol_data: Raw<'a>) -> Result<Text<'a>, Rejection> {
    let Some(sent) = text(item.nft_id) else { return Ok(None) };
    if sent.bytes().filter(|byte| *byte == b'/').count() != 1 {
        return Ok(Some(sent));
    }
    let parameters: Order<'a> = object(object::<Order<'a>>(protocol_data)?.parameters)?;
    let considered: Option<Vec<&RawValue>> =
        parameters.consideration.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let first: Order<'a> = object(considered.and_then(|considered| considered.first().copied()))?;
    // 2 and 3 are ERC-721 and ERC-1155; 4 and 5 stand for many tokens.
    let is_token = first.item_type.is_some_and(|sort| matches!(sort.get(), "2" | "3"));
    let token = first.identifier_or_criteria.filter(|_| is_token).map(|raw| unquoted(raw.get()));
    Ok(Some(match token.filter(|token| is_digits(token)) {
        Some(token) => Cow::Owned(format!("{sent}/{token}")),
        None => sent,
    }))
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The token of a number, or what stands in a string as it is written.
pub(super) fn unquoted(token: &str) -> &str {
    token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(token)
}

/// A whole number of at most so many digits as it stands, in a string or without; none where there is none.
pub(super) fn whole(name: &str, raw: Raw<'_>, digits_max: usize) -> Result<Option<i256>, Rejection> {
    let Some(token) = raw.map(RawValue::get) else { return Ok(None) };
    let digits = unquoted(token);
    let refused = |reason, why: &str| Rejection::new(reason, format!("{name} {why}: {token}"));
    if matches!(token.as_bytes().first(), Some(b'{' | b'[' | b't' | b'f')) {
        return Err(refused(Reason::WrongType, "is no number"));
    }
    if !is_digits(digits) {
        return Err(refused(Reason::OutOfRange, "is no whole number without a sign"));
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Some(i256::ZERO));
    }
    let number = Some(digits).filter(|digits| digits.len() <= digits_max).and_then(i256::from_string);
    number.map(Some).ok_or_else(|| refused(Reason::OutOfRange, &format!("has more than {digits_max} digits")))
}

/// A price in another currency; "0" means that none is known.
pub(super) fn rate(raw: Raw<'_>) -> Option<Rate> {
    Rate::parse(unquoted(raw?.get()))
}

/// RFC 3339; without a zone it is UTC. What lies below a microsecond is cut off.
pub(super) fn time(text: &str) -> Option<EventTime> {
    let zoned = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc3339(&format!("{text}Z")));
    EventTime::from_micros(zoned.ok()?.timestamp_micros())
}
