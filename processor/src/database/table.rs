//! The table of an output: its columns from the Arrow schema, its key, its definition, and whether one that is there
//! fits.

use arrow::datatypes::{DataType, Schema, TimeUnit};

use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::plan::cut::Kind;
use crate::sink::final_field;

/// Column that takes the place of a key which no index can hold.
pub(super) const ROW_KEY: &str = "row_key";
/// Longest name that PostgreSQL keeps whole, in bytes.
const NAME_MAX: usize = 63;

/// How a value of a record becomes one of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Numbers, booleans and dates, as JSON has them.
    Plain,
    Text,
    /// Lower-case hex.
    Bytes,
    /// RFC 3339.
    Instant,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As PostgreSQL's `format_type` writes it.
    pub(super) data_type: String,
    pub(super) nullable: bool,
    pub(super) form: Form,
}

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Nothing: every row is one more.
    None,
    /// These columns, by position.
    Columns(Vec<usize>),
    /// [`ROW_KEY`], the SHA-256 of the record's key: a text may be too long for an index, and NULL is in no primary key.
    Digest,
}

/// A table for one output of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Key,
}

impl Table {
    /// The table of an output; `finality` adds the column that says whether a row is of a closed window.
    pub(super) fn of(job: &Job, output: usize, finality: bool) -> Result<Self> {
        let name = job.outputs()[output].name.clone().unwrap_or_else(|| job.name().to_owned());
        if !job.tells_windows_apart(output) {
            return Err(Error::job(format!("rows of several windows would be one row of table `{name}`"))
                .with_hint("select window.start or window.end beside the others"));
        }
        let schema = job.written_schema(output);
        let keyed = job.key_columns(output);
        let key = match job.plan.queries[output].kind {
            Kind::AllTime if keyed.is_empty() => {
                return Err(Error::job(format!("rows of several groups would be one row of table `{name}`"))
                    .with_hint("select what the query groups by beside the others"));
            }
            _ if keyed.is_empty() => Key::None,
            _ if keyed.iter().all(|at| indexable(&schema, *at)) => Key::Columns(keyed),
            _ => Key::Digest,
        };
        let mut columns: Vec<Column> =
            schema.fields().iter().map(|field| column(field.name(), field.data_type(), field.is_nullable())).collect();
        if finality {
            let field = final_field();
            columns.push(column(field.name(), field.data_type(), field.is_nullable()));
        }
        let table = Self { name, columns, key };
        table.check_names()?;
        Ok(table)
    }

    fn check_names(&self) -> Result<()> {
        let names = self.columns.iter().map(|column| &column.name).chain([&self.name]);
        for name in names {
            if name.len() > NAME_MAX {
                return Err(Error::job(format!(
                    "`{name}` is longer than the {NAME_MAX} bytes of a name in PostgreSQL"
                ))
                .with_hint("give it a shorter one with AS, or in INSERT INTO"));
            }
        }
        if self.key == Key::Digest && self.columns.iter().any(|column| column.name == ROW_KEY) {
            return Err(Error::job(format!("the table has a column `{ROW_KEY}` of its own"))
                .with_hint("give that of the query another name with AS"));
        }
        Ok(())
    }

    /// Columns that are written, the key's own one last.
    pub(super) fn written(&self) -> impl Iterator<Item = String> {
        let digest = (self.key == Key::Digest).then_some(ROW_KEY);
        self.columns.iter().map(|column| column.name.as_str()).chain(digest).map(quoted)
    }

    /// The key's columns.
    pub(super) fn key_names(&self) -> Vec<String> {
        match &self.key {
            Key::None => Vec::new(),
            Key::Columns(columns) => columns.iter().map(|at| quoted(&self.columns[*at].name)).collect(),
            Key::Digest => vec![quoted(ROW_KEY)],
        }
    }

    /// `CREATE TABLE …;`
    pub(super) fn definition(&self) -> String {
        let mut lines: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                // Where the digest is the key, rows of windows and of all time, which have none, can share a table.
                let null = if column.nullable || self.key == Key::Digest { "" } else { " NOT NULL" };
                format!("    {} {}{null}", quoted(&column.name), column.data_type)
            })
            .collect();
        if self.key == Key::Digest {
            lines.push(format!("    {} bytea NOT NULL", quoted(ROW_KEY)));
        }
        if self.key != Key::None {
            lines.push(format!("    PRIMARY KEY ({})", self.key_names().join(", ")));
        }
        format!("CREATE TABLE {} (\n{}\n);\n", quoted(&self.name), lines.join(",\n"))
    }

    /// Whether rows can be put into a table with these columns and unique indexes.
    pub(super) fn check(&self, found: &Found) -> Result<()> {
        for column in &self.columns {
            let there = found.columns.iter().find(|there| there.name == column.name);
            let Some(there) = there else {
                return Err(self.misfit(format!("has no column `{}`", column.name)));
            };
            if !takes(&there.data_type, &column.data_type) {
                let (has, wanted) = (&there.data_type, &column.data_type);
                return Err(self.misfit(format!("has column `{}` as {has}, not {wanted}", column.name)));
            }
            if there.required && column.nullable {
                return Err(self.misfit(format!("has column `{}` as NOT NULL, and it may be NULL", column.name)));
            }
        }
        let digest = self.key == Key::Digest;
        let known = |name: &str| digest && name == ROW_KEY || self.columns.iter().any(|column| column.name == name);
        if let Some(other) = found.columns.iter().find(|there| there.required && !there.filled && !known(&there.name)) {
            return Err(
                self.misfit(format!("has a column `{}` that nothing fills: NOT NULL without a default", other.name))
            );
        }
        let mut key = match &self.key {
            Key::None => return Ok(()),
            Key::Columns(columns) => columns.iter().map(|at| self.columns[*at].name.clone()).collect(),
            Key::Digest => vec![ROW_KEY.to_owned()],
        };
        key.sort();
        if digest && !found.columns.iter().any(|there| there.name == ROW_KEY && there.data_type == "bytea") {
            return Err(self.misfit(format!("has no column `{ROW_KEY}` of type bytea")));
        }
        if !found.unique.contains(&key) {
            return Err(self.misfit(format!("has no primary key or unique index over exactly `{}`", key.join("`, `"))));
        }
        Ok(())
    }

    fn misfit(&self, what: String) -> Error {
        Error::new(ErrorKind::Config, format!("table `{}` does not fit the job: it {what}", self.name)).with_hint(
            "`tidegate explain JOB --postgres-ddl` prints a table that does; a table that is not there is made",
        )
    }
}

/// A table as it is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) columns: Vec<FoundColumn>,
    /// Columns of each unique index, sorted.
    pub(super) unique: Vec<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct FoundColumn {
    pub(super) name: String,
    pub(super) data_type: String,
    /// NOT NULL.
    pub(super) required: bool,
    /// Has a value of its own where none is given.
    pub(super) filled: bool,
}

/// The definitions of the tables of a job; `finality` as in output mode update.
///
/// # Errors
/// `Job` when an output is no table.
pub fn definitions(job: &Job, finality: bool) -> Result<String> {
    let tables = (0..job.outputs().len()).map(|output| Ok(Table::of(job, output, finality)?.definition()));
    Ok(tables.collect::<Result<Vec<String>>>()?.join("\n"))
}

/// A name as it stands in a statement.
pub(super) fn quoted(name: impl AsRef<str>) -> String {
    format!("\"{}\"", name.as_ref().replace('"', "\"\""))
}

/// Whether a column can be part of a primary key whatever is in it.
fn indexable(schema: &Schema, at: usize) -> bool {
    let field = schema.field(at);
    let bounded = match field.data_type() {
        DataType::FixedSizeBinary(bytes) => *bytes <= 64,
        other => type_of(other).1 == Form::Plain || type_of(other).1 == Form::Instant,
    };
    bounded && !field.is_nullable() && !field.data_type().is_floating()
}

fn column(name: &str, data_type: &DataType, nullable: bool) -> Column {
    let (written, form) = type_of(data_type);
    // A float that is no number is NULL, whatever the query says.
    Column { name: name.to_owned(), data_type: written, nullable: nullable || data_type.is_floating(), form }
}

/// The type that holds every value of an Arrow type as records have it.
fn type_of(data_type: &DataType) -> (String, Form) {
    let plain = |name: &str| (name.to_owned(), Form::Plain);
    match data_type {
        DataType::Boolean => plain("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => plain("smallint"),
        DataType::Int32 | DataType::UInt16 => plain("integer"),
        DataType::Int64 | DataType::UInt32 => plain("bigint"),
        DataType::UInt64 => plain("numeric(20,0)"),
        float if float.is_floating() => plain("double precision"),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => {
            // A negative scale leaves digits out on the right, which are there in the number.
            let whole = i16::from(*digits) + i16::from((-scale).max(0));
            plain(&format!("numeric({whole},{})", (*scale).max(0)))
        }
        DataType::Date32 => plain("date"),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _) => {
            ("timestamp with time zone".to_owned(), Form::Instant)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ("bytea".to_owned(), Form::Bytes)
        }
        nested if nested.is_nested() => ("jsonb".to_owned(), Form::Json),
        DataType::Dictionary(_, values) => type_of(values),
        // Nanoseconds too: PostgreSQL would round them.
        _ => ("text".to_owned(), Form::Text),
    }
}

/// Whether a column of type `has` holds whatever one of type `wanted` does.
fn takes(has: &str, wanted: &str) -> bool {
    if has == wanted {
        return true;
    }
    let integers = ["smallint", "integer", "bigint", "numeric"];
    if let (Some(has), Some(wanted)) = (place(&integers, has), place(&integers, wanted)) {
        return has > wanted;
    }
    match (precision(has), precision(wanted)) {
        (Some((whole, part)), Some((wanted_whole, wanted_part))) => {
            whole - part >= wanted_whole - wanted_part && part >= wanted_part
        }
        _ => (has == "numeric" && precision(wanted).is_some()) || (has == "character varying" && wanted == "text"),
    }
}

fn place(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|one| *one == name)
}

/// Digits in all and behind the point in `numeric(38,18)`.
fn precision(data_type: &str) -> Option<(i32, i32)> {
    let (digits, scale) = data_type.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
    Some((digits.parse().ok()?, scale.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobOptions, JobSource};

    async fn table(sql: &str) -> Result<Table> {
        let source = JobSource { name: "job".into(), sql: sql.into(), path: None };
        let job = Job::plan(&source, &JobOptions::default()).await.expect(sql);
        Table::of(&job, 0, false)
    }

    const WINDOW: &str = "FROM events GROUP BY window(created_at, '1 hour')";

    #[tokio::test]
    async fn a_key_is_window_and_group_or_a_digest_of_them() {
        let plain = table(&format!("SELECT count(*) AS n, window.end AS e, kind {WINDOW}, kind")).await.expect("fits");
        assert_eq!(plain.key, Key::Columns(vec![1, 2]));
        assert_eq!(
            plain.definition(),
            "CREATE TABLE \"job\" (\n    \"n\" bigint NOT NULL,\n    \"e\" timestamp with time zone NOT NULL,\n    \
             \"kind\" integer NOT NULL,\n    PRIMARY KEY (\"e\", \"kind\")\n);\n"
        );
        let text = table(&format!("SELECT window.end AS e, relay, count(*) AS n {WINDOW}, relay")).await.expect("fits");
        assert_eq!(text.key, Key::Digest);
        assert_eq!(
            text.definition(),
            "CREATE TABLE \"job\" (\n    \"e\" timestamp with time zone,\n    \"relay\" text,\n    \"n\" bigint,\n    \
             \"row_key\" bytea NOT NULL,\n    PRIMARY KEY (\"row_key\")\n);\n"
        );
        let all_time = table("SELECT count(*) AS n, kind FROM events GROUP BY kind").await.expect("fits");
        assert_eq!(all_time.key, Key::Columns(vec![1]));
        for rows in ["SELECT id, kind FROM events", "SELECT count(*) AS n FROM events"] {
            assert_eq!(table(rows).await.expect("fits").key, Key::None);
        }
    }

    #[tokio::test]
    async fn rows_that_a_table_could_not_tell_apart_are_refused() {
        for sql in [
            format!("SELECT kind, count(*) AS n {WINDOW}, kind"),
            "SELECT count(*) AS n FROM events GROUP BY kind".into(),
        ] {
            let error = table(&sql).await.expect_err(&sql);
            assert_eq!(error.kind(), ErrorKind::Job);
            assert!(error.to_string().contains("one row of table"), "{error}");
        }
        let long = format!("SELECT window.end AS {}, count(*) AS n {WINDOW}", "e".repeat(64));
        assert!(table(&long).await.expect_err("too long").to_string().contains("63 bytes"));
    }

    #[test]
    fn a_wider_type_takes_a_narrower_one() {
        for (has, wanted, fits) in [
            ("bigint", "bigint", true),
            ("numeric", "bigint", true),
            ("bigint", "integer", true),
            ("integer", "bigint", false),
            ("numeric(76,18)", "numeric(38,18)", true),
            ("numeric(38,18)", "numeric(38,6)", false),
            ("numeric(20,0)", "bigint", false),
            ("numeric", "numeric(38,6)", true),
            ("character varying", "text", true),
            ("character varying(10)", "text", false),
            ("timestamp without time zone", "timestamp with time zone", false),
            ("real", "double precision", false),
        ] {
            assert_eq!(takes(has, wanted), fits, "{has} for {wanted}");
        }
    }

    fn found(columns: &[(&str, &str, bool, bool)], unique: &[&str]) -> Found {
        let column = |(name, data_type, required, filled): &(&str, &str, bool, bool)| FoundColumn {
            name: (*name).to_owned(),
            data_type: (*data_type).to_owned(),
            required: *required,
            filled: *filled,
        };
        let unique = vec![unique.iter().map(|name| (*name).to_owned()).collect()];
        Found { columns: columns.iter().map(column).collect(), unique }
    }

    #[tokio::test]
    async fn a_table_that_does_not_fit_is_told_by_the_column() {
        let table = table(&format!("SELECT window.end AS e, max(kind) AS n {WINDOW}")).await.expect("fits");
        let (e, n) = (("e", "timestamp with time zone", true, false), ("n", "integer", false, false));
        let said =
            |columns: &[_], unique: &[&str]| table.check(&found(columns, unique)).map_err(|error| error.to_string());
        assert_eq!(said(&[e, n], &["e"]), Ok(()));
        assert_eq!(said(&[e, n, ("more", "text", true, true), ("less", "text", false, false)], &["e"]), Ok(()));
        for (columns, unique, words) in [
            (vec![e], ["e"], "no column `n`"),
            (vec![e, ("n", "smallint", false, false)], ["e"], "column `n` as smallint, not integer"),
            (vec![e, ("n", "integer", true, false)], ["e"], "column `n` as NOT NULL"),
            (vec![e, n, ("more", "text", true, false)], ["e"], "a column `more` that nothing fills"),
            (vec![e, n], ["n"], "unique index over exactly `e`"),
        ] {
            let why = said(&columns, &unique).expect_err(words);
            assert!(why.contains(words), "{why}");
        }
    }
}
