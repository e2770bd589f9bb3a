//! `tidegate sql`: one query over the lake, rows to standard output.

use std::path::PathBuf;

use event::Table;
use futures::StreamExt;
use processor::lake::LakeTable;
use processor::sql::{Source, sql_over};
use tokio_util::sync::CancellationToken;

use crate::batch::print;
use crate::error::Failure;
use crate::master::MasterArgs;
use crate::output::FormatArgs;
use crate::place::{LogArgs, RawArgs};
use crate::progress::{counted, note};

/// Runs SQL over the lake. The tables are `events` and, where they were kept, `sightings` and `market`; the dialect is
/// DataFusion's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate sql 'SELECT kind, count(*) AS n FROM events GROUP BY kind'
  tidegate sql -f report.sql --lake s3://raw-data --format csv
  tidegate sql --master tidegate://worker-1:7400 'SELECT count(*) FROM events'
  tidegate sql \"SELECT content FROM events WHERE kind = 1 LIMIT 5\"")]
pub(crate) struct Args {
    /// The query
    #[arg(required_unless_present = "file")]
    query: Option<String>,

    /// Read the query from a file; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,

    #[command(flatten)]
    master: MasterArgs,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Lake")]
    raw: RawArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// Runs the query.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let query = match (&args.query, &args.file) {
        (Some(query), _) => query.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(Failure::usage("there is no query")),
    };
    let sources = sources(&args, &query)?;
    let lakes: Vec<LakeTable> = sources.iter().filter_map(|source| source.lake.clone()).collect();
    let mut answer = match args.master.cluster()? {
        Some(cluster) => {
            let tables = remote(&args, sources)?;
            if args.master.explain() {
                return print(&cluster.explain_sql(tables, &query).await?);
            }
            tokio::select! {
                answer = cluster.sql(tables, &query) => answer?,
                () = shutdown.cancelled() => return Err(Failure::interrupted()),
            }
        }
        None => sql_over(sources, &query, args.master.threads()).await?,
    };
    let mut rows = args.format.printer(answer.schema)?;
    loop {
        let batch = tokio::select! {
            batch = answer.rows.next() => batch,
            () = shutdown.cancelled() => return Err(Failure::interrupted()),
        };
        match batch {
            Some(batch) => rows.write(&batch?)?,
            None => break,
        }
    }
    rows.finish()?;
    lakes.iter().for_each(warn_of_unreadable);
    Ok(())
}

/// The tables that there are. A folder that was named holds one, as its name or the query says.
fn sources(args: &Args, query: &str) -> Result<Vec<Source>, Failure> {
    let named = args.raw.raw_events_s3_uri.as_deref().map(|uri| uri.trim_end_matches('/').rsplit('/').next());
    let named = named.map(|folder| {
        let asked = || Table::ALL.into_iter().find(|table| asks(query, *table));
        Table::told_by(folder.unwrap_or_default()).or_else(asked).unwrap_or_default()
    });
    let mut sources = Vec::new();
    for table in Table::ALL.into_iter().filter(|table| named.is_none_or(|named| named == *table)) {
        match args.raw.table(table, &args.log) {
            Ok(lake) => sources.push(Source { table, lake: Some(lake), tail: None }),
            // A table that is not there is no matter for who does not ask it.
            Err(failure) if asks(query, table) => return Err(failure),
            Err(_) => {}
        }
    }
    Ok(sources)
}

/// The tables, with the names by which workers find them.
fn remote(args: &Args, sources: Vec<Source>) -> Result<Vec<(LakeTable, String)>, Failure> {
    let lakes = sources.into_iter().filter_map(|source| source.lake.map(|lake| (source.table, lake)));
    lakes.map(|(table, lake)| Ok((lake, args.raw.location(table, &args.log)?.absolute()?.to_string()))).collect()
}

/// Whether a query reads a table, as far as its words tell.
fn asks(query: &str, table: Table) -> bool {
    let query = query.to_lowercase();
    let words = query.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.clone().zip(words.skip(1)).any(|(before, word)| ["from", "join"].contains(&before) && word == table.name())
}

/// Lines of JSON objects in the lake that are no row of their table were left out; that must not go unsaid.
pub(crate) fn warn_of_unreadable(lake: &LakeTable) {
    match lake.unreadable() {
        0 => {}
        lines => {
            let (lines, table) = (counted(lines, "line"), lake.table().name());
            note(&format!("{lines} of the lake held no row of `{table}` and were left out"));
        }
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|why| Failure::usage(format!("could not read file `{}`: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_the_tables_that_it_reads_from() {
        let query = "select count(*) as events from\n\"Sightings\" s";
        assert!(asks(query, Table::Sightings) && !asks(query, Table::Events));
        let two = "SELECT 1 FROM (SELECT * FROM events) e JOIN sightings USING (id)";
        let asked: Vec<Table> = Table::ALL.into_iter().filter(|table| asks(two, *table)).collect();
        assert_eq!(asked, [Table::Events, Table::Sightings]);
    }
}
