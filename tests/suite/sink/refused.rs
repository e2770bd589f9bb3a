//! What cannot be: a server that is not there, a wrong password, a table of another shape, rows that a table could not
//! tell apart. Every time with a word on what to do, and never one of the password.

use tests::postgres::Database;
use tests::{Finished, finish};

use super::Home;

/// Runs a stream into a database, to its end.
fn stream(home: &Home, job: &str, sink: &str) -> Finished {
    finish(&mut home.command(&["stream", job, "1 minute", "--until-latest", "--sink", sink]))
}

fn home() -> Home {
    let home = Home::new();
    home.events(&super::raw_events(0..10));
    home
}

#[test]
fn a_server_that_is_not_there_is_exit_code_3_and_its_password_is_not_told() {
    let home = home();
    let said = stream(&home, "kinds", "postgres://me:hush@127.0.0.1:1/rows").code(3).stderr();
    assert!(said.contains("me@127.0.0.1:1/rows") && !said.contains("hush"), "{said}");
    for address in ["postgres://me:hush@host:port/rows", "https://me:hush@host/rows"] {
        for command in [&["batch", "kinds"][..], &["stream", "kinds"], &["sink", "kinds"]] {
            let said = finish(home.command(command).args(["--sink", address])).code(2).stderr();
            assert!(said.contains("hint: use postgres://") && !said.contains("hush"), "{said}");
        }
    }
}

#[test]
fn rows_that_a_table_could_not_tell_apart_are_refused_before_anything_is_read() {
    let home = home();
    let job =
        home.job("nameless", "SELECT kind, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'), kind");
    let said = stream(&home, &job, "postgres://me:hush@127.0.0.1:1/rows").code(2).stderr();
    assert!(said.contains("one row of table `nameless`") && said.contains("select window.start"), "{said}");
}

mod postgres {
    use super::*;

    #[test]
    fn a_wrong_password_is_exit_code_2_and_is_not_told() {
        let Some(database) = Database::create() else { return };
        let home = home();
        let wrong = database.url.replace("hush-tidegate", "hush-hush");
        let said = stream(&home, "kinds", &wrong).code(2).stderr();
        assert!(said.contains("password authentication failed") && !said.contains("hush"), "{said}");
        assert!(said.contains("hint: the password comes from"), "{said}");
        let without = database.url.replace(":hush-tidegate", "");
        let said = stream(&home, "kinds", &without).code(2).stderr();
        assert!(said.contains("password missing"), "{said}");
        // With one of the environment, and of a file, it goes in.
        let run = |name: &str, value: &str| {
            let mut command =
                home.command(&["stream", "kinds", "1 minute", "--until-latest", "--restart", "--sink", &without]);
            finish(command.env(name, value)).success();
        };
        run("PGPASSWORD", "hush-tidegate");
        let file = home.dir.path().join("pgpass");
        std::fs::write(&file, "127.0.0.1:*:*:tidegate:hush-tidegate\n").expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, private).expect("a file of ours");
        run("PGPASSFILE", file.to_str().expect("UTF-8"));
        assert!(!database.rows("SELECT * FROM kinds").is_empty());
    }

    #[test]
    fn a_certificate_is_believed_by_the_roots_that_are_named() {
        let (Some(database), Some(certificate)) = (Database::create(), tests::postgres_certificate()) else { return };
        let home = home();
        let with = |more: &str| stream(&home, "kinds", &format!("{}?{more}", database.url));
        let said = with("sslmode=verify-full").code(3).stderr();
        assert!(said.contains("certificate"), "{said}");
        let root = certificate.to_str().expect("UTF-8");
        with(&format!("sslmode=verify-full&sslrootcert={root}")).success();
        let rows = database.rows("SELECT * FROM kinds").len();
        assert!(rows > 0);
        let said = with("sslmode=verify-full&sslrootcert=/no/such/file").code(2).stderr();
        assert!(said.contains("/no/such/file"), "{said}");
    }

    #[test]
    fn a_table_that_does_not_fit_is_told_by_the_column() {
        let Some(database) = Database::create() else { return };
        let home = home();
        database.ask("CREATE TABLE kinds (window_start timestamptz, window_end timestamp, kind int, events bigint, authors bigint)");
        let said = stream(&home, "kinds", &database.url).code(2).stderr();
        assert!(
            said.contains("table `kinds` does not fit") && said.contains("column `window_end` as timestamp without"),
            "{said}"
        );
        database.ask("ALTER TABLE kinds ALTER window_end TYPE timestamptz");
        let said = stream(&home, "kinds", &database.url).code(2).stderr();
        assert!(said.contains("unique index over exactly `kind`, `window_end`, `window_start`"), "{said}");
        assert!(said.contains("hint: ") && said.contains("--postgres-ddl"), "{said}");
        // A table of the user's own making, with a column and an index more, is as good as ours.
        database
            .ask("ALTER TABLE kinds ADD noted timestamptz DEFAULT now(), ADD UNIQUE (kind, window_start, window_end)");
        stream(&home, "kinds", &database.url).success();
        assert!(database.rows("SELECT * FROM kinds").len() > 1);
    }

    #[test]
    fn the_definitions_that_explain_prints_are_those_that_fit() {
        let Some(database) = Database::create() else { return };
        let home = home();
        for mode in ["append", "update"] {
            for (job, _) in processor::built_in_jobs() {
                let definition =
                    finish(&mut home.command_without_log(&["explain", job, "--postgres-ddl", "--output-mode", mode]));
                database.ask("DROP SCHEMA public CASCADE");
                database.ask("CREATE SCHEMA public");
                database.ask(&definition.success().stdout());
                // Somebody who may not make tables keeps them all the same.
                database.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
                let topic = format!("out-{job}-{mode}");
                // `all` names its topics itself.
                for topic in [&topic, "OpenSeaEnrichedGlobalEvents", "OpenSeaEnrichedCollectionsEvents"] {
                    home.write(topic, 2, Vec::new());
                }
                finish(&mut home.command(&[
                    "sink",
                    job,
                    "--kafka-topic",
                    &topic,
                    "--until-latest",
                    "--output-mode",
                    mode,
                    "--sink",
                    &database.url,
                ]))
                .success();
            }
        }
    }

    #[test]
    fn a_value_that_the_table_refuses_stops_with_its_place() {
        let Some(database) = Database::create() else { return };
        let home = home();
        let job = home.job(
            "strict",
            "SELECT window.start AS window_start, count(*) AS n FROM events GROUP BY window(created_at, '1 second')",
        );
        database.ask("CREATE TABLE strict (window_start timestamptz PRIMARY KEY, n bigint CHECK (n < 4))");
        let said = stream(&home, &job, &database.url).code(4).stderr();
        assert!(said.contains("violates check constraint"), "{said}");
        assert_eq!(database.ask("SELECT count(*) FROM strict"), ["0"], "a transaction is whole or not at all");
        // Once the table takes it, the job's rows are all there, though the job itself has finished.
        database.ask("ALTER TABLE strict DROP CONSTRAINT strict_n_check");
        let said = stream(&home, &job, &database.url).code(2).stderr();
        assert!(said.contains("has finished"), "{said}");
        assert_eq!(database.ask("SELECT count(*), sum(n) FROM strict"), ["3|10"]);
    }
}
