//! Rows to standard output in the form that was asked for.
//!
//! A table for a terminal and JSON lines for a pipe, unless `--format` says otherwise. How a value is written is the
//! business of `processor::row`.

mod table;

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use processor::row::{display_batch, json_rows};

use crate::error::Failure;
use crate::progress::{self, counted};
use table::Table;

/// Rows that a table is laid out for at once; more are printed as a further table.
const TABLE_ROWS: usize = 10_000;

/// Bytes of text that are written at once.
const BUFFER: usize = 64 << 10;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns (default on a terminal)
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line (default for a pipe or a file)
    Ndjson,
    /// Comma-separated values with a header
    Csv,
    /// A Markdown table
    Markdown,
    /// A Parquet file (not to a terminal)
    Parquet,
}

impl Format {
    /// Whether all rows are one document, beside which nothing else can be printed.
    pub(crate) const fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::Parquet)
    }
}

/// The option `--format`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FormatArgs {
    /// How to print rows [default: table on a terminal, else ndjson]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true, long_help = FORMAT_HELP)]
    pub(crate) format: Option<Format>,
}

const FORMAT_HELP: &str = "How to print rows: table, json, ndjson, csv, markdown or parquet \
[default: table on a terminal, else ndjson]";

impl FormatArgs {
    /// The form that was asked for, or the one that fits where standard output goes.
    pub(crate) fn chosen(self) -> Format {
        let fitting = || if io::stdout().is_terminal() { Format::Table } else { Format::Ndjson };
        self.format.unwrap_or_else(fitting)
    }

    /// A printer of rows to standard output.
    pub(crate) fn printer(self, schema: SchemaRef) -> Result<Rows<Stdout>, Failure> {
        let terminal = io::stdout().is_terminal();
        let format = self.chosen();
        if terminal && format == Format::Parquet {
            return Err(Failure::usage("a terminal shows no Parquet")
                .hint("send it to a file: … --format parquet > rows.parquet"));
        }
        let width = terminal.then(|| usize::from(console::Term::stdout().size().1));
        Rows::new(format, schema, width, io::stdout()).map_err(Failure::from)
    }

    /// A printer for each output that has no other place; their rows lie among each other on standard output, line by
    /// line.
    pub(crate) fn printers(self, outputs: Vec<Option<SchemaRef>>) -> Result<Vec<Option<Rows<Stdout>>>, Failure> {
        let format = self.chosen();
        if format.is_document() && outputs.iter().flatten().count() > 1 {
            return Err(Failure::usage("the job has several outputs, which are no single document")
                .hint("use --format ndjson, table, csv or markdown"));
        }
        outputs.into_iter().map(|output| output.map(|schema| self.printer(schema)).transpose()).collect()
    }
}

/// Prints batches of one schema.
pub(crate) struct Rows<W: Write + Send> {
    format: Format,
    schema: SchemaRef,
    width: Option<usize>,
    out: Out<W>,
    waiting: Vec<RecordBatch>,
    begun: bool,
    /// Rows of a table at most; the rest is counted.
    shown_max: usize,
}

enum Out<W: Write + Send> {
    Text(BufWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Rows<W> {
    fn new(format: Format, schema: SchemaRef, width: Option<usize>, out: W) -> io::Result<Self> {
        let out = match format {
            Format::Parquet => {
                let writer = ArrowWriter::try_new(out, SchemaRef::clone(&schema), None).map_err(io::Error::other)?;
                Out::Parquet(Box::new(writer))
            }
            _ => Out::Text(BufWriter::with_capacity(BUFFER, out)),
        };
        Ok(Self { format, schema, width, out, waiting: Vec::new(), begun: false, shown_max: usize::MAX })
    }

    /// Shows so many rows of each table, and how many there are more; other forms are not cut.
    pub(crate) fn tables_of(mut self, rows: usize) -> Self {
        self.shown_max = rows;
        self
    }

    /// Takes a batch; a table is held back until [`Rows::flush`].
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match &mut self.out {
            Out::Parquet(writer) => writer.write(batch).map_err(io::Error::other),
            Out::Text(_) if self.format == Format::Table => {
                self.waiting.push(batch.clone());
                let rows: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
                if rows >= TABLE_ROWS { self.print_table() } else { Ok(()) }
            }
            Out::Text(_) => self.print(batch),
        }
    }

    /// Prints what is held back, so that a reader has all rows taken so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.waiting.iter().any(|batch| batch.num_rows() > 0) {
            self.print_table()?;
        }
        match &mut self.out {
            Out::Text(out) => progress::aside(|| out.flush()),
            Out::Parquet(_) => Ok(()),
        }
    }

    /// Ends the output: the last rows, a closing bracket, a footer.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match self.format {
            Format::Table if !self.begun => self.print_table()?,
            Format::Csv | Format::Markdown if !self.begun => {
                self.print(&RecordBatch::new_empty(SchemaRef::clone(&self.schema)))?
            }
            Format::Json => {
                let end = if self.begun { "\n]\n" } else { "[]\n" };
                if let Out::Text(out) = &mut self.out {
                    out.write_all(end.as_bytes())?;
                }
            }
            _ => {}
        }
        self.flush()?;
        if let Out::Parquet(writer) = self.out {
            writer.close().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn print_table(&mut self) -> io::Result<()> {
        let batches = std::mem::take(&mut self.waiting);
        let mut table = table_of(&RecordBatch::new_empty(SchemaRef::clone(&self.schema)))?;
        for batch in &batches {
            table.rows.append(&mut table_of(batch)?.rows);
        }
        let more = table.rows.len().saturating_sub(self.shown_max);
        table.rows.truncate(self.shown_max);
        let mut lines = table.lines(self.width);
        if more > 0 {
            lines.push(format!("… and {}", counted(more as u64, "more row")));
        }
        if self.begun {
            lines.insert(0, String::new());
        }
        self.begun = true;
        self.print_lines(lines)
    }

    fn print(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let first = !self.begun;
        match self.format {
            Format::Markdown => {
                self.begun = true;
                let lines = table_of(batch)?.markdown(first);
                self.print_lines(lines)
            }
            Format::Csv => {
                self.begun = true;
                let shown = display_batch(batch).map_err(io::Error::other)?;
                let mut text = Vec::new();
                arrow::csv::WriterBuilder::new()
                    .with_header(first)
                    .build(&mut text)
                    .write(&shown)
                    .map_err(io::Error::other)?;
                let Out::Text(out) = &mut self.out else { return Ok(()) };
                progress::aside(|| out.write_all(&text))
            }
            Format::Json => {
                let mut lines = json_rows(batch).map_err(io::Error::other)?;
                let Out::Text(out) = &mut self.out else { return Ok(()) };
                for line in &mut lines {
                    out.write_all(if self.begun { b",\n" } else { b"[\n" })?;
                    out.write_all(line.as_bytes())?;
                    self.begun = true;
                }
                Ok(())
            }
            _ => self.print_lines(json_rows(batch).map_err(io::Error::other)?),
        }
    }

    fn print_lines(&mut self, lines: Vec<String>) -> io::Result<()> {
        let Out::Text(out) = &mut self.out else { return Ok(()) };
        progress::aside(|| {
            for mut line in lines {
                // In one piece, so that the buffer never ends within a line: what follows it may be another output's.
                line.push('\n');
                out.write_all(line.as_bytes())?;
            }
            Ok(())
        })
    }
}

/// The batch as cells of text.
fn table_of(batch: &RecordBatch) -> io::Result<Table> {
    let shown = display_batch(batch).map_err(io::Error::other)?;
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = vec![Vec::with_capacity(shown.num_columns()); shown.num_rows()];
    for column in shown.columns() {
        let cells = ArrayFormatter::try_new(column, &options).map_err(io::Error::other)?;
        for (row, line) in rows.iter_mut().enumerate() {
            line.push(cells.value(row).to_string());
        }
    }
    Ok(Table {
        header: shown.schema_ref().fields().iter().map(|field| field.name().clone()).collect(),
        numeric: shown.columns().iter().map(|column| column.data_type().is_numeric()).collect(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("kind", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("tag", Arc::new(StringArray::from(vec!["a,b", "c"]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .expect("a batch")
    }

    fn printed(format: Format, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(format, batch().schema(), None, &mut out).expect("a printer");
        for batch in batches {
            rows.write(batch).expect("written");
        }
        rows.finish().expect("finished");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_text_format_of_two_batches() {
        let two = [batch(), batch().slice(1, 1)];
        assert_eq!(
            printed(Format::Ndjson, &two),
            "{\"kind\":1,\"tag\":\"a,b\"}\n{\"kind\":null,\"tag\":\"c\"}\n{\"kind\":null,\"tag\":\"c\"}\n"
        );
        assert_eq!(printed(Format::Csv, &two), "kind,tag\n1,\"a,b\"\n,c\n,c\n");
        assert_eq!(printed(Format::Table, &two), "kind  tag\n────  ───\n   1  a,b\nNULL  c\nNULL  c\n");
        assert_eq!(
            printed(Format::Markdown, &two),
            "| kind | tag |\n| ---: | --- |\n| 1 | a,b |\n| NULL | c |\n| NULL | c |\n"
        );
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, &two)).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_table_may_be_cut_and_says_so() {
        let mut out = Vec::new();
        let mut rows = Rows::new(Format::Table, batch().schema(), None, &mut out).expect("a printer").tables_of(1);
        for _ in 0..2 {
            rows.write(&batch()).expect("written");
            rows.flush().expect("flushed");
        }
        rows.finish().expect("finished");
        let table = "kind  tag\n────  ───\n   1  a,b\n… and 1 more row\n";
        assert_eq!(String::from_utf8(out).expect("text"), format!("{table}\n{table}"));
    }

    /// Several outputs share standard output.
    #[test]
    fn lines_stay_whole_beside_those_of_another_output() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("one thread").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Ndjson, Format::Csv, Format::Markdown, Format::Table] {
            let out = Shared::default();
            let printer = || Rows::new(format, batch().schema(), None, out.clone()).expect("a printer");
            let (mut one, mut other) = (printer(), printer());
            // Around the size of the buffer, with the line feed and without.
            for length in (BUFFER - 40)..=BUFFER {
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(Int64Array::from(vec![1])), Arc::new(StringArray::from(vec!["x".repeat(length)]))];
                one.write(&RecordBatch::try_new(batch().schema(), columns).expect("a row")).expect("written");
                if format == Format::Table {
                    one.flush().expect("flushed");
                }
                other.write(&batch()).expect("written");
                other.flush().expect("flushed");
            }
            drop((one, other));
            let text = String::from_utf8(out.0.lock().expect("one thread").clone()).expect("text");
            let broken = text.lines().find(|line| line.contains("xx") && line.contains("a,b"));
            assert_eq!(broken, None, "{format:?}");
            assert!(text.ends_with('\n'), "{format:?}");
        }
    }

    #[test]
    fn several_outputs_are_no_single_document() {
        let printers = |format, outputs| FormatArgs { format: Some(format) }.printers(outputs);
        let both = || vec![Some(batch().schema()), Some(batch().schema())];
        for format in [Format::Json, Format::Parquet] {
            let refused = printers(format, both()).err().expect("two outputs");
            assert!(refused.message().contains("no single document"), "{}", refused.message());
        }
        assert!(printers(Format::Json, vec![Some(batch().schema()), None]).is_ok());
        assert!(printers(Format::Ndjson, both()).is_ok());
    }

    #[test]
    fn nothing_is_still_well_formed() {
        assert_eq!(printed(Format::Json, &[]), "[]\n");
        assert_eq!(printed(Format::Ndjson, &[]), "");
        assert_eq!(printed(Format::Csv, &[]), "kind,tag\n");
        assert_eq!(printed(Format::Table, &[]), "kind  tag\n────  ───\n");
    }

    #[test]
    fn parquet_starts_and_ends_with_its_magic() {
        let mut out = Vec::new();
        let mut rows = Rows::new(Format::Parquet, batch().schema(), None, &mut out).expect("a printer");
        rows.write(&batch()).expect("written");
        rows.finish().expect("finished");
        assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"));
    }
}
