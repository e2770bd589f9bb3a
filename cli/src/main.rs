//! `tidegate`, the one binary: parse the command line, start the log, run one subcommand, turn its end into an exit code.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "doc comments of arguments are help texts, where <job> is a place to fill"
)]

mod admin;
mod args;
mod batch;
mod error;
mod explain;
mod ingest;
mod job;
mod lake;
mod logs;
mod output;
mod place;
mod progress;
mod quickstart;
mod relay;
mod service;
mod shutdown;
mod sql;
mod store;
mod stream;
mod table;
mod test;
mod topic;
mod up;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = logs::start(&cli).and_then(|()| run(cli));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), error::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let shutdown = shutdown::on_signals()?;
        cli.command.run(shutdown.token()).await
    });
    // A read of standard input cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    outcome
}
