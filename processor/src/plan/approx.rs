//! `approx_count_distinct(x[, error])`: how many different values there are, about; also called `approx_distinct`.
//!
//! It stands in place of DataFusion's function, whose state and hash may change with any version of it. A value's hash
//! is XXH3 (64 bits, no seed) of its bytes: text and binary as they are, integers, times and booleans as 8 bytes,
//! floats as the 8 of a double with one zero and one NaN, decimals as 32, all little-endian. So equal values of a type
//! are one, in whatever encoding Arrow has them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal256Type, Field, FieldRef, Float64Type, Int64Type, Schema, UInt64Type};
use datafusion::common::{exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, EmitTo, Expr, GroupsAccumulator, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::plan::sketch::{PRECISION, Sketch, precision_of, standard_error};

/// Name of the function: Spark's.
pub(crate) const APPROX_COUNT_DISTINCT: &str = "approx_count_distinct";

/// Spark's `approx_count_distinct(x[, error])`; the error is a share of the number, one standard deviation.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ApproxCountDistinct {
    signature: Signature,
    aliases: Vec<String>,
}

impl Default for ApproxCountDistinct {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), aliases: vec!["approx_distinct".to_owned()] }
    }
}

impl AggregateUDFImpl for ApproxCountDistinct {
    fn name(&self) -> &'static str {
        APPROX_COUNT_DISTINCT
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [value, error @ ..] if error.len() <= 1 => {
                if !can_hash(value) {
                    return plan_err!("`{APPROX_COUNT_DISTINCT}` cannot tell values of {value} apart");
                }
                Ok(std::iter::once(value.clone()).chain(error.iter().map(|_| DataType::Float64)).collect())
            }
            _ => plan_err!("`{APPROX_COUNT_DISTINCT}` takes (value[, error])"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sketch]", args.name), DataType::Binary, false))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(Sketches::new(precision(&args)?))))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sketches::new(precision(&args)?)))
    }
}

/// Why the arguments of a call cannot be run, if so.
pub(crate) fn refused(arguments: &[Expr]) -> Option<String> {
    let error = match arguments.get(1)? {
        Expr::Literal(error, _) => error,
        Expr::Cast(inner) => match inner.expr.as_ref() {
            Expr::Literal(error, _) => error,
            _ => return Some(what_error()),
        },
        _ => return Some(what_error()),
    };
    precision_of_scalar(error).is_none().then(what_error)
}

fn what_error() -> String {
    format!(
        "the error of `{APPROX_COUNT_DISTINCT}` has to be a number from {:.4} to {:.2}",
        standard_error(16),
        standard_error(4)
    )
}

fn precision_of_scalar(error: &ScalarValue) -> Option<u8> {
    match error.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(Some(error))) => precision_of(error),
        _ => None,
    }
}

fn precision(args: &AccumulatorArgs<'_>) -> Result<u8> {
    let Some(error) = args.exprs.get(1) else { return Ok(PRECISION) };
    let error = error.evaluate(&RecordBatch::new_empty(Arc::new(Schema::empty())))?;
    match error {
        ColumnarValue::Scalar(error) => {
            precision_of_scalar(&error).ok_or_else(|| exec_datafusion_err!("{}", what_error()))
        }
        ColumnarValue::Array(_) => Err(exec_datafusion_err!("{}", what_error())),
    }
}

fn can_hash(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => can_hash(values),
        DataType::Null | DataType::Boolean | DataType::Float32 | DataType::Float64 => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => true,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        other => other.is_integer() || other.is_decimal(),
    }
}

/// Hash of every value; NULL of NULL.
fn hashes(values: &ArrayRef) -> Result<UInt64Array> {
    fn of<T: AsRef<[u8]>>(values: impl Iterator<Item = Option<T>>) -> UInt64Array {
        values.map(|value| value.map(|value| xxh3_64(value.as_ref()))).collect()
    }
    Ok(match values.data_type() {
        DataType::Dictionary(_, of) => return hashes(&cast(values, of)?),
        DataType::Utf8 => of(values.as_string::<i32>().iter()),
        DataType::LargeUtf8 => of(values.as_string::<i64>().iter()),
        DataType::Utf8View => of(values.as_string_view().iter()),
        DataType::Binary => of(values.as_binary::<i32>().iter()),
        DataType::LargeBinary => of(values.as_binary::<i64>().iter()),
        DataType::BinaryView => of(values.as_binary_view().iter()),
        DataType::FixedSizeBinary(_) => of(values.as_fixed_size_binary().iter()),
        DataType::UInt64 => of(values.as_primitive::<UInt64Type>().iter().map(|value| value.map(u64::to_le_bytes))),
        DataType::Float32 | DataType::Float64 => {
            let values = cast(values, &DataType::Float64)?;
            of(values.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| one_of(value).to_le_bytes())))
        }
        decimal if decimal.is_decimal() => {
            let scale = match decimal {
                DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => *scale,
                DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
                _ => 0,
            };
            let values = cast(values, &DataType::Decimal256(76, scale))?;
            of(values.as_primitive::<Decimal256Type>().iter().map(|value| value.map(|value| value.to_le_bytes())))
        }
        _ => {
            let values = cast(values, &DataType::Int64)?;
            of(values.as_primitive::<Int64Type>().iter().map(|value| value.map(i64::to_le_bytes)))
        }
    })
}

/// One of the values that SQL holds equal.
fn one_of(value: f64) -> f64 {
    match value {
        0.0 => 0.0,
        value if value.is_nan() => f64::NAN,
        value => value,
    }
}

/// A sketch a group.
#[derive(Debug)]
struct Sketches {
    precision: u8,
    groups: Vec<Sketch>,
    /// Bytes of the sketches' registers.
    bytes: usize,
}

impl Sketches {
    const fn new(precision: u8) -> Self {
        Self { precision, groups: Vec::new(), bytes: 0 }
    }

    /// Changes a group's sketch.
    fn with(&mut self, group: usize, change: impl FnOnce(&mut Sketch) -> Result<()>) -> Result<()> {
        let sketch = &mut self.groups[group];
        let before = sketch.heap_bytes();
        change(sketch)?;
        self.bytes = self.bytes + sketch.heap_bytes() - before;
        Ok(())
    }

    fn grow(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize(groups, Sketch::new(self.precision));
        }
    }

    fn take(&mut self, emit: EmitTo) -> Vec<Sketch> {
        let taken = emit.take_needed(&mut self.groups);
        self.bytes -= taken.iter().map(Sketch::heap_bytes).sum::<usize>();
        taken
    }
}

/// The states as an array.
fn states(sketches: &[Sketch]) -> ArrayRef {
    let (mut builder, mut state) = (BinaryBuilder::new(), Vec::new());
    for sketch in sketches {
        state.clear();
        sketch.write(&mut state);
        builder.append_value(&state);
    }
    Arc::new(builder.finish())
}

impl GroupsAccumulator for Sketches {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        let hashes = hashes(&values[0])?;
        for (row, group) in groups.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && hashes.is_valid(row) {
                self.with(*group, |sketch| {
                    sketch.add(hashes.value(row));
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let states = values[0].as_binary::<i32>();
        for (state, group) in states.iter().zip(groups) {
            let state = state.unwrap_or_default();
            self.with(*group, |sketch| {
                let merged = sketch.merge(state);
                merged.map_err(|why| exec_datafusion_err!("state of `{APPROX_COUNT_DISTINCT}` cannot be used: {why}"))
            })?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let estimates = self.take(emit).iter().map(Sketch::estimate).collect::<Vec<_>>();
        Ok(Arc::new(Int64Array::from(estimates)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![states(&self.take(emit))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut each = Self::new(self.precision);
        let groups: Vec<usize> = (0..values[0].len()).collect();
        each.update_batch(values, &groups, filter, groups.len())?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Sketch>() + self.bytes
    }
}

/// One group, where there are no keys.
#[derive(Debug)]
struct One(Sketches);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.grow(1);
        let state = states(&self.0.groups);
        Ok(vec![ScalarValue::try_from_array(&state, 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.grow(1);
        Ok(ScalarValue::Int64(self.0.groups.first().map(Sketch::estimate)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Decimal128Array, Float32Array, Int16Array, StringArray, TimestampMicrosecondArray,
    };
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::plan::functions::register_functions;

    fn hashes_of(values: &ArrayRef, as_type: &DataType) -> Vec<Option<u64>> {
        hashes(&cast(values, as_type).expect("cast")).expect("hashes").iter().collect()
    }

    #[test]
    fn equal_values_hash_alike_in_every_encoding() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a"), Some("\u{1f30a}")]));
        let plain = hashes_of(&text, &DataType::Utf8);
        assert_eq!(plain[0], plain[3]);
        assert_eq!(plain.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(plain[1], None);
        // XXH3 as its specification has it, for no input: what is kept depends on it.
        assert_eq!(plain[2], Some(0x2d06_8005_38d3_94c2));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let binary = [DataType::Binary, DataType::LargeBinary, DataType::BinaryView];
        for other in [DataType::LargeUtf8, DataType::Utf8View, dictionary].into_iter().chain(binary) {
            assert_eq!(hashes_of(&text, &other), plain, "{other}");
        }
        let whole: ArrayRef = Arc::new(Int16Array::from(vec![Some(7), None, Some(300)]));
        let plain = hashes_of(&whole, &DataType::Int16);
        for other in [DataType::Int32, DataType::Int64, DataType::UInt16, DataType::UInt64] {
            assert_eq!(hashes_of(&whole, &other), plain, "{other}");
        }
        let decimal: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(-7), None, Some(i128::MAX / 10)]));
        let plain = hashes_of(&decimal, &DataType::Decimal128(38, 10));
        assert_eq!(hashes_of(&decimal, &DataType::Decimal256(76, 10)), plain);
        let zeros: ArrayRef = Arc::new(Float32Array::from(vec![0.0, -0.0, f32::NAN, -f32::NAN]));
        let zeros = hashes_of(&zeros, &DataType::Float32);
        assert!(zeros[0] == zeros[1] && zeros[2] == zeros[3] && zeros[0] != zeros[2]);
    }

    #[test]
    fn times_and_booleans_are_told_apart() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC"));
        let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![false, true]));
        for values in [times, booleans] {
            let hashes = hashes(&values).expect("hashes");
            assert_ne!(hashes.value(0), hashes.value(1));
        }
    }

    /// With keys and without, over no rows and over a filter, under both names; the error says how exact it is.
    #[tokio::test]
    async fn it_is_a_function_of_sql() {
        let mut context = SessionContext::new();
        register_functions(&mut context).expect("functions");
        let one = async |query: &str| {
            let rows = context.sql(query).await.expect(query).collect().await.expect(query);
            rows[0].column(0).as_primitive::<Int64Type>().value(0)
        };
        let rows = "(SELECT value AS x, value % 2 AS k FROM range(0, 100000))";
        for (call, error) in [
            ("approx_count_distinct(x)", 0.05),
            ("approx_distinct(x)", 0.05),
            ("approx_count_distinct(x, 0.005)", 0.015),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let off = (one(&format!("SELECT {call} FROM {rows}")).await as f64 / 100_000.0 - 1.0).abs();
            assert!(off < error, "{call} is off by {off}");
        }
        assert_eq!(one(&format!("SELECT approx_count_distinct(k) FROM {rows} GROUP BY k")).await, 1);
        assert_eq!(
            one(&format!("SELECT approx_count_distinct(x) FILTER (WHERE x < 3) FROM {rows} GROUP BY k ORDER BY k"))
                .await,
            2
        );
        assert_eq!(one(&format!("SELECT approx_count_distinct(x) FROM {rows} WHERE x < 0")).await, 0);
        assert_eq!(one("SELECT approx_count_distinct(NULL)").await, 0);
        for (query, why) in [
            ("SELECT approx_count_distinct()", "approx_count_distinct"),
            ("SELECT approx_count_distinct(make_array(1))", "cannot tell values of"),
        ] {
            let refused = context.sql(query).await.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(why), "{query}: {refused}");
        }
    }
}
