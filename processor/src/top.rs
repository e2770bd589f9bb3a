//! The first or the last events by time, each once, out of any number of rows.
//!
//! In: batches with the columns `created_at` and `id`, in any order, copies among them. Out: so many rows as were asked
//! for. No more than these rows are ever held.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use event::schema::{CREATED_AT, ID};

use crate::error::Result;

/// Which end of time is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest events, oldest first.
    Ascending,
    /// The newest events, newest first.
    Descending,
}

/// Event time in microseconds, then id: one event has one place, wherever its copies come from.
type Place = (i64, [u8; 32]);

/// The best rows so far.
#[derive(Debug)]
pub struct Top {
    order: Order,
    amount: usize,
    schema: SchemaRef,
    /// A batch of one row each: a slice would hold on to the whole batch it was cut from.
    rows: BTreeMap<Place, RecordBatch>,
}

impl Top {
    /// Keeps the first `amount` rows in `order`, of batches of this schema.
    #[must_use]
    pub fn new(order: Order, amount: usize, schema: SchemaRef) -> Self {
        Self { order, amount, schema, rows: BTreeMap::new() }
    }

    /// Takes in what is better than what is held.
    ///
    /// # Errors
    /// `Internal` when the columns `created_at` and `id` are not there.
    pub fn offer(&mut self, batch: &RecordBatch) -> Result<()> {
        let times = batch.column(self.schema.index_of(CREATED_AT)?).as_primitive::<TimestampMicrosecondType>();
        let ids = batch.column(self.schema.index_of(ID)?).as_fixed_size_binary();
        for row in 0..batch.num_rows() {
            let Ok(id) = <[u8; 32]>::try_from(ids.value(row)) else { continue };
            let place = (times.value(row), id);
            if self.wants(&place) {
                let index = UInt32Array::from_iter_values(u32::try_from(row));
                self.rows.insert(place, take_record_batch(batch, &index)?);
                if self.rows.len() > self.amount {
                    self.drop_worst();
                }
            }
        }
        Ok(())
    }

    /// The rows, in `order`.
    ///
    /// # Errors
    /// `Internal` when the batches were not of one schema.
    pub fn finish(self, order: Order) -> Result<RecordBatch> {
        let rows: Vec<RecordBatch> = match order {
            Order::Ascending => self.rows.into_values().collect(),
            Order::Descending => self.rows.into_values().rev().collect(),
        };
        Ok(concat_batches(&self.schema, &rows)?)
    }

    fn wants(&self, place: &Place) -> bool {
        if self.rows.contains_key(place) {
            return false;
        }
        let better = match self.order {
            Order::Ascending => self.rows.last_key_value().is_none_or(|(worst, _)| place < worst),
            Order::Descending => self.rows.first_key_value().is_none_or(|(worst, _)| place > worst),
        };
        self.amount > 0 && (better || self.rows.len() < self.amount)
    }

    fn drop_worst(&mut self) {
        match self.order {
            Order::Ascending => self.rows.pop_last(),
            Order::Descending => self.rows.pop_first(),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeBinaryArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    /// The id is a function of time and number, as an event's id is of its date.
    fn batch(events: &[(i64, u8)]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from_iter_values(events.iter().map(|(time, _)| *time));
        let ids = events.iter().map(|(time, number)| {
            let mut id = [*number; 32];
            id[1..9].copy_from_slice(&time.to_be_bytes());
            id
        });
        let ids = FixedSizeBinaryArray::try_from_iter(ids).expect("ids");
        let columns: [(&str, ArrayRef); 2] = [(ID, Arc::new(ids)), (CREATED_AT, Arc::new(times.with_timezone("UTC")))];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    fn events(batch: &RecordBatch) -> Vec<(i64, u8)> {
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let ids = batch.column(0).as_fixed_size_binary();
        (0..batch.num_rows()).map(|row| (times.value(row), ids.value(row)[0])).collect()
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_everything_gives(
            batches in proptest::collection::vec(proptest::collection::vec((-5..20_i64, 0..3_u8), 1..12), 0..6),
            amount in 0..12_usize,
            ascending in any::<bool>(),
        ) {
            let mut sorted: Vec<(i64, u8)> = batches.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
            let order = if ascending { Order::Ascending } else { Order::Descending };
            if !ascending {
                sorted.reverse();
            }
            sorted.truncate(amount);
            let mut top = Top::new(order, amount, batch(&[(0, 0)]).schema());
            for events in &batches {
                top.offer(&batch(events)).expect("taken");
                prop_assert!(top.rows.len() <= amount);
            }
            prop_assert_eq!(events(&top.finish(order).expect("rows")), sorted);
        }
    }
}
