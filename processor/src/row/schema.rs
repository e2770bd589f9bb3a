//! The JSON Schema (2020-12) of the objects that [`json_rows`](super::json_rows) writes.

use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Map, Value, json};

/// The schema of a row with the columns of `schema`; `title` names it.
#[must_use]
pub fn json_schema(schema: &Schema, title: &str) -> Value {
    let properties: Map<String, Value> =
        schema.fields().iter().map(|field| (field.name().clone(), of_field(field))).collect();
    let required: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_field(field: &Field) -> Value {
    let of_type = of_type(field.data_type());
    // A float that is no number is null, whatever the column says.
    if !field.is_nullable() && !field.data_type().is_floating() {
        return of_type;
    }
    match of_type.get("type").cloned() {
        Some(Value::String(only)) => with_type(of_type, json!([only, "null"])),
        Some(Value::Array(several)) => {
            let types = several.into_iter().chain([json!("null")]).collect();
            with_type(of_type, Value::Array(types))
        }
        _ => json!({}),
    }
}

fn with_type(mut schema: Value, of: Value) -> Value {
    schema["type"] = of;
    schema
}

fn of_type(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => json!({"type": "boolean"}),
        // Beyond ±2^53 an integer is text.
        DataType::Int64 | DataType::UInt64 => json!({"type": ["integer", "string"], "pattern": "^-?[0-9]+$"}),
        integer if integer.is_integer() => json!({"type": "integer"}),
        float if float.is_floating() => json!({"type": "number"}),
        decimal if decimal.is_decimal() => json!({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!({"type": "string"}),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            json!({"type": "string", "pattern": "^([0-9a-f]{2})*$"})
        }
        DataType::FixedSizeBinary(bytes) => {
            json!({"type": "string", "pattern": format!("^[0-9a-f]{{{}}}$", 2 * bytes)})
        }
        DataType::Timestamp(..) => json!({"type": "string", "format": "date-time"}),
        DataType::Date32 => json!({"type": "string", "format": "date"}),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            json!({"type": "array", "items": of_field(item)})
        }
        DataType::Struct(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|field| (field.name().clone(), of_field(field))).collect();
            json!({"type": "object", "properties": properties})
        }
        DataType::Map(..) => json!({"type": "object"}),
        _ => json!({"type": "string"}),
    }
}
