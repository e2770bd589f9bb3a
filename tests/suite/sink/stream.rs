//! A stream into tables: killed, cut off, with its database away, in update mode. What is in the tables afterwards is
//! what was computed here.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::postgres::{Database, Server};
use tests::{finish, repository};

use super::proxy::Proxy;
use super::{Home, expected_kinds, kinds_in, raw_events};
use crate::crash::chance::Chance;
use crate::crash::process::Process;

/// For whatever is expected to happen: the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// A job with a keyed output and one whose rows are all there is: whatever came twice would show.
const TWO_TABLES: &str = "INSERT INTO counted SELECT window.start AS window_start, window.end AS window_end, kind, \
    count(*) AS events, count(DISTINCT pubkey) AS authors FROM events GROUP BY window(created_at, '1 minute'), kind;\n\
    INSERT INTO every SELECT id, kind, content FROM events;\n";

struct Trial {
    home: Home,
    job: String,
    written: u64,
}

impl Trial {
    fn new() -> Self {
        let home = Home::new();
        let job = home.job("two", TWO_TABLES);
        Self { home, job, written: 0 }
    }

    /// Writes more events; nothing may run meanwhile.
    fn feed(&mut self, events: u64) {
        self.home.events(&raw_events(self.written..self.written + events));
        self.written += events;
    }

    fn command(&self, sink: &str, more: &[&str]) -> Command {
        let mut command =
            self.home.command(&["stream", &self.job, "--watermark-duration", "10 seconds", "--sink", sink]);
        command.args(["--progress", "json"]).args(more);
        command
    }

    /// Runs the job to its end, and compares.
    fn finish(&self, database: &Database) {
        finish(&mut self.command(&database.url, &["--until-latest"])).success();
        self.compare(database);
    }

    fn compare(&self, database: &Database) {
        let events = raw_events(0..self.written);
        assert_eq!(kinds_in(database, "counted"), expected_kinds(&events, 60));
        let rows = database.ask("SELECT encode(id, 'hex') || '|' || kind || '|' || content FROM every");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let line =
            |event: &serde_json::Value| format!("{}|{}|{}", text(&event["id"]), event["kind"], text(&event["content"]));
        let expected: BTreeSet<String> = events.iter().map(line).collect();
        assert_eq!(rows.len() as u64, self.written, "each row is there once");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

/// A job to the end of its topic whose database went away while it wrote there: somebody had locked the tables until
/// then, so that nothing of it can have gone through.
fn killed_amid_a_write(trial: &Trial, server: &Server) -> Process {
    let database = &server.database;
    let ddl =
        finish(&mut trial.home.command_without_log(&["explain", &trial.job, "--postgres-ddl"])).success().stdout();
    database.ask(&ddl);
    let mut lock = Command::new("psql");
    lock.args([
        "-X",
        "-q",
        "-c",
        "BEGIN; LOCK TABLE every, counted IN SHARE MODE; SELECT pg_sleep(600)",
        &database.url,
    ]);
    let mut lock = lock.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql is there");
    let until = |what: &str, query: &str| {
        let deadline = Instant::now() + SOON;
        while database.ask(query) != ["t"] {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("the tables are locked", "SELECT count(*) = 2 FROM pg_locks WHERE mode = 'ShareLock' AND granted");
    let process = Process::start(trial.command(&database.url, &["--until-latest"]));
    until("the job waits", "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'every'::regclass AND NOT granted");
    server.kill();
    lock.wait().expect("it ends with the server");
    process.must_hear("word that it waits", SOON, |heard| heard.said("could not write, will try again"));
    process
}

mod postgres {
    use super::*;

    #[test]
    fn a_stream_that_is_killed_again_and_again_keeps_its_tables_whole() {
        let Some(database) = Database::create() else { return };
        let mut chance = Chance::of("sink kill loop");
        let mut trial = Trial::new();
        for round in 0..crate::crash::soak().unwrap_or(12) {
            trial.feed(2_000);
            let process = Process::start(trial.command(&database.url, &[]));
            if round % 4 > 0 {
                process.must_hear("progress", SOON, |heard| !heard.told.is_empty());
            }
            std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(600)));
            process.kill();
        }
        trial.finish(&database);
    }

    #[test]
    fn a_database_that_is_killed_is_waited_for() {
        let Some(server) = Server::start() else { return };
        let mut trial = Trial::new();
        trial.feed(3_000);
        let process = killed_amid_a_write(&trial, &server);
        server.restart();
        process.ends_with(0, SOON);
        trial.compare(&server.database);
    }

    #[test]
    fn what_a_job_left_behind_when_it_died_is_put_into_the_tables_by_the_next_start() {
        let Some(server) = Server::start() else { return };
        let mut trial = Trial::new();
        trial.feed(1_000);
        let process = killed_amid_a_write(&trial, &server);
        // Told to stop, it does not wait for the database: nothing is lost by it.
        process.terminate();
        let heard = process.ends_with(3, SOON);
        assert!(heard.said("could not reach the database"), "{:?}", heard.lines);
        server.restart();
        let ended = finish(&mut trial.command(&server.database.url, &["--until-latest"]));
        // Whether all windows were closed by then is chance.
        assert!([Some(0), Some(2)].contains(&ended.status().code()), "{}", ended.stderr());
        trial.compare(&server.database);
    }

    #[test]
    fn answers_that_are_lost_do_no_harm() {
        let Some(database) = Database::create() else { return };
        let mut trial = Trial::new();
        let mut cut = (0, 0);
        // What the two followers commit at their start is let through; then every connection is cut at its first COMMIT.
        for kept in [true, false] {
            trial.feed(1_000);
            let proxy = Proxy::start(database.address(), 2, kept);
            let process = Process::start(trial.command(&database.through(&proxy.address), &[]));
            let wanted = |proxy: &Proxy| proxy.cuts().0 + proxy.cuts().1 >= 2;
            let deadline = Instant::now() + SOON;
            while !wanted(&proxy) {
                assert!(Instant::now() < deadline, "{:?}", process.heard().lines);
                std::thread::sleep(Duration::from_millis(10));
            }
            let seen = proxy.cuts();
            cut = (cut.0 + seen.0, cut.1 + seen.1);
            // What was tried again is through before it ends.
            proxy.cutting.store(false, std::sync::atomic::Ordering::Relaxed);
            process.terminate();
            process.ends_with(0, SOON);
        }
        assert!(cut.0 > 0 && cut.1 > 0, "COMMITs lost on the way there and answers lost on the way back: {cut:?}");
        trial.finish(&database);
    }

    #[test]
    fn updates_end_with_what_append_writes() {
        let Some(database) = Database::create() else { return };
        let home = Home::new();
        let mut written = 0;
        for _ in 0..4 {
            home.events(&raw_events(written..written + 700));
            written += 700;
            let mut command =
                home.command(&["stream", "kinds", "1 minute", "--output-mode", "update", "--progress", "json"]);
            command.args(["--sink", &database.url]);
            let process = Process::start(command);
            // Open windows are there before they close.
            let deadline = Instant::now() + SOON;
            let table = "SELECT to_regclass('kinds') IS NOT NULL";
            let seen = || {
                let open = "SELECT sum(events) FROM kinds";
                database.ask(table) == ["t"] && database.ask(open) == [written.to_string()]
            };
            while !seen() {
                assert!(Instant::now() < deadline, "{:?}", process.heard().lines);
                std::thread::sleep(Duration::from_millis(50));
            }
            process.kill();
        }
        assert_eq!(database.ask("SELECT count(*) > 0 FROM kinds WHERE NOT final"), ["t"]);
        let mut last = home.command(&["stream", "kinds", "1 minute", "--output-mode", "update", "--until-latest"]);
        finish(last.args(["--sink", &database.url])).success();
        assert_eq!(kinds_in(&database, "kinds"), expected_kinds(&raw_events(0..written), 60));
        assert_eq!(database.ask("SELECT count(*) FROM kinds WHERE NOT final"), ["0"]);
    }

    #[test]
    fn a_group_over_all_time_stays_one_row() {
        let Some(database) = Database::create() else { return };
        let home = Home::new();
        let job = home.job("whole", "SELECT kind, count(*) AS events FROM events GROUP BY kind");
        for round in 1..=2 {
            home.events(&raw_events(500 * (round - 1)..500 * round));
            let mut command = home.command(&["stream", &job, "--output-mode", "update", "--until-latest", "--restart"]);
            finish(command.args(["--sink", &database.url])).success();
            let said = database.ask("SELECT count(*), count(DISTINCT kind), sum(events), bool_and(final) FROM whole");
            assert_eq!(said, [format!("4|4|{}|t", 500 * round)]);
        }
    }

    #[test]
    fn a_table_beside_the_job_file_is_made_by_hand_too() {
        let Some(database) = Database::create() else { return };
        let ddl = std::fs::read_to_string(repository().join("jobs/postgres/kinds.sql")).expect("the definition");
        database.ask(&ddl);
        let home = Home::new();
        home.events(&raw_events(0..1_000));
        finish(&mut home.command(&["stream", "kinds", "1 minute", "--until-latest", "--sink", &database.url]))
            .success();
        assert_eq!(kinds_in(&database, "kinds"), expected_kinds(&raw_events(0..1_000), 60));
    }
}
