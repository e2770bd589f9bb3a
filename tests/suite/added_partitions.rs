//! A topic that gets another partition while a job reads it.

mod kafka {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::config::ClientConfig;
    use serde_json::Value;
    use tests::{finish, kafka, signal, tidegate, unique};
    use topic::{KafkaLog, KafkaSettings, Log, Record, TopicSpec};

    const SOON: Duration = Duration::from_secs(60);

    fn records(first: u64, partition: i32) -> Vec<Record> {
        let record = |at: u64| {
            let (id, sig) = (format!("{at:064x}"), format!("{at:0128x}"));
            let created_at = 1_700_000_000 + at;
            let raw = format!(
                r#"{{"id":"{id}","pubkey":"{id}","created_at":{created_at},"kind":1,"tags":[],"content":"","sig":"{sig}"}}"#
            );
            Record {
                key: Some(id.into()),
                value: Some(raw.into()),
                headers: Vec::new(),
                timestamp_ms: Some(1_750_000_000_000),
                partition: Some(partition),
            }
        };
        (first..first + 300).map(record).collect()
    }

    #[test]
    fn a_partition_that_is_added_while_a_job_runs_is_read() {
        let Some(brokers) = kafka() else { return };
        let (raw, out) = (unique("added"), unique("added-out"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let log = runtime.block_on(async { KafkaLog::connect(KafkaSettings::new(&brokers)).unwrap() });
        let write = |records: Vec<Record>| {
            runtime.block_on(async {
                let mut writer = log.writer(None).await.unwrap();
                writer.send(&raw, records).await.unwrap();
                writer.flush().await.unwrap();
            });
        };
        runtime.block_on(async {
            log.create_topic(&TopicSpec { name: raw.clone(), partitions: 1, config: Vec::new() }).await.unwrap();
        });
        write(records(0, 0));
        let data = tempfile::tempdir().unwrap();
        let stream = |more: &[&str]| -> Command {
            let mut command = tidegate();
            command.args(["stream", "activity", "1 minute", "--kafka-brokers", &brokers, "--kafka-topic", &out]);
            command.args(["--raw-events-kafka-topic", &raw, "--progress", "json"]);
            command.arg("--data-dir").arg(data.path()).args(more);
            command
        };
        let mut child = stream(&[]).stderr(Stdio::piped()).spawn().unwrap();
        let (send, told) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(progress) = serde_json::from_str::<Value>(&line) {
                    let _ = send.send(progress["sources"][0]["endOffset"].clone());
                }
            }
        });
        let wait_for = |what: &str, test: &dyn Fn(&Value) -> bool| {
            let deadline = Instant::now() + SOON;
            while let Ok(offsets) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                if test(&offsets) {
                    return;
                }
            }
            panic!("{what} was not seen");
        };
        wait_for("the first partition", &|offsets| offsets["0"] == 300);
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let added = runtime.block_on(admin.create_partitions(&[NewPartitions::new(&raw, 2)], &AdminOptions::new()));
        added.unwrap().into_iter().for_each(|topic| drop(topic.unwrap()));
        write(records(300, 1));
        wait_for("the second partition", &|offsets| offsets["1"] == 300);
        signal("TERM", child.id());
        assert_eq!(child.wait().unwrap().code(), Some(0));

        finish(&mut stream(&["--until-latest"])).success();
        let read = ["topic", "read", &out, "--until-latest", "--kafka-brokers", &brokers];
        let rows = finish(tidegate().args(read)).success().ndjson();
        let counted: u64 = rows.iter().map(|row| row["value"]["events"].as_u64().unwrap()).sum();
        assert_eq!(counted, 600);
    }
}
