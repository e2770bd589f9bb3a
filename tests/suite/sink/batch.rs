//! A batch into tables: the rows that it prints, all types, again and again.

use std::fs;

use serde_json::Value;
use tests::postgres::Database;
use tests::signed;
use tests::stage::Stage;
use tests::{finish, sorted};

use super::proxy::Proxy;

/// A stage with a lake of generated events.
fn stage() -> Stage {
    let stage = Stage::embedded();
    let path = stage.dir().join("events.jsonl");
    fs::write(&path, signed::events(24, 3_000).join("\n")).expect("written");
    finish(&mut stage.ingest(&["file", path.to_str().expect("UTF-8")])).success();
    stage
}

/// A row of a table as `tidegate batch` prints it.
fn printed(mut row: Value) -> Value {
    row.as_object_mut().expect("an object").remove("row_key");
    row
}

mod postgres {
    use super::*;

    #[test]
    fn a_batch_puts_into_tables_what_it_prints_however_often_it_runs() {
        let Some(database) = Database::create() else { return };
        let stage = stage();
        for job in ["activity", "hashtags", "kinds", "reactions"] {
            let printed_rows = finish(&mut stage.batch(&[job, "1 minute"])).success().ndjson();
            assert!(printed_rows.len() > 2, "{job} has {} rows only", printed_rows.len());
            for run in 0..2 {
                let ended =
                    finish(&mut stage.batch(&[job, "1 minute", "--sink", &database.url, "-l", "info"])).success();
                assert_eq!(ended.stdout(), "", "{job} prints what goes to a table");
                let rows: Vec<Value> =
                    database.rows(&format!("SELECT * FROM {job}")).into_iter().map(printed).collect();
                assert_eq!(sorted(rows), sorted(&printed_rows), "{job}");
                // The second time every row is there just so, and none is touched.
                let written = if run == 0 { printed_rows.len() } else { 0 };
                assert!(
                    ended.stderr().contains(&format!("\"rows\":{written},"))
                        || ended.stderr().contains(&format!("\"rows\":{written}}}")),
                    "{job} {run}: {}",
                    ended.stderr()
                );
            }
        }
    }

    #[test]
    fn every_type_is_in_the_table_as_it_was_in_the_row() {
        let Some(database) = Database::create() else { return };
        let stage = stage();
        let job = stage.dir().join("types.sql");
        let wide = "123456789012345678901234567890123456789012345678901234567.123456789012345678";
        let sql = format!(
            "SELECT window.start AS a_start, count(*) > 0 AS a_bool, CAST(7 AS SMALLINT) AS a_small, \
             CAST(max(kind) AS INT) AS an_int, CAST(9223372036854775807 AS BIGINT) AS a_big, \
             CAST('18446744073709551615' AS BIGINT UNSIGNED) AS an_unsigned, \
             CAST('-12345.6789' AS DECIMAL(38, 10)) AS a_decimal, CAST('{wide}' AS DECIMAL(76, 18)) AS a_wide, \
             CAST('0.1' AS DOUBLE) AS a_double, CAST('NaN' AS DOUBLE) AS no_number, X'00ff5c0a' AS some_bytes, \
             min(id) AS an_id, 'a\tb\\c\n\"d\" é 🌊' AS a_text, CAST(NULL AS TEXT) AS no_text, \
             DATE '2024-02-29' AS a_day, TIMESTAMP '2024-02-29T12:34:56.789012345' AS nanoseconds, \
             arrow_cast(1709210096789012, 'Timestamp(Microsecond, None)') AS an_instant, \
             arrow_cast(-62135683200000000, 'Timestamp(Microsecond, None)') AS long_ago, make_array('x', NULL, 'y\\') AS some_texts, \
             array_agg(DISTINCT kind) AS some_kinds\n\
             FROM events WHERE kind < 3 GROUP BY window(created_at, '1 hour')"
        );
        fs::write(&job, &sql).expect("written");
        let job = job.to_str().expect("UTF-8");
        let rows = finish(&mut stage.batch(&[job])).success().ndjson();
        finish(&mut stage.batch(&[job, "--sink", &database.url])).success();
        let found = database.rows(
            "SELECT a_start, a_bool, a_small, an_int, a_big::text AS a_big, an_unsigned::text AS an_unsigned, \
             a_decimal::text AS a_decimal, a_wide::text AS a_wide, a_double, no_number, \
             encode(some_bytes, 'hex') AS some_bytes, encode(an_id, 'hex') AS an_id, a_text, no_text, a_day, nanoseconds, an_instant, \
             CASE WHEN long_ago = '0001-12-31 00:00:00+00 BC' THEN '0000-12-31T00:00:00Z' END AS long_ago, some_texts, \
             some_kinds FROM types",
        );
        assert_eq!(sorted(found), sorted(&rows));
        let types = database.ask(
            "SELECT string_agg(DISTINCT data_type, ', ' ORDER BY data_type) FROM information_schema.columns \
             WHERE table_name = 'types'",
        );
        assert_eq!(
            types,
            [
                "bigint, boolean, bytea, date, double precision, integer, jsonb, numeric, smallint, text, timestamp with \
              time zone"
            ]
        );
    }

    #[test]
    fn an_answer_that_is_lost_does_no_harm() {
        let Some(database) = Database::create() else { return };
        let stage = stage();
        // Without a key, so that a transaction that went in twice would show.
        let job = stage.dir().join("plain.sql");
        fs::write(&job, "SELECT id, kind FROM events").expect("written");
        let job = job.to_str().expect("UTF-8");
        for (number, kept) in [true, false].into_iter().enumerate() {
            let proxy = Proxy::start(database.address(), 0, kept);
            let sink = database.through(&proxy.address);
            let mut command = stage.batch(&[job, "--sink", &sink]);
            let mut child = command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("started");
            // The first COMMIT is cut, and so is every one after it, until somebody ends that.
            let cut = || proxy.cuts().0 + proxy.cuts().1;
            while cut() == 0 && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            proxy.cutting.store(false, std::sync::atomic::Ordering::Relaxed);
            let ended = child.wait_with_output().expect("ended");
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            assert!(cut() > 0, "no COMMIT went through the wire");
            assert_eq!(database.ask("SELECT count(*) FROM plain"), [(3_000 * (number + 1)).to_string()]);
        }
    }

    #[test]
    fn fifty_groups_are_fifty_rows() {
        let Some(database) = Database::create() else { return };
        let stage = Stage::embedded();
        let path = stage.dir().join("events.jsonl");
        // Names that no index can hold, as a hostile author would make them; and one group that has none.
        let mut chance = crate::crash::chance::Chance::of("fifty groups");
        let mut name = || (0..2_000).map(|_| format!("{:04x}", chance.below(1 << 16))).collect::<String>();
        let names: Vec<String> = (0..49).map(|_| name()).collect();
        let sale = |number: u64| match names.get(usize::try_from(number % 50).expect("small")) {
            Some(name) => signed::event(1, 1_760_000_000 + number, &[&["asset", name]], ""),
            None => signed::event(1, 1_760_000_000 + number, &[], ""),
        };
        fs::write(&path, (0..150).map(sale).collect::<Vec<_>>().join("\n")).expect("written");
        finish(&mut stage.ingest(&["file", path.to_str().expect("UTF-8")])).success();
        let job = stage.dir().join("assets.sql");
        let sql = "CREATE VIEW sales AS SELECT created_at, array_element(tag_values(tags, 'asset'), 1) AS asset FROM events;\n\
                   SELECT window.end AS window_end, asset, count(*) AS sales FROM sales \
                   GROUP BY window(created_at, '1 day'), asset";
        fs::write(&job, sql).expect("written");
        for _ in 0..2 {
            finish(&mut stage.batch(&[job.to_str().expect("UTF-8"), "--sink", &database.url])).success();
            let said = database.ask("SELECT count(*), count(DISTINCT asset), min(sales), max(sales) FROM assets");
            assert_eq!(said, ["50|49|3|3"]);
        }
    }

    #[test]
    fn a_nul_in_a_text_is_replaced_and_told() {
        let Some(database) = Database::create() else { return };
        let stage = Stage::embedded();
        let path = stage.dir().join("events.jsonl");
        let events = ["a\u{0}b", "a\u{fffd}b"].map(|tag| signed::event(1, 1_760_000_000, &[&["t", tag]], "gm\u{0}"));
        fs::write(&path, events.join("\n")).expect("written");
        finish(&mut stage.ingest(&["file", path.to_str().expect("UTF-8")])).success();
        let ended = finish(&mut stage.batch(&["hashtags", "1 hour", "--sink", &database.url])).success();
        assert!(ended.stderr().contains("U+FFFD") && ended.stderr().contains("\"texts\":1"), "{}", ended.stderr());
        // Two keys that look alike now are two rows still.
        assert_eq!(database.ask("SELECT tag, events FROM hashtags"), ["a\u{fffd}b|1", "a\u{fffd}b|1"]);
    }
}
