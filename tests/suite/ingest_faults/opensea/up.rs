//! The stream as `up` follows it: beside relays or alone, with jobs over it.

use tests::audit::{read_lake, read_log};
use tests::scripted_phoenix::{Act, ScriptedPhoenix};
use tests::scripted_relay::ScriptedRelay;
use tests::{finish, signed, tidegate};
use tokio::runtime::Runtime;
use topic::EmbeddedLog;

use super::super::place::SOON;
use super::{KEY, TOPIC, transfer};
use crate::crash::process::Process;

/// Relays and the market in one process: both raw topics fill, both land, and a job reads one of them.
#[test]
fn up_follows_relays_and_the_market_side_by_side() {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::TempDir::new().expect("a directory"));
    let phoenix = runtime.block_on(ScriptedPhoenix::honest());
    let relay = runtime.block_on(ScriptedRelay::honest(&signed::events(130, 40)));
    let job = dir.path().join("types.sql");
    let sql = "SELECT window.start, event_type, count(*) AS events FROM market GROUP BY window(event_time, '1 hour'), event_type";
    std::fs::write(&job, sql).expect("a job");
    let mut command = tidegate();
    command.args(["up", "--opensea", "--endpoint", &phoenix.url(), "--relay", &relay.url(), "--max-future", "off"]);
    command.args(["--kafka-topic", "windows"]).arg("--job").arg(&job).arg("--data-dir").arg(dir.path());
    let process = Process::start({
        command.env("OPENSEA_API_KEY", KEY);
        command
    });
    process.must_hear("a channel", SOON, |heard| heard.said("channel joined"));
    process.must_hear("the past", SOON, |heard| heard.said("everything stored has been fetched"));
    (0..30).for_each(|number| phoenix.publish(transfer(number, "apes")));
    // Who has heard a goodbye has heard all that was said before it.
    phoenix.everywhere(Act::Goodbye(1001, "that was all"));
    process.must_hear("the goodbye", SOON, |heard| heard.said("that was all"));
    process.terminate();
    process.ends_with(0, SOON);
    let log = EmbeddedLog::open(&dir.path().join("log"), event::Clock::system()).expect("the log");
    let lake = object_store::local::LocalFileSystem::new_with_prefix(dir.path().join("lake")).expect("the lake");
    runtime.block_on(async {
        for (topic, count) in [(TOPIC, 30), ("nostr-event", 40)] {
            assert_eq!(read_log(&log, topic).await.len(), count, "{topic}");
            assert_eq!(read_lake(&lake, topic).await.len(), count, "{topic}");
        }
    });
}

#[test]
fn up_refuses_a_job_whose_table_nothing_fills() {
    let run = |arguments: &[&str]| {
        let mut command = tidegate();
        command.arg("up").args(arguments).env("OPENSEA_API_KEY", KEY);
        finish(&mut command).code(2).stderr()
    };
    let kinds = run(&["--opensea", "--job", "kinds"]);
    assert!(kinds.contains("job `kinds` reads events, and none of it comes in"), "{kinds}");
    let alone = run(&["--relay", "ws://127.0.0.1:1", "--collection", "apes"]);
    assert!(alone.contains("--opensea follows it"), "{alone}");
    let nothing = run(&["--job", "kinds"]);
    assert!(nothing.contains("--relay") && nothing.contains("--opensea"), "{nothing}");
}
