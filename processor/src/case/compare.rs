//! Rows of output against the rows that a case expects, as multisets.
//!
//! The types of the output say how a value is compared: instants as instants, whole numbers and decimals by value and
//! exactly (a text of digits is the number), floats within a relative tolerance, the rest as it is written; null is
//! equal to null alone. Pure: what differs comes back as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, Schema};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::row::json_rows;

/// A row as a case writes it.
pub(super) type Row = Map<String, Value>;

/// Most rows of either side that a report shows.
const SHOWN_MAX: usize = 20;

/// What differs between `expected` and `actual`, an output of `schema`; none when they hold the same rows.
///
/// Lines with `-` are rows that were expected and did not come, those with `+` came and were not expected.
///
/// # Errors
/// `Internal` when rows of the output cannot be printed.
pub(super) fn differences(
    schema: &Schema,
    expected: &[Row],
    actual: &[RecordBatch],
    tolerance: f64,
) -> Result<Option<String>> {
    if let Some(columns) = unlike_columns(schema, expected) {
        return Ok(Some(columns));
    }
    let mut printed = Vec::new();
    for batch in actual {
        printed.extend(json_rows(batch)?);
    }
    let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
    for row in expected {
        let (key, floats) = cells(row, schema);
        groups.entry(key).or_default().expected.push((floats, Side::Expected(row)));
    }
    for line in &printed {
        let row: Row = serde_json::from_str(line)
            .map_err(|why| Error::internal("could not read a row of output as JSON").with_source(why))?;
        let (key, floats) = cells(&row, schema);
        groups.entry(key).or_default().actual.push((floats, Side::Actual(line)));
    }
    let mut missing = Vec::new();
    let mut unexpected = Vec::new();
    for group in groups.into_values() {
        group.unmatched(tolerance, &mut missing, &mut unexpected);
    }
    Ok(report(schema, &missing, &unexpected))
}

/// Rows that agree in everything but their floats, which are at the same places in all of them.
#[derive(Default)]
struct Group<'a> {
    expected: Vec<Candidate<'a>>,
    actual: Vec<Candidate<'a>>,
}

type Candidate<'a> = (Vec<f64>, Side<'a>);

#[derive(Clone, Copy)]
enum Side<'a> {
    Expected(&'a Row),
    Actual(&'a str),
}

impl<'a> Group<'a> {
    /// Pairs rows off from the least to the greatest and hands on those without a partner.
    ///
    /// Each takes the first that is near enough; rows that several could take are nearer to each other than the
    /// tolerance is wide, and no case rests on that.
    fn unmatched(mut self, tolerance: f64, missing: &mut Vec<Side<'a>>, unexpected: &mut Vec<Side<'a>>) {
        let by_floats = |a: &Candidate<'_>, b: &Candidate<'_>| {
            let pairs = a.0.iter().zip(&b.0).map(|(a, b)| a.total_cmp(b));
            pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        };
        self.expected.sort_by(by_floats);
        self.actual.sort_by(by_floats);
        for (floats, row) in self.expected {
            let near = |found: &Candidate<'_>| floats.iter().zip(&found.0).all(|(a, b)| close(*a, *b, tolerance));
            match self.actual.iter().position(near) {
                Some(partner) => drop(self.actual.remove(partner)),
                None => missing.push(row),
            }
        }
        unexpected.extend(self.actual.into_iter().map(|(_, row)| row));
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    // Equal covers -0.0 and 0.0, whose distance relative to themselves is no number.
    a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// Columns are compared by name; the output has exactly those of every expected row.
fn unlike_columns(schema: &Schema, expected: &[Row]) -> Option<String> {
    for (at, row) in expected.iter().enumerate() {
        let lacking = schema.fields().iter().map(|field| field.name()).find(|name| !row.contains_key(*name));
        let extra = row.keys().find(|name| schema.field_with_name(name).is_err());
        let which = if expected.len() == 1 { String::new() } else { format!(" (row {})", at + 1) };
        match (lacking, extra) {
            (None, None) => {}
            (_, Some(name)) => {
                return Some(format!("column `{name}` is expected{which}, the output has none of that name"));
            }
            (Some(name), None) => {
                return Some(format!("column `{name}` of the output is not among those expected{which}"));
            }
        }
    }
    None
}

/// All of a row but its floats as one text, and the floats in the order in which they stand.
fn cells(row: &Row, schema: &Schema) -> (String, Vec<f64>) {
    let mut key = String::new();
    let mut floats = Vec::new();
    for field in schema.fields() {
        cell(row.get(field.name()).unwrap_or(&Value::Null), field.data_type(), &mut key, &mut floats);
        key.push('\n');
    }
    (key, floats)
}

/// Writes `value` so that two values that are equal are written the same.
fn cell(value: &Value, data_type: &DataType, key: &mut String, floats: &mut Vec<f64>) {
    let text = value.as_str().map(str::to_owned).or_else(|| value.as_number().map(ToString::to_string));
    match (value, text) {
        (Value::Array(items), _) => {
            key.push('[');
            let item = item_type(data_type);
            for value in items {
                cell(value, item, key, floats);
                key.push(',');
            }
            key.push(']');
        }
        (Value::Object(members), _) => {
            key.push('{');
            // Sorted: in which order the members of a struct are written says nothing.
            for (name, value) in members.iter().collect::<BTreeMap<_, _>>() {
                put(key, &format!("{name:?}:"));
                cell(value, member_type(data_type, name), key, floats);
                key.push(',');
            }
            key.push('}');
        }
        (_, Some(text)) => match comparable(&text, value, data_type) {
            Comparable::Text(text) => put(key, &text),
            Comparable::Float(number) => {
                key.push('~');
                floats.push(number);
            }
        },
        _ => put(key, &value.to_string()),
    }
}

enum Comparable {
    Text(String),
    Float(f64),
}

/// A text or a number by the type of its column; what the type cannot read is compared as it is written.
fn comparable(text: &str, value: &Value, data_type: &DataType) -> Comparable {
    let as_written = || Comparable::Text(value.to_string());
    match data_type {
        DataType::Timestamp(..) => instant(text).map_or_else(as_written, Comparable::Text),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            exact(text).map_or_else(as_written, Comparable::Text)
        }
        sort if sort.is_integer() => exact(text).map_or_else(as_written, Comparable::Text),
        sort if sort.is_floating() => text.parse().map_or_else(|_| as_written(), Comparable::Float),
        DataType::Dictionary(_, values) => comparable(text, value, values),
        _ => as_written(),
    }
}

/// Seconds and nanoseconds since 1970.
fn instant(text: &str) -> Option<String> {
    let utc: Tz = "+00:00".parse().ok()?;
    let time = string_to_datetime(&utc, text).ok()?;
    Some(format!("@{}.{:09}", time.timestamp(), time.timestamp_subsec_nanos()))
}

/// A decimal number without zeros that say nothing: `11.10` and `+011.1` are `#11.1`.
fn exact(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("#{sign}{whole}{point}{fraction}"))
}

fn item_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.data_type(),
        _ => &DataType::Null,
    }
}

fn member_type<'a>(data_type: &'a DataType, name: &str) -> &'a DataType {
    let fields = match data_type {
        DataType::Struct(fields) => fields,
        // Keys are texts in JSON; all values have one type.
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => return entry[1].data_type(),
            _ => return &DataType::Null,
        },
        _ => return &DataType::Null,
    };
    fields.iter().find(|field| field.name() == name).map_or(&DataType::Null, |field| field.data_type())
}

fn report(schema: &Schema, missing: &[Side<'_>], unexpected: &[Side<'_>]) -> Option<String> {
    if missing.is_empty() && unexpected.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (sign, rows, what) in [('-', missing, "expected"), ('+', unexpected, "unexpected")] {
        for row in rows.iter().take(SHOWN_MAX) {
            let row = match row {
                Side::Expected(row) => in_order(schema, row),
                Side::Actual(line) => (*line).to_owned(),
            };
            put(&mut text, &format!("{sign} {row}\n"));
        }
        if rows.len() > SHOWN_MAX {
            put(&mut text, &format!("{sign} … and {} more {what} rows\n", rows.len() - SHOWN_MAX));
        }
    }
    text.truncate(text.trim_end().len());
    Some(text)
}

/// An expected row with its columns where the output has them, so that the two can be read side by side.
fn in_order(schema: &Schema, row: &Row) -> String {
    let cells = schema.fields().iter().map(|field| {
        let value = row.get(field.name()).unwrap_or(&Value::Null);
        format!("{}:{value}", Value::String(field.name().clone()))
    });
    format!("{{{}}}", cells.collect::<Vec<_>>().join(","))
}

fn put(out: &mut String, text: &str) {
    out.write_str(text).expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::rows::{lines, rows};
    use crate::case::types;

    fn differ(columns: &str, expected: &str, actual: &str, tolerance: f64) -> Option<String> {
        let schema = types::schema("t", &toml::from_str(columns).unwrap()).unwrap();
        let batch = rows(&lines("actual", actual), &schema).unwrap();
        let expected: Vec<Row> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        differences(&schema, &expected, &[batch], tolerance).unwrap()
    }

    #[test]
    fn values_that_are_equal_however_written_agree() {
        for (sort, expected, actual) in [
            ("timestamp", "\"2020-01-01T01:00:00.50+01:00\"", "\"2020-01-01T00:00:00.5Z\""),
            ("timestamp", "\"1969-12-31T23:59:59.999999Z\"", "\"1969-12-31T23:59:59.999999Z\""),
            ("decimal(10,2)", "\"11.1\"", "\"11.10\""),
            ("decimal(10,2)", "11", "\"11.00\""),
            ("decimal(10,2)", "\"-0.00\"", "\"0\""),
            ("bigint", "\"9007199254740993\"", "\"9007199254740993\""),
            ("bigint", "9007199254740993", "\"9007199254740993\""),
            ("bigint", "\"5\"", "5"),
            ("double", "-0.0", "0.0"),
            ("double", "5", "5.0"),
            ("float", "1.1", "1.1"),
            ("double", "null", "null"),
            ("list<timestamp>", "[\"2020-01-01T00:00:00.000Z\", null]", "[\"2020-01-01T00:00:00Z\", null]"),
        ] {
            let (expected, actual) = (format!("{{\"v\": {expected}}}"), format!("{{\"v\": {actual}}}"));
            assert_eq!(differ(&format!("v = '{sort}'"), &expected, &actual, 0.0), None, "{sort} {expected}");
        }
    }

    #[test]
    fn values_that_differ_are_shown_on_both_sides() {
        for (sort, expected, actual) in [
            ("timestamp", "\"2020-01-01T00:00:00Z\"", "\"2020-01-01T00:00:00.000001Z\""),
            ("decimal(10,2)", "\"11.1\"", "\"11.11\""),
            ("bigint", "9007199254740992", "\"9007199254740993\""),
            ("bigint", "null", "0"),
            ("double", "null", "0.0"),
            ("double", "1.0", "1.0000001"),
            ("string", "\"5\"", "\"5.0\""),
            ("string", "\"\"", "null"),
            ("list<string>", "[\"a,\\\"b\"]", "[\"a\", \"b\"]"),
            ("list<int>", "[]", "null"),
        ] {
            let (expected, actual) = (format!("{{\"v\": {expected}}}"), format!("{{\"v\": {actual}}}"));
            let text = differ(&format!("v = '{sort}'"), &expected, &actual, 1e-9).expect(&expected);
            assert!(text.lines().any(|line| line.starts_with("- {\"v\":")), "{text}");
            assert!(text.lines().any(|line| line.starts_with("+ {\"v\":")), "{text}");
        }
    }

    #[test]
    fn rows_are_counted_and_not_only_looked_for() {
        let row = "{\"v\": 1}";
        let (once, twice) = (row.to_owned(), format!("{row}\n{row}"));
        assert_eq!(differ("v = 'int'", &twice, &twice, 0.0), None);
        assert_eq!(differ("v = 'int'", &twice, &once, 0.0).as_deref(), Some("- {\"v\":1}"));
        assert_eq!(differ("v = 'int'", &once, &twice, 0.0).as_deref(), Some("+ {\"v\":1}"));
    }

    #[test]
    fn floats_find_their_partners_within_the_tolerance() {
        let columns = "k = 'int'\nv = 'double'";
        let expected = "{\"k\": 1, \"v\": 0.1}\n{\"k\": 1, \"v\": 0.3}\n{\"k\": 2, \"v\": 0.1}";
        let near = "{\"k\": 2, \"v\": 0.1}\n{\"k\": 1, \"v\": 0.30000000000000004}\n{\"k\": 1, \"v\": 0.1}";
        assert_eq!(differ(columns, expected, near, 1e-9), None);
        assert!(differ(columns, expected, near, 0.0).is_some());
        let elsewhere = "{\"k\": 2, \"v\": 0.3}\n{\"k\": 1, \"v\": 0.1}\n{\"k\": 1, \"v\": 0.1}";
        let text = differ(columns, expected, elsewhere, 1e-9).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn columns_must_be_those_expected_in_any_order() {
        let columns = "a = 'int'\nb = 'int'";
        assert_eq!(differ(columns, "{\"b\": 2, \"a\": 1}", "{\"a\": 1, \"b\": 2}", 0.0), None);
        let text = differ(columns, "{\"a\": 1}", "{\"a\": 1, \"b\": null}", 0.0).unwrap();
        assert_eq!(text, "column `b` of the output is not among those expected");
        let text = differ(columns, "{\"a\": 1, \"b\": null, \"c\": 1}", "{\"a\": 1}", 0.0).unwrap();
        assert_eq!(text, "column `c` is expected, the output has none of that name");
    }

    #[test]
    fn a_report_shows_a_bounded_number_of_rows() {
        let many: Vec<String> = (0..50).map(|n| format!("{{\"v\": {n}}}")).collect();
        let text = differ("v = 'int'", &many.join("\n"), "", 0.0).unwrap();
        assert_eq!(text.lines().count(), SHOWN_MAX + 1);
        assert!(text.ends_with("- … and 30 more expected rows"), "{text}");
    }
}
