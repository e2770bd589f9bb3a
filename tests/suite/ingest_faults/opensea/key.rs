//! The key: how it is sent, what is said where it is refused, and that it is found nowhere.

use std::path::{Path, PathBuf};

use ingest::ErrorKind;
use tests::scripted_phoenix::{Act, Cue, Plot, ScriptedPhoenix};
use tests::scripted_relay::Door;
use tests::tidegate;

use super::super::fault;
use super::super::place::{Place, SOON};
use super::killed::market;
use super::{KEY, joins, lab, quick, transfer};

#[test]
fn the_key_is_in_the_handshake_with_a_contact() {
    fault(async {
        let phoenix = ScriptedPhoenix::honest().await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        joins(&phoenix, 1).await;
        run.stop().await;
        let head = &phoenix.heads()[0];
        assert!(head.starts_with("GET /socket/websocket?token=opensea%2Bkey%2F4711&vsn=2.0.0 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nuser-agent: tidegate-test (ops@example.org)\r\n"), "{head}");
    });
}

#[test]
fn a_refused_key_ends_the_run_and_is_named_by_where_it_came_from() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        fault(async move {
            let plot = Plot::default().door(move |_| Door::status(status, &[], KEY));
            let phoenix = ScriptedPhoenix::start(plot).await;
            let error = lab().stream(quick(&phoenix, &[])).ends().await.1.expect_err("it is refused");
            assert_eq!((error.kind(), phoenix.connections()), (ErrorKind::Config, 1));
            let text = error.to_string();
            assert!(text.contains("variable OPENSEA_API_KEY") && text.contains(&status[..3]), "{text}");
            assert!(!text.contains(KEY) && !text.contains("4711"), "{text}");
        });
    }
}

/// A server in trouble may refuse those that it knows: it is asked again, but not for ever.
#[test]
fn a_key_that_was_good_is_tried_a_few_times() {
    fault(async {
        let plot = Plot::default().door(|number| match number {
            0 | 4 => Door::Open,
            _ => Door::status("401 Unauthorized", &[], ""),
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let lab = lab();
        let run = lab.stream(quick(&phoenix, &[]));
        for join in [1, 2] {
            joins(&phoenix, join).await;
            run.until("a join", |counters| counters.relays.iter().any(|relay| relay.connected)).await;
            phoenix.publish(transfer(join, "apes"));
            run.until_published(join).await;
            phoenix.everywhere(Act::Cut);
        }
        let error = run.ends().await.1.expect_err("it is refused");
        assert_eq!((error.kind(), phoenix.connections()), (ErrorKind::Config, 10), "{error}");
    });
}

#[test]
fn a_server_that_refuses_every_channel_ends_the_run() {
    fault(async {
        let plot = Plot::default().script(|scene, honest| match scene.cue {
            Cue::Join(frame) => vec![Act::Refused(frame.clone(), "unauthorized")],
            _ => honest,
        });
        let phoenix = ScriptedPhoenix::start(plot).await;
        let error = lab().stream(quick(&phoenix, &["apes"])).ends().await.1.expect_err("it is refused");
        let text = error.to_string();
        assert!(text.contains("unauthorized") && text.contains("variable OPENSEA_API_KEY"), "{text}");
        assert_eq!((error.kind(), phoenix.connections()), (ErrorKind::Config, 1));
    });
}

#[test]
fn the_command_says_what_is_wrong_with_its_key() {
    let run = |arguments: &[&str], key: Option<&str>| {
        let mut command = tidegate();
        command.args(["ingest", "opensea", "--no-lake"]).args(arguments).envs(key.map(|key| ("OPENSEA_API_KEY", key)));
        tests::finish(&mut command).code(2).stderr()
    };
    let none = run(&[], None);
    assert!(none.contains("wants an API key") && none.contains("OPENSEA_API_KEY"), "{none}");
    let blank = run(&[], Some("  "));
    assert!(blank.contains("wants an API key"), "{blank}");
    let words = run(&[], Some("two words"));
    assert!(words.contains("OPENSEA_API_KEY holds no API key") && !words.contains("two words"), "{words}");
    let absent = run(&["--api-key-file", "/nowhere/key"], Some("unused"));
    assert!(absent.contains("/nowhere/key"), "{absent}");
    let in_url = run(&["--endpoint", "wss://x.org/?token=geheim"], None);
    assert!(in_url.contains("`wss://x.org/` is no endpoint"), "{in_url}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn contains(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

/// Everything that a run says at its loudest, and every byte that it leaves behind: topics, lake, index.
#[test]
fn the_key_is_in_no_line_and_no_file() {
    let place = market(Place::embedded());
    let plot = Plot::default()
        .door(|number| match number {
            1 => Door::status("503 Service Unavailable", &[], KEY),
            2 => Door::Shut,
            4 => Door::status("401 Unauthorized", &["WWW-Authenticate: opensea+key/4711"], KEY),
            _ => Door::Open,
        })
        .script(|scene, mut honest| {
            if let Cue::Join(frame) = scene.cue
                && &*frame.topic == "collection:secret"
            {
                honest = vec![Act::Refused(frame.clone(), KEY), Act::Text("broken".to_owned())];
            }
            if scene.connection == 3 && matches!(scene.cue, Cue::Heartbeat(_)) {
                honest = vec![Act::Goodbye(1008, "the key opensea+key/4711 is old")];
            }
            honest
        });
    let phoenix = place.runtime.block_on(ScriptedPhoenix::start(plot));
    let more = ["--collection", "secret,apes", "--heartbeat", "100ms", "--log-level", "trace"];
    let process = place.opensea(&phoenix.url(), KEY, &more);
    process.must_hear("a channel", SOON, |heard| heard.said("channel joined"));
    (0..50).for_each(|number| phoenix.publish(transfer(number, "apes")));
    let begun = std::time::Instant::now();
    while phoenix.served().len() < 50 {
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    phoenix.everywhere(Act::Cut);
    let heard = process.must_hear("a refusal", 2 * SOON, |heard| heard.said("http status 401"));
    process.terminate();
    let lines = process.ends_with(0, SOON).lines.join("\n");
    assert!(lines.len() > 2_000 && heard.said("the key <key> is old"), "{lines}");
    let mut left: Vec<(String, Vec<u8>)> = vec![("what was said".to_owned(), lines.into_bytes())];
    for path in files(place.dir()) {
        left.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
    }
    assert!(left.iter().any(|(name, _)| name.ends_with(".parquet")), "it has landed");
    for (name, bytes) in &left {
        for words in [KEY, "opensea%2Bkey%2F4711"] {
            assert!(!contains(bytes, words), "{name} holds the key");
        }
    }
}
