//! `tidegate sql`: one query over the lake, rows to standard output.

use std::path::PathBuf;

use futures::StreamExt;
use processor::lake::LakeTable;
use processor::sql::sql;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::output::FormatArgs;
use crate::place::{LogArgs, RawArgs};
use crate::progress::{counted, note};

/// Runs SQL over the lake. The table is `events`; the dialect is DataFusion's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate sql 'SELECT kind, count(*) AS n FROM events GROUP BY kind'
  tidegate sql -f report.sql --lake s3://raw-data --format csv
  tidegate sql \"SELECT content FROM events WHERE kind = 1 LIMIT 5\"")]
pub(crate) struct Args {
    /// The query
    #[arg(required_unless_present = "file")]
    query: Option<String>,

    /// Read the query from a file; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,

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
    let lake = args.raw.table(&args.log)?;
    let mut answer = sql(lake.clone(), &query).await?;
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
    warn_of_unreadable(&lake);
    Ok(())
}

/// Lines of JSON objects in the lake that hold no event were left out; that must not go unsaid.
pub(crate) fn warn_of_unreadable(lake: &LakeTable) {
    match lake.unreadable() {
        0 => {}
        lines => note(&format!("{} of the lake held no event and were left out", counted(lines, "line"))),
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|why| Failure::usage(format!("could not read file `{}`: {why}", path.display())))
}
