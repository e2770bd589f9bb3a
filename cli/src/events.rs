//! `tidegate events`: stored events by time, from the lake and from what the topic holds beyond it, each once.

mod filter;

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use event::schema::{CONTENT, CREATED_AT, ID, KIND, PUBKEY, RAW};
use event::{Clock, Table};
use futures::StreamExt;
use processor::lake::LakeTable;
use processor::sql::{Source, sql_over};
use processor::tail::TopicTail;
use processor::top::{Order, Top};
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::output::{Format, FormatArgs, Rows};
use crate::place::{LogArgs, RawArgs};
use crate::progress::{aside, note};
use crate::sql::warn_of_unreadable;

/// Shows stored events: those of the lake, and those that the topic holds beyond it, each once.
///
/// Ordered by the date that its author gave an event. Filters narrow each other
/// down; values of one filter widen it, as in NIP-01. A table shows the first
/// digits of ids and keys; the other formats show them whole.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate events --amount 5 --keyword bitcoin
  tidegate events --order-by asc --kinds 1,30023 --since 2024-07-28
  tidegate events --author npub1… --tag t=nostr --format markdown
  tidegate events --id nevent1… --raw
  tidegate events --follow --amount 0 --kinds 7 --kafka-brokers localhost:9092")]
pub(crate) struct Args {
    /// How many events
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=AMOUNT_MAX))]
    amount: u32,

    /// Which end of time: desc for the newest first, asc for the oldest first
    #[arg(
        short,
        long,
        value_enum,
        value_name = "ORDER",
        default_value = "desc",
        alias = "orderBy",
        hide_possible_values = true
    )]
    order_by: OrderBy,

    /// Go on with new events of a Kafka topic as they come, until stopped; of the first ones the newest then comes last
    #[arg(short, long)]
    follow: bool,

    /// Print the events themselves, byte for byte as they were received, one a line
    #[arg(long, conflicts_with = "format")]
    raw: bool,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Filter")]
    filter: filter::FilterArgs,
    #[command(flatten, next_help_heading = "Lake and topic")]
    places: RawArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// They are held in memory, some kilobytes each.
const AMOUNT_MAX: i64 = 100_000;
/// How often the topic is asked for what is new.
const POLL: Duration = Duration::from_millis(250);
/// Ids of followed events that are remembered: the topic may hold an event twice after a crash of its writer, and then
/// close together.
const SEEN_MAX: usize = 10_000;

const COLUMNS: &str = "created_at, kind, content, pubkey, id, relay";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderBy {
    /// Oldest first
    Asc,
    /// Newest first
    Desc,
}

/// Shows events.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let columns = if args.raw { format!("{COLUMNS}, {RAW}") } else { COLUMNS.to_owned() };
    let query = format!("SELECT {columns} FROM events{}", args.filter.condition()?);
    let events = places(&args).await?;
    // Whoever wants only what is new does not wait for what is stored.
    let stored = if args.amount == 0 { Source::default() } else { events.clone() };
    let top = tokio::select! {
        top = first(&args, stored, &query) => top?,
        () = shutdown.cancelled() => return Err(Failure::interrupted()),
    };
    let mut printer = Printer::new(&args, top.schema())?;
    printer.print(&top)?;
    if let Some(lake) = &events.lake {
        warn_of_unreadable(lake);
    }
    if let (true, Some(tail)) = (args.follow, events.tail) {
        tokio::select! {
            ended = follow(tail, &query, &mut printer, Seen::of(&top)) => ended?,
            () = shutdown.cancelled() => {}
        }
    }
    printer.finish()
}

/// The wanted end of all that is stored.
async fn first(args: &Args, events: Source, query: &str) -> Result<RecordBatch, Failure> {
    let order = match args.order_by {
        OrderBy::Asc => Order::Ascending,
        OrderBy::Desc => Order::Descending,
    };
    let mut answer = sql_over(vec![events], query, None).await?;
    let mut top = Top::new(order, usize::try_from(args.amount).unwrap_or(usize::MAX), answer.schema);
    while let Some(batch) = answer.rows.next().await {
        top.offer(&batch?)?;
    }
    Ok(top.finish(if args.follow { Order::Ascending } else { order })?)
}

/// Prints what comes, until something fails.
async fn follow(mut tail: TopicTail, query: &str, printer: &mut Printer, mut seen: Seen) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(POLL).await;
        tail = tail.next().await?;
        if tail.is_empty() {
            continue;
        }
        let mut answer = sql_over(vec![Source { tail: Some(tail.clone()), ..Source::default() }], query, None).await?;
        while let Some(batch) = answer.rows.next().await {
            printer.print(&seen.new_of(&batch?)?)?;
        }
    }
}

/// The lake and the stretch of the topic beyond it, as far as they are there; one of them has to be.
async fn places(args: &Args) -> Result<Source, Failure> {
    let lake = args.places.table(Table::Events, &args.log);
    let tail = tail(args, lake.as_ref().ok()).await?;
    match (lake, tail) {
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(_)) if args.places.named() => Err(failure),
        (lake, tail) => Ok(Source { table: Table::Events, lake: lake.ok(), tail }),
    }
}

/// The stretch of the topic; none where only the lake can be shown.
async fn tail(args: &Args, lake: Option<&LakeTable>) -> Result<Option<TopicTail>, Failure> {
    let embedded = args.log.brokers().is_none();
    let lake_will_do = lake.is_some() && !args.follow;
    if embedded && args.follow {
        return Err(Failure::usage("the embedded log has one owner at a time: while it is followed nothing can come")
            .hint("--follow is for Kafka, with --kafka-brokers"));
    }
    if embedded && !args.log.data_dir.join("log").is_dir() {
        return Ok(None);
    }
    let log = match args.log.open(&Clock::system()).await {
        Ok(log) => log,
        // The embedded log has one owner at a time; what it has landed is open to all.
        Err(failure) if embedded && lake_will_do && failure.code() == Code::Usage => {
            note("the log is in use by another process: only what has landed in the lake is shown");
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    match TopicTail::beyond(lake, log, &args.places.topic(Table::Events)?).await {
        Ok(tail) => Ok(Some(tail)),
        Err(error) if lake_will_do && error.kind() == processor::ErrorKind::Config => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where rows go.
enum Printer {
    /// For the next program: all columns.
    Rows(Box<Rows<Stdout>>),
    /// For a person: what fits into a line.
    Table(Box<Rows<Stdout>>),
    Raw(BufWriter<Stdout>),
}

impl Printer {
    fn new(args: &Args, schema: SchemaRef) -> Result<Self, Failure> {
        if args.raw {
            return Ok(Self::Raw(BufWriter::new(io::stdout())));
        }
        if args.format.chosen() == Format::Table {
            let schema = for_eyes(&RecordBatch::new_empty(schema))?.schema();
            return Ok(Self::Table(Box::new(args.format.printer(schema)?)));
        }
        Ok(Self::Rows(Box::new(args.format.printer(schema)?)))
    }

    fn print(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        match self {
            Self::Rows(rows) => {
                rows.write(batch)?;
                rows.flush()?;
            }
            Self::Table(rows) => {
                rows.write(&for_eyes(batch)?)?;
                rows.flush()?;
            }
            Self::Raw(out) => {
                let raw = batch.column(batch.schema_ref().index_of(RAW)?).as_binary::<i32>();
                aside(|| {
                    for bytes in raw.iter().flatten() {
                        out.write_all(bytes)?;
                        out.write_all(b"\n")?;
                    }
                    out.flush()
                })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Rows(rows) | Self::Table(rows) => Ok(rows.finish()?),
            Self::Raw(mut out) => Ok(out.flush()?),
        }
    }
}

/// The columns of a table: ids and keys by their first digits, and the content last, with the room that is left.
fn for_eyes(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let column = |name: &str| Ok::<_, Failure>(Arc::clone(batch.column(batch.schema_ref().index_of(name)?)));
    let short = |name: &str| -> Result<ArrayRef, Failure> {
        let bytes = column(name)?;
        let shown = bytes.as_fixed_size_binary().iter().map(|bytes| bytes.map(|bytes| hex::encode(&bytes[..4]) + "…"));
        Ok(Arc::new(shown.collect::<StringArray>()))
    };
    let columns = [
        (CREATED_AT, column(CREATED_AT)?),
        (KIND, column(KIND)?),
        ("author", short(PUBKEY)?),
        (ID, short(ID)?),
        (CONTENT, column(CONTENT)?),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The ids of the newest events that were printed.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<Vec<u8>>,
    order: VecDeque<Vec<u8>>,
}

impl Seen {
    fn of(batch: &RecordBatch) -> Self {
        let mut seen = Self::default();
        for id in batch.column_by_name(ID).into_iter().flat_map(|ids| ids.as_fixed_size_binary().iter()).flatten() {
            seen.is_new(id);
        }
        seen
    }

    fn new_of(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let ids = batch.column(batch.schema_ref().index_of(ID)?).as_fixed_size_binary();
        let new: BooleanArray = (0..ids.len()).map(|row| Some(self.is_new(ids.value(row)))).collect();
        Ok(filter_record_batch(batch, &new)?)
    }

    fn is_new(&mut self, id: &[u8]) -> bool {
        if !self.ids.insert(id.to_vec()) {
            return false;
        }
        self.order.push_back(id.to_vec());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_as_long_as_it_is_remembered() {
        let mut seen = Seen::default();
        assert!(seen.is_new(b"first") && !seen.is_new(b"first"));
        for number in 0..SEEN_MAX {
            assert!(seen.is_new(&number.to_be_bytes()));
        }
        assert_eq!((seen.ids.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
        assert!(seen.is_new(b"first"), "the oldest is forgotten first");
    }
}
