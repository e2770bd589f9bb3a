//! Records of an output as lines of COPY, in the text form of PostgreSQL.
//!
//! A line is made of the record's JSON alone, so that a table says what the topic says. What PostgreSQL cannot hold is
//! replaced where a stranger could have written it, and counted: U+0000 in a text.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::table::{Column, Form, Key, Table};
use crate::error::{Error, ErrorKind, Result};

/// Rows on their way into a table.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) rows: usize,
    /// Texts with U+0000, which has become U+FFFD.
    pub(super) replaced: u64,
}

impl Lines {
    /// Adds the row of a record; `place` says where the record is from.
    pub(super) fn push(&mut self, table: &Table, key: &[u8], value: &[u8], place: impl Fn() -> String) -> Result<()> {
        let misfit = |what: String| {
            Error::new(ErrorKind::Data, format!("{} is no row of table `{}`: {what}", place(), table.name))
                .with_hint("it was written by another job, or with another --output-mode: name the one that wrote it")
        };
        let fields: HashMap<String, &RawValue> = serde_json::from_slice(value)
            .map_err(|error| misfit("it is no JSON object".to_owned()).with_source(error))?;
        if let Some(other) = fields.keys().find(|name| !table.columns.iter().any(|column| column.name == **name)) {
            return Err(misfit(format!("the table has no column `{other}`")));
        }
        for (at, column) in table.columns.iter().enumerate() {
            let field = fields.get(&column.name).ok_or_else(|| misfit(format!("it has no field `{}`", column.name)))?;
            if at > 0 {
                self.text.push('\t');
            }
            self.field(column, field.get()).map_err(|why| misfit(format!("field `{}` {why}", column.name)))?;
        }
        if table.key == Key::Digest {
            // Of the key as it is, before anything in it was replaced.
            self.text.push_str("\t\\\\x");
            self.text.push_str(&hex::encode(Sha256::digest(key)));
        }
        // What rows of one key came in which order.
        self.text.push_str(&format!("\t{}\n", self.rows));
        self.rows += 1;
        Ok(())
    }

    fn field(&mut self, column: &Column, json: &str) -> std::result::Result<(), String> {
        if json == "null" {
            self.text.push_str("\\N");
            return Ok(());
        }
        if column.form == Form::Json {
            let json = self.without_nul(json)?;
            self.escaped(&json);
            return Ok(());
        }
        let text: String = match json.starts_with('"') {
            true => serde_json::from_str(json).map_err(|error| format!("is no text: {error}"))?,
            false => json.to_owned(),
        };
        match column.form {
            Form::Bytes => {
                self.text.push_str("\\\\x");
                self.escaped(&text);
            }
            Form::Instant => self.escaped(&instant(&text)),
            Form::Plain | Form::Text | Form::Json => {
                self.replaced += u64::from(text.contains('\0'));
                self.escaped(&text);
            }
        }
        Ok(())
    }

    /// JSON without `\u0000`, which jsonb cannot hold either.
    fn without_nul(&mut self, json: &str) -> std::result::Result<String, String> {
        if !json.contains("\\u0000") {
            return Ok(json.to_owned());
        }
        let mut value: Value = serde_json::from_str(json).map_err(|error| format!("is no JSON: {error}"))?;
        self.replaced += replaced(&mut value);
        Ok(value.to_string())
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\0' => self.text.push('\u{fffd}'),
                c => self.text.push(c),
            }
        }
    }
}

/// Replaces U+0000 in every text of a value, names too; in how many.
fn replaced(value: &mut Value) -> u64 {
    match value {
        Value::String(text) if text.contains('\0') => {
            *text = text.replace('\0', "\u{fffd}");
            1
        }
        Value::Array(items) => items.iter_mut().map(replaced).sum(),
        Value::Object(members) => {
            let mut count = 0;
            let renamed = std::mem::take(members).into_iter().map(|(name, mut value)| {
                count += u64::from(name.contains('\0')) + replaced(&mut value);
                (name.replace('\0', "\u{fffd}"), value)
            });
            *members = renamed.collect();
            count
        }
        _ => 0,
    }
}

/// An instant as PostgreSQL reads it: no plus sign before a long year, BC for years before the first, and infinity for
/// what the calendar does not hold.
fn instant(text: &str) -> String {
    if let Some(rest) = text.strip_prefix('+') {
        return rest.to_owned();
    }
    let Some(rest) = text.strip_prefix('-') else {
        // A count of units: what is beyond the calendar is printed so.
        return if text.contains('T') { year_zero(text) } else { "infinity".to_owned() };
    };
    match rest.split_once('-').and_then(|(year, rest)| Some((year.parse::<u32>().ok()?, rest))) {
        Some((year, rest)) if year < 4_713 => format!("{:04}-{rest} BC", year + 1),
        _ => "-infinity".to_owned(),
    }
}

/// The year before the first is zero in RFC 3339.
fn year_zero(text: &str) -> String {
    text.strip_prefix("0000-").map_or_else(|| text.to_owned(), |rest| format!("0001-{rest} BC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, form| Column { name: name.into(), data_type: String::new(), nullable: true, form };
        let columns = vec![
            column("n", Form::Plain),
            column("text", Form::Text),
            column("bytes", Form::Bytes),
            column("at", Form::Instant),
            column("list", Form::Json),
        ];
        Table { name: "t".into(), columns, key: Key::None }
    }

    fn line(json: &str) -> Result<(String, u64)> {
        let mut lines = Lines::default();
        lines.push(&table(), b"", json.as_bytes(), || "a record".to_owned())?;
        Ok((lines.text, lines.replaced))
    }

    #[test]
    fn a_record_becomes_a_line_of_its_columns() {
        let json = r#"{"text":"a\tb\\c\nd","n":"340282366920938463463374607431768211456","bytes":"00ff","list":["x",["\\N"]],
            "at":"+010000-01-01T00:00:00Z"}"#;
        let expected = "340282366920938463463374607431768211456\ta\\tb\\\\c\\nd\t\\\\x00ff\t010000-01-01T00:00:00Z\t\
                        [\"x\",[\"\\\\\\\\N\"]]\t0\n";
        assert_eq!(line(json).expect("fits"), (expected.to_owned(), 0));
        let nulls = r#"{"n":null,"text":null,"bytes":null,"at":null,"list":null}"#;
        assert_eq!(line(nulls).expect("fits").0, "\\N\t\\N\t\\N\t\\N\t\\N\t0\n");
    }

    #[test]
    fn what_no_text_can_hold_is_replaced_and_counted() {
        let json = r#"{"n":1,"text":"a\u0000b","bytes":null,"at":null,"list":[{"k\u0000":"\u0000\u0000"},"\\u0000"]}"#;
        let (text, replaced) = line(json).expect("fits");
        assert_eq!(text, "1\ta\u{fffd}b\t\\N\t\\N\t[{\"k\u{fffd}\":\"\u{fffd}\u{fffd}\"},\"\\\\\\\\u0000\"]\t0\n");
        assert_eq!(replaced, 3);
    }

    #[test]
    fn a_record_of_another_form_is_refused_by_the_name_of_its_field() {
        let more = r#"{"n":1,"text":"","bytes":"","at":null,"list":null,"final":true}"#;
        let less = r#"{"n":1,"text":"","bytes":"","at":null}"#;
        for (json, words) in [(more, "no column `final`"), (less, "no field `list`"), ("[]", "no JSON object")] {
            let error = line(json).expect_err(words);
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(
                error.to_string().starts_with("a record is no row of table `t`") && error.to_string().contains(words),
                "{error}"
            );
        }
    }

    #[test]
    fn instants_are_written_as_postgresql_reads_them() {
        for (ours, theirs) in [
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("+262142-12-31T23:59:59Z", "262142-12-31T23:59:59Z"),
            ("0000-03-01T00:00:00Z", "0001-03-01T00:00:00Z BC"),
            ("-0044-03-15T00:00:00Z", "0045-03-15T00:00:00Z BC"),
            ("-9999-01-01T00:00:00Z", "-infinity"),
            ("8300000000000000000", "infinity"),
            ("-9100000000000000000", "-infinity"),
        ] {
            assert_eq!(instant(ours), theirs);
        }
    }
}
