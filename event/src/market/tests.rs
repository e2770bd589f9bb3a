//! What a frame means, column by column, and what no frame can do.

use num_bigint::{BigInt, BigUint};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fields::time;
use super::*;

/// A sale of the stream, captured in 2023 (shortened: what no column needs is left out), in a frame of version 1.
const SALE: &str = r#"{"event":"item_sold","payload":{"event_type":"item_sold","payload":{"closing_date":"2023-05-22T00:52:47.000000+00:00","collection":{"slug":"emblem-vault"},"event_timestamp":"2023-05-22T00:52:47.000000+00:00","is_private":false,"item":{"chain":{"name":"ethereum"},"metadata":{"animation_url":null,"image_url":"https://i.seadn.io/58c3.png?w=500&auto=format","metadata_url":null,"name":"StamPunk #7401"},"nft_id":"ethereum/0x82c7a8f707110f5fbb16184a5933e9f78a34c6ab/36243717267408641","permalink":"https://opensea.io/assets/ethereum/0x82c7/36243717267408641"},"listing_type":null,"maker":{"address":"0x9c21ba9b67696c192007691c1126bf22d34468e6"},"order_hash":"0x44683b701286ccc9053bb4b4c433d9fb22795498cd6fa4bf5846597f73199ac1","payment_token":{"address":"0x0000000000000000000000000000000000000000","decimals":18,"eth_price":"1.000000000000000","name":"Ether","symbol":"ETH","usd_price":"1805.279999999999973000"},"quantity":1,"sale_price":"118400000000000000","taker":{"address":"0xF78ee64bbc365d43e3ec86cdcc61a2e7389b4561"},"transaction":{"hash":"0x43d6305f26b0b64034883b3a93aa1bafd6a1c20749e9ea84a0cb6ad5a3eb132c","timestamp":"2023-05-22T00:52:47.000000+00:00"}},"sent_at":"2023-05-22T00:52:59.614893+00:00"},"ref":null,"topic":"collection:*"}"#;

fn parse(json: &str) -> MarketEvent<'_> {
    MarketEvent::parse_event(json.as_bytes()).unwrap_or_else(|refused| panic!("{refused}: {json}"))
}

fn refused(json: &str) -> Reason {
    MarketEvent::parse(json.as_bytes()).expect_err(json).reason
}

/// An event of this type and payload.
fn event(event_type: &str, payload: Value) -> String {
    json!({"event_type": event_type, "sent_at": "2026-03-01T00:00:00Z", "payload": payload}).to_string()
}

fn sold(more: Value) -> String {
    let mut payload = json!({
        "event_timestamp": "2026-03-01T00:00:00.000000Z", "order_hash": "0x1", "quantity": 1,
        "payment_token": {"decimals": 18, "symbol": "ETH", "eth_price": "1", "usd_price": "2000"},
    });
    for (key, value) in more.as_object().expect("an object") {
        payload[key] = value.clone();
    }
    event("item_sold", payload)
}

fn scaled(number: Option<i256>) -> String {
    number.expect("an amount").to_string()
}

#[test]
fn a_sale_of_2023_is_read_whole() {
    let event = parse(SALE);
    let text = |column: &Option<Cow<'_, str>>| column.as_deref().map(str::to_owned);
    assert_eq!(event.event_type, "item_sold");
    assert_eq!(event.event_time.to_string(), "2023-05-22T00:52:47Z");
    assert_eq!(event.sent_at.map(|at| at.to_string()).as_deref(), Some("2023-05-22T00:52:59.614893Z"));
    assert_eq!((event.collection.as_deref(), event.chain.as_deref()), (Some("emblem-vault"), Some("ethereum")));
    assert_eq!(
        text(&event.nft_id).as_deref(),
        Some("ethereum/0x82c7a8f707110f5fbb16184a5933e9f78a34c6ab/36243717267408641")
    );
    assert_eq!(event.item_name.as_deref(), Some("StamPunk #7401"));
    assert_eq!(event.item_url.as_deref(), Some("https://opensea.io/assets/ethereum/0x82c7/36243717267408641"));
    assert_eq!(event.image_url.as_deref(), Some("https://i.seadn.io/58c3.png?w=500&auto=format"));
    assert_eq!(event.taker.as_deref(), Some("0xf78ee64bbc365d43e3ec86cdcc61a2e7389b4561"), "in lower case");
    assert_eq!((event.from_account, event.listing_type, event.expires_at), (None, None, None));
    assert_eq!((event.quantity, event.price), (i256::ONE, i256::from_string("118400000000000000")));
    assert_eq!((event.payment_decimals, event.payment_symbol.as_deref()), (Some(18), Some("ETH")));
    assert_eq!(event.payment_token.as_deref(), Some(ZERO_ADDRESS), "native money is a token like others");
    assert_eq!(event.eth_price, Some(1_000_000_000_000_000_000));
    assert_eq!(event.usd_price, Some(1_805_279_999_999_999_973_000));
    assert_eq!(event.price_basis, Some(PriceBasis::Rate));
    // 0.1184 ETH at 1805.279999999999973 USD.
    assert_eq!(scaled(event.amount), format!("1184{}", "0".repeat(32)));
    assert_eq!(scaled(event.amount_eth), scaled(event.amount));
    assert_eq!(scaled(event.amount_usd), format!("2137451519999999968032{}", "0".repeat(17)));
    assert_eq!(event.is_private, Some(false));
}

#[test]
fn the_fixture_of_the_published_listing_is_five_thousandths_and_no_sale() {
    let payload = json!({
        "event_timestamp": "2022-10-01T00:00:00.000000+00:00", "base_price": "5000000000000000", "quantity": 1,
        "payment_token": {"decimals": 18, "eth_price": "1.000000000000000", "usd_price": "1287.160000000000000000"},
    });
    let json = event("item_listed", payload);
    let event = parse(&json);
    assert_eq!(event.event_type, "item_listed");
    assert_eq!(scaled(event.amount_eth), format!("5{}", "0".repeat(33)));
    assert_eq!(scaled(event.amount_usd), format!("64358{}", "0".repeat(32)), "6.4358 USD");
}

#[test]
fn framing_topic_and_time_of_sending_do_not_make_another_event() {
    let one = parse(SALE);
    let payload = &SALE[SALE.find(r#"{"closing_date"#).expect("payload")..SALE.find(r#","sent_at""#).expect("end")];
    let bare = format!(r#"{{"event_type":"item_sold","sent_at":"2024-01-01T00:00:00Z","payload":{payload}}}"#);
    let second = format!(r#" [ "7", null ,"collection:emblem-vault", "item_sold", {bare} ]"#);
    for json in [&bare, &second] {
        let mut event = parse(json);
        assert_eq!(event.sent_at.map(|at| at.to_string()).as_deref(), Some("2024-01-01T00:00:00Z"));
        event.sent_at = one.sent_at;
        assert_eq!(event, one);
    }
}

#[test]
fn the_id_is_the_hash_of_what_makes_two_deliveries_one_event() {
    let hash = |text: &str| EventId(Sha256::digest(text).into());
    assert_eq!(
        parse(SALE).id(),
        hash(
            r#"["item_sold","0x44683b701286ccc9053bb4b4c433d9fb22795498cd6fa4bf5846597f73199ac1","0x43d6305f26b0b64034883b3a93aa1bafd6a1c20749e9ea84a0cb6ad5a3eb132c","ethereum/0x82c7a8f707110f5fbb16184a5933e9f78a34c6ab/36243717267408641","2023-05-22T00:52:47.000000+00:00",null,null,1]"#
        )
    );
    let transfer = r#"{"event_type":"item_transferred","payload":{"event_timestamp":"2026-01-01T00:00:00Z","quantity":"3","from_account":{"address":"0xAB"},"to_account":{"address":"0x1"},"transaction":{"hash":"0x9"}}}"#;
    assert_eq!(
        parse(transfer).id(),
        hash(r#"["item_transferred",null,"0x9",null,"2026-01-01T00:00:00Z","0xab","0x1","3"]"#)
    );
    // Neither hash, or no event_timestamp: the payload as it was sent.
    for payload in [r#"{"event_timestamp":"2026-01-01T00:00:00Z"}"#, r#"{ "order_hash" : "0x1" }"#] {
        let json = format!(r#"{{"event_type":"t","sent_at":"2026-01-01T00:00:01Z","payload": {payload} }}"#);
        assert_eq!(parse(&json).id(), hash(&format!(r#"["t",{payload}]"#)), "{json}");
    }
}

#[test]
fn control_frames_are_told_from_what_is_broken() {
    for (frame, name) in [
        (r#"["1","1","collection:argonauts","phx_reply",{"status":"ok","response":{}}]"#, "phx_reply"),
        (r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":0}"#, "heartbeat"),
        (r#"{"topic":"collection:a","event":"phx_join","payload":{},"ref":1}"#, "phx_join"),
        (r#"{"topic":"collection:a","event":"phx_close","ref":1}"#, "phx_close"),
        (r#"[null,null,"phoenix","anything",{}]"#, "anything"),
        (r#"{"topic":"collection:a","event":"presence_diff","payload":{}}"#, "presence_diff"),
    ] {
        let parsed = MarketEvent::parse(frame.as_bytes()).expect(frame);
        assert_eq!(parsed, MarketFrame::Control(Cow::Borrowed(name)));
        let refused = MarketEvent::parse_event(frame.as_bytes()).expect_err(frame);
        assert_eq!(refused.reason, Reason::FrameUnknown);
    }
}

#[test]
fn what_is_no_event_is_refused_with_its_reason() {
    let payload = json!({"event_timestamp": "2026-01-01T00:00:00Z", "base_price": "1"}).to_string();
    assert!(MarketEvent::parse(payload.as_bytes()).expect_err("no type").detail.contains("event_type"));
    for (json, reason) in [
        (payload.as_str(), Reason::MissingField),
        ("", Reason::MalformedJson),
        ("{\"event_type\":", Reason::MalformedJson),
        ("7", Reason::NotObject),
        ("[1,2,3]", Reason::WrongType),
        (r#"[null,null,"collection:*",7,{}]"#, Reason::WrongType),
        (r#"{"event_type":"t"}"#, Reason::MissingField),
        (r#"{"event_type":"t","payload":[]}"#, Reason::WrongType),
        (r#"{"event_type":"t","payload":{}}"#, Reason::MissingField),
        (r#"{"event_type":"t","sent_at":"soon","payload":{}}"#, Reason::MissingField),
        (r#"{"topic":"collection:*","event":"item_sold","payload":{}}"#, Reason::MissingField),
        (r#"{"event_type":"t","event_type":"u","payload":{}}"#, Reason::DuplicateKey),
        (
            r#"{"event_type":"t","sent_at":"2026-01-01T00:00:00Z","payload":{"quantity":1,"quantity":2}}"#,
            Reason::DuplicateKey,
        ),
    ] {
        assert_eq!(refused(json), reason, "{json}");
    }
    assert_eq!(MarketEvent::parse(b"{\"\xff\":1}").expect_err("bytes").reason, Reason::InvalidUtf8);
}

#[test]
fn quantity_and_price_are_read_exactly_or_not_at_all() {
    let most = "9".repeat(57);
    for (sent, read) in [
        (json!(null), "1"),
        (json!(0), "0"),
        (json!(1_180_591_620_717_411_303_u64), "1180591620717411303"),
        (json!("1180591620717411303424"), "1180591620717411303424"),
        (json!("0007"), "7"),
        (json!(most), most.as_str()),
    ] {
        assert_eq!(parse(&sold(json!({"quantity": sent}))).quantity.to_string(), read, "{sent}");
    }
    // 2^70 as a JSON integer, which no float and no 64 bits hold.
    let large = sold(json!({})).replace(r#""quantity":1"#, r#""quantity":1180591620717411303424"#);
    assert_eq!(parse(&large).quantity.to_string(), "1180591620717411303424");
    for (sent, reason) in [
        (json!(-1), Reason::OutOfRange),
        (json!("-1"), Reason::OutOfRange),
        (json!(1.5), Reason::OutOfRange),
        (json!("1e3"), Reason::OutOfRange),
        (json!(""), Reason::OutOfRange),
        (json!("1".repeat(77)), Reason::OutOfRange),
        (json!(true), Reason::WrongType),
        (json!({}), Reason::WrongType),
        (json!([1]), Reason::WrongType),
    ] {
        for field in ["quantity", "sale_price"] {
            assert_eq!(refused(&sold(json!({field: sent}))), reason, "{field} {sent}");
        }
    }
    assert_eq!(parse(&sold(json!({}))).price, None, "nothing is said");
    let both = parse(&sold(json!({"sale_price": "2", "base_price": "3"}))).price;
    assert_eq!(both, Some(i256::from_i128(2)));
}

#[test]
fn amounts_follow_the_decimals_of_their_token() {
    let token =
        |decimals: Value, eth: Value, usd: Value| json!({"decimals": decimals, "eth_price": eth, "usd_price": usd});
    let usdc =
        sold(json!({"sale_price": "12345678", "payment_token": token(json!(6), json!("0.0005"), json!("0.9998"))}));
    let event = parse(&usdc);
    assert_eq!(scaled(event.amount), format!("12345678{}", "0".repeat(30)));
    assert_eq!(scaled(event.amount_eth), format!("6172839{}", "0".repeat(27)));
    assert_eq!(scaled(event.amount_usd), format!("123432088644{}", "0".repeat(26)));
    // 10^30 wei.
    let whale = parse(&sold(json!({"sale_price": format!("1{}", "0".repeat(30))}))).amount_usd;
    assert_eq!(scaled(whale), format!("2{}", "0".repeat(12 + 3 + 36)));
    // More places than a column has: rounded half away from zero, and the worth is taken of what was not rounded.
    let tiny = token(json!(37), json!("2"), json!("1"));
    let json = sold(json!({"sale_price": "5", "payment_token": tiny}));
    let event = parse(&json);
    assert_eq!(
        (scaled(event.amount), scaled(event.amount_eth), scaled(event.amount_usd)),
        ("1".into(), "1".into(), "1".into())
    );
    let tiny = token(json!(37), json!("0.8"), json!("0.9"));
    let json = sold(json!({"sale_price": "5", "payment_token": tiny}));
    let event = parse(&json);
    assert_eq!((scaled(event.amount_eth), scaled(event.amount_usd)), ("0".into(), "0".into()), "0.40 and 0.45");
    // Nothing is assumed where decimals are missing.
    for decimals in [json!(null), json!(-1), json!(256), json!(1.5), json!("x")] {
        let event = sold(json!({"sale_price": "5", "payment_token": token(decimals, json!("1"), json!("1"))}));
        let event = parse(&event);
        assert_eq!((event.payment_decimals, event.amount, event.amount_eth), (None, None, None));
        assert_eq!(event.price_basis, Some(PriceBasis::Rate));
    }
    // The least that is too much is 10^30 tokens.
    for (price, fits) in [(format!("1{}", "0".repeat(48)), false), ("9".repeat(48), true)] {
        let json = sold(json!({"sale_price": price, "payment_token": {"decimals": 18}}));
        let parsed = MarketEvent::parse_event(json.as_bytes()).map(|event| event.amount.is_some());
        assert_eq!(parsed.map_err(|refused| refused.reason), if fits { Ok(true) } else { Err(Reason::OutOfRange) });
    }
}

#[test]
fn a_rate_of_nothing_leaves_a_sale_unpriced() {
    for (eth, usd) in [
        (json!("0"), json!("0.000")),
        (json!(null), json!("")),
        (json!("-1"), json!("nan")),
        (json!([]), json!(true)),
        (json!(format!("1{}", "0".repeat(20))), json!("1e20")),
        (json!(format!("0.{}1", "0".repeat(99))), json!("0x1")),
    ] {
        let token = json!({"decimals": 18, "eth_price": eth, "usd_price": usd});
        let json = sold(json!({"sale_price": "10", "payment_token": token}));
        let event = parse(&json);
        assert_eq!((event.eth_price, event.usd_price, event.amount_eth, event.amount_usd), (None, None, None, None));
        assert!(event.amount.is_some());
    }
    let json = sold(json!({"sale_price": "10", "payment_token": {"decimals": 18, "usd_price": "1E-7"}}));
    let event = parse(&json);
    assert_eq!((event.usd_price, event.eth_price), (Some(100_000_000_000), None));
    assert_eq!((scaled(event.amount_usd), event.amount_eth), (format!("1{}", "0".repeat(12)), None));
}

#[test]
fn from_2026_on_an_orders_prices_are_its_worth() {
    let at = |event_type: &str, at: &str| {
        let payload = json!({
            "event_timestamp": at, "base_price": "880000000000000000", "quantity": 4,
            "payment_token": {"decimals": 18, "eth_price": "0.88", "usd_price": "2190.1264"},
        });
        let json = event(event_type, payload);
        let event = parse(&json);
        (event.price_basis, scaled(event.amount_eth), scaled(event.amount_usd))
    };
    let (before, after) = ("2025-12-31T23:59:59.999999Z", "2026-01-01T00:00:00Z");
    let rate = |price| (Some(PriceBasis::Rate), format!("7744{}", "0".repeat(32)), price);
    let order = (Some(PriceBasis::Order), format!("88{}", "0".repeat(34)), format!("21901264{}", "0".repeat(32)));
    let usd = format!("1927311232{}", "0".repeat(30));
    for kind in
        ["item_listed", "item_received_bid", "item_received_offer", "collection_offer", "trait_offer", "item_cancelled"]
    {
        assert_eq!(at(kind, before), rate(usd.clone()), "{kind}");
        assert_eq!(at(kind, after), order, "{kind}");
    }
    assert_eq!(at("item_sold", before), rate(usd.clone()));
    assert_eq!(at("item_sold", after), rate(usd));
    let unknown = sold(json!({"sale_price": "1"})).replace("item_sold", "item_rented");
    let unknown = parse(&unknown);
    assert!(unknown.amount.is_some() && unknown.price_basis.is_none() && unknown.amount_usd.is_none());
    assert_eq!(parse(&sold(json!({}))).price_basis, None);
}

#[test]
fn a_bid_gets_its_token_from_the_order_where_that_is_exact() {
    let bid = |sent: &str, item_type: &str, token: &str| {
        format!(
            r#"{{"event_type":"item_received_bid","sent_at":"2026-09-09T10:18:41Z","payload":{{"item":{{"nft_id":"{sent}"}},"protocol_data":{{"parameters":{{"consideration":[{{"itemType":{item_type},"identifierOrCriteria":{token}}}]}}}}}}}}"#
        )
    };
    let read = |json: String| parse(&json).nft_id.map(Cow::into_owned);
    let large = "87069156600715629722106400823718473258797021969785074461649705976549875505039";
    for (item_type, token, read_as) in [
        ("2", "\"7531\"", "ethereum/0x38/7531"),
        ("3", "7531", "ethereum/0x38/7531"),
        ("2", large, &*format!("ethereum/0x38/{large}")),
        ("2", "1.0479044511256843e+77", "ethereum/0x38"),
        ("2", "\"0x1d6b\"", "ethereum/0x38"),
        ("4", "\"7531\"", "ethereum/0x38"),
        ("null", "\"7531\"", "ethereum/0x38"),
    ] {
        assert_eq!(read(bid("ethereum/0x38", item_type, token)).as_deref(), Some(read_as));
    }
    assert_eq!(read(bid("ethereum/0x38/1", "2", "\"7531\"")).as_deref(), Some("ethereum/0x38/1"));
    assert_eq!(parse(&bid("ethereum/0x38", "2", "1")).chain.as_deref(), Some("ethereum"));
}

#[test]
fn text_of_another_type_is_null_and_hurts_nothing() {
    let json = sold(json!({
        "collection": {"slug": 7}, "chain": [], "item": {"nft_id": 1e300, "metadata": "x", "permalink": {}},
        "maker": "0x1", "taker": {"address": ZERO_ADDRESS}, "from_account": {"address": ZERO_ADDRESS},
        "to_account": {"address": "7DmAjkqvFCKwYqmXcVPqXpaGvP5sSvTMp6w1rSRSoLaN"}, "is_private": "yes",
        "listing_type": 3, "expiration_date": 1_700_000_000, "transaction": "0x", "payment_token": "ETH",
        "protocol_data": 7, "sale_price": "1",
    }));
    let event = parse(&json);
    let texts = [&event.collection, &event.chain, &event.nft_id, &event.item_name, &event.item_url, &event.image_url];
    assert!(texts.into_iter().all(Option::is_none));
    let accounts = (event.maker, event.taker, event.from_account.as_deref(), event.to_account.as_deref());
    let solana = Some("7DmAjkqvFCKwYqmXcVPqXpaGvP5sSvTMp6w1rSRSoLaN");
    assert_eq!(
        accounts,
        (None, None, Some(ZERO_ADDRESS), solana),
        "nobody takes, somebody mints; base 58 keeps its case"
    );
    let others = (event.is_private, event.listing_type, event.expires_at, event.transaction_hash, event.payment_symbol);
    assert_eq!(others, (None, None, None, None, None));
}

#[test]
fn times_are_of_rfc_3339_with_any_fraction_and_utc_without_a_zone() {
    for (text, read) in [
        ("2024-03-07T16:29:17.806768+00:00", Some("2024-03-07T16:29:17.806768Z")),
        ("2026-09-09T10:18:41.2160009999999999Z", Some("2026-09-09T10:18:41.216Z")),
        ("2026-09-09T10:18:41.1234567Z", Some("2026-09-09T10:18:41.123456Z")),
        ("2024-07-20 10:56:57.687128", Some("2024-07-20T10:56:57.687128Z")),
        ("2024-07-20T12:56:57+02:00", Some("2024-07-20T10:56:57Z")),
        ("1788949571", None),
        ("2024-02-30T00:00:00Z", None),
        ("", None),
    ] {
        assert_eq!(time(text).map(|time| time.to_string()).as_deref(), read, "{text}");
    }
    // What cannot be read is as if it were not there, but in the id.
    let json = sold(json!({"event_timestamp": "now"}));
    assert_eq!(parse(&json).event_time.to_string(), "2026-03-01T00:00:00Z");
}

/// `numerator / 10^places`, rounded half away from zero at the 36th place, by another way than the code's: the remainder
/// decides.
fn rounded(numerator: &BigInt, places: u32) -> BigInt {
    let numerator = numerator * BigInt::from(10).pow(36);
    let unit = BigInt::from(10).pow(places);
    let (quotient, remainder) = (&numerator / &unit, &numerator % &unit);
    if remainder * 2 >= unit { quotient + 1 } else { quotient }
}

proptest! {
    #[test]
    fn amounts_are_those_of_big_integers(
        price in "[1-9][0-9]{0,40}",
        decimals in 0_u32..60,
        whole in "[0-9]{1,12}",
        fraction in "[0-9]{0,30}",
    ) {
        let rate = format!("{whole}.{fraction}");
        let json = sold(json!({
            "sale_price": price, "payment_token": {"decimals": decimals, "eth_price": rate, "usd_price": null},
        }));
        let number: BigInt = price.parse().expect("digits");
        let digits: BigInt = format!("{whole}{fraction}").parse().expect("digits");
        let places = u32::try_from(fraction.len()).expect("short");
        let (amount, eth) = (rounded(&number, decimals), rounded(&(&number * &digits), decimals + places));
        let limit = BigInt::from(10).pow(66);
        if amount >= limit || eth >= limit {
            prop_assert_eq!(refused(&json), Reason::OutOfRange);
            return Ok(());
        }
        let event = parse(&json);
        prop_assert_eq!(scaled(event.amount), amount.to_string());
        if digits == BigInt::from(0) {
            prop_assert_eq!((event.eth_price, event.amount_eth), (None, None));
        } else {
            prop_assert_eq!(scaled(event.amount_eth), eth.to_string());
            let column = rounded(&digits, places + 18);
            prop_assert_eq!(event.eth_price.map(BigInt::from), Some(column));
        }
        prop_assert_eq!(event.amount_usd, None);
    }

    #[test]
    fn whole_numbers_are_kept_to_the_last_digit(digits in "[0-9]{1,80}") {
        let json = sold(json!({"quantity": digits}));
        let number: BigUint = digits.parse().expect("digits");
        match MarketEvent::parse_event(json.as_bytes()) {
            Ok(event) => prop_assert_eq!(event.quantity.to_string(), number.to_string()),
            Err(refused) => {
                prop_assert_eq!(refused.reason, Reason::OutOfRange);
                prop_assert!(number >= BigUint::from(10_u8).pow(57));
            }
        }
    }

    #[test]
    fn no_edit_of_a_real_frame_does_more_than_be_refused(
        at in any::<prop::sample::Index>(), cut in 0_usize..40, put in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut bytes = SALE.as_bytes().to_vec();
        let at = at.index(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put);
        if let Ok(MarketFrame::Event(event)) = MarketEvent::parse(&bytes) {
            prop_assert_eq!(MarketEvent::parse_event(&bytes).map(|again| again.id()), Ok(event.id()));
        }
    }

    #[test]
    fn any_token_may_stand_where_any_other_did(at in any::<prop::sample::Index>(), token in "null|-0|1e999|\"\\\\ud800\"|\\[\\]|\\{\\}|\"\"|true") {
        // Of every value in the frame, one is another.
        let ends: Vec<usize> = SALE.match_indices("\":").map(|(at, _)| at + 2).collect();
        let start = ends[at.index(ends.len())];
        let mut values = serde_json::Deserializer::from_str(&SALE[start..]).into_iter::<&RawValue>();
        let value = values.next().expect("a value").expect("JSON").get();
        let json = format!("{}{token}{}", &SALE[..start], &SALE[start + value.len()..]);
        let parsed = MarketEvent::parse(json.as_bytes());
        let may_be = [Reason::MissingField, Reason::WrongType, Reason::OutOfRange];
        prop_assert!(parsed.as_ref().map_or_else(|refused| may_be.contains(&refused.reason), |_| true), "{parsed:?}: {json}");
    }
}
