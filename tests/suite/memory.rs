//! The memory of a stream's process: in the second half of a day of traffic it is what it was in the first.
//!
//! What the engine counts as state is watched by its own tests; here the operating system says what the process holds,
//! with everything that nobody counts. `TIDEGATE_SOAK=n` multiplies the traffic.

mod kafka {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use event::EventTime;
    use serde_json::Value;
    use tests::{kafka, tidegate, unique};
    use topic::{KafkaLog, KafkaSettings, Log, Record, TopicSpec, Writer};

    /// A whole hour.
    const BEGIN_SECS: u64 = 1_700_002_800;
    const HOURS: u64 = 24;
    const EVENTS_A_MINUTE: u64 = 400;
    /// What allocators keep by chance.
    const SLACK_KIB: u64 = 24 * 1_024;

    /// Event `number` of the second `at`: few kinds, many authors.
    fn record(number: u64, at: u64) -> Record {
        let (kind, author) =
            ([0, 1, 1, 1, 7, 6, 3, 9735][(number % 8) as usize], number.wrapping_mul(2_654_435_761) % 5_000);
        let (id, pubkey, sig) = (format!("{number:064x}"), format!("{author:064x}"), format!("{number:0128x}"));
        let raw = format!(
            r#"{{"id":"{id}","pubkey":"{pubkey}","created_at":{at},"kind":{kind},"tags":[["t","x"]],"content":"","sig":"{sig}"}}"#
        );
        Record {
            key: Some(id.into()),
            value: Some(raw.into()),
            timestamp_ms: Some(at as i64 * 1_000),
            ..Record::default()
        }
    }

    async fn fill(log: &KafkaLog, topic: &str, events_a_minute: u64) {
        log.create_topic(&TopicSpec { name: topic.to_owned(), partitions: 2, config: Vec::new() })
            .await
            .expect("a topic");
        let mut writer: Box<dyn Writer> = log.writer(None).await.expect("a writer");
        for minute in 0..HOURS * 60 {
            let records = (0..events_a_minute)
                .map(|at| record(minute * events_a_minute + at, BEGIN_SECS + minute * 60 + at * 60 / events_a_minute));
            writer.send(topic, records.collect()).await.expect("sent");
        }
        writer.flush().await.expect("flushed");
    }

    /// Resident memory of a process, kB.
    fn resident(process: u32) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    }

    #[test]
    fn the_second_half_of_a_day_of_traffic_takes_no_more_memory_than_the_first() {
        let Some(brokers) = kafka() else { return };
        let soak: u64 = std::env::var("TIDEGATE_SOAK").map_or(1, |soak| soak.parse().expect("a number"));
        let (raw, out) = (unique("day"), unique("day-out"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let log = runtime.block_on(async { KafkaLog::connect(KafkaSettings::new(&brokers)).unwrap() });
        runtime.block_on(fill(&log, &raw, EVENTS_A_MINUTE * soak));
        let data = tempfile::tempdir().unwrap();
        let mut command = tidegate();
        command.args(["stream", "kinds", "10 minutes", "--slide-duration", "1 minute"]);
        command.args(["--watermark-duration", "1 minute", "--kafka-brokers", &brokers, "--kafka-topic", &out]);
        command.args(["--raw-events-kafka-topic", &raw, "--progress", "json", "--until-latest", "--memory", "64MiB"]);
        let mut child = command.arg("--data-dir").arg(data.path()).stderr(Stdio::piped()).spawn().unwrap();
        let mut hours: BTreeMap<u64, u64> = BTreeMap::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
            let Ok(progress) = serde_json::from_str::<Value>(&line) else { continue };
            let watermark = progress["eventTime"]["watermark"]
                .as_str()
                .and_then(|text| EventTime::parse(text, EventTime::MAX).ok());
            let (Some(watermark), Some(resident)) = (watermark, resident(child.id())) else { continue };
            let secs = u64::try_from(watermark.micros() / 1_000_000).unwrap();
            let hour = hours.entry((secs.saturating_sub(BEGIN_SECS)) / 3_600).or_default();
            *hour = resident.max(*hour);
        }
        assert!(child.wait().unwrap().success());
        println!("resident memory by hour of the stream, kB: {hours:?}");
        // On a fast machine an epoch may read more than an hour.
        assert!(hours.len() as u64 >= HOURS / 2, "{hours:?}");
        let most = |range: std::ops::Range<u64>| hours.range(range).map(|(_, kib)| *kib).max().unwrap();
        let (early, late) = (most(2..12), most(12..HOURS + 1));
        assert!(late * 10 <= early * 11 + 10 * SLACK_KIB, "{early} kB in hours 2 to 12, {late} kB after: {hours:?}");
    }
}
