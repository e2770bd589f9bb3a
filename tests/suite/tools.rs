//! The small tools as a person and a script use them: keys, publishing, looking at what is stored.
//!
//! Relays are our own on loopback, answers are checked with the `nostr` crate or by sorting everything.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nostr::nips::nip19::{FromBech32, ToBech32};
use serde_json::Value;
use tempfile::TempDir;
use tests::stage::RelayProcess;
use tests::{Finished, finish, shared, signal, tidegate};

fn run(arguments: &[&str]) -> Command {
    let mut command = tidegate();
    command.args(arguments);
    command
}

/// Runs a command that reads `input`.
fn feed(command: &mut Command, input: &[u8]) -> (String, String, Option<i32>) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A command that refuses its arguments does not read.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = child.wait_with_output().expect("ended");
    writing.join().expect("written");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&ended.stdout), text(&ended.stderr), ended.status.code())
}

/// A directory with a key in `me.key`.
fn with_key() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("me.key");
    finish(run(&["keygen", "--out"]).arg(&path)).success();
    (dir, path)
}

mod keygen {
    use super::*;

    #[test]
    fn the_three_spellings_are_of_one_key() {
        let pair: Value = serde_json::from_str(&finish(&mut run(&["keygen"])).success().stdout()).expect("JSON");
        let text = |name: &str| pair[name].as_str().unwrap_or_else(|| panic!("{name} in {pair}"));
        let secret = nostr::key::SecretKey::from_bech32(text("nsec")).expect("an nsec");
        let public = nostr::key::Keys::new(secret).public_key();
        assert_eq!(public.to_hex(), text("pubkey"));
        assert_eq!(public.to_bech32().expect("an npub"), text("npub"));
        let other = finish(&mut run(&["keygen", "--format", "table"])).success().stdout();
        assert!(!other.contains(text("npub")), "the same key twice");
        assert_eq!(other.lines().map(|line| line.split_whitespace().next()).collect::<Vec<_>>().len(), 3);
    }

    #[test]
    fn a_key_in_a_file_is_its_owners_and_is_not_overwritten() {
        let (_dir, path) = with_key();
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let before = fs::read_to_string(&path).expect("text");
        let said = finish(run(&["keygen", "--out"]).arg(&path)).code(2).stderr();
        assert!(said.contains("exists, and a key is never written over another"), "{said}");
        assert_eq!(fs::read_to_string(&path).expect("text"), before);
    }

    #[test]
    fn the_secret_is_shown_only_where_it_is_made() {
        let (dir, path) = with_key();
        let secret = fs::read_to_string(&path).expect("text");
        let made = finish(run(&["keygen", "--out"]).arg(dir.path().join("other.key"))).success();
        assert!(!(made.stdout() + &made.stderr()).contains("nsec1"));
        let shown = finish(run(&["keygen", "--from"]).arg(&path)).success().stdout();
        let (piped, _, code) = feed(&mut run(&["keygen", "--from", "-"]), secret.as_bytes());
        assert_eq!((piped.as_str(), code), (shown.as_str(), Some(0)));
        assert!(!shown.contains("nsec1"), "{shown}");
        let keys = nostr::key::Keys::parse(secret.trim()).expect("a key");
        assert!(shown.contains(&keys.public_key().to_hex()));
        let (_, said, code) = feed(&mut run(&["keygen", "--from", "-"]), &secret.as_bytes()[..40]);
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains(&secret[6..20]), "{said}");
    }
}

mod publish {
    use super::*;

    fn publish(key: &Path, relays: &[&str], arguments: &[&str]) -> Finished {
        let mut command = run(&["publish", "--format", "ndjson", "--key-file"]);
        command.arg(key).args(["--relay", &relays.join(",")]).args(arguments);
        finish(&mut command)
    }

    /// `answer` and `message` of every row.
    fn answers(ended: &Finished) -> Vec<(String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().expect(name).to_owned();
        ended.ndjson().iter().map(|row| (text(row, "answer"), text(row, "message"))).collect()
    }

    #[test]
    fn what_was_published_is_what_the_relay_serves() {
        let (dir, key) = with_key();
        let relay = RelayProcess::start(&["--nip01"]);
        let content = "gm \"☀\"\n\u{1}";
        let tags = ["--tag", "t=a", "--tag", "[\"x\",\"a, b\"]", "--created-at", "1700000000", "--kind", "30023"];
        let sent = publish(&key, &[&relay.url], &[&["--content", content][..], &tags].concat()).success();
        assert_eq!(answers(&sent), [("accepted".to_owned(), String::new())]);
        let again = publish(&key, &[&relay.url], &[&["--content", content][..], &tags].concat()).success();
        assert_eq!(answers(&again)[0].0, "duplicate");

        // Out of the relay again, through our own door, and to the oracle.
        let data = dir.path().join("data").display().to_string();
        finish(&mut run(&["ingest", "nostr", "--once", "--relay", &relay.url, "--data-dir", &data])).success();
        let raw = finish(&mut run(&["events", "--raw", "--data-dir", &data])).success().stdout();
        let event = nostr::event::Event::from_json(raw.trim()).expect("an event");
        event.verify().expect("believed");
        assert_eq!(
            event.pubkey,
            nostr::key::Keys::parse(fs::read_to_string(&key).expect("a key").trim()).expect("a key").public_key()
        );
        assert_eq!(
            (event.content.as_str(), event.kind.as_u16(), event.created_at.as_secs()),
            (content, 30023, 1_700_000_000)
        );
        let tags: Vec<Vec<String>> = event.tags.iter().map(|tag| tag.clone().to_vec()).collect();
        assert_eq!(tags, [["t", "a"], ["x", "a, b"]]);
        assert_eq!(sent.ndjson()[0]["id"], event.id.to_hex());
    }

    #[test]
    fn a_relay_that_asks_who_writes_is_told() {
        let (dir, key) = with_key();
        let relay = RelayProcess::start(&["--auth-to-publish"]);
        let sent = publish(&key, &[&relay.url], &["--content", "gm"]).success();
        assert_eq!(answers(&sent)[0].0, "accepted");
        // Without a key its refusal is shown as it is.
        let event =
            finish(run(&["publish", "--dry-run", "--content", "gn", "--key-file"]).arg(&key)).success().stdout();
        let path = dir.path().join("signed.jsonl");
        fs::write(&path, event).expect("written");
        let mut keyless = run(&["publish", "--format", "ndjson", "--relay", &relay.url, "--events"]);
        let refused = finish(keyless.arg(&path)).code(1);
        let (answer, message) = answers(&refused).remove(0);
        assert_eq!(answer, "refused");
        assert!(message.starts_with("auth-required: "), "{message}");
        assert_eq!(refused.stderr(), "error: 1 of 1 event was taken by no relay\n");
    }

    #[test]
    fn one_relay_will_do_unless_all_are_wanted() {
        let (_dir, key) = with_key();
        let relay = RelayProcess::start(&[]);
        let nobody = "ws://127.0.0.1:1";
        let some = publish(&key, &[&relay.url, nobody], &["--content", "gm"]).success();
        let words: Vec<String> = answers(&some).into_iter().map(|(answer, _)| answer).collect();
        assert_eq!(words, ["accepted", "unknown"]);
        let all = publish(&key, &[&relay.url, nobody], &["--content", "gm", "--all"]).code(1);
        assert!(all.stderr().contains("1 of 1 event was not taken by every relay"), "{}", all.stderr());
        publish(&key, &[nobody], &["--content", "gm"]).code(3);
    }

    #[test]
    fn a_relay_that_falls_silent_is_not_waited_for_without_end() {
        let (_dir, key) = with_key();
        // A NOTICE, then its challenge, and no OK after it.
        let relay = RelayProcess::start(&["--huge-frame", "100", "--auth-to-publish", "--stall-after", "1"]);
        let ended = publish(&key, &[&relay.url], &["--content", "gm", "--timeout", "1s"]).code(3);
        let (answer, message) = answers(&ended).remove(0);
        assert_eq!(answer, "unknown");
        assert!(message.starts_with("no answer within 1s; its last notice: xxx"), "{message}");
    }

    #[test]
    fn a_connection_that_was_lost_between_two_events_is_opened_again() {
        let (_dir, key) = with_key();
        // The connection ends behind the first OK.
        let relay = RelayProcess::start(&["--drop-after", "1", "--drops-max", "1"]);
        let mut command = run(&["publish", "--format", "ndjson", "--events", "-", "--relay", &relay.url]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut rows = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for content in ["a", "b", "c"] {
            let mut signing = run(&["publish", "--dry-run", "--content", content, "--key-file"]);
            let event = finish(signing.arg(&key)).success().stdout();
            stdin.write_all(event.as_bytes()).expect("written");
            let row = rows.next().expect("a row").expect("text");
            assert!(row.contains("\"accepted\""), "{row}");
        }
        drop(stdin);
        assert!(child.wait().expect("ended").success());
    }

    #[test]
    fn signed_events_are_sent_from_a_pipe_and_others_are_named() {
        let (_dir, key) = with_key();
        let relay = RelayProcess::start(&[]);
        let mut lines = String::new();
        for content in ["a", "b", "c"] {
            let mut command = run(&["publish", "--dry-run", "--content", content, "--key-file"]);
            lines.push_str(&finish(command.arg(&key)).success().stdout());
        }
        lines.push_str("{}\n\n");
        lines.push_str(&lines.lines().next().expect("a line").replace("\"a\"", "\"z\""));
        let mut command = run(&["publish", "--format", "ndjson", "--events", "-", "--relay", &relay.url]);
        let (rows, said, code) = feed(&mut command, lines.as_bytes());
        assert_eq!(rows.lines().filter(|row| row.contains("\"accepted\"")).count(), 3, "{rows}");
        assert_eq!(code, Some(1));
        assert!(said.contains("line 4 is not published: missing_field"), "{said}");
        assert!(said.contains("line 6 is not published: id_mismatch"), "{said}");
        assert!(said.ends_with("error: 2 lines held no valid event\n"), "{said}");
    }

    #[test]
    fn no_key_is_repeated_on_the_way() {
        let (dir, key) = with_key();
        let secret = fs::read_to_string(&key).expect("text").trim().to_owned();
        let mut command = run(&["publish", "--dry-run", "--content", &secret, "--key-file"]);
        let said = finish(command.arg(&key)).code(2).stderr();
        assert!(said.contains("holds an nsec") && !said.contains(&secret), "{said}");
        for arguments in [["events", "--author", &secret], ["events", "--id", &secret]] {
            let ended = finish(run(&arguments).arg("--data-dir").arg(dir.path())).code(2);
            assert!(ended.stderr().contains("an nsec (a secret key)"), "{}", ended.stderr());
            assert!(!ended.stderr().contains(&secret), "{}", ended.stderr());
        }
        let mut command = run(&["publish", "--dry-run", "--content", "gm"]);
        finish(&mut command).code(2);
        let event = finish(command.env("TIDEGATE_SECRET_KEY", &secret)).success().stdout();
        assert!(nostr::event::Event::from_json(event.trim()).expect("an event").verify().is_ok());
    }
}

mod redrive {
    use super::*;

    #[test]
    fn what_was_refused_is_published_by_the_rules_of_another_day() {
        let (dir, key) = with_key();
        let data = dir.path().join("data").display().to_string();
        let signed = |content: &str, date: &str| {
            let mut command = run(&["publish", "--dry-run", "--content", content, "--created-at", date, "--key-file"]);
            finish(command.arg(&key)).success().stdout()
        };
        let forged = signed("forged", "1700000000").replace("forged", "changed");
        // The year 2100.
        let lines = signed("soon", "4102444800") + &forged + &signed("now", "1700000000");
        let (_, said, code) = feed(&mut run(&["ingest", "file", "-", "--data-dir", &data]), lines.as_bytes());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("rejected 2 (id_mismatch 1, future 1)"), "{said}");
        let redrive = |arguments: &[&str]| {
            let mut command = run(&["ingest", "redrive", "--format", "csv", "--data-dir", &data]);
            finish(command.args(arguments)).success()
        };
        let same = "was,now,records\nfuture,future,1\nid_mismatch,id_mismatch,1\n";
        assert_eq!(redrive(&["--dry-run"]).stdout(), same);
        let passes = "was,now,records\nfuture,passes,1\n";
        assert_eq!(redrive(&["--dry-run", "--max-future", "off", "--reason", "future"]).stdout(), passes);
        let wanted = "was,now,records\nfuture,published,1\nid_mismatch,id_mismatch,1\n";
        let published = redrive(&["--max-future", "off"]);
        assert_eq!(published.stdout(), wanted);
        assert!(
            published.stderr().contains("published 1 · rejected 0, 1 more repeated · landed 1 rows"),
            "{}",
            published.stderr()
        );
        assert_eq!(redrive(&["--max-future", "off"]).stdout(), wanted.replace("published", "known"));
        let newest =
            finish(&mut run(&["events", "-a", "1", "--format", "ndjson", "--data-dir", &data])).success().ndjson();
        assert_eq!(newest[0]["content"], "soon");
    }

    #[test]
    fn a_topic_that_refused_nothing_is_said() {
        let dir = TempDir::new().expect("a directory");
        let mut command = run(&["ingest", "redrive", "--dry-run", "--data-dir"]);
        let said = finish(command.arg(dir.path())).code(2).stderr();
        assert!(said.contains("nostr-event.rejected"), "{said}");
    }
}

mod events {
    use super::*;

    /// Lands the first 2,000 events of the shared data in a lake, and leaves 500 more, with some of the first again, in
    /// the topic alone; returns all of them by id.
    fn stored(dir: &Path) -> Option<BTreeMap<String, Value>> {
        let file = fs::File::open(shared()?.join("data/nostr/events.jsonl.gz")).expect("the events");
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
        let lines: Vec<&str> = text.lines().take(2_500).collect();
        for (lines, lake) in [(&lines[..2_000], &[][..]), (&lines[1_900..], &["--no-lake"])] {
            let mut command = run(&["ingest", "file", "-", "--max-future", "off", "--data-dir"]);
            let (_, said, code) = feed(command.arg(dir).args(lake), (lines.join("\n") + "\n").as_bytes());
            assert_eq!(code, Some(0), "{said}");
        }
        let event = |line: &&str| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            (event["id"].as_str().expect("an id").to_owned(), event)
        };
        Some(lines.iter().map(event).collect())
    }

    /// The ids that a dumb sort gives.
    fn expected(
        events: &BTreeMap<String, Value>,
        wanted: impl Fn(&Value) -> bool,
        amount: usize,
        newest: bool,
    ) -> Vec<String> {
        let mut found: Vec<(u64, &String)> = events
            .iter()
            .filter(|(_, event)| wanted(event))
            .map(|(id, event)| (event["created_at"].as_u64().expect("a date"), id))
            .collect();
        found.sort_unstable();
        if newest {
            found.reverse();
        }
        found.into_iter().take(amount).map(|(_, id)| id.clone()).collect()
    }

    fn shown(dir: &Path, arguments: &[&str]) -> Vec<String> {
        let mut command = run(&["events", "--format", "ndjson", "--data-dir"]);
        let rows = finish(command.arg(dir).args(arguments)).success().ndjson();
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    }

    fn has_tag(event: &Value, name: &str, value: &str) -> bool {
        event["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag[0] == name && tag[1] == value))
    }

    #[test]
    fn lake_and_topic_are_shown_as_one_and_every_filter_is_what_it_says() {
        let dir = TempDir::new().expect("a directory");
        let Some(events) = stored(dir.path()) else { return };
        assert!(events.len() > 2_400, "{} events", events.len());
        let show = |arguments: &[&str]| shown(dir.path(), arguments);
        let expect = |wanted: &dyn Fn(&Value) -> bool, amount, newest| expected(&events, wanted, amount, newest);

        assert_eq!(show(&["--amount", "9999"]), expect(&|_| true, 9_999, true), "everything, each once");
        assert_eq!(show(&[]), expect(&|_| true, 20, true));
        assert_eq!(show(&["--amount", "0"]), [""; 0]);
        assert_eq!(show(&["-a", "7", "--order-by", "asc"]), expect(&|_| true, 7, false));
        for keyword in ["BitCoin", "it's", "%", "_", "ÉÉ", "\\"] {
            let lower = keyword.to_lowercase();
            let holds =
                |event: &Value| event["content"].as_str().is_some_and(|text| text.to_lowercase().contains(&lower));
            assert_eq!(show(&["--keyword", keyword, "-a", "9999"]), expect(&holds, 9_999, true), "{keyword}");
        }
        let kinds = |event: &Value| event["kind"].as_u64().is_some_and(|kind| kind == 1 || (7..=9_999).contains(&kind));
        assert_eq!(show(&["--kinds", "1,7-9999", "-a", "9999"]), expect(&kinds, 9_999, true));
        let dates: Vec<u64> = events.values().filter_map(|event| event["created_at"].as_u64()).collect();
        let (least, most) = (dates[300].min(dates[900]), dates[300].max(dates[900]));
        let between = |event: &Value| event["created_at"].as_u64().is_some_and(|at| (least..most).contains(&at));
        let range = ["--since", &least.to_string(), "--until", &most.to_string(), "-a", "9999"];
        assert_eq!(show(&range), expect(&between, 9_999, true));

        let (id, event) = events.iter().nth(1_000).expect("an event");
        let author = event["pubkey"].as_str().expect("a key");
        let npub = nostr::key::PublicKey::from_hex(author).expect("a key").to_bech32().expect("an npub");
        let note = nostr::event::EventId::from_hex(id).expect("an id").to_bech32().expect("a note");
        for name in [author, &npub, &format!("nostr:{npub}")] {
            assert_eq!(
                show(&["--author", name, "-a", "9999"]),
                expect(&|event| event["pubkey"] == author, 9_999, true)
            );
        }
        assert_eq!(show(&["--id", &note]), [id.as_str()]);
        let answered = events.values().filter_map(|event| event["tags"].as_array()).flatten();
        let answered = answered.filter(|tag| tag[0] == "e").find_map(|tag| tag[1].as_str()).expect("an answer");
        let tags = [&format!("e={answered}"), "-a", "9999"];
        assert_eq!(
            show(&[&["--tag"][..], &tags].concat()),
            expect(&|event| has_tag(event, "e", answered), 9_999, true)
        );
        let topics = |event: &Value| has_tag(event, "t", "nostr") || has_tag(event, "t", "bitcoin");
        let tags = ["--tag", "t=nostr", "--tag", "t=bitcoin", "--kinds", "1", "-a", "9999"];
        assert_eq!(show(&tags), expect(&|event| topics(event) && event["kind"] == 1, 9_999, true));
    }

    #[test]
    fn without_a_log_the_lake_is_shown_and_without_a_lake_the_topic() {
        let dir = TempDir::new().expect("a directory");
        let Some(events) = stored(dir.path()) else { return };
        let lake = dir.path().join("lake");
        let elsewhere = TempDir::new().expect("a directory");
        let only_lake = shown(elsewhere.path(), &["--lake", &lake.display().to_string(), "-a", "9999"]);
        assert!(only_lake.len() == 2_000 && only_lake.iter().all(|id| events.contains_key(id)));
        // What another process is using is left to it.
        let mut owner = run(&["topic", "read", "nostr-event", "--data-dir"]);
        let mut owner = Guard(owner.arg(dir.path()).stdout(Stdio::piped()).spawn().expect("started"));
        let mut lines = BufReader::new(owner.0.stdout.take().expect("a pipe")).lines();
        lines.next().expect("a record").expect("text");
        let shown_beside =
            finish(run(&["events", "-a", "9999", "--format", "ndjson", "--data-dir"]).arg(dir.path())).success();
        assert_eq!(shown_beside.ndjson().len(), 2_000);
        assert_eq!(
            shown_beside.stderr(),
            "the log is in use by another process: only what has landed in the lake is shown\n"
        );
        drop((lines, owner));
        fs::remove_dir_all(lake).expect("removed");
        assert_eq!(shown(dir.path(), &["-a", "9999"]), expected(&events, |_| true, 9_999, true));
    }

    #[test]
    fn what_is_printed_raw_is_what_was_signed() {
        let dir = TempDir::new().expect("a directory");
        let Some(_) = stored(dir.path()) else { return };
        let raw = finish(run(&["events", "--raw", "-a", "50", "--data-dir"]).arg(dir.path())).success().stdout();
        assert_eq!(raw.lines().count(), 50);
        for line in raw.lines() {
            nostr::event::Event::from_json(line).expect("an event").verify().expect("believed");
        }
    }

    #[test]
    fn values_that_cannot_be_are_usage_errors_that_name_them() {
        let dir = TempDir::new().expect("a directory");
        for (option, value) in [
            ("--amount", "many"),
            ("--amount", "100001"),
            ("--order-by", "up"),
            ("--author", "jack"),
            ("--id", "note1jack"),
            ("--kinds", "note"),
            ("--tag", "bitcoin"),
            ("--since", "yesterday"),
        ] {
            let ended = finish(run(&["events", option, value, "--data-dir"]).arg(dir.path())).code(2);
            assert!(ended.stderr().contains(value), "{option} {value}: {}", ended.stderr());
        }
        for arguments in [&["events", "--data-dir"][..], &["events", "--follow", "--data-dir"]] {
            let ended = finish(run(arguments).arg(dir.path())).code(2);
            assert!(ended.stderr().contains("hint: "), "{}", ended.stderr());
        }
    }

    /// Ends a child that a failed test would leave behind.
    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _ended = self.0.kill();
            let _status = self.0.wait();
        }
    }

    mod kafka {
        use super::*;

        #[test]
        fn what_comes_is_followed_until_the_signal() {
            let Some(brokers) = tests::kafka() else { return };
            let (dir, key) = with_key();
            let topic = tests::unique("tools-follow");
            let places =
                ["--kafka-brokers", &brokers, "--data-dir", &dir.path().display().to_string()].map(str::to_owned);
            let ingest = |content: &str| {
                let mut command = run(&["publish", "--dry-run", "--content", content, "--key-file"]);
                let event = finish(command.arg(&key)).success().stdout();
                let mut command = run(&["ingest", "file", "-", "--no-lake", "--topic", &topic]);
                let (_, said, code) = feed(command.args(&places), event.as_bytes());
                assert_eq!(code, Some(0), "{said}");
            };
            ingest("stored one");
            let mut command = run(&["events", "--follow", "--keyword", "ONE", "--raw-events-kafka-topic", &topic]);
            let child =
                command.args(&places).args(["--format", "ndjson"]).stdout(Stdio::piped()).spawn().expect("started");
            let mut child = Guard(child);
            let mut rows = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
            let mut next =
                || -> Value { serde_json::from_str(&rows.next().expect("a row").expect("text")).expect("JSON") };
            assert_eq!(next()["content"], "stored one");
            ingest("another");
            ingest("new one");
            assert_eq!(next()["content"], "new one");
            signal("TERM", child.0.id());
            assert_eq!(child.0.wait().expect("ended").code(), Some(0));
        }
    }
}
