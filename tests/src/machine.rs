//! What the machine around the repository offers to tests: shared data, real services, a Python with libraries.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the crate `tests` lies in the repository")
}

/// The directory with the real events, broken events and expected answers, `shared` beside the repository; none when
/// it is not there, for no data set is part of the repository.
pub fn shared() -> Option<PathBuf> {
    let shared = repository().join("../shared");
    if shared.join("data").is_dir() {
        return shared.canonicalize().ok();
    }
    // Unlike a service it cannot be set up: a public clone has none, and passes without.
    skipped("../shared/data", "its real events");
    None
}

/// The address of the real Kafka that `tests/run` started.
pub fn kafka() -> Option<String> {
    variable("TIDEGATE_TEST_KAFKA").or_else(|| absent("TIDEGATE_TEST_KAFKA", "a real Kafka"))
}

/// The URL of the real PostgreSQL that `tests/run` started, of a user who may do everything.
pub fn postgres() -> Option<String> {
    variable("TIDEGATE_TEST_POSTGRES").or_else(|| absent("TIDEGATE_TEST_POSTGRES", "a real PostgreSQL"))
}

/// The certificate of that server; none where it has none.
pub fn postgres_certificate() -> Option<PathBuf> {
    variable("TIDEGATE_TEST_POSTGRES_CERTIFICATE").map(PathBuf::from)
}

/// The Python that has duckdb and pyarrow.
pub fn python() -> Option<PathBuf> {
    variable("TIDEGATE_TEST_PYTHON").map(PathBuf::from).or_else(|| absent("TIDEGATE_TEST_PYTHON", "DuckDB and pyarrow"))
}

/// A script of `tests/python`, ready to take its arguments; none when there is no Python for it.
pub fn script(name: &str) -> Option<Command> {
    let mut command = Command::new(python()?);
    command.arg(repository().join("tests/python").join(name));
    Some(command)
}

/// The Python relay, a command that serves.
pub(crate) fn nostr_relay() -> Option<PathBuf> {
    let name = "TIDEGATE_TEST_NOSTR_RELAY";
    variable(name).map(PathBuf::from).or_else(|| absent(name, "the Python relay"))
}

/// The relay of rust-nostr, a command that serves.
pub(crate) fn relay_builder() -> Option<PathBuf> {
    let name = "TIDEGATE_TEST_RELAY_BUILDER";
    variable(name).map(PathBuf::from).or_else(|| absent(name, "the relay of rust-nostr"))
}

/// The real MinIO that `tests/run` started.
pub fn s3() -> Option<S3Test> {
    let Some(endpoint) = variable("TIDEGATE_TEST_S3_ENDPOINT") else {
        return absent("TIDEGATE_TEST_S3_ENDPOINT", "a real MinIO");
    };
    let named = |name: &str| variable(name).unwrap_or_else(|| panic!("`{name}` goes with TIDEGATE_TEST_S3_ENDPOINT"));
    Some(S3Test {
        endpoint,
        bucket: named("TIDEGATE_TEST_S3_BUCKET"),
        access_key: named("TIDEGATE_TEST_S3_ACCESS_KEY"),
        secret_key: named("TIDEGATE_TEST_S3_SECRET_KEY"),
    })
}

/// A real S3 server for tests, with one bucket that all of them share: use a [`unique`] prefix.
#[derive(Debug, Clone)]
pub struct S3Test {
    /// `http://host:port`.
    pub endpoint: String,
    /// The bucket, made by `tests/run`.
    pub bucket: String,
    /// The access key, which may do everything.
    pub access_key: String,
    /// The secret that goes with the access key.
    pub secret_key: String,
}

impl S3Test {
    /// The variables that configure a child process for this server.
    pub fn variables(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// `s3://bucket/prefix`.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    /// A store of everything below the prefix.
    ///
    /// # Panics
    ///
    /// When the client refuses the settings.
    pub fn store(&self, prefix: &str) -> Arc<dyn ObjectStore> {
        let built = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_region("us-east-1")
            .with_allow_http(true)
            .build();
        Arc::new(PrefixStore::new(built.expect("the settings come from tests/run"), prefix))
    }
}

/// A name that no other test, thread or run has: for topics, prefixes and transactional ids.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // The keys of RandomState are random per process: the chance that we need, without a dependency.
    let chance = RandomState::new().build_hasher().finish();
    format!("{stem}-{:08x}-{}", chance >> 32, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says that something is not here; fails the test where everything must be. Written past the test runner's capture,
/// which hides what a passing test prints.
fn absent<T>(name: &str, what: &str) -> Option<T> {
    let required = variable("TIDEGATE_REQUIRE_SERVICES").is_some_and(|value| value == "1");
    assert!(!required, "`{name}` is absent, and TIDEGATE_REQUIRE_SERVICES=1 demands {what}");
    skipped(name, what);
    None
}

fn skipped(name: &str, what: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Nobody reads stderr when this write fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: `{name}` is absent, so nothing was tried against {what}");
}
