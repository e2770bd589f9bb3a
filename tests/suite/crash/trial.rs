//! A job on trial: its topics, its checkpoint, the events that keep coming, and the audit at the end.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use futures::TryStreamExt;
use serde_json::Value;
use tempfile::TempDir;
use tests::oracle::Windows;
use tests::{S3Test, kafka, s3, tidegate, unique};
use tokio::runtime::Runtime;
use topic::{KafkaLog, KafkaSettings, Log, TopicSpec};

use super::auditor::{Evidence, audit};
use super::broker;
use super::chance::Chance;
use super::process::Process;
use super::producer::{PARTITIONS, Writing};
use super::proxy::Proxy;
use super::say;

/// `'1 minute' --slide-duration '20 seconds'`.
const BY: Windows = Windows { size: 60, slide: 20 };
/// For whatever is expected to happen: the machine may be busy.
pub(super) const SOON: Duration = Duration::from_secs(90);

/// Which job is on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The built-in job `kinds`, to `--kafka-topic`.
    Kinds,
    /// A file with two INSERTs, both with `count(DISTINCT …)`.
    TwoInserts,
}

#[derive(Debug)]
pub(super) struct Trial {
    name: String,
    subject: Subject,
    pub(super) brokers: String,
    pub(super) raw: String,
    out: String,
    pub(super) proxy: Proxy,
    store: S3Test,
    prefix: String,
    dir: TempDir,
    options: Vec<String>,
    writing: Option<Writing>,
    pub(super) chance: Chance,
    runtime: Runtime,
}

impl Trial {
    /// Makes the raw topic on a broker, the one that all tests share unless another is given, and has events written to
    /// it; none, loudly, without real services.
    pub(super) fn begin(name: &str, subject: Subject, brokers: Option<&str>) -> Option<Self> {
        let (shared, store) = (kafka()?, s3()?);
        let brokers = brokers.map_or(shared, str::to_owned);
        let mut chance = Chance::of(name);
        let runtime = Runtime::new().expect("a runtime");
        let raw = unique("crash-raw");
        let spec = TopicSpec { name: raw.clone(), partitions: PARTITIONS, config: Vec::new() };
        runtime.block_on(log(&brokers).create_topic(&spec)).expect("the raw topic");
        let writing = Writing::start(&brokers, &raw, chance.fork());
        Some(Self {
            name: name.to_owned(),
            subject,
            brokers,
            raw,
            out: unique("crash-out"),
            proxy: Proxy::start(&store.endpoint),
            store,
            prefix: unique("crash-checkpoint"),
            dir: TempDir::new().expect("a directory"),
            options: Vec::new(),
            writing: Some(writing),
            chance,
            runtime,
        })
    }

    /// Adds options to every start of the job.
    pub(super) fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Topics of the job's outputs, each with the built-in job that defines it.
    fn outputs(&self) -> Vec<(String, &'static str)> {
        match self.subject {
            Subject::Kinds => vec![(self.out.clone(), "kinds")],
            Subject::TwoInserts => {
                vec![(format!("{}-kinds", self.out), "kinds"), (format!("{}-all", self.out), "activity")]
            }
        }
    }

    fn job(&self) -> String {
        match self.subject {
            Subject::Kinds => "kinds".to_owned(),
            Subject::TwoInserts => "twice".to_owned(),
        }
    }

    /// The job, ready to be started.
    fn command(&self) -> Command {
        let mut command = tidegate();
        command.arg("stream");
        match self.subject {
            Subject::Kinds => command.args(["kinds", "1 minute", "--kafka-topic", &self.out]),
            Subject::TwoInserts => command.arg(self.job_file()).arg("1 minute"),
        };
        let checkpoint = self.store.url(&self.prefix);
        let store = S3Test { endpoint: self.proxy.endpoint(), ..self.store.clone() };
        command
            .args(["--slide-duration", "20 seconds", "--watermark-duration", "30 seconds", "--progress", "json"])
            .args(["--raw-events-kafka-topic", &self.raw, "--kafka-brokers", &self.brokers])
            .args(["--checkpoint-dir", &checkpoint])
            .arg("--data-dir")
            .arg(self.dir.path())
            .args(&self.options)
            .envs(store.variables());
        command
    }

    fn job_file(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("twice.sql");
        let query = |topic: &str, keys: &str| {
            let columns = format!("{keys}count(*) AS events, count(DISTINCT pubkey) AS authors");
            let group = keys.trim_end_matches(", ");
            let more = if group.is_empty() { String::new() } else { format!(", {group}") };
            format!(
                "INSERT INTO `{topic}` SELECT window.start AS window_start, window.end AS window_end, {columns}\n\
                 FROM events GROUP BY window(created_at, '${{window}}'){more};\n"
            )
        };
        let outputs = self.outputs();
        std::fs::write(&path, query(&outputs[0].0, "kind, ") + &query(&outputs[1].0, "")).expect("written");
        path
    }

    /// Starts the job.
    pub(super) fn start(&self) -> Process {
        Process::start(self.command())
    }

    /// Starts the job and waits until it has committed a few times.
    pub(super) fn start_and_settle(&self) -> Process {
        let process = self.start();
        process.must_hear("third commit", SOON, |heard| heard.told.iter().filter(|t| t.commit_ms > 0.0).count() >= 3);
        process
    }

    /// Whether a transaction on the job's outputs is open.
    pub(super) fn in_transaction(&self) -> bool {
        let topics = self.outputs().into_iter().flat_map(|(topic, _)| [format!("{topic}.late"), topic]);
        topics.into_iter().any(|topic| {
            let stable = broker::ends(&self.brokers, &topic, false);
            stable != broker::ends(&self.brokers, &topic, true)
        })
    }

    /// The control record as it was last committed, as far as open transactions let a reader see.
    pub(super) fn control(&self, id: &str) -> Option<Value> {
        let records = broker::read(&self.brokers, event::layout::JOBS_TOPIC);
        let last = records.into_iter().rfind(|record| record.key.as_deref() == Some(id))?;
        serde_json::from_str(&last.value).ok()
    }

    /// Objects below the job's checkpoint prefix, as the control record names them.
    pub(super) fn objects(&self) -> BTreeSet<String> {
        let store = self.store.store("");
        let prefix = object_store::path::Path::from(self.prefix.as_str());
        let list = store.list(Some(&prefix)).map_ok(|object| object.location.to_string()).try_collect();
        self.runtime.block_on(list).expect("the objects")
    }

    /// Ends the writing, has the job read to the end of the topic, and audits everything.
    pub(super) fn finish(mut self, running: Option<Process>) {
        let written = self.writing.take().expect("it is finished once").finish();
        if let Some(process) = running {
            process.terminate();
            process.ends_with(0, SOON);
        }
        let mut command = self.command();
        command.arg("--until-latest");
        let heard = Process::start(command).ends_with(0, 2 * SOON);
        let id = heard.told.last().expect("the last run told how far it came").id.clone();
        let ends = broker::ends(&self.brokers, &self.raw, false);
        let committed = broker::committed(&self.brokers, &id, &self.raw);
        let raw = broker::read(&self.brokers, &self.raw);
        assert_eq!(raw.len() as u64, written, "the raw topic holds what was written");
        for (topic, definition) in self.outputs() {
            let evidence = Evidence {
                job: self.job(),
                definition,
                by: BY,
                raw: raw.clone(),
                rows: broker::read(&self.brokers, &topic),
                late: broker::read(&self.brokers, &format!("{topic}.late")),
                committed: committed.clone(),
                ends: ends.clone(),
            };
            let audited = audit(&evidence).unwrap_or_else(|breaches| {
                panic!("{}: the audit of `{topic}` found {}\n{}", self.name, breaches.len(), breaches.join("\n"))
            });
            assert!(audited.rows > 50 && audited.late > 50, "{audited:?} is too little to prove anything");
            say(&format!("{}: audit of `{definition}` holds, {audited:?}", self.name));
        }
    }
}

fn log(brokers: &str) -> KafkaLog {
    KafkaLog::connect(KafkaSettings::new(brokers)).expect("settings")
}
