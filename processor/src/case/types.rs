//! Names of types, as a case writes them, to Arrow types; a table's columns to its schema.
//!
//! The names are those of Spark, Flink and Arrow side by side, so that cases of either can be taken over as they are.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, ErrorKind, Result};

const KNOWN: &str = "boolean, tinyint, smallint, int, bigint, float, double, decimal(10,2), string, binary, date, \
                     timestamp, list<…>";

/// Schema of `table` with the columns `name = "type"`; every column may be null.
///
/// # Errors
/// `Config` when a type is none.
pub(super) fn schema(table: &str, columns: &toml::Table) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(columns.len());
    for (name, sort) in columns {
        let sort = sort.as_str().and_then(data_type).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("column `{name}` of table `{table}` has the type `{}`", plain(sort)))
                .with_hint(format!("the types are {KNOWN}"))
        })?;
        fields.push(Field::new(name, sort, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned)
}

/// The type that `name` means, in any case of letters.
fn data_type(name: &str) -> Option<DataType> {
    let name = name.trim().to_lowercase();
    let (base, arguments) = taken_apart(&name)?;
    Some(match (base, arguments) {
        ("boolean" | "bool", None) => DataType::Boolean,
        ("tinyint" | "int8", None) => DataType::Int8,
        ("smallint" | "int16", None) => DataType::Int16,
        ("int" | "integer" | "int32", None) => DataType::Int32,
        ("bigint" | "long" | "int64", None) => DataType::Int64,
        ("float" | "real" | "float32", None) => DataType::Float32,
        ("double" | "float64", None) => DataType::Float64,
        ("string" | "text" | "varchar" | "utf8", None) => DataType::Utf8,
        ("binary", None) => DataType::Binary,
        ("date" | "date32", None) => DataType::Date32,
        ("timestamp", None | Some("µs, utc" | "us, utc")) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        ("decimal" | "numeric", Some(arguments)) => decimal(arguments)?,
        ("list" | "array", Some(item)) => DataType::List(Arc::new(Field::new("item", data_type(item)?, true))),
        _ => return None,
    })
}

/// `list<int>` and `list(int)` to `list` and `int`.
fn taken_apart(name: &str) -> Option<(&str, Option<&str>)> {
    // The corpus writes the zone of a time with or without its unit.
    if name == "timestamp, utc" {
        return Some(("timestamp", None));
    }
    let Some(open) = name.find(['(', '<']) else { return Some((name, None)) };
    let close = if name[open..].starts_with('(') { ')' } else { '>' };
    let arguments = name[open + 1..].strip_suffix(close)?;
    Some((name[..open].trim_end(), Some(arguments.trim())))
}

fn decimal(arguments: &str) -> Option<DataType> {
    let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = precision > 0 && scale >= 0 && scale.unsigned_abs() <= precision;
    match precision {
        1..=38 if fits => Some(DataType::Decimal128(precision, scale)),
        39..=76 if fits => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_type_agree() {
        for (names, expected) in [
            (&["timestamp", "timestamp(µs, UTC)", "timestamp, UTC", "TIMESTAMP(us, utc)"][..], time()),
            (&["bigint", "int64", "Long"], DataType::Int64),
            (&["string", "utf8", "varchar", " text "], DataType::Utf8),
            (&["decimal(10,2)", "decimal(10, 2)", "numeric(10,2)"], DataType::Decimal128(10, 2)),
            (&["decimal(40)"], DataType::Decimal256(40, 0)),
            (&["list<utf8>", "array(string)"], list(DataType::Utf8)),
            (&["list<list<decimal(5,1)>>"], list(list(DataType::Decimal128(5, 1)))),
        ] {
            for name in names {
                assert_eq!(data_type(name).as_ref(), Some(&expected), "{name}");
            }
        }
    }

    #[test]
    fn what_is_no_type_is_refused_with_those_that_are() {
        for name in ["strng", "decimal", "decimal(2,3)", "decimal(77)", "list<", "list<int)", "int(4)", ""] {
            assert_eq!(data_type(name), None, "{name}");
        }
        let columns: toml::Table = toml::from_str("a = 'int'\nb = 'strng'").unwrap();
        let error = schema("t", &columns).unwrap_err();
        assert_eq!(error.to_string(), "column `b` of table `t` has the type `strng`");
        assert!(error.hint().is_some_and(|hint| hint.contains("string")));
    }

    #[test]
    fn columns_stay_in_the_order_in_which_they_are_written() {
        let columns: toml::Table = toml::from_str("z = 'int'\na = 'date'\nm = 'boolean'").unwrap();
        let names: Vec<String> =
            schema("t", &columns).unwrap().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }

    fn time() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }
}
