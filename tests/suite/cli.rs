//! What a person and a script see of `tidegate`: helps, exit codes, the words of errors, and who writes where.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::{finish, shared, signal, tidegate};

/// Every command that has a help of its own.
const COMMANDS: [&[&str]; 26] = [
    &[],
    &["quickstart"],
    &["up"],
    &["ingest"],
    &["ingest", "nostr"],
    &["ingest", "file"],
    &["ingest", "redrive"],
    &["ingest", "relays"],
    &["ingest", "coverage"],
    &["batch"],
    &["stream"],
    &["sink"],
    &["sql"],
    &["explain"],
    &["check"],
    &["test"],
    &["topic", "ls"],
    &["topic", "read"],
    &["lake", "land"],
    &["verify"],
    &["keygen"],
    &["publish"],
    &["events"],
    &["relay"],
    &["relays"],
    &["admin", "init"],
];

fn run(arguments: &[&str]) -> Command {
    let mut command = tidegate();
    command.args(arguments);
    command
}

#[test]
fn every_help_has_examples_and_fits_80_columns() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let help = finish(run(command).arg(flag)).success().stdout();
            assert!(help.contains("Usage: tidegate"), "{command:?} {flag}\n{help}");
            for line in help.lines() {
                assert!(
                    line.chars().count() <= 80,
                    "{command:?} {flag} has a line of {}: {line}",
                    line.chars().count()
                );
            }
        }
        let help = finish(run(command).arg("--help")).success().stdout();
        assert!(help.contains("Examples:") || *command == ["ingest"], "{command:?} has no examples\n{help}");
    }
}

#[test]
fn the_help_of_stream_explains_the_watermark() {
    let help = finish(&mut run(&["stream", "--help"])).success().stdout();
    for word in ["watermark", "late", "10 minutes", ".late"] {
        assert!(help.contains(word), "`stream --help` does not say `{word}`\n{help}");
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let help = finish(&mut run(&["--help"])).success().stdout();
    for code in ["0  ", "1  ", "2  ", "3  ", "4  ", "5  ", "6  ", "130"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "exit code {code} is not in\n{help}");
    }
}

#[test]
fn the_version_is_one_line() {
    let version = finish(&mut run(&["--version"])).success().stdout();
    assert_eq!(version, format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &["no-such-command"][..],
        &["batch"],
        &["batch", "kinds", "1 month"],
        &["batch", "kinds", "1 hour", "--timestamp-start", "yesterday"],
        &["stream", "kinds", "--start", "soon"],
        &["ingest", "nostr"],
        &["ingest", "file", "x", "--max-future", "never"],
        &["ingest", "redrive", "--reason", "late"],
        &["relay", "--rate", "fast"],
    ] {
        let ended = finish(&mut run(arguments)).code(2);
        assert!(ended.stderr().starts_with("error: "), "{arguments:?}: {}", ended.stderr());
        assert_eq!(ended.stdout(), "", "{arguments:?} wrote to stdout");
    }
}

#[test]
fn an_unknown_job_is_answered_with_the_nearest() {
    let said = finish(&mut run(&["explain", "kind"])).code(2).stderr();
    assert_eq!(
        said,
        "error: there is no job `kind`\nhint: did you mean `kinds`? built in are activity, dvm, hashtags, kinds, \
         reactions, relays, global, collections, all, market_totals, collection_totals, top_collections, top_assets; a \
         path to a job file ends in .sql\n"
    );
}

#[test]
fn a_month_has_no_fixed_length() {
    let said = finish(&mut run(&["explain", "kinds", "1 month"])).code(2).stderr();
    assert!(said.contains("months and years have no fixed length"), "{said}");
}

#[test]
fn a_mistake_in_a_job_is_shown_where_it_stands() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("wrong.sql");
    let sql = "SELECT window.start AS window_start, knid, count(*) AS n\nFROM events\nGROUP BY window(created_at, '1 hour'), knid\n";
    fs::write(&path, sql).expect("written");
    let said = finish(run(&["check"]).arg(&path)).code(2).stderr();
    assert!(said.starts_with("error: "), "{said}");
    assert!(said.contains("`knid`"), "the column is not named:\n{said}");
    assert!(said.lines().any(|line| line.trim_end().ends_with('^')), "there is no caret:\n{said}");
}

#[test]
fn a_lake_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = finish(run(&["batch", "kinds", "1 hour", "--data-dir"]).arg(dir.path())).code(2).stderr();
    assert!(said.contains("there is no directory") && said.contains("hint: "), "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_exit_code_3() {
    let said = finish(&mut run(&["topic", "ls", "--kafka-brokers", "127.0.0.1:1"])).code(3).stderr();
    assert!(said.contains("127.0.0.1:1"), "the broker is not named:\n{said}");
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = finish(run(&["topic", "read", "no-such-topic", "--data-dir"]).arg(dir.path())).code(2).stderr();
    assert!(said.contains("`no-such-topic`") && said.contains("tidegate topic ls"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("lines.jsonl");
    fs::write(&path, "{}\n".repeat(200_000)).expect("written");
    let mut child = run(&["verify"]).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ended");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn verify_reads_a_pipe_and_counts_on_stderr() {
    let mut child = run(&["verify", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("a pipe").write_all(b"[]\nnot json\n").expect("written");
    let ended = child.wait_with_output().expect("ended");
    assert!(ended.status.success());
    let stdout = String::from_utf8(ended.stdout).expect("text");
    let verdicts: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(verdicts[0]["line"], 1);
    assert_eq!(verdicts[0]["verdict"], "reject");
    assert_eq!(verdicts[0]["reason"], "not_object");
    assert_eq!(verdicts[0]["id"], Value::Null);
    assert_eq!(verdicts[1]["reason"], "malformed_json");
    assert_eq!(
        String::from_utf8_lossy(&ended.stderr),
        "2 lines: 0 accepted, 2 rejected (malformed_json 1, not_object 1)\n"
    );
}

#[test]
fn verify_gives_every_broken_event_a_verdict() {
    let Some(shared) = shared() else { return };
    let data = shared.join("data/nostr");
    let ended = finish(run(&["verify"]).arg(data.join("invalid.jsonl"))).success();
    let expected = fs::read_to_string(data.join("invalid.tsv")).expect("the verdicts");
    let verdicts = ended.ndjson();
    let mut compared = 0;
    for row in expected.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        let line: usize = fields[0].parse().expect("a line number");
        let verdict = &verdicts[line - 1];
        assert_eq!(verdict["line"], line);
        if fields[2] == "must" {
            let expected = if fields[1] == "accept" { "accept" } else { "reject" };
            assert_eq!(verdict["verdict"], expected, "line {line}: {verdict}, {row}");
            compared += 1;
        }
    }
    assert_eq!(verdicts.len(), 285);
    assert!(compared > 200, "only {compared} lines are `must`");
}

#[test]
fn verify_unpacks_gzip() {
    let Some(shared) = shared() else { return };
    let ended = finish(run(&["verify"]).arg(shared.join("data/nostr/events.jsonl.gz"))).success();
    assert_eq!(ended.stderr(), "10,405 lines: 10,405 accepted, 0 rejected\n");
    assert_eq!(ended.stdout().lines().count(), 10_405);
}

/// Ends a child that a failed test would leave behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself, as it should.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A relay that says where it listens.
fn relay() -> (Guard, String) {
    let mut child =
        run(&["relay", "--listen", "127.0.0.1:0", "-l", "error"]).stderr(Stdio::piped()).spawn().expect("started");
    let stderr = child.stderr.take().expect("a pipe");
    let guard = Guard(child);
    let url = BufReader::new(stderr).lines().map(|line| line.expect("text")).find_map(|line| {
        let (_, url) = line.split_once("listening on ")?;
        Some(url.to_owned())
    });
    (guard, url.expect("the relay says where it listens"))
}

#[test]
fn the_first_signal_drains_and_the_exit_code_is_0() {
    for name in ["INT", "TERM"] {
        let (mut child, url) = relay();
        assert!(url.starts_with("ws://127.0.0.1:"), "{url}");
        signal(name, child.0.id());
        assert_eq!(child.0.wait().expect("ended").code(), Some(0), "after SIG{name}");
    }
}

#[test]
fn the_second_signal_ends_at_once_with_130() {
    // A read of standard input keeps the first one waiting for a moment.
    let mut command = run(&["verify", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(command.spawn().expect("started"));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    stdin.write_all(b"{}\n").expect("written");
    let mut verdicts = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
    assert!(verdicts.next().is_some(), "there is no verdict on the first line");
    signal("INT", child.0.id());
    let mut said = BufReader::new(child.0.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    assert!(said.any(|line| line.starts_with("stopping")), "the first signal is not answered");
    signal("INT", child.0.id());
    assert_eq!(child.0.wait().expect("ended").code(), Some(130));
}

mod kafka {
    use super::*;

    #[test]
    fn admin_init_makes_topics_once() {
        let Some(brokers) = tests::kafka() else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let topic = tests::unique("cli-init");
        for verb in ["made", "was there"] {
            let mut command = run(&["admin", "init", "--kafka-brokers", &brokers, "--topic", &topic, "--data-dir"]);
            let said = finish(command.arg(dir.path())).success().stderr();
            assert!(said.contains(&format!("topic {topic} (4 partitions): {verb}")), "{said}");
            assert!(said.contains(&format!("topic {topic}.rejected (1 partition): {verb}")), "{said}");
        }
    }
}

mod minio {
    use super::*;

    #[test]
    fn admin_init_makes_a_bucket_once() {
        let Some(s3) = tests::s3() else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let lake = format!("s3a://{}/some/prefix", tests::unique("cli-init"));
        for verb in ["made", "was there"] {
            let mut command = run(&["admin", "init", "--lake", &lake, "--data-dir"]);
            let said = finish(command.arg(dir.path()).envs(s3.variables())).success().stderr();
            assert!(said.contains(&format!("lake {}: {verb}", lake.replace("s3a", "s3"))), "{said}");
        }
    }

    #[test]
    fn a_bucket_that_is_not_there_is_named_with_what_makes_it() {
        let Some(s3) = tests::s3() else { return };
        let mut command = run(&["sql", "SELECT 1 FROM events", "--lake", "s3://no-such-bucket"]);
        let said = finish(command.envs(s3.variables())).code(3).stderr();
        assert!(said.contains("NoSuchBucket") && said.contains("hint: `tidegate admin init`"), "{said}");
        assert!(!said.contains("<?xml"), "{said}");
    }
}
