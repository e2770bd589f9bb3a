//! `tidegate`, the one binary: parse the command line, start the log, run one subcommand, turn its end into an exit code.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "doc comments of arguments are help texts, where <job> is a place to fill"
)]

mod admin;
mod allocator;
mod args;
mod batch;
mod cluster;
mod error;
mod events;
mod explain;
mod ingest;
mod input;
mod job;
mod keygen;
mod keys;
mod lake;
mod logs;
mod master;
mod output;
mod place;
mod progress;
mod publish;
mod quickstart;
mod relay;
mod relays;
mod service;
mod shutdown;
mod sql;
mod store;
mod stream;
mod test;
mod topic;
mod up;
mod verify;

use std::process::ExitCode;

use crate::args::Cli;

fn main() -> ExitCode {
    let outcome = Cli::of_command_line().and_then(|cli| logs::start(&cli).and_then(|()| run(cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), error::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { cli.command.run(shutdown::on_signals()?.token()).await });
    // A read of standard input cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    outcome
}
