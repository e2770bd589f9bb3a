//! A real PostgreSQL: a database of a test's own on the server that `tests/run` started, or a whole server that the test
//! may end. Read by psql, without the code under test.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{postgres, repository, unique};

/// An empty database.
#[derive(Debug)]
pub struct Database {
    /// `postgres://user:password@host:port/database`
    pub url: String,
}

impl Database {
    /// Makes one; none, loudly, where the tests run without a real PostgreSQL.
    pub fn create() -> Option<Self> {
        Some(Self::on(&postgres()?))
    }

    fn on(server: &str) -> Self {
        let name = unique("tidegate").replace('-', "_");
        ask(server, &format!("CREATE DATABASE {name}"));
        let (address, _) = server.rsplit_once('/').expect("the address of a server names a database");
        Self { url: format!("{address}/{name}") }
    }

    /// `host:port` of the server.
    pub fn address(&self) -> &str {
        self.url.split(['@', '/']).nth(3).expect("a user, then host and port")
    }

    /// The same database by another address, in clear text.
    pub fn through(&self, address: &str) -> String {
        format!("{}?sslmode=disable", self.url.replace(self.address(), address))
    }

    /// What a statement prints, a line a row, columns separated by `|`.
    pub fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.url, sql)
    }

    /// The rows of a query as JSON objects, instants as RFC 3339 in UTC.
    pub fn rows(&self, query: &str) -> Vec<Value> {
        let lines = self.ask(&format!("SELECT to_jsonb(t) FROM ({query}) AS t"));
        let row =
            |line: &String| serde_json::from_str(&line.replace("+00:00\"", "Z\"")).expect("PostgreSQL writes JSON");
        lines.iter().map(row).collect()
    }
}

fn ask(url: &str, sql: &str) -> Vec<String> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, url]).env("PGTZ", "UTC");
    let done = psql.output().expect("psql is there where the server is");
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// A server of a test's own, which it may end and start again. What is left of it is stopped in the end.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    /// A database on it.
    pub database: Database,
}

impl Server {
    /// Starts one; none, loudly, where the tests run without a real PostgreSQL.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        postgres()?;
        let dir = TempDir::new().expect("a directory");
        script(&dir, "start", &[]);
        let env = std::fs::read_to_string(dir.path().join("server/env")).expect("the server's address");
        let url = env.lines().find_map(|line| line.strip_prefix("export TIDEGATE_TEST_POSTGRES="));
        let database = Database::on(url.expect("a variable"));
        Some(Self { dir, database })
    }

    /// Ends it at once.
    pub fn kill(&self) {
        script(&self.dir, "signal", &["KILL"]);
    }

    /// Starts it again, with the data and on the port that it had.
    pub fn restart(&self) {
        script(&self.dir, "restart", &[]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut run = Command::new(path());
        // It may have ended before; there is nobody to tell.
        let _ = run.arg("stop").arg(self.dir.path().join("server")).output();
    }
}

fn path() -> PathBuf {
    repository().join("tests/services/postgres")
}

fn script(dir: &TempDir, command: &str, arguments: &[&str]) {
    let mut run = Command::new(path());
    run.arg(command).arg(dir.path().join("server")).args(arguments);
    let done = run.output().expect("the script runs");
    assert!(done.status.success(), "postgres {command}: {}", String::from_utf8_lossy(&done.stderr));
}
