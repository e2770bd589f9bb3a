//! Folders of cases as users write them, and what is said of those that are wrong.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::read::Case;
use super::*;

/// A folder that is removed at the end of its test.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Self(dir)
    }

    fn read(&self) -> crate::Result<Case> {
        Case::read(self.0.path())
    }
}

const SQL: (&str, &str) = ("job.sql", "SELECT 1");
const EXPECTED: (&str, &str) = ("expected.jsonl", "{\"n\": 1}\n");
const INPUT: (&str, &str) =
    ("input.jsonl", "{\"t\": \"2020-01-01T00:00:09Z\", \"n\": 1}\n{\"t\": \"2020-01-01T00:00:02Z\"}\n");

#[test]
fn a_short_case_needs_a_job_input_and_expected_rows() {
    let case = Folder::new(&[SQL, EXPECTED, ("input.jsonl", "")]).read().unwrap();
    assert!(case.batch && case.stream && case.may_wait.is_none());
    assert_eq!(case.tables[0].spec.name, "events");
    assert_eq!(case.tables[0].spec.event_time.as_deref(), Some("created_at"));
    assert_eq!(case.expected.unwrap()[0].rows.len(), 1);
}

#[test]
fn both_forms_of_a_table_say_the_same() {
    let columns = "event_time = 't'\nfile = 'input.jsonl'\ncolumns = { t = 'timestamp', n = 'int' }\n";
    let list = format!("[stream]\nwatermark = '3 seconds'\n[[table]]\nname = 'a'\nmin_delay = '2 seconds'\n{columns}");
    let map = format!("[tables.a]\nmin_delay = '3 seconds'\n{columns}");
    let read = |toml: &str| Folder::new(&[SQL, EXPECTED, INPUT, ("case.toml", toml)]).read().unwrap();
    let (list, map) = (read(&list), read(&map));
    let (list, map) = (&list.tables[0], &map.tables[0]);
    assert_eq!((&list.spec.name, &list.rows), (&map.spec.name, &map.rows));
    assert_eq!((list.delay, list.rows.num_rows()), (map.delay, 2));
    assert_eq!(list.delay.map(event::Span::micros), Some(3_000_000));
}

#[test]
fn a_case_that_is_wrong_says_where_and_what_to_do() {
    let table = "[[table]]\nname = 'a'\nfile = 'input.jsonl'\n";
    for (name, toml, message, hint) in [
        ("toml", "modes = [\n\n'batch'\nstatus = 1", "`case.toml`, line 4", ""),
        ("sort", "modes = 'batch'", "`case.toml`, line 1", ""),
        ("mode", "modes = ['bach']", "has mode `bach`", "batch and stream"),
        ("key", "mode = ['batch']", "has the key `mode`", "modes"),
        ("table-key", &format!("{table}column = 1"), "has the key `column`", "columns"),
        ("columns", table, "table `a` has no columns", "columns ="),
        (
            "type",
            &format!("{table}columns = {{ t = 'time' }}"),
            "column `t` of table `a` has the type `time`",
            "timestamp",
        ),
        (
            "time",
            &format!("{table}event_time = 'x'\ncolumns = {{ t = 'timestamp', n = 'int' }}"),
            "`x` of table `a` is none",
            "",
        ),
        (
            "no-time",
            &format!("{table}event_time = 'n'\ncolumns = {{ t = 'timestamp', n = 'int' }}"),
            "is no timestamp",
            "",
        ),
        (
            "value",
            &format!("{table}columns = {{ t = 'timestamp', n = 'boolean' }}"),
            "`input.jsonl`, line 1 does not fit",
            "",
        ),
        ("ordered", "ordered = true", "ordered = true", "any order"),
        (
            "delay",
            &format!("{table}min_delay = 'ten'\ncolumns = {{ t = 'timestamp', n = 'int' }}"),
            "`ten` is not a duration",
            "",
        ),
        (
            "twice",
            &format!(
                "{0}columns = {{ t = 'timestamp', n = 'int' }}\n{0}columns = {{ t = 'timestamp', n = 'int' }}",
                table
            ),
            "twice",
            "",
        ),
    ] {
        let folder = Folder::new(&[SQL, EXPECTED, INPUT, ("case.toml", toml)]);
        let error = folder.read().expect_err(name);
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{name}: {:?}", error.hint());
    }
    let error = Folder::new(&[SQL, ("input.jsonl", "")]).read().unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("expected.jsonl")), "{error}");
    let error = Folder::new(&[SQL, EXPECTED]).read().unwrap_err();
    assert!(error.to_string().contains("could not read `input.jsonl`"), "{error}");
}

#[test]
fn a_script_names_only_tables_of_its_case() {
    let toml = "[[table]]\nname = 'a'\nfile = 'input.jsonl'\ncolumns = { t = 'timestamp', n = 'int' }";
    let read = |steps: &str| {
        let steps = format!("{{\"watermark_delay\": {{\"a\": \"1 second\"}}, \"steps\": [{steps}]}}");
        let files = [SQL, EXPECTED, INPUT, ("case.toml", toml), ("steps.json", steps.as_str())];
        Folder::new(&files).read()
    };
    let step = r#"{"add": {"a": [{"n": 1}, {"n": 2}]}, "emit": [], "watermark_after": null, "late_rows": 1}"#;
    let script = read(step).unwrap().script.unwrap();
    assert_eq!(script.delays["a"], event::Span::from_secs(1));
    assert_eq!((script.steps[0].rows[0].1.num_rows(), script.steps[0].late), (2, Some((1, 0))));
    assert_eq!(script.steps[0].watermark, Some(None));
    let error = read(r#"{"add": {"b": []}, "emit": []}"#).unwrap_err();
    assert!(error.to_string().contains("table `b`") && error.hint().is_some_and(|hint| hint.contains('a')), "{error}");
    let error = read(r#"{"add": {"a": [{"n": 1}, {"m": 2}]}, "emit": []}"#).unwrap_err();
    assert!(error.to_string().starts_with("`steps.json`, step 1, row 2 of `a` does not fit"), "{error}");
}

#[test]
fn cases_are_found_below_a_folder_and_named_by_their_path() {
    let files = [("b/two/job.sql", ""), ("b/_inputs/job.sql", ""), ("a/case.toml", ""), ("a/deeper/job.sql", "")];
    let folder = Folder::new(&files);
    let names = |root: &Path| find_cases(root).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(folder.0.path()), ["a", "b/two"]);
    assert_eq!(names(&folder.0.path().join("b/two")), ["two"]);
    let error = find_cases(&folder.0.path().join("b/_inputs/nowhere")).unwrap_err();
    assert!(error.to_string().starts_with("could not list folder"), "{error}");
    fs::create_dir(folder.0.path().join("empty")).unwrap();
    assert!(find_cases(&folder.0.path().join("empty")).unwrap_err().hint().is_some());
}

#[tokio::test]
async fn a_row_that_comes_too_late_is_said_and_so_is_what_it_changes() {
    let toml = |delay: &str| {
        format!("[tables.a]\nfile = 'input.jsonl'\nevent_time = 't'\ncolumns = {{ t = 'timestamp' }}\n{delay}\n")
    };
    let rows: Vec<String> = [10, 20, 30, 5, 40, 50].map(|t| format!("{{\"t\": \"2020-01-01T00:00:{t:02}Z\"}}")).into();
    let starts: Vec<String> =
        ["10", "20", "30", "05", "40", "50"].map(|s| format!("{{\"s\": \"2020-01-01T00:00:{s}Z\"}}")).into();
    let (rows, starts) = (rows.join("\n"), starts.join("\n"));
    let job = ("job.sql", "SELECT window.start AS s FROM a GROUP BY window(t, '1 second')");
    let report = async |delay: &str| {
        let toml = toml(delay);
        let files = [job, ("input.jsonl", &rows), ("expected.jsonl", &starts), ("case.toml", &toml)];
        play(&Folder::new(&files).read().unwrap(), &Variant::ALL, 1).await
    };
    let enough = report("").await;
    assert_eq!(enough.agrees, ["batch", "stream", "shuffled", "restarted"], "{:?}", enough.differs);
    let too_little = report("min_delay = '1 second'").await;
    let stream = too_little.differs.iter().find(|differs| differs.what == "stream").unwrap();
    assert!(stream.how.starts_with("1 rows came too late, 0 more for some"), "{}", stream.how);
    assert!(stream.how.contains("- {\"s\":\"2020-01-01T00:00:05Z\"}"), "{}", stream.how);
    assert!(too_little.agrees.contains(&"batch".to_owned()), "{:?}", too_little.differs);
}
