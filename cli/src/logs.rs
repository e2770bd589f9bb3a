//! The log on standard error: level from `-l`, else `RUST_LOG`, else `LOG_LEVEL`, else by the kind of command.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::error::Failure;
use crate::progress::LogWriter;

/// Starts the log; once a process.
pub(crate) fn start(cli: &Cli) -> Result<(), Failure> {
    let from_env = ["RUST_LOG", "LOG_LEVEL"].into_iter().filter_map(|name| std::env::var(name).ok());
    let asked = cli.log_level.clone().into_iter().chain(from_env).find(|level| !level.trim().is_empty());
    let level = asked.unwrap_or_else(|| if cli.command.service() { "info" } else { "warn" }.to_owned());
    let filter = EnvFilter::builder().parse(directives(&level)).map_err(|why| {
        Failure::usage(format!("`{level}` is not a log level: {why}")).hint("use error, warn, info, debug or trace")
    })?;
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogWriter).with_ansi(colour);
    let started =
        if terminal { log.compact().with_target(false).try_init() } else { log.json().flatten_event(true).try_init() };
    started.map_err(|why| Failure::new(crate::error::Code::Failed, format!("could not start the log: {why}")))
}

/// A bare level (`INFO`, as the seed's commands spell it) counts for our crates; the libraries below stay at warn
/// unless the level is debug or trace.
fn directives(level: &str) -> String {
    let word = level.trim().to_ascii_lowercase();
    match word.as_str() {
        "warning" => "warn".to_owned(),
        "info" => "warn,cli=info,tidegate=info,event=info,topic=info,relay=info,ingest=info,processor=info".to_owned(),
        _ if word.contains('=') => level.to_owned(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_people_write_them() {
        assert!(directives("INFO").starts_with("warn,"));
        assert_eq!(directives("DEBUG"), "debug");
        assert_eq!(directives("Warning"), "warn");
        assert_eq!(directives("ingest=debug,warn"), "ingest=debug,warn");
    }
}
