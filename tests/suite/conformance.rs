//! The conformance corpus, through the binary: every case agrees in every variant that it asks for, or is named here.

use std::collections::BTreeSet;
use std::fs;

use processor::built_in_jobs;
use serde_json::Value;
use tests::{finish, repository, shared, tidegate};

/// Cases that do not pass yet, with the reason. One that passes must leave the list.
const NOT_YET: [(&str, &[&str]); 3] = [
    (
        "session_window is not there",
        &[
            "arroyo/session_window",
            "spark/docs-session-by-key",
            "spark/docs-session-dynamic-gap",
            "spark/session-distinct",
        ],
    ),
    ("cumulate is not there", &["flink/batch-cumulate-first-row", "flink/stream-cumulate"]),
    ("an offset beyond the slide is refused, as Spark does", &["flink/offset-beyond-size"]),
];

#[test]
fn every_case_of_the_corpus_agrees_or_is_known_not_to() {
    let Some(shared) = shared() else { return };
    let said = finish(tidegate().arg("test").arg(shared.join("data/conformance"))).stdout();
    let named = |word: &str| -> BTreeSet<&str> {
        said.lines().filter_map(|line| line.strip_prefix(word)?.split_whitespace().next()).collect()
    };
    let not_yet: BTreeSet<&str> = NOT_YET.iter().flat_map(|(_, cases)| cases.iter().copied()).collect();
    let failed: BTreeSet<&str> = named("FAIL ").union(&named("-- ")).copied().collect();
    assert_eq!(failed, not_yet, "cases that do not pass are not those of NOT_YET\n{said}");
    assert!(named("ok ").len() + failed.len() >= 117, "cases are missing from the corpus\n{said}");
}

#[test]
fn every_built_in_job_gives_answers_computed_by_other_means() {
    for seed in ["1", "2", "3"] {
        let said = finish(tidegate().args(["test", "--seed", seed]).arg(repository().join("tests/cases"))).stdout();
        for (job, _) in built_in_jobs() {
            let line = format!("ok    {job}  batch stream shuffled restarted");
            assert!(said.lines().any(|said| said == line), "`{job}` lacks the line `{line}`\n{said}");
        }
    }
}

#[test]
fn a_row_that_is_wrong_fails_its_case_and_is_shown() {
    let cases = repository().join("tests/cases");
    let dir = tempfile::tempdir().unwrap();
    let expected = fs::read_to_string(cases.join("activity/expected.jsonl")).unwrap();
    let (first, rest) = expected.split_once('\n').unwrap();
    let wrong = first.replacen("\"events\": ", "\"events\": 1", 1);
    fs::copy(cases.join("_inputs/events.jsonl"), dir.path().join("input.jsonl")).unwrap();
    fs::copy(repository().join("jobs/activity.sql"), dir.path().join("job.sql")).unwrap();
    fs::write(dir.path().join("case.toml"), "window = '1 hour'\nslide = '20 minutes'\n").unwrap();
    fs::write(dir.path().join("expected.jsonl"), format!("{wrong}\n{rest}")).unwrap();
    for variant in ["batch", "stream", "shuffled", "restarted"] {
        let said = finish(tidegate().args(["test", "--variant", variant]).arg(dir.path())).code(1).stdout();
        let rows = |sign: &str| -> Vec<Value> {
            let rows = said.lines().filter_map(|line| line.trim_start().strip_prefix(sign));
            rows.filter_map(|row| serde_json::from_str(row).ok()).collect()
        };
        assert_eq!(rows("- "), [serde_json::from_str::<Value>(&wrong).unwrap()], "{said}");
        assert_eq!(rows("+ "), [serde_json::from_str::<Value>(first).unwrap()], "{said}");
    }
}

#[test]
fn a_folder_without_a_case_is_a_wrong_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let said = finish(tidegate().arg("test").arg(dir.path())).code(2).stderr();
    assert!(said.contains("there is no case") && said.contains("hint: "), "{said}");
}

/// The schemas beside the jobs are those that `explain` prints, and an independent validator finds that the answers,
/// which were computed by other means, hold them and that a row with one column less does not.
#[test]
fn the_schemas_of_the_jobs_hold_for_their_answers() {
    for (job, _) in built_in_jobs() {
        let path = repository().join(format!("jobs/{job}.schema.json"));
        let said = finish(tidegate().args(["explain", job, "--json-schema"])).success().stdout();
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            written.trim(),
            said.trim(),
            "write it anew: tidegate explain {job} --json-schema > {}",
            path.display()
        );
        let folder = repository().join(format!("tests/cases/{job}"));
        let dir = tempfile::tempdir().unwrap();
        // A job of several outputs has a file for each.
        let answers = dir.path().join("answers.jsonl");
        let rows: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        fs::write(&answers, rows.concat()).unwrap();
        let check = |rows: &std::path::Path| Some(finish(tests::script("schema.py")?.args([path.as_path(), rows])));
        let Some(held) = check(&answers) else { return };
        let rows = fs::read_to_string(&answers).unwrap();
        assert_eq!(held.success().stdout().trim(), rows.lines().count().to_string(), "{job}");
        let mut broken: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        broken.as_object_mut().unwrap().remove("window_end");
        fs::write(dir.path().join("broken.jsonl"), format!("{broken}\n")).unwrap();
        assert!(
            check(&dir.path().join("broken.jsonl")).is_some_and(|done| done.code(1).stderr().contains("window_end"))
        );
    }
}
