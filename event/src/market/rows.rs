//! Rows of the market table, column by column in the order of [`crate::schema::market_schema`].

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder as _, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder,
    FixedSizeBinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;

use super::{MarketEvent, PriceBasis};
use crate::batch::Origin;
use crate::rejection::Rejection;
use crate::schema::{amount_type, market_schema, rate_type, whole_type};
use crate::table::{Row, RowBuilder};
use crate::time::EventTime;

/// Columns of text, in the order of [`texts`].
const TEXTS: usize = 17;
/// Bytes of a row without its texts.
const ROW_BYTES: usize = 32 + 4 * 8 + 5 * 32 + 2 * 16 + 2 * 4 + 8 + 1 + (TEXTS + 2) * 4;

/// Builds record batches of market events, row by row.
#[derive(Debug)]
pub(crate) struct MarketBatchBuilder {
    bytes: usize,
    id: FixedSizeBinaryBuilder,
    /// Event time, when it was sent, when the order ends, when it was received.
    times: [TimestampMicrosecondBuilder; 4],
    texts: [StringBuilder; TEXTS],
    /// Quantity and price.
    wholes: [Decimal256Builder; 2],
    decimals: Int32Builder,
    /// In ETH and in USD.
    rates: [Decimal128Builder; 2],
    /// In tokens, in ETH and in USD.
    amounts: [Decimal256Builder; 3],
    is_private: BooleanBuilder,
    phase: StringBuilder,
    raw: BinaryBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
}

/// The texts of an event.
fn texts<'a>(event: &'a MarketEvent<'_>) -> [Option<&'a str>; TEXTS] {
    [
        Some(&*event.event_type),
        event.collection.as_deref(),
        event.chain.as_deref(),
        event.nft_id.as_deref(),
        event.item_name.as_deref(),
        event.item_url.as_deref(),
        event.image_url.as_deref(),
        event.from_account.as_deref(),
        event.to_account.as_deref(),
        event.maker.as_deref(),
        event.taker.as_deref(),
        event.payment_token.as_deref(),
        event.payment_symbol.as_deref(),
        event.price_basis.map(PriceBasis::as_str),
        event.order_hash.as_deref(),
        event.transaction_hash.as_deref(),
        event.listing_type.as_deref(),
    ]
}

impl Default for MarketBatchBuilder {
    fn default() -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        let decimal = |sort: DataType| move || Decimal256Builder::new().with_data_type(sort.clone());
        let (whole, amount) = (decimal(whole_type()), decimal(amount_type()));
        let rate = || Decimal128Builder::new().with_data_type(rate_type());
        Self {
            bytes: 0,
            id: FixedSizeBinaryBuilder::new(32),
            times: [time(), time(), time(), time()],
            texts: std::array::from_fn(|_| StringBuilder::new()),
            wholes: [whole(), whole()],
            decimals: Int32Builder::new(),
            rates: [rate(), rate()],
            amounts: [amount(), amount(), amount()],
            is_private: BooleanBuilder::new(),
            phase: StringBuilder::new(),
            raw: BinaryBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
        }
    }
}

impl MarketBatchBuilder {
    fn append(&mut self, event: &MarketEvent<'_>, raw: &[u8], origin: &Origin<'_>) {
        self.id.append_value(event.id.0).expect("the array has the width of its column");
        let received_at = origin.received_at_ms.and_then(EventTime::from_millis);
        let times = [Some(event.event_time), event.sent_at, event.expires_at, received_at];
        for (column, time) in self.times.iter_mut().zip(times) {
            column.append_option(time.map(EventTime::micros));
        }
        let texts = texts(event);
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.append_option(text);
        }
        for (column, number) in self.wholes.iter_mut().zip([Some(event.quantity), event.price]) {
            column.append_option(number);
        }
        self.decimals.append_option(event.payment_decimals);
        for (column, rate) in self.rates.iter_mut().zip([event.eth_price, event.usd_price]) {
            column.append_option(rate);
        }
        for (column, amount) in self.amounts.iter_mut().zip([event.amount, event.amount_eth, event.amount_usd]) {
            column.append_option(amount);
        }
        self.is_private.append_option(event.is_private);
        self.phase.append_option(origin.phase);
        self.raw.append_value(raw);
        self.partition.append_value(origin.partition);
        self.offset.append_value(origin.offset);
        let texts: usize = texts.into_iter().flatten().chain(origin.phase).map(str::len).sum();
        self.bytes += ROW_BYTES + texts + raw.len();
    }
}

impl RowBuilder for MarketBatchBuilder {
    /// Where the frame came from is not kept; when it was received and its phase come from `origin`.
    fn take(&mut self, raw: &[u8], origin: &Origin<'_>) -> Result<Row, Rejection> {
        let event = MarketEvent::parse_event(raw)?;
        self.append(&event, raw, origin);
        Ok(event.row())
    }

    fn len(&self) -> usize {
        self.offset.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let [event_time, sent_at, expires_at, received_at] =
            self.times.each_mut().map(|times| Arc::new(times.finish()) as ArrayRef);
        let [quantity, price] = self.wholes.each_mut().map(|wholes| Arc::new(wholes.finish()) as ArrayRef);
        let [eth_price, usd_price] = self.rates.each_mut().map(|rates| Arc::new(rates.finish()) as ArrayRef);
        let [amount, amount_eth, amount_usd] =
            self.amounts.each_mut().map(|amounts| Arc::new(amounts.finish()) as ArrayRef);
        let [
            event_type,
            collection,
            chain,
            nft_id,
            item_name,
            item_url,
            image_url,
            from_account,
            to_account,
            maker,
            taker,
            payment_token,
            payment_symbol,
            price_basis,
            order_hash,
            transaction_hash,
            listing_type,
        ] = self.texts.each_mut().map(|texts| Arc::new(texts.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            event_type,
            event_time,
            sent_at,
            collection,
            chain,
            nft_id,
            item_name,
            item_url,
            image_url,
            from_account,
            to_account,
            maker,
            taker,
            quantity,
            price,
            payment_token,
            payment_symbol,
            Arc::new(self.decimals.finish()),
            eth_price,
            usd_price,
            price_basis,
            amount,
            amount_eth,
            amount_usd,
            order_hash,
            transaction_hash,
            listing_type,
            Arc::new(self.is_private.finish()),
            expires_at,
            received_at,
            Arc::new(self.phase.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
        ];
        RecordBatch::try_new(market_schema(), columns).expect("the columns are built in the schema's order and types")
    }
}
