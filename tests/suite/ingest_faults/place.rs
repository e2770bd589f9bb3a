//! Where `tidegate ingest` runs as a process: on the embedded log with a local lake, or on Kafka with MinIO, either of
//! them behind a wire; and the audit of what lies there.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::Clock;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;
use tests::audit::{Held, Owed, audit, audit_unfinished, read_kafka, read_lake, read_log};
use tests::scripted_relay::ScriptedRelay;
use tests::{S3Test, kafka, s3, tidegate, unique};
use tokio::runtime::Runtime;
use topic::{EmbeddedLog, KafkaLog, KafkaSettings, Log};

use crate::crash::process::Process;

/// By then a process has done what is expected, on a busy machine too.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// A topic and a lake of a test's own.
pub(super) struct Place {
    dir: TempDir,
    pub(super) topic: String,
    services: Option<Services>,
    pub(super) runtime: Runtime,
}

struct Services {
    brokers: String,
    store: S3Test,
    /// Where processes find the store; there may be a wire before it.
    endpoint: String,
    prefix: String,
}

impl Place {
    pub(super) fn embedded() -> Self {
        let dir = TempDir::new().expect("a directory");
        std::fs::create_dir(dir.path().join("lake")).expect("a lake");
        Self { dir, topic: unique("faults"), services: None, runtime: Runtime::new().expect("a runtime") }
    }

    /// The real Kafka and MinIO that all tests share; none, loudly, where they are not.
    pub(super) fn services() -> Option<Self> {
        Self::on(&kafka()?)
    }

    /// The broker at this address, and the shared MinIO.
    pub(super) fn on(brokers: &str) -> Option<Self> {
        let store = s3()?;
        let services = Services {
            brokers: brokers.to_owned(),
            endpoint: store.endpoint.clone(),
            prefix: unique("faults-lake"),
            store,
        };
        Some(Self { services: Some(services), ..Self::embedded() })
    }

    /// A directory below the data directory: `log`, `lake`.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Where the store is, `http://host:port`.
    pub(super) fn store_endpoint(&self) -> &str {
        &self.services.as_ref().expect("a place with a store").store.endpoint
    }

    /// From now on processes find the store at this endpoint.
    pub(super) fn store_at(&mut self, endpoint: String) {
        self.services.as_mut().expect("a place with a store").endpoint = endpoint;
    }

    /// Starts `tidegate ingest nostr`, with a lander that writes small objects.
    pub(super) fn ingest(&self, relays: &[String], more: &[&str]) -> Process {
        let mut command = self.command(&["ingest", "nostr", "--partitions", "2", "--relay", &relays.join(",")]);
        if !more.contains(&"--no-lake") {
            self.lake(&mut command);
        }
        command.args(more);
        Process::start(command)
    }

    /// Starts `tidegate ingest opensea`, with a lander that writes small objects.
    pub(super) fn opensea(&self, endpoint: &str, key: &str, more: &[&str]) -> Process {
        let mut command = self.command(&["ingest", "opensea", "--partitions", "2", "--endpoint", endpoint]);
        self.lake(&mut command);
        command.args(more).env("OPENSEA_API_KEY", key);
        Process::start(command)
    }

    /// Starts `tidegate lake land`.
    pub(super) fn land(&self, more: &[&str]) -> Process {
        let mut command = self.command(&["lake", "land"]);
        self.lake(&mut command);
        command.args(more);
        Process::start(command)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate();
        command.args(arguments).args(["--topic", &self.topic, "--data-dir"]).arg(self.dir.path());
        if let Some(services) = &self.services {
            command.args(["--kafka-brokers", &services.brokers]);
        }
        command
    }

    fn lake(&self, command: &mut Command) {
        command.args(["--rotate-rows", "60", "--rotate-age", "1s"]);
        if let Some(services) = &self.services {
            let store = S3Test { endpoint: services.endpoint.clone(), ..services.store.clone() };
            command.args(["--lake", &store.url(&services.prefix)]).envs(store.variables());
        }
    }

    /// What the topic holds; on the embedded log no process may have it open.
    pub(super) fn topic_records(&self) -> Vec<Held> {
        self.records_of(&self.topic)
    }

    /// What any topic holds; on the embedded log no process may have it open.
    pub(super) fn records_of(&self, topic: &str) -> Vec<Held> {
        match &self.services {
            Some(services) => read_kafka(&services.brokers, topic),
            None => self.runtime.block_on(read_log(self.log().as_ref(), topic)),
        }
    }

    /// The log; no process may have an embedded one open.
    pub(super) fn log(&self) -> Arc<dyn Log> {
        match &self.services {
            Some(services) => Arc::new(KafkaLog::connect(KafkaSettings::new(&services.brokers)).expect("settings")),
            None => Arc::new(EmbeddedLog::open(&self.dir.path().join("log"), Clock::system()).expect("the log")),
        }
    }

    /// Everything that is kept without a server.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Host and port of the broker.
    pub(super) fn brokers(&self) -> &str {
        &self.services.as_ref().expect("a place with a broker").brokers
    }

    pub(super) fn lake_rows(&self) -> Vec<Held> {
        let store: Arc<dyn ObjectStore> = match &self.services {
            Some(services) => services.store.store(&services.prefix),
            None => Arc::new(LocalFileSystem::new_with_prefix(self.dir.path().join("lake")).expect("the lake")),
        };
        self.runtime.block_on(read_lake(store.as_ref(), &self.topic))
    }

    /// Demands exactly what is owed.
    pub(super) fn audit(&self, owed: &Owed) {
        let audited = audit(owed, &self.topic_records(), &self.lake_rows());
        audited.unwrap_or_else(|breaches| panic!("the audit found {}\n{}", breaches.len(), breaches.join("\n")));
    }

    /// Demands, of a place where work is under way, that nothing is there twice, changed, or made up; how many records
    /// and rows there are.
    pub(super) fn audit_unfinished(&self, owed: &Owed) -> (usize, usize) {
        // The lake first: what is in it is in the topic already.
        let lake = self.lake_rows();
        let topic = self.topic_records();
        if let Err(breaches) = audit_unfinished(owed, &topic, &lake) {
            panic!("the audit found {}\n{}", breaches.len(), breaches.join("\n"));
        }
        (topic.len(), lake.len())
    }
}

/// Waits until the topic holds everything that the relay does; of a place on Kafka, where it can be looked at meanwhile.
pub(super) fn all_there(place: &Place, relay: &ScriptedRelay, process: &mut Process) {
    let begun = Instant::now();
    while place.topic_records().len() < relay.holds().len() {
        assert!(process.alive() && begun.elapsed() < SOON, "{}", process.heard().lines.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}
