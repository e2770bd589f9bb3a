//! Frames of the market's stream: an event is the same in whatever frame it comes, and what is paid is counted anew, in
//! fractions.

use std::collections::BTreeMap;

use event::market::PriceBasis;
use event::{MarketEvent, MarketFrame, Origin, Table};
use num_bigint::BigUint;
use serde_json::value::RawValue;

/// Decimal places of amounts and of rates.
const PLACES: (u32, u32) = (36, 18);

/// A frame, or an event without one.
pub fn market(bytes: &[u8]) {
    let mut rows = Table::Market.builder();
    let taken = rows.take(bytes, &Origin::default()).is_ok();
    assert_eq!(rows.finish().num_rows(), usize::from(taken));
    let read = MarketEvent::parse(bytes);
    assert_eq!(taken, matches!(read, Ok(MarketFrame::Event(_))));
    match read {
        Ok(MarketFrame::Event(event)) => {
            let sent = Sent::find(bytes);
            wrapped(&event, &sent);
            paid(&event, &sent);
        }
        Ok(MarketFrame::Control(name)) => assert_eq!(text(Some(frame_name(bytes))), Some(name.into_owned())),
        Err(_) => {}
    }
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

fn object(json: &RawValue) -> Object<'_> {
    serde_json::from_str(json.get()).unwrap_or_default()
}

/// Null is nothing.
fn field<'a>(object: &Object<'a>, key: &str) -> Option<&'a RawValue> {
    object.get(key).copied().filter(|value| value.get() != "null")
}

fn text(json: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(json?.get()).ok()
}

fn array(bytes: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice(bytes).ok()
}

fn frame_name(bytes: &[u8]) -> &RawValue {
    match array(bytes) {
        Some(parts) => parts[3],
        None => object(serde_json::from_slice(bytes).expect("JSON"))["event"],
    }
}

/// An event as it stands in its frame.
struct Sent<'a> {
    event_type: Option<&'a RawValue>,
    sent_at: &'a str,
    payload: &'a RawValue,
}

impl<'a> Sent<'a> {
    fn find(bytes: &'a [u8]) -> Self {
        let inner = match array(bytes) {
            Some(parts) => object(parts[4]),
            None => {
                let outer = object(serde_json::from_slice(bytes).expect("JSON"));
                match text(field(&outer, "event_type")) {
                    Some(_) => outer,
                    None => object(outer["payload"]),
                }
            }
        };
        let event_type = field(&inner, "event_type").filter(|sort| text(Some(sort)).is_some());
        Self { event_type, sent_at: field(&inner, "sent_at").map_or("null", RawValue::get), payload: inner["payload"] }
    }
}

/// The event alone, and in frames of both versions, which say the type in its place or not.
fn wrapped(event: &MarketEvent<'_>, sent: &Sent<'_>) {
    let Sent { sent_at, payload, .. } = sent;
    let name = serde_json::to_string(&event.event_type).expect("a string");
    let sort = sent.event_type.map_or(&*name, RawValue::get);
    let bare = format!(r#"{{"event_type":{sort},"sent_at":{sent_at},"payload":{payload}}}"#);
    let untyped = format!(r#" {{"payload" : {payload} , "sent_at":{sent_at}}}"#);
    let mut forms = vec![
        format!(r#"{{"topic":"collection:*","event":"item_sold","payload":{bare},"ref":null}}"#),
        format!(r#"["1",null,"collection:*","item_sold",{bare}]"#),
        bare,
    ];
    let of_channel = ["phx_", "presence_"].iter().any(|prefix| event.event_type.starts_with(prefix));
    if !of_channel && event.event_type != "heartbeat" {
        forms.push(format!(r#"{{"payload":{untyped},"event":{name}}}"#));
        forms.push(format!("\n[ null , 7, null, {name}, {untyped} ]"));
    }
    for form in forms {
        assert_eq!(MarketEvent::parse_event(form.as_bytes()).as_ref(), Ok(event), "{form}");
    }
}

/// What stands in a number, or in a string as it is written.
fn written(json: &RawValue) -> &str {
    let json = json.get();
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json)
}

fn whole(text: &str) -> Option<BigUint> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| BigUint::parse_bytes(text.as_bytes(), 10)).flatten()
}

fn ten(power: u32) -> BigUint {
    BigUint::from(10_u8).pow(power)
}

/// A number that is not negative: numerator and denominator.
#[derive(Clone)]
struct Fraction(BigUint, BigUint);

impl Fraction {
    /// A decimal of at most 100 characters; one that no column could tell from nothing or from everything is brought
    /// nearer.
    fn read(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = exponent.parse::<i32>().ok()?.clamp(-500, 500);
        let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole(&format!("{before}{behind}")).filter(|_| text.len() <= 100)?;
        let places = ten(u32::try_from(behind.len()).ok()?);
        let power = ten(exponent.unsigned_abs());
        Some(if exponent < 0 { Self(digits, places * power) } else { Self(digits * power, places) })
    }

    fn times(&self, other: &Self) -> Self {
        Self(&self.0 * &other.0, &self.1 * &other.1)
    }

    /// In units of 10^-`places`, rounded half up.
    fn rounded(&self, places: u32) -> BigUint {
        (&self.0 * ten(places) * 2_u8 + &self.1) / (&self.1 * 2_u8)
    }
}

fn paid(event: &MarketEvent<'_>, sent: &Sent<'_>) {
    let shown = |number: Option<BigUint>| number.map(|number| number.to_string());
    let payload = object(sent.payload);
    let number = |key| field(&payload, key).map(|sent| whole(written(sent)).expect("a whole number"));
    assert_eq!(event.quantity.to_string(), number("quantity").unwrap_or_else(|| ten(0)).to_string());
    let price = number("sale_price").or_else(|| number("base_price"));
    assert_eq!(event.price.map(|price| price.to_string()), shown(price.clone()));

    let token = field(&payload, "payment_token").map(object).unwrap_or_default();
    let decimals = field(&token, "decimals").and_then(|sent| whole(written(sent)));
    let decimals = decimals.and_then(|places| u32::try_from(places).ok()).filter(|places| *places <= 255);
    assert_eq!(event.payment_decimals.map(i32::unsigned_abs), decimals);
    let amount = price.zip(decimals).map(|(price, decimals)| Fraction(price, ten(decimals)));
    let (amount_places, rate_places) = PLACES;
    let counted = |amount: Option<Fraction>| shown(amount.map(|amount| amount.rounded(amount_places)));
    assert_eq!(event.amount.map(|amount| amount.to_string()), counted(amount.clone()));

    for (key, column, worth) in
        [("eth_price", event.eth_price, event.amount_eth), ("usd_price", event.usd_price, event.amount_usd)]
    {
        let rate = field(&token, key).and_then(|sent| Fraction::read(written(sent)));
        let rate = rate.filter(|rate| rate.0.bits() > 0 && rate.rounded(rate_places) < ten(38));
        let said = rate.as_ref().map(|rate| rate.rounded(rate_places));
        assert_eq!(column.map(|rate| rate.to_string()), shown(said), "{key}");
        let wanted = match event.price_basis {
            Some(PriceBasis::Order) => rate,
            Some(PriceBasis::Rate) => rate.zip(amount.as_ref()).map(|(rate, amount)| rate.times(amount)),
            None => None,
        };
        assert_eq!(worth.map(|worth| worth.to_string()), counted(wanted), "{key}");
    }
}
