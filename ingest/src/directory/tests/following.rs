//! The way to a relay's own document, and runs over a log.

use std::sync::Arc;

use event::Clock;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use topic::{EmbeddedLog, Log, Record, TopicSpec};

use super::{A, B, Said, of};
use crate::Components;
use crate::directory::{DirectoryCounters, DirectoryCounts, DirectorySettings, RelayDocument, documents, follow};
use crate::nip11::{self, Asker};
use crate::settings::USER_AGENT;

#[test]
fn real_documents_of_relays_are_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nostr/relays/nip11.jsonl");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: {path} is not there");
        return;
    };
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let document = &line["document"];
        let described = nip11::read(&document.to_string());
        assert_eq!(described.software.as_deref(), document["software"].as_str().filter(|text| !text.is_empty()));
        assert_eq!(described.version.as_deref(), document["version"].as_str().filter(|text| !text.is_empty()));
        let max = described.limits.as_ref().and_then(|limits| limits.max_subscriptions);
        assert_eq!(max, document["limitation"]["max_subscriptions"].as_u64());
    }
    let odd = r#"{"software": 1, "version": " ", "limitation": {"max_limit": "500", "auth_required": 1, "max_subscriptions": 20}}"#;
    let odd = nip11::read(odd);
    assert_eq!((odd.software, odd.version), (None, None));
    let limits = odd.limits.expect("limits");
    assert_eq!((limits.max_limit, limits.auth_required, limits.max_subscriptions), (None, None, Some(20)));
}

/// Answers every connection with `answer`, and hands back `ws://host:port`.
async fn server(answer: Vec<u8>, tasks: &mut tokio::task::JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
            assert!(head.contains("accept: application/nostr+json"), "{head}");
            let _ = stream.write_all(&answer).await;
        }
    });
    url
}

#[tokio::test]
async fn only_a_short_json_object_without_detours_is_a_document() {
    let mut tasks = tokio::task::JoinSet::new();
    let asker = Asker::new(USER_AGENT, true).expect("a client");
    let http = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}").into_bytes();
    let good = server(http("200 OK", "{\"name\": \"x\"}\n"), &mut tasks).await;
    assert_eq!(asker.ask(&good).await, Ok("{\"name\": \"x\"}\n".to_owned()));
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(64 << 10));
    let redirect = format!("302 Found\r\nlocation: {}", good.replacen("ws", "http", 1));
    for (answer, why) in [
        (http("200 OK", &large), "more than 65536 bytes"),
        (http("200 OK", "<html>"), "no json object"),
        (http("200 OK", "[1]"), "no json object"),
        (http("404 Not Found", "{}"), "http status 404 Not Found"),
        (http(&redirect, ""), "http status 302 Found"),
        (b"junk".to_vec(), ""),
    ] {
        let url = server(answer, &mut tasks).await;
        let said = asker.ask(&url).await.expect_err(why);
        assert!(said.contains(why), "{said}");
    }
    let named = good.replace("127.0.0.1", "localhost");
    let said = Asker::new(USER_AGENT, false).expect("a client").ask(&named).await.expect_err("a local address");
    assert!(said.contains("no address on the internet"), "{said}");
}

struct Lab {
    _dir: TempDir,
    components: Components,
}

impl Lab {
    async fn with(said: &[Said]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let clock = Clock::mock(1_700_000_000_000);
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path(), clock.clone()).expect("a log"));
        let spec = TopicSpec { name: "nostr-event".to_owned(), partitions: 3, config: Vec::new() };
        log.create_topic(&spec).await.expect("a topic");
        let lab = Self { _dir: dir, components: Components { log, clock, counters: Arc::default() } };
        lab.write(said).await;
        lab
    }

    async fn write(&self, said: &[Said]) {
        let mut writer = self.components.log.writer(None).await.expect("a writer");
        let record = |said: &Said| Record {
            key: Some(said.json().into()),
            value: Some(said.json().into()),
            timestamp_ms: Some(said.received.max(1) * 1_000),
            ..Record::default()
        };
        writer.send("nostr-event", said.iter().map(record).collect()).await.expect("sent");
        writer.flush().await.expect("durable");
    }

    async fn follow(&self, settings: DirectorySettings) -> DirectoryCounts {
        let counters = Arc::new(DirectoryCounters::default());
        let settings = DirectorySettings { until_latest: true, ..settings };
        let (components, stop) = (self.components.clone(), CancellationToken::new());
        follow(settings, components, None, Arc::clone(&counters), stop).await.expect("followed");
        counters.snapshot()
    }

    async fn documents(&self) -> Vec<RelayDocument> {
        documents(self.components.log.as_ref(), "nostr-relay").await.expect("documents")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_goes_on_reads_only_what_is_new() {
    let first = [Said::list(1, 100, &[&[A]]), Said::list(2, 100, &[&[B]])];
    let lab = Lab::with(&first).await;
    let counts = lab.follow(DirectorySettings::default()).await;
    assert_eq!((counts.read, counts.lists, counts.written), (2, 2, 2));
    let counts = lab.follow(DirectorySettings::default()).await;
    assert_eq!((counts.read, counts.written), (0, 0), "nothing new, nothing written");
    let more = [Said::list(1, 200, &[&[B, "read"]])];
    lab.write(&more).await;
    let counts = lab.follow(DirectorySettings::default()).await;
    assert_eq!((counts.read, counts.lists, counts.written), (1, 1, 2));
    let straight: Vec<RelayDocument> = of(&[&first[..], &more].concat()).into_values().collect();
    assert_eq!(lab.documents().await, straight);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_asked_for_its_document_once_a_day() {
    let mut tasks = tokio::task::JoinSet::new();
    let clock = Clock::mock(1_700_000_000_000);
    let real = relay::Server::bind(relay::Settings::default(), clock).await.expect("a relay");
    let url = format!("ws://{}", real.local_addr());
    let stop = CancellationToken::new();
    tasks.spawn({
        let stop = stop.clone();
        async move { drop(real.serve(stop).await) }
    });
    let dead = server(b"junk".to_vec(), &mut tasks).await;
    let lab = Lab::with(&[Said::list(1, 100, &[&[&url], &[&dead]])]).await;
    let settings = DirectorySettings { nip11: true, allow_local: true, ..DirectorySettings::default() };
    let counts = lab.follow(settings.clone()).await;
    assert_eq!((counts.asked, counts.unanswered), (1, 1));
    let documents = lab.documents().await;
    let document = documents.iter().find(|document| document.url == url).expect("the relay");
    let own = document.nip11.as_ref().expect("its document");
    assert_eq!((own.fetched_at, &own.sha256), (1_700_000_000, &nip11::sha256(&own.document)));
    assert_eq!(document.software.as_deref(), Some("tidegate"));
    assert!(document.limits.as_ref().is_some_and(|limits| limits.max_subid_length == Some(64)));
    assert!(documents.iter().any(|document| document.url == dead && document.nip11.is_none()));
    let counts = lab.follow(settings.clone()).await;
    assert_eq!((counts.asked, counts.unanswered), (0, 1), "the document is fresh; who did not answer is tried anew");
    lab.components.clock.set(1_700_000_000_000 + 25 * 3_600_000);
    assert_eq!(lab.follow(settings).await.asked, 1);
    stop.cancel();
}
