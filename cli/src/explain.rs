//! `tidegate explain JOB` and `tidegate check JOB`: what a job would do, and whether it can.

use std::io::{self, Write};

use event::Clock;
use processor::Job;

use crate::error::Failure;
use crate::job::JobArgs;
use crate::place::{LogArgs, RawArgs};
use crate::progress::{counted, note};
use crate::stream::Mode;
use crate::stream::sink::definitions;

/// Shows how a job runs: topics, windows, panes, state, plans.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate explain kinds '1 hour' --slide-duration '10 minutes'
  tidegate explain kinds --json-schema
  tidegate explain kinds --postgres-ddl
  tidegate explain my.sql --var limit=10")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    job: JobArgs,

    /// The topic that the job would write to
    #[arg(long, value_name = "TOPIC")]
    kafka_topic: Option<String>,

    /// Print the JSON Schema of the output instead
    #[arg(long)]
    json_schema: bool,

    /// Print the definitions of the tables that --sink writes to instead
    #[arg(long, conflicts_with = "json_schema")]
    postgres_ddl: bool,

    /// With --postgres-ddl: append, or update, which has a column `final`
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Append, hide_possible_values = true)]
    output_mode: Mode,
}

/// Checks a job, and that what it would read can be reached; writes nothing.
///
/// The log is asked where --kafka-brokers is given, the lake where --lake or --raw-events-s3-uri is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate check my.sql '1 hour'
  tidegate check kinds --kafka-brokers localhost:9092 --lake s3://raw-data")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten, next_help_heading = "Lake")]
    raw: RawArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// Prints the plan.
pub(crate) async fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let job = args.job.plan().await?;
    let text = match (args.json_schema, args.postgres_ddl) {
        (true, _) => format!("{:#}", job.json_schema()),
        (_, true) => definitions(&job, args.output_mode)?,
        _ => job.explain(&job.table().topic(job.table().raw_topic()), args.kafka_topic.as_deref()),
    };
    writeln!(io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

/// Plans the job and looks at what it would read.
pub(crate) async fn check(args: CheckArgs) -> Result<(), Failure> {
    let job = args.job.plan().await?;
    if args.log.brokers().is_some() {
        let (log, topic) = (args.log.open(&Clock::system()).await?, args.raw.topic(job.table())?);
        let partitions = counted(log.ranges(&topic).await?.len() as u64, "partition");
        note(&format!("topic `{topic}` has {partitions}"));
    }
    if args.raw.named() {
        let location = args.raw.location(job.table(), &args.log)?;
        let store = location.open()?;
        store.objects.list_with_delimiter(Some(&store.prefix)).await?;
        note(&format!("lake {location} answers"));
    }
    note(&format!("job `{}` is sound", job.name()));
    writeln!(io::stdout().lock(), "{}", columns(&job))?;
    Ok(())
}

fn columns(job: &Job) -> String {
    let mut lines = Vec::new();
    for output in job.outputs() {
        lines.extend(output.name.as_ref().map(|name| format!("into {name}:")));
        let columns = output.schema.fields().iter();
        lines.extend(columns.map(|field| format!("{} {}", field.name(), field.data_type())));
    }
    lines.join("\n")
}
