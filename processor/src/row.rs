//! Rows to text: one JSON object a row, and the same texts as columns for tables, CSV and Markdown.
//!
//! In: a `RecordBatch` of any schema. Out: what a person or the next program reads. The rules, held everywhere:
//! integers beyond ±2^53 are strings in JSON, floats are their shortest text (NaN and infinities null), bytes are
//! lower-case hex, instants are RFC 3339 in UTC, decimals are strings. Where the text goes is the caller's matter.

mod schema;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, RecordBatch, StringBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::Result;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use event::EventTime;

pub use schema::json_schema;

/// The greatest integer up to which every integer is a JavaScript number.
const SAFE_INTEGER: u64 = 1 << 53;
const MICROS_PER_SEC: i64 = 1_000_000;

/// One compact JSON object a row, keys in the order of the columns.
///
/// # Errors
/// When a column's type cannot be printed at all.
pub fn json_rows(batch: &RecordBatch) -> Result<Vec<String>> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        columns.push((json_key(field.name(), columns.is_empty()), Cell::try_new(array)?));
    }
    let mut length = 64;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut line = String::with_capacity(length);
        line.push('{');
        for (key, cell) in &mut columns {
            line.push_str(key);
            cell.write_json(row, &mut line);
        }
        line.push('}');
        length = line.len() + 16;
        rows.push(line);
    }
    Ok(rows)
}

/// The same batch with everything that is not a number, a boolean or text written as [`json_rows`] writes it.
///
/// # Errors
/// When a column's type cannot be printed at all.
pub fn display_batch(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let column = if shown_as_it_is(array.data_type()) { Arc::clone(array) } else { text_column(array)? };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn shown_as_it_is(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn text_column(array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        let plain = take(dictionary.values(), dictionary.keys(), None)?;
        return if shown_as_it_is(plain.data_type()) { Ok(plain) } else { text_column(&plain) };
    }
    let mut cell = Cell::try_new(array)?;
    let mut column = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let mut text = String::new();
    for row in 0..array.len() {
        if cell.null_at(row) {
            column.append_null();
        } else {
            text.clear();
            (cell.write)(row, &mut text);
            column.append_value(&text);
        }
    }
    Ok(Arc::new(column.finish()))
}

/// How the text of a cell becomes JSON.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// It is JSON already.
    Json,
    /// Put in quotes; holds nothing that JSON would escape.
    Quoted,
    /// Put in quotes, and escaped.
    Escaped,
}

type WriteCell = Box<dyn FnMut(usize, &mut String)>;

/// One column, ready to be printed row by row: its type was looked at once.
struct Cell {
    nulls: Option<NullBuffer>,
    form: Form,
    write: WriteCell,
}

impl Cell {
    fn try_new(array: &ArrayRef) -> Result<Self> {
        let nulls = array.logical_nulls();
        let cell = |form, write| Ok(Self { nulls: nulls.clone(), form, write });
        match array.data_type() {
            DataType::Boolean => {
                let values = array.as_boolean().clone();
                cell(
                    Form::Json,
                    Box::new(move |row, out| out.push_str(if values.value(row) { "true" } else { "false" })),
                )
            }
            data_type if data_type.is_integer() => cell(Form::Json, integers(array)),
            data_type if data_type.is_floating() => cell(Form::Json, floats(array)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cell(Form::Json, texts(array)),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                cell(Form::Quoted, bytes(array))
            }
            DataType::Timestamp(unit, _) => cell(Form::Quoted, instants(array, *unit)),
            DataType::Date32 => {
                let days = array.as_primitive::<Date32Type>().clone();
                cell(Form::Quoted, Box::new(move |row, out| write_day(days.value(row), out)))
            }
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => cell(Form::Json, lists(array)?),
            DataType::Struct(_) => cell(Form::Json, structs(array)?),
            DataType::Map(..) => cell(Form::Json, maps(array)?),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                Self::try_new(&take(dictionary.values(), dictionary.keys(), None)?)
            }
            _ => cell(Form::Escaped, anything(array)?),
        }
    }

    fn null_at(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    fn write_json(&mut self, row: usize, out: &mut String) {
        if self.null_at(row) {
            out.push_str("null");
            return;
        }
        match self.form {
            Form::Json => (self.write)(row, out),
            Form::Quoted => {
                out.push('"');
                (self.write)(row, out);
                out.push('"');
            }
            Form::Escaped => {
                let mut text = String::new();
                (self.write)(row, &mut text);
                write_json_text(&text, out);
            }
        }
    }
}

fn json_key(name: &str, first: bool) -> String {
    let mut key = String::with_capacity(name.len() + 4);
    if !first {
        key.push(',');
    }
    write_json_text(name, &mut key);
    key.push(':');
    key
}

/// Quotes and escapes as serde_json does: the shortest escapes, nothing above U+001F but `"` and `\`.
fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    let mut clean = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[clean..at]);
        clean = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            _ => put(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.push_str(&text[clean..]);
    out.push('"');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all that is written to it");
}

fn integers(array: &ArrayRef) -> WriteCell {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef) -> WriteCell
    where
        T::Native: Into<i128>,
    {
        let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
        Box::new(move |row, out| {
            let value: i128 = values.value(row).into();
            match (i64::try_from(value), value.unsigned_abs() > u128::from(SAFE_INTEGER)) {
                (Ok(value), false) => put(out, format_args!("{value}")),
                _ => put(out, format_args!("\"{value}\"")),
            }
        })
    }
    match array.data_type() {
        DataType::Int8 => of::<Int8Type>(array),
        DataType::Int16 => of::<Int16Type>(array),
        DataType::Int32 => of::<Int32Type>(array),
        DataType::Int64 => of::<Int64Type>(array),
        DataType::UInt8 => of::<UInt8Type>(array),
        DataType::UInt16 => of::<UInt16Type>(array),
        DataType::UInt32 => of::<UInt32Type>(array),
        _ => of::<UInt64Type>(array),
    }
}

fn floats(array: &ArrayRef) -> WriteCell {
    // `{:?}` is the shortest text that reads back as the same number, and JSON: 1.0, 0.1, 1e300.
    match array.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().clone();
            Box::new(move |row, out| match values.value(row) {
                value if value.is_finite() => put(out, format_args!("{value:?}")),
                _ => out.push_str("null"),
            })
        }
        data_type => {
            let values: Vec<f32> = if *data_type == DataType::Float32 {
                array.as_primitive::<Float32Type>().values().to_vec()
            } else {
                array.as_primitive::<Float16Type>().values().iter().map(|value| value.to_f32()).collect()
            };
            Box::new(move |row, out| match values[row] {
                value if value.is_finite() => put(out, format_args!("{value:?}")),
                _ => out.push_str("null"),
            })
        }
    }
}

fn texts(array: &ArrayRef) -> WriteCell {
    match array.data_type() {
        DataType::Utf8 => {
            let values = array.as_string::<i32>().clone();
            Box::new(move |row, out| write_json_text(values.value(row), out))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>().clone();
            Box::new(move |row, out| write_json_text(values.value(row), out))
        }
        _ => {
            let values = array.as_string_view().clone();
            Box::new(move |row, out| write_json_text(values.value(row), out))
        }
    }
}

fn bytes(array: &ArrayRef) -> WriteCell {
    match array.data_type() {
        DataType::Binary => {
            let values = array.as_binary::<i32>().clone();
            Box::new(move |row, out| write_hex(values.value(row), out))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>().clone();
            Box::new(move |row, out| write_hex(values.value(row), out))
        }
        DataType::BinaryView => {
            let values = array.as_binary_view().clone();
            Box::new(move |row, out| write_hex(values.value(row), out))
        }
        _ => {
            let values = array.as_fixed_size_binary().clone();
            Box::new(move |row, out| write_hex(values.value(row), out))
        }
    }
}

fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Rows of one window carry one and the same pair of instants, and a date is dear to print: the last text is kept.
fn instants(array: &ArrayRef, unit: TimeUnit) -> WriteCell {
    let values: Vec<i64> = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values().to_vec(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values().to_vec(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values().to_vec(),
    };
    let mut last: Option<(i64, String)> = None;
    Box::new(move |row, out| {
        let value = values[row];
        if last.as_ref().is_none_or(|(at, _)| *at != value) {
            last = Some((value, instant(value, unit)));
        }
        out.push_str(last.as_ref().map_or("", |(_, text)| text));
    })
}

/// RFC 3339; an instant that the calendar does not hold stays a count of its units.
fn instant(value: i64, unit: TimeUnit) -> String {
    let time = match unit {
        TimeUnit::Second => EventTime::from_secs(value),
        TimeUnit::Millisecond => EventTime::from_millis(value),
        TimeUnit::Microsecond => EventTime::from_micros(value),
        TimeUnit::Nanosecond if value % 1_000 == 0 => EventTime::from_micros(value / 1_000),
        TimeUnit::Nanosecond => {
            let (secs, nanos) = (value.div_euclid(1_000 * MICROS_PER_SEC), value.rem_euclid(1_000 * MICROS_PER_SEC));
            let whole = EventTime::from_secs(secs).map(|time| time.to_string());
            return whole
                .map_or_else(|| value.to_string(), |text| format!("{}.{nanos:09}Z", text.trim_end_matches('Z')));
        }
    };
    time.map_or_else(|| value.to_string(), |time| time.to_string())
}

fn write_day(days: i32, out: &mut String) {
    match EventTime::from_secs(i64::from(days) * 86_400) {
        Some(time) => {
            let text = time.to_string();
            out.push_str(text.split('T').next().unwrap_or(&text));
        }
        None => put(out, format_args!("{days}")),
    }
}

fn lists(array: &ArrayRef) -> Result<WriteCell> {
    type Bounds = Box<dyn Fn(usize) -> std::ops::Range<usize>>;
    let (mut items, bounds): (Cell, Bounds) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.offsets().clone();
            let index = |offset: i32| usize::try_from(offset).unwrap_or(0);
            (Cell::try_new(list.values())?, Box::new(move |row| index(offsets[row])..index(offsets[row + 1])))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.offsets().clone();
            let index = |offset: i64| usize::try_from(offset).unwrap_or(0);
            (Cell::try_new(list.values())?, Box::new(move |row| index(offsets[row])..index(offsets[row + 1])))
        }
        _ => {
            let list = array.as_fixed_size_list().clone();
            let width = usize::try_from(list.value_length()).unwrap_or(0);
            (Cell::try_new(list.values())?, Box::new(move |row| row * width..(row + 1) * width))
        }
    };
    Ok(Box::new(move |row, out| {
        out.push('[');
        for (place, item) in bounds(row).enumerate() {
            if place > 0 {
                out.push(',');
            }
            items.write_json(item, out);
        }
        out.push(']');
    }))
}

fn structs(array: &ArrayRef) -> Result<WriteCell> {
    let array = array.as_struct();
    let mut members = Vec::with_capacity(array.num_columns());
    for (field, column) in array.fields().iter().zip(array.columns()) {
        members.push((json_key(field.name(), members.is_empty()), Cell::try_new(column)?));
    }
    Ok(Box::new(move |row, out| {
        out.push('{');
        for (key, cell) in &mut members {
            out.push_str(key);
            cell.write_json(row, out);
        }
        out.push('}');
    }))
}

fn maps(array: &ArrayRef) -> Result<WriteCell> {
    let map = array.as_map();
    let (mut keys, mut values) = (Cell::try_new(map.keys())?, Cell::try_new(map.values())?);
    let offsets = map.offsets().clone();
    Ok(Box::new(move |row, out| {
        out.push('{');
        let (start, end) = (offsets[row], offsets[row + 1]);
        for (place, entry) in (start..end).map(|entry| usize::try_from(entry).unwrap_or(0)).enumerate() {
            if place > 0 {
                out.push(',');
            }
            let mut key = String::new();
            keys.write_json(entry, &mut key);
            if key.starts_with('"') {
                out.push_str(&key)
            } else {
                write_json_text(&key, out)
            }
            out.push(':');
            values.write_json(entry, out);
        }
        out.push('}');
    }))
}

/// Decimals, times of day, durations and whatever else arrow can print, as arrow prints it.
fn anything(array: &ArrayRef) -> Result<WriteCell> {
    let options = FormatOptions::new();
    ArrayFormatter::try_new(array, &options)?;
    let array = Arc::clone(array);
    Ok(Box::new(move |row, out| {
        let options = FormatOptions::new();
        match ArrayFormatter::try_new(&array, &options) {
            Ok(formatter) => put(out, format_args!("{}", formatter.value(row))),
            Err(_) => out.push_str("null"),
        }
    }))
}

#[cfg(test)]
mod tests;
