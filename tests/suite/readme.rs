//! Every command of README.md runs: its `sh` blocks, in their order, with what a test cannot have put in another way.
//!
//! Relays on the network become one of our own, brokers and stores those of `tests/run`, and what runs until it is
//! stopped is stopped after some seconds by the signal that an operator would send.

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use tests::stage::RelayProcess;
use tests::{finish, kafka, python, repository, s3, shared, tidegate, unique};

const SERVICES: &str = "## Kafka and S3";

/// The commands of the `sh` blocks of a text.
fn commands(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("README.md")
}

/// The part of the README that needs services, and the rest.
fn parts() -> (String, String) {
    let readme = readme();
    let (before, rest) = readme.split_once(SERVICES).expect("the heading");
    let (services, after) = rest.split_once("\n## ").expect("a heading after it");
    (services.to_owned(), format!("{before}\n{after}"))
}

fn run(commands: &[String], replace: &[(&str, &str)]) {
    let dir = TempDir::new().expect("a directory");
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for command in commands {
        let mut command = command.replace("cargo run -- ", "tidegate ").replace("--duration 60s", "--duration 9s");
        for (from, to) in replace {
            command = command.replace(from, to);
        }
        if command.starts_with("tidegate up ") {
            command = format!("timeout --preserve-status -s TERM 20 {command}");
        }
        script.push_str(&format!("echo '+ '{} >&2\n{command}\n", quoted(&command)));
    }
    if let Some(shared) = shared() {
        let events = shared.join("data/nostr/events.jsonl.gz");
        std::os::unix::fs::symlink(events, dir.path().join("events.jsonl.gz")).expect("a link");
    }
    let binary = tidegate().get_program().to_owned();
    let bin = std::path::Path::new(&binary).parent().expect("a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(&dir).env("PATH", path).env("NO_COLOR", "1");
    let said = finish(&mut bash).success();
    assert!(said.stdout().contains("window_start"), "no window was printed\n{}", said.stderr());
}

fn quoted(command: &str) -> String {
    format!("'{}'", command.replace('\'', "'\\''"))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn every_command_runs_without_a_server() {
    let (_, rest) = parts();
    let mut commands = commands(&rest);
    if shared().is_none() {
        commands.retain(|command| !command.contains("events.jsonl.gz"));
    }
    let python = python().map(|python| python.display().to_string());
    if python.is_none() {
        commands.retain(|command| !command.starts_with("python3"));
    }
    assert!(commands.len() >= 15, "{commands:?}");
    let relays: Vec<RelayProcess> =
        ["0", "1"].iter().map(|at| RelayProcess::start(&["--generate", "--rate", "50", "--seed", at])).collect();
    let relay = format!("127.0.0.1:{}", free_port());
    run(
        &commands,
        &[
            ("wss://relay.damus.io", &relays[0].url),
            ("wss://nos.lol", &relays[1].url),
            ("127.0.0.1:7777", &relay),
            ("python3 ", &format!("{} ", python.unwrap_or_default())),
        ],
    );
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn every_command_runs_on_kafka_and_s3() {
            let (Some(brokers), Some(store)) = (kafka(), s3()) else { return };
            let (services, rest) = parts();
            let relay = commands(&rest).into_iter().find(|command| command.starts_with("tidegate relay"));
            let mut script = vec![relay.expect("the README starts a relay")];
            script.extend(commands(&services));
            assert!(script.len() >= 7, "{script:?}");
            let prefix = format!("s3://{}/{}", store.bucket, unique("readme"));
            let relay = format!("127.0.0.1:{}", free_port());
            run(
                &script,
                &[
                    ("localhost:9092", &brokers),
                    ("http://localhost:9000", &store.endpoint),
                    ("AWS_ACCESS_KEY_ID=tidegate", &format!("AWS_ACCESS_KEY_ID={}", store.access_key)),
                    ("AWS_SECRET_ACCESS_KEY=tidegate-secret", &format!("AWS_SECRET_ACCESS_KEY={}", store.secret_key)),
                    ("s3://tidegate", &prefix),
                    ("127.0.0.1:7777", &relay),
                ],
            );
        }
    }
}
