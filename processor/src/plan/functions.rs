//! The functions that jobs have beside DataFusion's own.
//!
//! `window` stands for a time window until the plan is cut and is never run; `pane` finds a row's pane;
//! `tag_values` reads Nostr tags. The aggregates are in `approx`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, ListArray, ListBuilder, StringBuilder, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit, TimestampMicrosecondType};
use datafusion::common::cast::as_list_array;
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::plan::approx::ApproxCountDistinct;
use crate::stream::window::WindowSpec;

/// Name of the function that stands for a window.
pub(crate) const WINDOW: &str = "window";
/// Name of the function that gives a window's last instant.
pub(crate) const WINDOW_TIME: &str = "window_time";

/// The type of event times: microseconds, UTC.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The fields of a window: its start (inclusive) and end (exclusive).
pub(crate) fn window_fields() -> Fields {
    Fields::from(vec![Field::new("start", time_type(), true), Field::new("end", time_type(), true)])
}

/// Registers the functions that every job and every query has beside DataFusion's own.
pub(crate) fn register_functions(session: &mut dyn FunctionRegistry) -> Result<()> {
    session.register_udf(Arc::new(ScalarUDF::new_from_impl(TimeWindow::default())))?;
    session.register_udf(Arc::new(ScalarUDF::new_from_impl(WindowTime::default())))?;
    session.register_udf(Arc::new(ScalarUDF::new_from_impl(TagValues::default())))?;
    session.register_udaf(Arc::new(AggregateUDF::new_from_impl(ApproxCountDistinct::default())))?;
    Ok(())
}

/// `window(time, lengths…)` as an expression.
pub(crate) fn window_call_of(time: Expr, lengths: &[Expr]) -> Expr {
    let args = std::iter::once(time).chain(lengths.iter().cloned()).collect();
    ScalarUDF::new_from_impl(TimeWindow::default()).call(args)
}

/// `window_time(window)` as an expression.
pub(crate) fn window_time(window: Expr) -> Expr {
    ScalarUDF::new_from_impl(WindowTime::default()).call(vec![window])
}

/// Spark's `window(time, size[, slide[, start]])`, planned away by the cut.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeWindow {
    signature: Signature,
}

impl Default for TimeWindow {
    fn default() -> Self {
        Self { signature: Signature::new(TypeSignature::UserDefined, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeWindow {
    fn name(&self) -> &'static str {
        WINDOW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Timestamp(..), lengths @ ..] if (1..=3).contains(&lengths.len()) => {
                Ok(std::iter::once(time_type()).chain(lengths.iter().cloned()).collect())
            }
            [DataType::Timestamp(..), ..] => plan_err!("`window` takes (time, size[, slide[, start]])"),
            [other, ..] => plan_err!("`window` takes a timestamp first, not {other}"),
            [] => plan_err!("`window` takes (time, size[, slide[, start]])"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(window_fields()))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("`window` may stand in GROUP BY and in a select list only")
    }
}

/// Spark's `window_time(window)`: the last instant of a window, one microsecond before its end.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowTime {
    signature: Signature,
}

impl Default for WindowTime {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Struct(window_fields())], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WindowTime {
    fn name(&self) -> &'static str {
        WINDOW_TIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let windows = ColumnarValue::values_to_arrays(&args.args)?;
        let windows = windows[0].as_struct();
        let ends = windows.column(1).as_primitive::<TimestampMicrosecondType>();
        let last: TimestampMicrosecondArray = ends.unary::<_, TimestampMicrosecondType>(|end| end - 1);
        // A window that a join did not find is NULL as a whole.
        let nulls = NullBuffer::union(windows.nulls(), ends.nulls());
        let last = TimestampMicrosecondArray::new(last.values().clone(), nulls).with_timezone("UTC");
        Ok(ColumnarValue::Array(Arc::new(last)))
    }
}

/// Start of the pane of a time, as microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pane {
    spec: WindowSpec,
    signature: Signature,
}

impl Pane {
    pub(crate) fn new(spec: WindowSpec) -> Self {
        Self { spec, signature: Signature::exact(vec![time_type()], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Pane {
    fn name(&self) -> &'static str {
        "pane"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = ColumnarValue::values_to_arrays(&args.args)?;
        let times = times[0].as_primitive::<TimestampMicrosecondType>();
        let panes: Int64Array = times.unary(|time| self.spec.pane_of(time));
        Ok(ColumnarValue::Array(Arc::new(panes)))
    }
}

/// `tag_values(tags, name)`: element 1 of every tag whose element 0 is exactly `name` and that has at least two
/// elements, in the order of the tags (NIP-01). Never NULL; an empty list where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct TagValues {
    signature: Signature,
}

impl Default for TagValues {
    fn default() -> Self {
        Self { signature: Signature::new(TypeSignature::UserDefined, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TagValues {
    fn name(&self) -> &'static str {
        "tag_values"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::List(tag), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8] if matches!(tag.data_type(), DataType::List(item) if item.data_type() == &DataType::Utf8) => {
                Ok(vec![arguments[0].clone(), DataType::Utf8])
            }
            _ => plan_err!("`tag_values` takes (tags, name): a list of lists of text and a text"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [tags, ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] = args.args.as_slice() else {
            return exec_err!("`tag_values` takes a constant name, such as tag_values(tags, 't')");
        };
        let tags = tags.to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(tag_values(as_list_array(&tags)?, name)?)))
    }
}

fn tag_values(tags: &ListArray, name: &str) -> Result<ListArray> {
    let mut values = ListBuilder::new(StringBuilder::new());
    for row in 0..tags.len() {
        if tags.is_valid(row) {
            let row = tags.value(row);
            let row = as_list_array(&row)?;
            let items = row.values().as_string::<i32>();
            for offsets in row.value_offsets().windows(2) {
                let (start, end) = (usize::try_from(offsets[0]).unwrap_or(0), usize::try_from(offsets[1]).unwrap_or(0));
                if end - start >= 2 && items.value(start) == name {
                    values.values().append_value(items.value(start + 1));
                }
            }
        }
        values.append(true);
    }
    Ok(values.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_tag_come_in_order_and_short_tags_are_passed_over() {
        let mut tags = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        let rows: [&[&[&str]]; 3] = [&[&["t", "a"], &["e", "x"], &["t"], &["t", "b", "c"]], &[], &[&[], &["tt", "a"]]];
        for row in rows {
            for tag in row {
                for item in *tag {
                    tags.values().values().append_value(item);
                }
                tags.values().append(true);
            }
            tags.append(true);
        }
        let got = tag_values(&tags.finish(), "t").expect("values");
        let got: Vec<Vec<String>> = got
            .iter()
            .map(|list| {
                list.map(|l| l.as_string::<i32>().iter().flatten().map(str::to_owned).collect()).unwrap_or_default()
            })
            .collect();
        assert_eq!(got, [vec!["a".to_owned(), "b".to_owned()], vec![], vec![]]);
    }
}
