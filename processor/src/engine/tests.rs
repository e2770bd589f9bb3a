//! Properties of the engine: P1 to P3, P5 and P7 of its design, over rows, windows, partitions and epochs made up by
//! proptest, against the dumb expansion of every row into every window of its.

mod locality;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::job::{JobOptions, JobSource};
use crate::memory::Memory;
use crate::plan::admission::{ADMITTED, Exactness, WHOLE};
use crate::plan::functions::time_type;
use crate::row::json_rows;
use crate::run::checkpoint::{decode, encode};
use crate::table::TableSpec;

const ALL: fn() -> Range = || Range::new(None, None);

/// One made-up row: seconds, key, value; its partition.
#[derive(Clone, Debug)]
struct Row {
    time: Option<i64>,
    key: Option<u8>,
    value: Option<i64>,
    partition: i32,
}

#[derive(Clone, Copy, Debug)]
struct Windows {
    size: i64,
    slide: i64,
    start: i64,
}

impl Windows {
    /// Starts of the windows that hold `time`, the dumb way.
    fn of(self, time: i64) -> impl Iterator<Item = i64> {
        (time - self.size + 1..=time).filter(move |start| (start - self.start).rem_euclid(self.slide) == 0)
    }

    fn call(self) -> String {
        format!("window(ts, '{} seconds', '{} seconds', '{} seconds')", self.size, self.slide, self.start)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", time_type(), true),
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
    ]))
}

fn table() -> Vec<TableSpec> {
    vec![TableSpec { name: "t".into(), schema: schema(), event_time: Some("ts".into()) }]
}

fn batch(rows: &[Row]) -> RecordBatch {
    let micros = rows.iter().map(|row| row.time.map(|time| time * 1_000_000));
    let times = TimestampMicrosecondArray::from(micros.collect::<Vec<_>>()).with_timezone("UTC");
    let keys: StringArray = rows.iter().map(|row| row.key.map(|key| format!("key {key}"))).collect();
    let values: Int64Array = rows.iter().map(|row| row.value).collect();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let floats: Float64Array = rows.iter().map(|row| row.value.map(|value| value as f64 / 4.0)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(keys), Arc::new(values), Arc::new(floats)];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

async fn job(sql: &str) -> Job {
    job_within(sql, Memory::default()).await
}

async fn job_within(sql: &str, memory: Memory) -> Job {
    let source = JobSource { name: "t".into(), sql: sql.into(), path: None };
    let options = JobOptions { memory, ..JobOptions::default() };
    Job::plan_over(&source, &options, &table())
        .await
        .unwrap_or_else(|error| panic!("{sql}\n{error} {:?}", error.hint()))
}

/// How rows reach the engine.
#[derive(Clone, Debug)]
struct Course {
    delay: i64,
    partitions: i32,
    /// Rows an epoch.
    epoch: usize,
    /// Snapshot, drop and restore after every epoch.
    restart: bool,
}

/// What a run gave: output lines, and the (row, window start in seconds) pairs that came too late.
#[derive(Debug, Default)]
struct Ran {
    lines: Vec<String>,
    late: BTreeSet<(usize, i64)>,
    watermarks: Vec<Option<i64>>,
}

async fn run(job: &Job, rows: &[Row], course: &Course) -> Ran {
    let sources: Vec<Source> = (0..course.partitions).map(|partition| (0, partition)).collect();
    let delays = vec![course.delay * 1_000_000];
    let mut engine = Engine::new(job, ALL(), delays.clone(), sources.clone()).await.expect("engine");
    engine.keep_fresh();
    let mut ran = Ran::default();
    let mut kept: Vec<(usize, Vec<u8>)> = Vec::new();
    for (number, epoch) in rows.chunks(course.epoch.max(1)).enumerate() {
        let all = batch(epoch);
        let read = all.project(&job.plan.tables[0].columns).expect("columns");
        let partitions: Vec<i32> = epoch.iter().map(|row| row.partition).collect();
        let from = |first, rows| Provenance { partitions: &partitions[first..first + rows], received: None };
        let lines = &mut ran.lines;
        let mut emit = |_: usize, rows: RecordBatch| {
            lines.extend(json_rows(&rows)?);
            Ok(())
        };
        // Another number of threads each time.
        let each = read.num_rows().div_ceil(number % 3 + 1);
        let slices: Vec<(usize, RecordBatch)> = (0..read.num_rows())
            .step_by(each)
            .map(|first| (first, read.slice(first, each.min(read.num_rows() - first))))
            .collect();
        let parts: Vec<Part<'_>> =
            slices.iter().map(|(first, rows)| Part { rows, from: from(*first, rows.num_rows()) }).collect();
        let late = engine.parts(0, &parts, &mut emit).await.expect("rows");
        engine.end_epoch(|_| false, &mut emit).await.expect("end of epoch");
        let first = number * course.epoch.max(1);
        ran.late.extend(late.iter().map(|late| (first + late.row, late.start / 1_000_000)));
        ran.watermarks.push(engine.watermark());
        if course.restart {
            for (cut, state) in engine.fresh().await.expect("state").iter().enumerate() {
                kept.push((cut, encode(state).expect("encoded")));
            }
            let (watermark, closed) = (engine.watermark(), engine.closed_until());
            let marks: Vec<_> = engine.marks().marks().collect();
            engine = Engine::new(job, ALL(), delays.clone(), sources.clone()).await.expect("engine");
            engine.restore(watermark, closed, marks);
            for (cut, bytes) in &kept {
                let state = decode(Bytes::copy_from_slice(bytes)).expect("decoded");
                engine.restore_state(*cut, &state).expect("restored");
            }
            engine.keep_fresh();
        }
    }
    let lines = &mut ran.lines;
    let mut emit = |_: usize, rows: RecordBatch| {
        lines.extend(json_rows(&rows)?);
        Ok(())
    };
    engine.finish(&mut emit).await.expect("finish");
    ran.lines.sort();
    ran
}

/// The dumb way: every row in every window of its, grouped by hand; pairs of (row, window start) are left out.
fn oracle(rows: &[Row], windows: Windows, without: &BTreeSet<(usize, i64)>) -> Vec<String> {
    type Group = (i64, i64, i64, Option<i64>, Option<i64>, BTreeSet<i64>);
    let mut groups: std::collections::BTreeMap<(i64, Option<u8>), Group> = std::collections::BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        let Some(time) = row.time else { continue };
        for start in windows.of(time).filter(|start| !without.contains(&(at, *start))) {
            let group = groups.entry((start, row.key)).or_default();
            group.0 += 1;
            if let Some(value) = row.value {
                group.1 += 1;
                group.2 += value;
                group.3 = Some(group.3.map_or(value, |least| least.min(value)));
                group.4 = Some(group.4.map_or(value, |greatest| greatest.max(value)));
                group.5.insert(value);
            }
        }
    }
    let at = |secs: i64| event::EventTime::from_secs(secs).expect("time");
    let text = |value: Option<i64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
    let mut lines: Vec<String> = groups
        .iter()
        .map(|((start, key), (rows, known, sum, least, greatest, distinct))| {
            let key = key.map_or_else(|| "null".to_owned(), |key| format!("\"key {key}\""));
            let sum = if *known == 0 { "null".to_owned() } else { sum.to_string() };
            format!(
                "{{\"s\":\"{}\",\"e\":\"{}\",\"k\":{key},\"n\":{rows},\"total\":{sum},\"least\":{},\"most\":{},\"d\":{}}}",
                at(*start),
                at(start + windows.size),
                text(*least),
                text(*greatest),
                distinct.len()
            )
        })
        .collect();
    lines.sort();
    lines
}

fn sql(windows: Windows) -> String {
    format!(
        "SELECT window.start AS s, window.end AS e, k, count(*) AS n, sum(v) AS total, min(v) AS least, max(v) AS most, \
         count(DISTINCT v) AS d FROM t GROUP BY {}, k",
        windows.call()
    )
}

fn windows() -> impl Strategy<Value = Windows> {
    (1..40_i64, 1..40_i64, -39..40_i64).prop_map(|(size, slide, start)| {
        let slide = slide.min(size);
        Windows { size, slide, start: start % slide }
    })
}

fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let time = prop_oneof![1 => Just(None), 30 => (-200..200_i64).prop_map(Some)];
    let row = (time, prop::option::of(0..3_u8), prop::option::of(-9..9_i64), 0..3_i32)
        .prop_map(|(time, key, value, partition)| Row { time, key, value, partition });
    prop::collection::vec(row, 0..most)
}

fn courses() -> impl Strategy<Value = Course> {
    (0..60_i64, 1..20_usize, any::<bool>()).prop_map(|(delay, epoch, restart)| Course {
        delay,
        partitions: 3,
        epoch,
        restart,
    })
}

/// `PROPTEST_CASES`, or few enough for every run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

fn block_on<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(run)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// P1, P2, P3: whatever the order of arrival, the epochs, the partitions and the restarts, the output is that of
    /// all rows without the (row, window) pairs that were reported late; without late ones it is that of a batch.
    #[test]
    fn a_stream_is_a_batch_without_what_it_reports_as_late(windows in windows(), rows in rows(60), course in courses()) {
        block_on(async {
            let job = job(&sql(windows)).await;
            let ran = run(&job, &rows, &course).await;
            prop_assert_eq!(&ran.lines, &oracle(&rows, windows, &ran.late));
            for (row, start) in &ran.late {
                let time = rows[*row].time.expect("late rows have a time");
                prop_assert!(windows.of(time).any(|of| of == *start));
            }
            let steps: Vec<Option<i64>> = ran.watermarks.clone();
            prop_assert!(steps.is_sorted(), "the watermark never goes back: {:?}", steps);
            Ok(())
        })?;
    }

    /// P1: disorder within the delay loses nothing.
    #[test]
    fn disorder_within_the_delay_loses_nothing(windows in windows(), rows in rows(60), epoch in 1..20_usize, restart: bool) {
        block_on(async {
            let job = job(&sql(windows)).await;
            let course = Course { delay: 400, partitions: 3, epoch, restart };
            let ran = run(&job, &rows, &course).await;
            prop_assert!(ran.late.is_empty());
            prop_assert_eq!(ran.lines, oracle(&rows, windows, &BTreeSet::new()));
            Ok(())
        })?;
    }

    /// What is above the cut means the same per instant as over all: two windows of different sizes joined on their
    /// ends, and ranked.
    #[test]
    fn windows_of_different_sizes_join_on_their_ends(rows in rows(60), course in courses(), times in 2..5_i64) {
        block_on(async {
            let (short, long) = (Windows { size: 10, slide: 10, start: 0 }, Windows { size: 10 * times, slide: 10, start: 0 });
            let text = format!(
                "SELECT a.window.end AS e, a.k, a.n, b.n AS longer FROM (SELECT window, k, count(*) AS n FROM t GROUP BY {}, k) a \
                 JOIN (SELECT window, k, count(*) AS n FROM t GROUP BY {}, k) b \
                 ON a.window.end = b.window.end AND a.k = b.k",
                short.call(), long.call()
            );
            let job = job(&text).await;
            let course = Course { delay: 400, ..course };
            let ran = run(&job, &rows, &course).await;
            let mut want = Vec::new();
            for end in (-200..300).filter(|end: &i64| end.rem_euclid(10) == 0) {
                for key in 0..3_u8 {
                    let count = |size: i64| rows.iter().filter(|row| {
                        row.key == Some(key) && row.time.is_some_and(|time| end - size <= time && time < end)
                    }).count();
                    if count(10) > 0 {
                        want.push(format!(
                            "{{\"e\":\"{}\",\"k\":\"key {key}\",\"n\":{},\"longer\":{}}}",
                            event::EventTime::from_secs(end).expect("time"), count(10), count(10 * times)
                        ));
                    }
                }
            }
            want.sort();
            prop_assert_eq!(ran.lines, want);
            Ok(())
        })?;
    }

    /// Windows over windows: the daily sum of hourly counts is the daily count.
    #[test]
    fn a_window_over_windows_sees_each_inner_window_once(rows in rows(60), course in courses()) {
        block_on(async {
            let job = job(
                "SELECT window.start AS s, sum(n) AS n, count(*) AS windows FROM (SELECT window_time(window) AS t, count(*) AS n \
                 FROM t GROUP BY window(ts, '10 seconds')) GROUP BY window(t, '30 seconds')",
            ).await;
            let course = Course { delay: 400, ..course };
            let ran = run(&job, &rows, &course).await;
            let mut want = Vec::new();
            for start in (-240..240).filter(|start: &i64| start.rem_euclid(30) == 0) {
                let within: Vec<i64> =
                    rows.iter().filter_map(|row| row.time).filter(|time| start <= *time && *time < start + 30).collect();
                let inner: BTreeSet<i64> = within.iter().map(|time| time.div_euclid(10)).collect();
                if !within.is_empty() {
                    want.push(format!(
                        "{{\"s\":\"{}\",\"n\":{},\"windows\":{}}}",
                        event::EventTime::from_secs(start).expect("time"), within.len(), inner.len()
                    ));
                }
            }
            want.sort();
            prop_assert_eq!(ran.lines, want);
            Ok(())
        })?;
    }

    /// P5, oracle O1: every admitted aggregate, in panes and in any order, is DataFusion's own over the expanded rows.
    #[test]
    fn every_admitted_aggregate_is_datafusions_own(
        windows in windows(), rows in rows(40), course in courses(), which in any::<Index>(), shuffle in any::<u64>()
    ) {
        block_on(async {
            let exact = |name: &str| ADMITTED.iter().find(|(admitted, _)| *admitted == name).map(|(_, how)| *how);
            let names: Vec<&str> = ADMITTED.iter().map(|(name, _)| *name).chain(WHOLE.iter().copied()).collect();
            let name = names[which.index(names.len())];
            let call = match name {
                "bool_and" | "bool_or" => format!("{name}(v > 0)"),
                "bit_and" | "bit_or" | "bit_xor" => format!("{name}(v)"),
                "corr" | "covar_pop" | "covar_samp" => format!("{name}(f, v)"),
                "percentile_cont" => "percentile_cont(v, 0.25)".to_owned(),
                "array_agg" => "array_agg(v)".to_owned(),
                "approx_count_distinct" => "approx_count_distinct(v)".to_owned(),
                name if name.starts_with("regr_") => format!("{name}(f, v)"),
                name => format!("{name}(f)"),
            };
            let job = job(&format!("SELECT window.start AS s, k, {call} AS a, {call} FILTER (WHERE v > 2) AS b FROM t GROUP BY {}, k", windows.call())).await;
            let course = Course { delay: 400, ..course };
            let ran = run(&job, &rows, &course).await;

            let expanded: Vec<Row> = rows.iter().flat_map(|row| row.time.into_iter().flat_map(|time| windows.of(time))
                .map(move |start| Row { time: Some(start), ..row.clone() })).collect();
            let all = batch(&expanded);
            let mut order: Vec<u64> = (0..all.num_rows() as u64).collect();
            order.sort_by_key(|at| at.wrapping_mul(shuffle | 1));
            let all = take_record_batch(&all, &arrow::array::UInt64Array::from(order)).expect("shuffled");
            let context = SessionContext::new();
            context.register_batch("t", all).expect("registered");
            let plain = match name {
                "array_agg" => ("array_sort(array_agg(v), 'ASC', 'NULLS FIRST')".to_owned(), "array_sort(array_agg(v) FILTER (WHERE v > 2), 'ASC', 'NULLS FIRST')".to_owned()),
                // These few values share no register.
                "approx_count_distinct" => ("count(DISTINCT v)".to_owned(), "count(DISTINCT v) FILTER (WHERE v > 2)".to_owned()),
                _ => (call.clone(), format!("{call} FILTER (WHERE v > 2)")),
            };
            let frame = context.sql(&format!("SELECT ts AS s, k, {} AS a, {} AS b FROM t GROUP BY ts, k", plain.0, plain.1)).await.expect("plain");
            let batches = frame.collect().await.expect("collected");
            let mut want: Vec<String> = batches.iter().flat_map(|rows| json_rows(rows).expect("lines")).collect();
            want.sort();
            if exact(name) == Some(Exactness::Tolerance) {
                prop_assert_eq!(ran.lines.len(), want.len());
                for (got, want) in ran.lines.iter().zip(&want) {
                    prop_assert!(alike(got, want), "{}: {} {}", name, got, want);
                }
            } else {
                prop_assert_eq!(ran.lines, want, "{}", name);
            }
            Ok(())
        })?;
    }
}

/// Equal JSON objects, numbers up to rounding.
fn alike(got: &str, want: &str) -> bool {
    let read = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
    let (got, want) = (read(got), read(want));
    ["s", "k"].iter().all(|name| got[name] == want[name])
        && ["a", "b"].iter().all(|name| match (got[name].as_f64(), want[name].as_f64()) {
            (Some(got), Some(want)) => (got - want).abs() <= 1e-7 * want.abs().max(1.0),
            // A variance of nearly equal numbers may be nothing or not a number.
            (got, want) => got.unwrap_or_default().abs() < 1e-7 && want.unwrap_or_default().abs() < 1e-7,
        })
}

/// Panes that are moved to files give the same answer as panes that are not.
#[tokio::test]
async fn a_job_with_little_memory_answers_the_same() {
    let windows = Windows { size: 600, slide: 60, start: 0 };
    let text = format!("SELECT window.end AS e, k, v, count(*) AS n FROM t GROUP BY {}, k, v", windows.call());
    let rows: Vec<Row> = (0..120_000_i64)
        .map(|at| Row {
            time: Some(at / 40),
            key: Some(u8::try_from(at % 200).expect("small")),
            value: Some(at * 7_919 % 10_007),
            partition: 0,
        })
        .collect();
    let course = Course { delay: 10_000, partitions: 1, epoch: 8_192, restart: false };
    let roomy = run(&job(&text).await, &rows, &course).await;
    let little = job_within(&text, Memory::new(32 * 1024 * 1024).expect("enough")).await;
    let mut engine = Engine::new(&little, ALL(), vec![0], [(0, 0)]).await.expect("engine");
    engine.panes_max = 512 * 1024;
    let mut lines = Vec::new();
    let mut emit = |_: usize, rows: RecordBatch| {
        lines.extend(json_rows(&rows)?);
        Ok(())
    };
    let mut in_files = 0;
    for epoch in rows.chunks(course.epoch) {
        let read = batch(epoch).project(&little.plan.tables[0].columns).expect("columns");
        let taken = engine.intakes[0].take(0, &[read], None).await.expect("taken");
        engine.add(taken, &mut emit).expect("added");
        engine.shed().await.expect("shed");
        assert!(engine.size().bytes <= engine.panes_max, "{:?}", engine.size());
        in_files = in_files.max(engine.spilled_rows());
    }
    engine.finish(&mut emit).await.expect("finish");
    lines.sort();
    assert!(in_files > 10_000, "{in_files} rows were in files");
    assert_eq!(lines.len(), roomy.lines.len());
    assert!(lines == roomy.lines, "the rows differ");
}

/// State keeps the size of what is open: after a day of traffic there is as much as after an hour.
#[tokio::test]
async fn a_day_of_traffic_holds_no_more_state_than_an_hour() {
    let windows = Windows { size: 600, slide: 60, start: 0 };
    let text = format!(
        "SELECT window.end AS e, k, count(*) AS n, count(DISTINCT v) AS d FROM t GROUP BY {}, k",
        windows.call()
    );
    let job = job(&text).await;
    let mut engine = Engine::new(&job, ALL(), vec![60_000_000], [(0, 0)]).await.expect("engine");
    engine.keep_fresh();
    let mut most = Vec::new();
    for hour in 0..24_i64 {
        let mut held = Size::default();
        for minute in 0..60_i64 {
            let first = (hour * 60 + minute) * 60;
            let rows: Vec<Row> = (0..300_i64)
                .map(|at| Row {
                    time: Some(first + at / 5),
                    key: Some(u8::try_from(at % 20).expect("small")),
                    value: Some(at * 31 % 97),
                    partition: 0,
                })
                .collect();
            let read = batch(&rows).project(&job.plan.tables[0].columns).expect("columns");
            let partitions = vec![0; rows.len()];
            let from = Provenance { partitions: &partitions, received: None };
            engine.rows(0, &read, from, &mut |_, _| Ok(())).await.expect("rows");
            engine.end_epoch(|_| false, &mut |_, _| Ok(())).await.expect("end of epoch");
            if minute % 10 == 9 {
                engine.fresh().await.expect("a snapshot");
            }
            let size = engine.size();
            held = Size { rows: held.rows.max(size.rows), bytes: held.bytes.max(size.bytes) };
        }
        most.push(held);
    }
    let (hour, day) = (most[1], most[23]);
    assert!(day.rows * 10 <= hour.rows * 11 && day.bytes * 10 <= hour.bytes * 11, "{hour:?} {day:?}");
}

/// Open windows can be looked at: what changed comes once, and closing them later gives the same rows.
#[tokio::test]
async fn a_look_at_open_windows_shows_what_changed_and_changes_nothing() {
    let windows = Windows { size: 60, slide: 30, start: 0 };
    let job = job(&sql(windows)).await;
    let row = |time, value| Row { time: Some(time), key: Some(0), value: Some(value), partition: 0 };
    let parts = [vec![row(10, 1), row(40, 2)], vec![row(41, 3)], vec![row(200, 4)]];
    let mut engine = Engine::new(&job, ALL(), vec![1_000_000_000], [(0, 0)]).await.expect("engine");
    engine.keep_touched();
    let mut so_far: Vec<Row> = Vec::new();
    let look = async |engine: &mut Engine<'_>, all: bool| {
        let mut lines = Vec::new();
        let mut emit = |_: usize, rows: RecordBatch| {
            lines.extend(json_rows(&rows)?);
            Ok(())
        };
        engine.changed(all, &mut emit).await.expect("a look");
        lines.sort();
        lines
    };
    for part in &parts {
        let read = batch(part).project(&job.plan.tables[0].columns).expect("columns");
        let partitions = vec![0; part.len()];
        let from = Provenance { partitions: &partitions, received: None };
        engine.rows(0, &read, from, &mut |_, _| Ok(())).await.expect("rows");
        so_far.extend(part.clone());
        let all = oracle(&so_far, windows, &BTreeSet::new());
        let changed: BTreeSet<i64> = part.iter().flat_map(|row| windows.of(row.time.expect("a time"))).collect();
        let at = |start: &i64| format!("{{\"s\":\"{}\"", event::EventTime::from_secs(*start).expect("time"));
        let want: Vec<String> =
            all.iter().filter(|line| changed.iter().any(|start| line.starts_with(&at(start)))).cloned().collect();
        assert!(!want.is_empty());
        assert_eq!(look(&mut engine, false).await, want);
        assert!(look(&mut engine, false).await.is_empty());
        assert_eq!(look(&mut engine, true).await, all);
    }
    let mut lines = Vec::new();
    let mut emit = |_: usize, rows: RecordBatch| {
        lines.extend(json_rows(&rows)?);
        Ok(())
    };
    engine.finish(&mut emit).await.expect("finish");
    lines.sort();
    assert_eq!(lines, oracle(&so_far, windows, &BTreeSet::new()));
}

#[tokio::test]
async fn a_sum_beyond_64_bits_wraps_and_a_decimal_does_not() {
    let rows: Vec<Row> =
        (0..2).map(|at| Row { time: Some(at), key: None, value: Some(i64::MAX), partition: 0 }).collect();
    let course = Course { delay: 0, partitions: 1, epoch: 1, restart: false };
    for (sum, want) in [("sum(v)", "-2"), ("sum(CAST(v AS DECIMAL(38, 0)))", "\"18446744073709551614\"")] {
        let job = job(&format!("SELECT {sum} AS total FROM t GROUP BY window(ts, '1 minute')")).await;
        assert_eq!(run(&job, &rows, &course).await.lines, [format!("{{\"total\":{want}}}")]);
    }
}
