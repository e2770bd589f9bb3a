//! P5: checkpoints that were written once are read for ever. The README beside the sets says what they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::prelude::SessionContext;
use event::Clock;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use topic::Log;

use super::checkpoint::{Control, Owner, VERSION, control_record, create_jobs_topic, read_control};
use super::stream::job_id;
use super::tests::{Kept, job, log, record, settings};
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::plan::admission::{ADMITTED, WHOLE};
use crate::row::json_rows;

/// Windows of every job: seconds.
const SIZE: i64 = 60;
const SLIDE: i64 = 20;
/// Records that were there when a set is written; the rest come after the checkpoint.
const BEFORE: usize = 45;

/// What is kept of sets to come: name, job, and what plain DataFusion runs.
const SETS: &[(&str, &str, &str)] = &[
    (
        "aggregates",
        "SELECT window.start AS s, k, count(*) AS n, count(v) AS c, min(v) AS least, max(v) AS most, sum(v) AS total, avg(v) AS mean,
  bool_and(v > 3) AS every_one, bool_or(v > 3) AS any_one, bit_and(v) AS bits_and, bit_or(v) AS bits_or, bit_xor(v) AS bits_xor,
  approx_count_distinct(v) AS about, approx_count_distinct(content, 0.01) AS about_text
FROM (SELECT created_at, CASE WHEN kind < 3 THEN kind END AS k, TRY_CAST(content AS BIGINT) AS v, content FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), k",
        "SELECT s, k, count(*) AS n, count(v) AS c, min(v) AS least, max(v) AS most, sum(v) AS total, avg(v) AS mean,
  bool_and(v > 3) AS every_one, bool_or(v > 3) AS any_one, bit_and(v) AS bits_and, bit_or(v) AS bits_or, bit_xor(v) AS bits_xor,
  count(DISTINCT v) AS about, count(DISTINCT content) AS about_text
FROM t GROUP BY s, k",
    ),
    (
        "statistics",
        "SELECT window.start AS s, var(f) AS v1, var_pop(f) AS v2, stddev(f) AS d1, stddev_pop(f) AS d2, corr(f, v) AS c1,
  covar_pop(f, v) AS c2, covar_samp(f, v) AS c3, regr_avgx(f, v) AS r1, regr_avgy(f, v) AS r2, regr_count(f, v) AS r3,
  regr_intercept(f, v) AS r4, regr_r2(f, v) AS r5, regr_slope(f, v) AS r6, regr_sxx(f, v) AS r7, regr_sxy(f, v) AS r8,
  regr_syy(f, v) AS r9, sum(f) AS total, avg(f) FILTER (WHERE v > 3) AS mean
FROM (SELECT created_at, TRY_CAST(content AS BIGINT) AS v,
  TRY_CAST(content AS DOUBLE) * TRY_CAST(content AS DOUBLE) / 4 AS f FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds')",
        "SELECT s, var(f) AS v1, var_pop(f) AS v2, stddev(f) AS d1, stddev_pop(f) AS d2, corr(f, v) AS c1,
  covar_pop(f, v) AS c2, covar_samp(f, v) AS c3, regr_avgx(f, v) AS r1, regr_avgy(f, v) AS r2, regr_count(f, v) AS r3,
  regr_intercept(f, v) AS r4, regr_r2(f, v) AS r5, regr_slope(f, v) AS r6, regr_sxx(f, v) AS r7, regr_sxy(f, v) AS r8,
  regr_syy(f, v) AS r9, sum(f) AS total, avg(f) FILTER (WHERE v > 3) AS mean
FROM t GROUP BY s",
    ),
    (
        "types",
        "SELECT window.start AS s, text, min(text) AS first_text, max(at) AS latest, sum(d) AS total, avg(d) AS mean,
  max(X'00ff' || CAST(text AS BYTEA)) AS bytes, min(f) AS least
FROM (SELECT created_at, created_at AS at, nullif(content, '') AS text, CAST(TRY_CAST(content AS BIGINT) AS DECIMAL(20, 2)) AS d,
  TRY_CAST(content AS DOUBLE) * TRY_CAST(content AS DOUBLE) / 4 AS f FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), text",
        "SELECT s, nullif(content, '') AS text, min(nullif(content, '')) AS first_text, max(at) AS latest,
  sum(CAST(v AS DECIMAL(20, 2))) AS total, avg(CAST(v AS DECIMAL(20, 2))) AS mean,
  max(X'00ff' || CAST(nullif(content, '') AS BYTEA)) AS bytes, min(f) AS least
FROM t GROUP BY s, nullif(content, '')",
    ),
    (
        "distinct",
        "SELECT window.start AS s, k, count(DISTINCT v) AS n, sum(DISTINCT v) AS total, count(DISTINCT content) AS texts, count(*) AS c
FROM (SELECT created_at, CASE WHEN kind < 3 THEN kind END AS k, TRY_CAST(content AS BIGINT) AS v, content FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), k",
        "SELECT s, k, count(DISTINCT v) AS n, sum(DISTINCT v) AS total, count(DISTINCT content) AS texts, count(*) AS c
FROM t GROUP BY s, k",
    ),
    (
        "values",
        "SELECT window.start AS s, median(v) AS middle, percentile_cont(v, 0.25) AS quarter, array_agg(v) AS every_one
FROM (SELECT created_at, TRY_CAST(content AS BIGINT) AS v FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds')",
        "SELECT s, median(v) AS middle, percentile_cont(v, 0.25) AS quarter,
  array_sort(array_agg(v), 'ASC', 'NULLS FIRST') AS every_one
FROM t GROUP BY s",
    ),
    (
        "rows",
        "SELECT w.start AS s, kind, content
FROM (SELECT window(created_at, '60 seconds', '20 seconds') AS w, kind, content FROM events WHERE kind <> 2)",
        "SELECT s, kind, content FROM t WHERE kind <> 2",
    ),
    (
        "windows-over-windows",
        "SELECT window.start AS s, sum(n) AS n, count(*) AS windows
FROM (SELECT window_time(window) AS t, count(*) AS n FROM events GROUP BY window(created_at, '60 seconds', '20 seconds'))
GROUP BY window(t, '60 seconds')",
        "SELECT date_bin(INTERVAL '60 seconds', s + INTERVAL '59999999 microseconds') AS s, sum(n) AS n, count(*) AS windows
FROM (SELECT s, count(*) AS n FROM t GROUP BY s) GROUP BY 1",
    ),
];

/// One record of the raw topic: its partition, and what the event says that the jobs ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    partition: i32,
    created_at: i64,
    kind: u16,
    content: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/run/golden")
}

/// Sets that are written today.
fn current() -> PathBuf {
    folder().join(format!("v{VERSION}-datafusion-{}", datafusion::DATAFUSION_VERSION))
}

/// Made-up records: some out of order, some whose content is no number.
fn lines() -> Vec<Line> {
    let line = |at: i64| Line {
        partition: i32::from(at % 3 == 0),
        created_at: 1_700_000_000 + at * 4 - at * 7 % 5 * 3,
        kind: u16::try_from(at * 5 % 4).expect("small"),
        content: if at % 6 == 5 { String::new() } else { (at * at % 23 - 4).to_string() },
    };
    (0..60).map(line).collect()
}

fn record_of(at: usize, line: &Line) -> topic::Record {
    let mut made = record(at, line.partition, line.created_at, line.kind);
    let raw = String::from_utf8(made.value.take().expect("a value").to_vec()).expect("text");
    made.value = Some(raw.replace(r#""content":"""#, &format!(r#""content":"{}""#, line.content)).into());
    made
}

async fn log_of(dir: &tempfile::TempDir, lines: &[Line]) -> Arc<dyn Log> {
    log(dir, 2, lines.iter().enumerate().map(|(at, line)| record_of(at, line)).collect()).await
}

/// Ends a stream when it has read everything, with its windows open.
struct UntilRead {
    kept: Kept,
    shutdown: CancellationToken,
}

impl StreamObserver for UntilRead {
    fn rows(&mut self, output: usize, rows: &RecordBatch) -> Result<()> {
        self.kept.rows(output, rows)
    }

    fn late(&mut self, line: &str) -> Result<()> {
        self.kept.late(line)
    }

    fn progress(&mut self, progress: &StreamProgress) {
        if progress.lag == 0 {
            self.shutdown.cancel();
        }
        self.kept.progress(progress);
    }
}

/// Writes the sets that are not there. See the README beside them.
#[tokio::test]
#[ignore = "writes files that are kept for ever"]
async fn golden_sets_that_are_missing_are_written() {
    for (name, sql, plain) in SETS {
        let folder = current().join(name);
        if folder.exists() {
            continue;
        }
        let (dir, lines, store) = (tempfile::tempdir().expect("a directory"), lines(), Arc::new(InMemory::new()));
        let (log, job) = (log_of(&dir, &lines[..BEFORE]).await, job(sql, 100).await);
        let checkpoint = Path::from("checkpoint");
        let pace = Pace { align: Duration::ZERO, commit: Duration::ZERO, ..Pace::default() };
        let place: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&store);
        let settings = StreamSettings {
            until_latest: false,
            epoch_records_max: 30,
            pace,
            checkpoint: Some((place, checkpoint.clone())),
            ..settings()
        };
        let id = job_id(&job, &settings, &[None], &checkpoint);
        let shutdown = CancellationToken::new();
        let mut observer = UntilRead { kept: Kept::default(), shutdown: shutdown.clone() };
        stream(&job, Arc::clone(&log), Clock::system(), settings, &mut observer, shutdown).await.expect("it ends");
        assert!(!observer.kept.rows.is_empty() && observer.kept.late == 0, "{name}: {:?}", observer.kept.rows.len());

        let mut control = read_control(log.as_ref(), &id).await.expect("read").expect("a control record");
        control.owner = Owner { generation: control.owner.generation, ..Owner::default() };
        fs::create_dir_all(&folder).expect("a folder");
        for segment in &control.segments {
            let path = Path::from(segment.object.as_str());
            let bytes = store.get(&path).await.expect("a segment").bytes().await.expect("its bytes");
            fs::write(folder.join(path.filename().expect("a name")), bytes).expect("written");
        }
        let lines: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).expect("JSON")).collect();
        let control = serde_json::to_string_pretty(&control).expect("JSON");
        let texts =
            [("job.sql", *sql), ("plain.sql", plain), ("records.jsonl", &lines.join("\n")), ("control.json", &control)];
        for (file, text) in texts {
            fs::write(folder.join(file), format!("{text}\n")).expect("written");
        }
    }
}

/// A set as it lies there.
struct Set {
    folder: PathBuf,
    job: Job,
    lines: Vec<Line>,
    control: Control,
}

impl Set {
    async fn read(folder: PathBuf) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
        let lines = text("records.jsonl").lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
        let control = serde_json::from_str(&text("control.json")).expect("a control record");
        Self { job: job(&text("job.sql"), 100).await, lines, control, folder }
    }

    /// Goes on with the job to its end: the rows of the windows that were open.
    async fn go_on(&self, control: &Control) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, store) = (log_of(&dir, &self.lines).await, Arc::new(InMemory::new()));
        for segment in &control.segments {
            let path = Path::from(segment.object.as_str());
            let bytes = fs::read(self.folder.join(path.filename().expect("a name"))).expect("a segment");
            store.put(&path, PutPayload::from(bytes)).await?;
        }
        let checkpoint = Path::from("checkpoint");
        let settings = StreamSettings { checkpoint: Some((store, checkpoint.clone())), ..settings() };
        let id = job_id(&self.job, &settings, &[None], &checkpoint);
        create_jobs_topic(log.as_ref()).await?;
        let mut writer = log.writer(None).await?;
        writer.send(event::layout::JOBS_TOPIC, vec![control_record(&id, control, 1)?]).await?;
        writer.flush().await?;
        drop(writer);
        let mut kept = Kept::default();
        stream(&self.job, log, Clock::system(), settings, &mut kept, CancellationToken::new()).await?;
        let mut rows: Vec<String> = kept.rows.into_iter().map(|(_, row)| row).collect();
        rows.sort();
        Ok(rows)
    }

    /// What plain DataFusion says of the windows that were open.
    async fn plain(&self) -> Vec<String> {
        let context = SessionContext::new();
        context.register_batch("t", expanded(&self.lines)).expect("registered");
        let plain = fs::read_to_string(self.folder.join("plain.sql")).expect("plain.sql");
        let closed = self.control.closed_until.expect("windows were closed");
        let open = format!(
            "SELECT * FROM ({plain}) WHERE s > arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')",
            closed - SIZE * 1_000_000
        );
        let rows = context.sql(&open).await.expect("planned").collect().await.expect("run");
        let mut rows: Vec<String> = rows.iter().flat_map(|rows| json_rows(rows).expect("lines")).collect();
        rows.sort();
        rows
    }
}

/// Every row in every window of its: the columns that the jobs compute, and `s`, the window's start.
fn expanded(lines: &[Line]) -> RecordBatch {
    let mut rows: Vec<(i64, &Line)> = Vec::new();
    for line in lines {
        let starts = (line.created_at - SIZE + 1..=line.created_at).filter(|start| start.rem_euclid(SLIDE) == 0);
        rows.extend(starts.map(|start| (start, line)));
    }
    let time = |of: fn(&(i64, &Line)) -> i64| -> ArrayRef {
        let micros = rows.iter().map(|row| of(row) * 1_000_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
    };
    let value = |line: &Line| line.content.parse::<i64>().ok();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let floats: Float64Array = rows.iter().map(|(_, line)| value(line).map(|v| (v * v) as f64 / 4.0)).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("s", time(|(start, _)| *start)),
        ("at", time(|(_, line)| line.created_at)),
        ("kind", Arc::new(rows.iter().map(|(_, line)| Some(i32::from(line.kind))).collect::<Int32Array>())),
        (
            "k",
            Arc::new(
                rows.iter().map(|(_, line)| Some(i32::from(line.kind)).filter(|k| *k < 3)).collect::<Int32Array>(),
            ),
        ),
        ("content", Arc::new(rows.iter().map(|(_, line)| Some(line.content.as_str())).collect::<StringArray>())),
        ("v", Arc::new(rows.iter().map(|(_, line)| value(line)).collect::<Int64Array>())),
        ("f", Arc::new(floats)),
    ];
    RecordBatch::try_from_iter(columns).expect("rows")
}

/// Equal rows, floating point numbers up to rounding.
fn alike(got: &str, want: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let (Value::Object(got), Value::Object(want)) = (read(got), read(want)) else { return false };
    got.len() == want.len()
        && got.iter().all(|(name, got)| match (got.as_f64(), want.get(name).and_then(Value::as_f64)) {
            (Some(got), Some(want)) => (got - want).abs() <= 1e-9 * want.abs().max(1.0),
            _ => want.get(name) == Some(got),
        })
}

fn subfolders(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("golden sets").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn refused_for_its_plan(error: &Error) -> bool {
    error.kind() == ErrorKind::Checkpoint && error.to_string().contains("holds the state of another query")
}

/// Whatever version wrote it, a checkpoint gives the right rows; or it is refused in so many words, when its control
/// record has another form or another DataFusion wrote it.
#[tokio::test]
async fn golden_checkpoints_give_the_right_rows_or_are_refused() {
    let mut restored = 0;
    for folder in subfolders(&folder()).iter().flat_map(|version| subfolders(version)) {
        let set = Set::read(folder).await;
        let name = set.folder.display();
        let same_engine = set.control.cuts.iter().all(|(_, text)| text.ends_with(datafusion::DATAFUSION_VERSION));
        if set.control.version != VERSION || !same_engine {
            let refused = set.go_on(&set.control).await.expect_err("another version wrote it");
            let form = refused.to_string().contains("has form");
            assert!(refused.kind() == ErrorKind::Checkpoint && (form || refused_for_its_plan(&refused)), "{refused}");
            continue;
        }
        let rows = set.go_on(&set.control).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let want = set.plain().await;
        assert_eq!(rows.len(), want.len(), "{name}");
        assert!(rows.len() > 2, "{name} has only {} rows", rows.len());
        for (got, want) in rows.iter().zip(&want) {
            assert!(alike(got, want), "{name}\n  {got}\n  {want}");
        }
        assert!(!set.control.segments.is_empty(), "{name}");
        restored += 1;
    }
    assert!(restored >= SETS.len(), "sets that are written today are read today");
}

/// A control record of an older or newer form is refused, and says so.
#[tokio::test]
async fn a_checkpoint_of_another_form_is_refused() {
    let set = Set::read(current().join("aggregates")).await;
    for version in [VERSION - 1, VERSION + 1] {
        let control = Control { version, ..set.control.clone() };
        let refused = set.go_on(&control).await.expect_err("it is refused");
        assert_eq!(refused.kind(), ErrorKind::Checkpoint);
        assert!(refused.to_string().contains(&format!("has form {version}, not {VERSION}")), "{refused}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("--restart")));
    }
    let mut control = set.control.clone();
    control.cuts[0] = ("0".repeat(32), control.cuts[0].1.replace(datafusion::DATAFUSION_VERSION, "0.0"));
    let refused = set.go_on(&control).await.expect_err("it is refused");
    assert!(refused_for_its_plan(&refused) && refused.to_string().contains("DataFusion 0.0"), "{refused}");
}

/// The sets of today's form hold the state of every aggregate that a job may use.
#[test]
fn golden_sets_hold_every_aggregate() {
    let sets = subfolders(&current());
    let text: String = sets.iter().map(|set| fs::read_to_string(set.join("job.sql")).expect("a job")).collect();
    let names = ADMITTED.iter().map(|(name, _)| *name).chain(WHOLE.iter().copied());
    let missing: BTreeSet<&str> = names.filter(|name| !text.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "no golden set holds the state of {missing:?}: add one");
}
