//! Files of events: forms, bad lines, and the real data set when it is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::*;

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn plain_gzip_of_several_members_and_zstd_are_read_and_bad_lines_skipped() {
    let events = notes(9);
    let line = |at: usize| events[at].to_json() + "\n";
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let plain =
        [line(0).as_bytes(), b"\n\xff\xfe\n{}\nnot json\n", line(1).as_bytes(), line(2).trim_end().as_bytes()].concat();
    let members = [gz(&(line(3) + &line(4))), gz(&line(5))].concat();
    let packed = zstd::encode_all((line(6) + &line(7) + &line(8)).as_bytes(), 3).expect("memory");
    let files = vec![write("a.jsonl", &plain), write("b.jsonl.gz", &members), write("c.jsonl.zst", &packed)];
    let relay = start(Settings { events: files, ..Settings::default() }).await;
    assert_eq!(relay.loaded, crate::Loaded { events: 9, skipped: 3, ruled_out: 0 });
    assert_eq!(Client::connect(relay.addr).await.stored(&[json!({})]).await, in_order(&events));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let settings = Settings { events: vec!["no/such.jsonl".into()], ..Settings::default() };
    let error = Server::bind(settings, Clock::mock(0)).await.err().expect("refused");
    assert_eq!(error.kind(), crate::ErrorKind::Unavailable);
    assert!(error.to_string().contains("no/such.jsonl"), "{error}");
}

#[tokio::test]
async fn the_real_events_are_served_whole_and_byte_for_byte() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nostr/events.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED: {} is not there, the real events were not served", path.display());
        return;
    };
    let lines: BTreeSet<String> =
        BufReader::new(MultiGzDecoder::new(file)).lines().map(|line| line.expect("text")).collect();
    let relay = start(Settings { events: vec![path], ..Settings::default() }).await;
    assert_eq!((relay.loaded.events, relay.loaded.skipped), (lines.len(), 0));
    let mut client = Client::connect(relay.addr).await;
    let (mut seen, mut until) = (BTreeSet::new(), i64::MAX);
    loop {
        client.send(json!(["REQ", "page", {"until": until}])).await;
        let (before, head) = (seen.len(), "[\"EVENT\",\"page\",");
        let mut last = until;
        loop {
            let text = client.text().await;
            let Some(raw) = text.strip_prefix(head).and_then(|rest| rest.strip_suffix(']')) else { break };
            let event: Value = serde_json::from_str(raw).expect("JSON");
            let created_at = event["created_at"].as_i64().expect("a date");
            assert!(created_at <= last);
            last = created_at;
            seen.insert(raw.to_owned());
        }
        if seen.len() == before {
            break;
        }
        until = last;
    }
    assert_eq!(seen, lines);
}
