//! Where a test's tidegate works: on the embedded log and a local lake, or on the real Kafka and MinIO.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::{S3Test, kafka, s3, tidegate, unique};

/// A place with a topic and a lake of its own.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
    topic: String,
    services: Option<(String, S3Test, String)>,
}

impl Stage {
    /// The embedded log and a local lake below a new directory.
    ///
    /// # Panics
    ///
    /// When no directory can be made.
    pub fn embedded() -> Self {
        Self { dir: TempDir::new().expect("a directory"), topic: unique("nostr-event"), services: None }
    }

    /// The real Kafka and MinIO; none, loudly, where they are not.
    ///
    /// # Panics
    ///
    /// When no directory can be made.
    pub fn services() -> Option<Self> {
        let services = (kafka()?, s3()?, unique("lake"));
        Some(Self { dir: TempDir::new().expect("a directory"), topic: unique("nostr-event"), services: Some(services) })
    }

    /// Name of the raw topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The data directory: the embedded log, and the local lake unless there is a real store.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command with the options that lead it to this stage's log.
    pub fn log_command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate();
        command.args(arguments).arg("--data-dir").arg(self.dir());
        if let Some((brokers, _, _)) = &self.services {
            command.args(["--kafka-brokers", brokers]);
        }
        command
    }

    /// A command with the options that lead it to this stage's lake.
    pub fn lake_command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate();
        command.args(arguments).arg("--data-dir").arg(self.dir());
        self.lake(&mut command);
        command
    }

    /// A command that needs the log and the lake.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.log_command(arguments);
        self.lake(&mut command);
        command
    }

    fn lake(&self, command: &mut Command) {
        if let Some((_, store, prefix)) = &self.services {
            command.args(["--lake", &store.url(prefix)]).envs(store.variables());
        }
    }

    /// What a process needs to reach this stage's store.
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        self.services.as_ref().map_or_else(Vec::new, |(_, store, _)| store.variables().into_iter().collect())
    }

    /// `tidegate ingest` of a file or of relays, landed to the end.
    pub fn ingest(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&[&["ingest"], arguments].concat());
        command.args(["--topic", &self.topic]);
        command
    }

    /// A batch over this stage's lake, as JSON lines.
    pub fn batch(&self, arguments: &[&str]) -> Command {
        let mut command = self.lake_command(&["batch"]);
        command.args(arguments).args(["--raw-events-kafka-topic", &self.topic, "--format", "ndjson"]);
        command
    }

    /// A stream over this stage's topic to its end, as JSON lines.
    pub fn stream(&self, arguments: &[&str]) -> Command {
        let mut command = self.log_command(&["stream"]);
        command.args(arguments).args(["--raw-events-kafka-topic", &self.topic, "--format", "ndjson", "--until-latest"]);
        command
    }
}

/// A `tidegate relay` that is stopped when it goes out of scope.
#[derive(Debug)]
pub struct RelayProcess {
    child: Child,
    /// `ws://…`.
    pub url: String,
}

impl RelayProcess {
    /// Starts a relay on a free port and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not listen within half a minute.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = tidegate();
        command.args(["relay", "--listen", "127.0.0.1:0"]).args(arguments).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the relay starts");
        let stderr = child.stderr.take().expect("piped");
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to the end, or the relay would stall on a full pipe.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(at) = line.find("ws://") {
                    let _ = send.send(line[at..].split_whitespace().next().unwrap_or_default().to_owned());
                }
            }
        });
        let url = receive.recv_timeout(Duration::from_secs(60)).expect("the relay says where it listens");
        Self { child, url }
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
