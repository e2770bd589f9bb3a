//! The rules of the house that a compiler does not know: who may import whom, how long a file may be, how it opens,
//! what it may not name, and that what is written twice says the same twice.
//!
//! Each rule collects every violation before it fails, so that one run shows them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::repository;

/// Which crates of ours each crate may depend on (style.md of the design: the arrows). The yard may import all.
const MAY_IMPORT: [(&str, &[&str]); 7] = [
    ("event", &[]),
    ("topic", &["event"]),
    ("relay", &["event"]),
    ("ingest", &["event", "topic"]),
    ("processor", &["event", "topic"]),
    ("cli", &["event", "ingest", "processor", "relay", "topic"]),
    ("tests", &["event", "ingest", "processor", "relay", "topic"]),
];

/// Tests inside `ingest` may talk to our own relay.
const MAY_IMPORT_IN_TESTS: [(&str, &str); 1] = [("ingest", "relay")];

/// What would come in twice if somebody ran ahead of DataFusion, or beside the one TLS stack.
const ONE_VERSION: [&str; 8] =
    ["arrow", "arrow-array", "datafusion", "object_store", "parquet", "rdkafka", "rustls", "tokio-tungstenite"];

/// TLS stacks and cryptography that must not come in at all: rustls on ring is enough.
const BANNED: [&str; 4] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys"];

const FILE_LINES_MAX: usize = 600;
const MAIN_LINES_MAX: usize = 60;

#[test]
fn crates_import_only_whom_they_may() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let allowed = BTreeMap::from(MAY_IMPORT);
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("crate `{name}` has no line in MAY_IMPORT"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let (on, kind) = (dependency["name"].as_str().unwrap(), dependency["kind"].as_str());
            let ours = dependency["path"].is_string();
            let in_tests = kind == Some("dev") && MAY_IMPORT_IN_TESTS.contains(&(name, on));
            if ours && !may.contains(&on) && !in_tests {
                wrong.push(format!("crate `{name}` may not import `{on}`"));
            }
        }
    }
    report(wrong);
}

#[test]
fn event_pulls_no_runtime_no_broker_no_engine() {
    let tree = cargo(&["tree", "-p", "event", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let pulled: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(pulled.contains("arrow"), "`cargo tree` of `event` lacks arrow, so this test reads it wrongly:\n{tree}");
    let banned = ["tokio", "rdkafka", "datafusion", "object_store", "fjall"];
    report(banned.iter().filter(|name| pulled.contains(*name)).map(|name| format!("`event` pulls `{name}`")));
}

#[test]
fn the_lock_file_holds_one_version_each() {
    let lock = fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        name = locked(line, "name").unwrap_or(name);
        versions.entry(name).or_default().extend(locked(line, "version"));
    }
    let mut wrong = Vec::new();
    for name in ONE_VERSION {
        let found = versions.get(name).map_or(&[][..], Vec::as_slice);
        if found.len() != 1 {
            wrong.push(format!("`{name}` should be locked once, found {found:?}"));
        }
    }
    // The oracle in tests, `nostr`, brings its own older one; a third would be an accident.
    if versions["secp256k1"].len() > 2 {
        wrong.push(format!("`secp256k1` is locked as {:?}", versions["secp256k1"]));
    }
    wrong.extend(BANNED.iter().filter(|name| versions.contains_key(*name)).map(|name| format!("`{name}` came in")));
    report(wrong);
}

/// The value of `key = "value"`, the only form of a line that interests us in a lock file.
fn locked<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

#[test]
fn every_file_opens_with_what_it_is() {
    let opens = |text: &str| text.starts_with("//! ") || text.starts_with("// @generated");
    let files = rust_files();
    report(files.iter().filter(|(_, text)| !opens(text)).map(|(name, _)| format!("{name} does not open with //!")));
}

#[test]
fn no_file_is_longer_than_the_wall() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files() {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines, the wall is {FILE_LINES_MAX}"));
        }
        if name.ends_with("src/main.rs") && lines > MAIN_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines, a main file has at most {MAIN_LINES_MAX}"));
        }
    }
    report(wrong);
}

#[test]
fn pure_files_name_nothing_that_acts() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files().iter().filter(|(name, _)| name.starts_with("processor/src/stream/")) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for acting in ["tokio", "rdkafka", "datafusion", "object_store", "std::fs", "std::net", "Clock"] {
                if code.contains(acting) {
                    wrong.push(format!("{name}:{} names `{acting}`", number + 1));
                }
            }
        }
    }
    report(wrong);
}

#[test]
fn no_file_names_one_machine_or_a_registry() {
    // Put together here, so that this file does not hold them.
    let paths = ["work", "root"].map(|name| format!("/{name}/"));
    let hosts = ["proxy.golang", "index.crates", "static.crates", "repo.maven", "repo1.maven", "pythonhosted", "pypi"];
    let mut wrong = Vec::new();
    for (name, text) in tracked_files() {
        // A lock file holds what its tool puts there.
        if name.ends_with("Cargo.lock") || name.ends_with("go.sum") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let machine = paths.iter().any(|path| {
                line.match_indices(path.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || "$._-}".contains(before))
                })
            });
            let registry = hosts.iter().any(|host| line.contains(&format!("{host}.")));
            if machine || registry {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(wrong);
}

#[test]
fn the_walk_names_files_that_exist() {
    let root = repository();
    let mut wrong = Vec::new();
    for page in ["ARCHITECTURE.md", "README.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for name in text.split('`').skip(1).step_by(2).filter(|quoted| is_file_name(quoted)) {
            if !root.join(name.trim_end_matches('/')).exists() {
                wrong.push(format!("{page} names `{name}`, which does not exist"));
            }
        }
    }
    report(wrong);
}

/// A path inside the repository: begins with one of our rooms and is spelt without blanks or placeholders.
fn is_file_name(quoted: &str) -> bool {
    const ROOMS: [&str; 12] = [
        "event/",
        "topic/",
        "relay/",
        "ingest/",
        "processor/",
        "cli/",
        "jobs/",
        "minio/",
        "tests/",
        "fuzz/",
        "docs/",
        ".ci/",
    ];
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain && ROOMS.iter().any(|room| quoted.starts_with(room))
}

#[test]
fn tests_and_compose_pin_the_same_services() {
    let root = repository();
    let versions = fs::read_to_string(root.join("tests/services/versions.env")).unwrap();
    let pinned = |name: &str| {
        let line = versions.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("versions.env lacks {name}")).to_owned()
    };
    let kafka = format!("apache/kafka:{}", pinned("KAFKA_VERSION"));
    let minio = format!("minio/minio:{}", pinned("MINIO_VERSION"));
    // Go names the commit by its time: the digits of the release.
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).take(14).collect::<String>();
    let go = pinned("MINIO_GO_VERSION");
    let go_time = go.rsplit('-').nth(1).unwrap_or_default();
    assert_eq!(digits(&pinned("MINIO_VERSION")), digits(go_time), "the image and the Go module are two releases");

    let compose = fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let example = fs::read_to_string(root.join(".env.example")).unwrap();
    let mut wrong = Vec::new();
    for (image, stem) in [(&kafka, "apache/kafka:"), (&minio, "minio/minio:")] {
        let named: BTreeSet<&str> = [&compose, &example]
            .iter()
            .flat_map(|text| text.match_indices(stem).map(|(at, _)| tag_at(&text[at..])))
            .collect();
        if named != BTreeSet::from([image.as_str()]) {
            wrong.push(format!("tests run against `{image}`, compose and .env.example name {named:?}"));
        }
    }
    report(wrong);
}

/// The image name and tag with which `text` starts.
fn tag_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "/:._-".contains(c))).unwrap_or(text.len());
    &text[..end]
}

/// Every file that git tracks or would track, as path and text; what is not text is left out.
fn tracked_files() -> Vec<(String, String)> {
    let root = repository();
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let output = git.output().expect("git lists the files of a checkout");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names: BTreeSet<String> =
        String::from_utf8(output.stdout).expect("git prints UTF-8").lines().map(str::to_owned).collect();
    let read = |name: String| fs::read_to_string(root.join(&name)).ok().map(|text| (name, text));
    names.into_iter().filter_map(read).collect()
}

fn rust_files() -> Vec<(String, String)> {
    let files = tracked_files();
    let rust = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "rs");
    files.into_iter().filter(|(name, _)| rust(name)).collect()
}

/// Runs cargo without network and returns what it printed.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(arguments).arg("--offline").current_dir(repository());
    let output = command.output().expect("tests run under cargo");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn report(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{} against the rules of the house:\n{}", wrong.len(), wrong.join("\n"));
}

/// Each rule of the semantics names a test that there is.
#[test]
fn the_tests_that_pin_the_semantics_exist() {
    let text = fs::read_to_string(repository().join("docs/semantics.md")).unwrap();
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule")) {
        let pinned = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = pinned.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')).collect();
        assert!(pinned.contains('`'), "nothing pins: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test `{test}`");
            named += 1;
        }
    }
    assert!(named > 20, "{named} tests are named");
}
