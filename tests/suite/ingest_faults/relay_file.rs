//! Relays that are added, paused and removed while ingest runs: the others are not disturbed, and whoever comes back is
//! asked for what was missed.

use std::path::Path;

use ingest::NostrSettings;
use tests::scripted_relay::ScriptedRelay;
use tests::signed;

use super::fault;
use super::lab::{Lab, quick, until};

fn write(path: &Path, lines: &[String]) {
    // As editors do it: whoever reads meanwhile finds the one or the other.
    let new = path.with_extension("new");
    std::fs::write(&new, lines.join("\n")).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

#[test]
fn relays_come_and_go_while_ingest_runs() {
    fault(async {
        let events = signed::events(140, 400);
        let (first, second) = (ScriptedRelay::honest(&events[..100]).await, ScriptedRelay::honest(&[]).await);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("relays.txt");
        write(&file, &[first.url()]);
        let lab = Lab::new();
        let run = lab.run(NostrSettings { relay_file: Some(file.clone()), ..quick() });
        run.until_published(100).await;

        events[100..200].iter().for_each(|event| second.publish(event));
        write(&file, &["# both".to_owned(), first.url(), second.url()]);
        run.until_published(200).await;

        write(&file, &[first.url(), format!("{} paused", second.url())]);
        until("the second's connection is closed", || second.open() == 0).await;
        events[200..300].iter().for_each(|event| second.publish(event));
        events[300..].iter().for_each(|event| first.publish(event));
        // The first is still listened to; a file that is wrong changes nothing.
        run.until_published(300).await;
        write(&file, &["what is this".to_owned()]);
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        assert_eq!((first.open(), second.open()), (1, 0));
        assert_eq!(run.counters().published, 300);

        write(&file, &[first.url(), second.url()]);
        run.until_published(400).await;
        write(&file, &[second.url()]);
        until("the first's connection is closed", || first.open() == 0).await;
        run.stop().await;
        assert_eq!((first.connections(), second.connections()), (1, 2), "nobody else was disturbed");
        lab.audit(&[&first, &second], 400).await;
    });
}
