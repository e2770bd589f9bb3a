//! `tidegate cluster worker`: does its share of batches that others ask for.

use std::sync::Arc;

use event::Table;
use processor::Memory;
use processor::distributed::{Worker, version};
use processor::lake::LakeTable;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::batch::threads;
use crate::error::{Code, Failure};
use crate::job::memory;
use crate::place::table_at;
use crate::store::Location;

/// Workers for `--master tidegate://…`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Worker(WorkerArgs),
}

/// Reads and merges for batches, until it is stopped.
///
/// It opens the lakes that clients name with its own keys (AWS_…); a lake in a directory has to be there for it too.
/// Whoever reaches the port can have it read: keep it in a private network.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate cluster worker
  tidegate cluster worker --listen 0.0.0.0:7400 --threads 8 --memory 8GiB
  tidegate batch kinds '1 hour' --lake s3://raw-data \\
    --master tidegate://worker-1:7400,worker-2:7400")]
struct WorkerArgs {
    /// Where clients and other workers reach it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400")]
    listen: String,

    /// Threads [default: one a processor]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,

    /// How much memory a batch may use here, as 512MiB or 4GiB; beyond it, state goes to files
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "2GiB")]
    memory: Memory,
}

/// Runs it.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    match args.command {
        Command::Worker(args) => worker(args, shutdown).await,
    }
}

async fn worker(args: WorkerArgs, shutdown: CancellationToken) -> Result<(), Failure> {
    let listener = TcpListener::bind(&args.listen).await.map_err(|why| {
        Failure::new(Code::Usage, format!("could not listen at `{}`: {why}", args.listen))
            .hint("--listen names another address or port")
    })?;
    let threads = threads(args.threads);
    tracing::info!(listen = %listener.local_addr()?, threads, version = version(), "worker is ready");
    let worker = Worker { threads, memory: args.memory, open: Arc::new(open) };
    Ok(worker.serve(listener, shutdown).await?)
}

/// The folder of a topic, as a client names it.
fn open(place: &str, table: Table) -> processor::Result<LakeTable> {
    let refused = |failure: Failure| processor::Error::new(processor::ErrorKind::Config, failure.message());
    let location = Location::parse(place).map_err(refused)?;
    if matches!(&location, Location::Local(dir) if !dir.is_dir()) {
        let message = format!("there is no directory `{location}` here");
        return Err(processor::Error::new(processor::ErrorKind::Config, message));
    }
    table_at(&location, table).map_err(refused)
}
