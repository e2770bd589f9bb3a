//! The binary under test: where it lies, how it is run, and what it said.
//!
//! A command starts without any of the variables that configure tidegate, so that what a developer has exported
//! changes no verdict.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};

use serde_json::Value;

/// A command that runs `tidegate` from the same build as this test, with a clean environment and no input.
///
/// # Panics
///
/// When the binary is not there: cargo builds it only when asked (`cargo build -p cli`; `tests/run` does).
pub fn tidegate() -> Command {
    let mut command = Command::new(path());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["TIDEGATE_", "AWS_", "RUST_LOG", "LOG_LEVEL", "OPENSEA_", "PG"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Rows as text, sorted, so that their order does not count.
pub fn sorted(rows: impl AsRef<[Value]>) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_ref().iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

/// Runs a command to its end and keeps all that it said.
///
/// # Panics
///
/// When the command cannot be started.
pub fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|error| panic!("could not start {command:?}: {error}"));
    Finished { command: format!("{command:?}"), output }
}

/// Sends a signal, `TERM` for instance, to a process that the caller has started and not waited for yet.
///
/// # Panics
///
/// When it is not there any more.
pub fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "process {process} is there");
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    command: String,
    output: Output,
}

impl Finished {
    /// Demands exit code 0.
    ///
    /// # Panics
    ///
    /// On any other end, with everything that the command said.
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// Demands this exit code.
    ///
    /// # Panics
    ///
    /// On any other end, with everything that the command said.
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.output.status,
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// How it ended.
    pub fn status(&self) -> ExitStatus {
        self.output.status
    }

    /// What it wrote to stdout.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Stdout as one JSON value a line.
    ///
    /// # Panics
    ///
    /// On a line that is not JSON: stdout is for data alone.
    pub fn ndjson(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("{} wrote a line that is not JSON: {error}\n{line}\n--- stderr\n{}", self.command, self.stderr())
            })
        };
        self.stdout().lines().map(parse).collect()
    }
}

/// Tests lie in `target/<profile>/deps`, binaries one above.
fn path() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let built = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps").join("tidegate");
    assert!(built.exists(), "`{}` is not built: run `cargo build -p cli` first, or tests/run", built.display());
    built
}
