//! JSON objects to the rows of a table: one record batch, in the order of the objects.
//!
//! In: the text of each object with the place where it stands, and the table's schema. Out: a batch, or an error that
//! names the place. Rows of the tables that topics hold are whole records, as `events` are whole Nostr events; their
//! signatures are not looked at, so that a case may hold events that nobody signed.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use event::{Origin, Table};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// The text of one JSON object, and where it stands: "`input.jsonl`, line 3".
#[derive(Clone, Debug)]
pub(super) struct Record<'a> {
    pub(super) place: String,
    pub(super) text: &'a str,
}

/// The lines of a file that are not blank.
pub(super) fn lines<'a>(file: &str, text: &'a str) -> Vec<Record<'a>> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered.map(|(at, text)| Record { place: format!("`{file}`, line {}", at + 1), text }).collect()
}

/// What a record holds, read as JSON alone.
///
/// # Errors
/// `Config` when it is no JSON object.
pub(super) fn object(record: &Record<'_>) -> Result<Map<String, Value>> {
    serde_json::from_str(record.text)
        .map_err(|why| refused(record, "is no JSON object").with_source(why).with_hint("write one object a line"))
}

/// The rows of a table of `schema`; a key that an object lacks is null.
///
/// # Errors
/// `Config` when an object holds a key that is no column, or a value that its column cannot hold exactly.
pub(super) fn rows(records: &[Record<'_>], schema: &SchemaRef) -> Result<RecordBatch> {
    for record in records {
        refuse_broken_integers(record, schema)?;
    }
    decode(records, schema).or_else(|why| {
        // The reader does not say which row it means: the first that cannot be read alone.
        let first =
            records.iter().find_map(|record| Some((record, decode(std::slice::from_ref(record), schema).err()?)));
        let (record, why) = first.ok_or_else(|| Error::from(why))?;
        Err(refused(record, "does not fit its table").with_source(why))
    })
}

/// The rows of a table that topics hold, from whole records.
///
/// # Errors
/// `Config` when a record is none of the table's.
pub(super) fn whole(records: &[Record<'_>], table: Table) -> Result<RecordBatch> {
    let (what, name) = match table {
        Table::Events => ("Nostr event", table.name()),
        Table::Sightings => ("sighting", table.name()),
        Table::Market => ("event of the market", table.name()),
    };
    let mut builder = table.builder();
    for (offset, record) in (0..).zip(records) {
        let json = record.text.trim();
        builder.take(json.as_bytes(), &Origin { offset, ..Origin::default() }).map_err(|rejection| {
            refused(record, format!("is no {what}: {rejection}"))
                .with_hint(format!("give table `{name}` columns of its own where its rows are other ones"))
        })?;
    }
    Ok(builder.finish())
}

fn refused(record: &Record<'_>, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{} {what}", record.place))
}

fn decode(records: &[Record<'_>], schema: &SchemaRef) -> std::result::Result<RecordBatch, ArrowError> {
    let builder = ReaderBuilder::new(SchemaRef::clone(schema)).with_strict_mode(true);
    let mut decoder = builder.with_batch_size(records.len().max(1)).build_decoder()?;
    for record in records {
        decoder.decode(record.text.as_bytes())?;
    }
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(SchemaRef::clone(schema))))
}

/// Arrow's reader cuts the fraction off where the column is of whole numbers.
fn refuse_broken_integers(record: &Record<'_>, schema: &Schema) -> Result<()> {
    let object = object(record)?;
    for field in schema.fields().iter().filter(|field| field.data_type().is_integer()) {
        match object.get(field.name()) {
            Some(Value::Number(number)) if !number.is_i64() && !number.is_u64() => {
                return Err(refused(record, format!("has {number} in column `{}`, a whole number", field.name())));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::cast::AsArray;
    use arrow::array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};

    use super::*;
    use crate::case::types;

    fn table(columns: &str) -> SchemaRef {
        types::schema("t", &toml::from_str(columns).unwrap()).unwrap()
    }

    fn read(text: &str, columns: &str) -> Result<RecordBatch> {
        rows(&lines("input.jsonl", text), &table(columns))
    }

    #[test]
    fn times_before_1970_and_fractions_are_exact() {
        let text = r#"{"t": "1969-12-31T23:59:59.999999Z"}
            {"t": "1970-01-01T00:00:00.000001Z"}

            {"t": "1900-01-01T00:00:00.5+02:00"}
            {"t": null}
            {}"#;
        let batch = read(text, "t = 'timestamp'").unwrap();
        let times: Vec<Option<i64>> = batch.column(0).as_primitive::<TimestampMicrosecondType>().iter().collect();
        assert_eq!(times, [Some(-1), Some(1), Some(-2_208_996_000_000_000 + 500_000), None, None]);
    }

    #[test]
    fn decimals_and_large_integers_are_read_from_texts() {
        let batch = read(
            r#"{"d": "-11.1", "n": "9007199254740993", "l": ["a", null]}"#,
            "d = 'decimal(10,2)'\nn = 'bigint'\nl = 'list<utf8>'",
        );
        let batch = batch.unwrap();
        assert_eq!(batch.column(0).as_primitive::<Decimal128Type>().value(0), -1_110);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
        assert_eq!(batch.column(2).as_list::<i32>().value(0).len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_line() {
        for (line, words) in [
            (r#"{"n": 1.5}"#, "has 1.5 in column `n`"),
            (r#"{"n": "one"}"#, "does not fit"),
            (r#"{"m": 1}"#, "does not fit"),
            (r#"{"n": 1"#, "is no JSON object"),
            ("[1]", "is no JSON object"),
            (r#"{"n": 1} {"n": 2}"#, "is no JSON object"),
        ] {
            let error = read(&format!("{{\"n\": 1}}\n\n{line}"), "n = 'int'").unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("`input.jsonl`, line 3 ") && text.contains(words), "{line}: {text}");
        }
    }

    #[test]
    fn rows_of_events_are_whole_events() {
        let event = format!(
            r#"{{"id":"{}","pubkey":"{}","created_at":7,"kind":1,"tags":[["t","x"]],"content":"c","sig":"{}"}}"#,
            "0".repeat(64),
            "1".repeat(64),
            "2".repeat(128)
        );
        let batch = whole(&lines("input.jsonl", &event), Table::Events).unwrap();
        assert_eq!((batch.num_rows(), batch.schema()), (1, event::schema::events_schema()));
        let error = whole(&lines("input.jsonl", "{\"kind\": 1}"), Table::Events).unwrap_err();
        assert!(error.to_string().starts_with("`input.jsonl`, line 1 is no Nostr event"), "{error}");
        assert!(error.hint().is_some());
    }
}
