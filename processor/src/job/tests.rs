//! Jobs planned and run over rows made by hand, and what is refused.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use event::{EventBatchBuilder, Origin};

use super::*;
use crate::engine::{Engine, Provenance, Range};
use crate::row::json_rows;

fn source(sql: &str) -> JobSource {
    JobSource { name: "test".into(), sql: sql.into(), path: None }
}

async fn refused(sql: &str) -> String {
    match Job::plan(&source(sql), &JobOptions::default()).await {
        Ok(_) => "accepted".to_owned(),
        Err(error) => format!("{error} | {} | {}", error.hint().unwrap_or_default(), error.caret().unwrap_or_default()),
    }
}

/// Runs a job over rows in micro-batches; the output of all its queries, sorted.
async fn run(job: &Job, rows: &[RecordBatch]) -> Vec<String> {
    let range = Range::new(None, None);
    let mut engine = Engine::new(job, range, vec![0], [(0, 0)]).await.expect("engine");
    let mut out = Vec::new();
    let mut emit = |_: usize, rows: RecordBatch| {
        out.extend(json_rows(&rows)?);
        Ok(())
    };
    for batch in rows {
        let read = batch.project(&job.plan.tables[0].columns).expect("columns");
        let partitions = vec![0; read.num_rows()];
        let from = Provenance { partitions: &partitions, received: None };
        engine.rows(0, &read, from, &mut emit).await.expect("rows");
    }
    engine.finish(&mut emit).await.expect("close");
    out.sort();
    out
}

fn rows(events: &[(i64, u16, u8, &[&[&str]])]) -> RecordBatch {
    let mut builder = EventBatchBuilder::new();
    for (at, (created_at, kind, author, tags)) in events.iter().enumerate() {
        let event = event::Event {
            id: event::EventId([u8::try_from(at).expect("few"); 32]),
            pubkey: event::PublicKey([*author; 32]),
            created_at: *created_at,
            kind: *kind,
            tags: tags.iter().map(|tag| tag.iter().map(|item| (*item).to_owned()).collect()).collect(),
            content: String::new(),
            sig: [0; 64],
        };
        builder.append(&event, &Origin::default(), b"{}");
    }
    builder.finish()
}

fn options(window: &str, slide: Option<&str>) -> JobOptions {
    JobOptions {
        window: Some(Span::parse(window).expect("window")),
        slide: slide.map(|slide| Span::parse(slide).expect("slide")),
        ..JobOptions::default()
    }
}

#[tokio::test]
async fn every_built_in_job_plans_and_explains_itself() {
    for (name, sql) in built_in_jobs() {
        let source = JobSource { name: (*name).into(), sql: (*sql).into(), path: None };
        for slide in [None, Some("10 minutes")] {
            match Job::plan(&source, &options("1 hour", slide)).await {
                Ok(job) => {
                    assert_eq!(job.name(), *name);
                    let columns = Arc::clone(&job.outputs()[0].schema);
                    assert_eq!(columns.field(0).name(), "window_start");
                    assert_eq!(columns.field(1).name(), "window_end");
                    assert!(job.explain("raw", None).contains("per closed window"), "{name}");
                }
                Err(error) => panic!(
                    "{name}: {error} {:?} {:?} {:?}",
                    error.hint(),
                    error.caret(),
                    std::error::Error::source(&error)
                ),
            }
        }
    }
}

#[tokio::test]
async fn sliding_counts_and_authors_equal_the_dumb_way() {
    let events: Vec<(i64, u16, u8, &[&[&str]])> = vec![
        (0, 1, 1, &[]),
        (599, 1, 2, &[]),
        (600, 1, 1, &[]),
        (3_599, 7, 1, &[]),
        (3_600, 1, 3, &[]),
        (-1, 1, 4, &[]),
    ];
    let batch = rows(&events);
    let source = JobSource { name: "kinds".into(), sql: built_in_jobs()[3].1.into(), path: None };
    let job = Job::plan(&source, &options("1 hour", Some("10 minutes"))).await.expect("job");
    let got = run(&job, &[batch.slice(0, 2), batch.slice(2, 4)]).await;

    let mut want: BTreeMap<(i64, u16), (u32, std::collections::BTreeSet<u8>)> = BTreeMap::new();
    for (time, kind, author, _) in &events {
        for start in (time - 3_599..=*time).filter(|start| start.rem_euclid(600) == 0) {
            let window = want.entry((start, *kind)).or_default();
            window.0 += 1;
            window.1.insert(*author);
        }
    }
    let at = |secs: i64| event::EventTime::from_secs(secs).expect("time");
    let mut want: Vec<String> = want
        .iter()
        .map(|((start, kind), (events, authors))| {
            let (from, to) = (at(*start), at(start + 3_600));
            format!(
                "{{\"window_start\":\"{from}\",\"window_end\":\"{to}\",\"kind\":{kind},\"events\":{events},\"authors\":{}}}",
                authors.len()
            )
        })
        .collect();
    want.sort();
    assert_eq!(got, want);
}

#[tokio::test]
async fn hashtags_are_ranked_within_their_window() {
    let batch = rows(&[
        (10, 1, 1, &[&["t", "b"], &["t", "b"], &["t", "a"]]),
        (20, 1, 2, &[&["t", "c"], &["t"], &["x", "a"]]),
        (30, 1, 3, &[&["t", "c"]]),
        (70, 1, 3, &[]),
    ]);
    let source = JobSource { name: "hashtags".into(), sql: built_in_jobs()[2].1.into(), path: None };
    let job = Job::plan(&source, &options("1 minute", None)).await.expect("job");
    let got = run(&job, &[batch]).await;
    let row = |rank: u8, tag: &str, events: u8| {
        format!(
            "{{\"window_start\":\"1970-01-01T00:00:00Z\",\"window_end\":\"1970-01-01T00:01:00Z\",\"rank\":{rank},\"tag\":\"{tag}\",\"events\":{events}}}"
        )
    };
    assert_eq!(got, [row(1, "c", 2), row(2, "a", 1), row(3, "b", 1)]);
}

#[tokio::test]
async fn dvm_counts_results_under_the_kind_they_answer() {
    let batch = rows(&[
        (1, 5_050, 1, &[]),
        (2, 6_050, 2, &[]),
        (3, 6_050, 3, &[]),
        (4, 7_000, 2, &[]),
        (5, 6_969, 9, &[]),
        (6, 1, 9, &[]),
    ]);
    let source = JobSource { name: "dvm".into(), sql: built_in_jobs()[1].1.into(), path: None };
    let job = Job::plan(&source, &options("1 minute", None)).await.expect("job");
    let got = run(&job, &[batch]).await;
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(
        got[0].ends_with(r#""job_kind":5050,"requests":1,"results":2,"feedback":0,"customers":1,"dvms":2}"#),
        "{got:?}"
    );
    assert!(
        got[1].ends_with(r#""job_kind":7000,"requests":0,"results":0,"feedback":1,"customers":0,"dvms":1}"#),
        "{got:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_a_windowed_job_is_refused_with_a_hint() {
    let cases = [
        (
            "SELECT window.start, count(*) FROM events GROUP BY window(created_at, '1 hour', '2 hours')",
            "slide is longer",
            "lost",
        ),
        ("SELECT window.start, count(*) FROM events GROUP BY window(created_at, '1 month')", "no fixed length", ""),
        (
            "SELECT window.start, count(*) FROM events GROUP BY window(received_at, '1 hour')",
            "not the event time",
            "created_at",
        ),
        (
            "SELECT window.start, count(*) AS n FROM events GROUP BY window(created_at, '1 hour') LIMIT 3",
            "LIMIT",
            "QUALIFY",
        ),
        (
            "SELECT window.start, count(*) AS n FROM events GROUP BY window(created_at, '1 hour') ORDER BY n",
            "ORDER BY",
            "row_number",
        ),
        (
            "SELECT window.start, now(), count(*) FROM events GROUP BY window(created_at, '1 hour')",
            "another answer",
            "--var",
        ),
        (
            "SELECT window.start, first_value(kind) FROM events GROUP BY window(created_at, '1 hour')",
            "order in which rows arrive",
            "row_number",
        ),
        (
            "SELECT window.start, approx_count_distinct(pubkey, 0.001) FROM events GROUP BY window(created_at, '1 hour')",
            "from 0.0041 to 0.26",
            "0.016",
        ),
        (
            "SELECT window.start, array_agg(id ORDER BY kind) FROM events GROUP BY window(created_at, '1 hour')",
            "ORDER BY",
            "sorted",
        ),
        (
            "SELECT a.window.end, a.n FROM (SELECT window, count(*) AS n FROM events GROUP BY window(created_at, '1 hour')) a \
             JOIN (SELECT window, count(*) AS n FROM events GROUP BY window(created_at, '1 day')) b \
             ON a.window.start = b.window.start",
            "a join reaches over several windows",
            "a.window.end = b.window.end",
        ),
        (
            "SELECT sum(n) FROM (SELECT window, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'))",
            "an aggregate reaches over several windows",
            "GROUP BY",
        ),
        (
            "SELECT window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, '1 hour') UNION ALL SELECT NULL, 0",
            "a UNION with constant rows reaches over several windows",
            "JOIN (VALUES",
        ),
        (
            "SELECT w.n, e.id FROM (SELECT window.end AS t, count(*) AS n FROM events GROUP BY window(created_at, '1 hour')) w \
             JOIN events e ON e.created_at = w.t",
            "read beside windows",
            "window",
        ),
        ("SELECT window.start, count(*) FROM evnts GROUP BY window(created_at, '1 hour')", "evnts", "`events`"),
        ("SELECT window.start, count(*) FROM events GROUP BY window(created_at, ${size})", "`size`", "--var size"),
        ("SELECT window.start, kindd, count(*) FROM events GROUP BY window(created_at, '1 hour'), kindd", "kindd", "^"),
        ("SELECT window.start count(* FROM events", "expected: end of statement", "^"),
        ("INSERT INTO t SELECT 1", "reads no table", "events"),
        ("INSERT INTO t SELECT id FROM events; INSERT INTO t SELECT id FROM events", "`t` twice", "UNION ALL"),
        ("SELECT id FROM events; SELECT kind FROM events", "more than one SELECT", "INSERT INTO"),
        ("SET job.nme = 'x';\nSELECT 1", "job.nme", "job.name"),
        ("", "no query", "SELECT"),
    ];
    for (sql, message, rest) in cases {
        let said = refused(sql).await;
        assert!(said.contains(message) && said.contains(rest), "{sql}\n  {said}");
        eprintln!("{sql}\n  {said}\n");
    }
}

#[tokio::test]
async fn what_needs_all_rows_at_once_is_for_batch_only() {
    for sql in [
        "SELECT id FROM events ORDER BY created_at LIMIT 3",
        "SELECT a.id FROM events a JOIN events b ON a.pubkey = b.pubkey",
        "SELECT count(*) FROM events",
        "SELECT id, row_number() OVER (PARTITION BY kind ORDER BY created_at) AS n FROM events",
    ] {
        let job = Job::plan(&source(sql), &JobOptions::default()).await.expect(sql);
        let refused = job.can_stream().expect_err(sql);
        assert!(refused.hint().is_some_and(|hint| hint.contains("window")), "{sql}: {refused}");
    }
    for sql in ["SELECT id FROM events WHERE kind = 1", "SELECT kind, count(*) FROM events GROUP BY kind"] {
        Job::plan(&source(sql), &JobOptions::default()).await.expect(sql).can_stream().expect(sql);
    }
}

#[tokio::test]
async fn equal_windows_of_several_queries_share_one_state() {
    let sql = "INSERT INTO a SELECT window.end, kind, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'), kind;
               INSERT INTO b SELECT window.end, kind, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'), kind
               HAVING count(*) > 1;";
    let job = Job::plan(&source(sql), &JobOptions::default()).await.expect("job");
    assert_eq!(job.plan.cuts.len(), 1, "{}", job.explain("raw", None));
    assert_eq!(job.outputs().iter().filter_map(|output| output.name.as_deref()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn the_states_of_two_cuts_are_told_apart() {
    let sql = "INSERT INTO a SELECT window.end, kind, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'), kind;
               INSERT INTO b SELECT window.end, kind, count(*) AS n FROM events GROUP BY kind, window(created_at, '1 hour');";
    let job = Job::plan(&source(sql), &JobOptions::default()).await.expect("job");
    let fingerprints: std::collections::BTreeSet<String> =
        job.plan.fingerprints().into_iter().map(|(fingerprint, _)| fingerprint).collect();
    assert_eq!(fingerprints.len(), job.plan.cuts.len());
}

#[tokio::test]
async fn the_key_of_a_row_is_its_window_and_its_group_however_they_are_written() {
    let cases: [(&str, &[usize]); 5] = [
        ("SELECT window.end, kind, count(*) FROM events GROUP BY window(created_at, '1 hour'), kind", &[0, 1]),
        ("SELECT window.end, kind, count(*) FROM events GROUP BY window(created_at, '1 hour'), ROLLUP (kind)", &[0, 1]),
        (
            "SELECT CAST(window.start AS DATE), kind + 1, count(*) + kind FROM events GROUP BY window(created_at, '1 day'), kind",
            &[0, 1],
        ),
        (
            "SELECT 'a' AS source, window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, '1 hour') \
             UNION ALL SELECT 'b' AS source, window.end AS e, max(kind) AS n FROM events GROUP BY window(created_at, '1 day')",
            &[0, 1],
        ),
        ("SELECT id, kind FROM events", &[]),
    ];
    for (sql, want) in cases {
        let job = Job::plan(&source(sql), &JobOptions::default()).await.expect(sql);
        assert_eq!(job.tells_windows_apart(0), !sql.contains("CAST"), "{sql}");
        assert_eq!(job.key_columns(0), want, "{sql}\n{}", job.explain("raw", None));
    }
}

#[tokio::test]
async fn a_window_over_all_time_is_one_without_bounds() {
    let events: Vec<(i64, u16, u8, &[&[&str]])> =
        (0..40).map(|at| (at * 977 - 9_000, u16::try_from(at % 3).expect("few"), 1, &[][..])).collect();
    let batch = rows(&events);
    let parts = [batch.slice(0, 7), batch.slice(7, 20), batch.slice(27, 13)];
    let all = JobOptions { window: Some(Span::ALL_TIME), ..JobOptions::default() };
    let windowed = "SELECT window.start AS s, window.end AS e, kind, count(*) AS n, '${window_name}' AS w FROM events \
                    GROUP BY window(created_at, '${window}'), kind";
    let job = Job::plan(&source(windowed), &all).await.expect("job");
    assert!(job.over_all_time() && job.can_stream().is_ok());
    assert_eq!(job.key_columns(0), [0, 1, 2, 4]);
    assert!(job.json_schema()["properties"]["e"]["type"].as_array().is_some_and(|types| types.len() == 2));
    let want: Vec<String> = (0..3)
        .map(|kind| {
            let n = events.iter().filter(|event| event.1 == kind).count();
            format!(r#"{{"s":null,"e":null,"kind":{kind},"n":{n},"w":"all_time"}}"#)
        })
        .collect();
    assert_eq!(run(&job, &parts).await, want);
    // The same job over windows, and what stands above the window.
    let hours = Job::plan(&source(windowed), &options("90 minutes", None)).await.expect("job");
    assert!(run(&hours, &parts).await.iter().all(|row| row.contains("90_minutes") && !row.contains("null")));
    let ranked = "SELECT window.end AS e, rank, max(kind) AS kind FROM (SELECT window, kind, \
                  CAST(row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, kind) AS BIGINT) AS rank \
                  FROM events GROUP BY window(created_at, '${window}'), kind) WHERE rank <= ${top} GROUP BY window, rank";
    let ranked = format!("SET job.var.top = '2';\n{ranked}");
    let job = Job::plan(&source(&ranked), &all).await.expect("job");
    // A rank is a key, and who holds it is not: a row that falls out of the top is overwritten.
    assert_eq!(job.key_columns(0), [0, 1]);
    assert_eq!(run(&job, &parts).await, [r#"{"e":null,"rank":1,"kind":0}"#, r#"{"e":null,"rank":2,"kind":1}"#]);
    let one = JobOptions { vars: vec![("top".into(), "1".into())], ..all.clone() };
    let job = Job::plan(&source(&ranked), &one).await.expect("job");
    assert_eq!(run(&job, &parts).await.len(), 1);
}

#[tokio::test]
async fn a_top_is_keyed_by_its_ranks() {
    let keys: [(&str, usize, &[&str]); 7] = [
        ("global", 0, &["window_start", "window_end", "metric", "rank"]),
        ("collections", 0, &["window_start", "window_end", "metric", "collection", "rank"]),
        ("all", 0, &["window_start", "window_end", "metric", "rank"]),
        ("all", 1, &["window_start", "window_end", "metric", "collection", "rank"]),
        ("top_collections", 0, &["window_start", "window_end", "ranked_by", "rank"]),
        ("top_assets", 0, &["window_start", "window_end", "collection", "ranked_by", "rank"]),
        ("collection_totals", 0, &["window_start", "window_end", "collection"]),
    ];
    for window in [Span::from_secs(3_600), Span::ALL_TIME] {
        for (name, output, want) in keys {
            let (_, sql) = built_in_jobs().iter().find(|(job, _)| *job == name).expect(name);
            let options = JobOptions { window: Some(window), ..JobOptions::default() };
            let job = Job::plan(&source(sql), &options).await.expect(name);
            let schema = &job.outputs()[output].schema;
            let mut keyed: Vec<&str> =
                job.key_columns(output).into_iter().map(|at| schema.field(at).name().as_str()).collect();
            // Over all time, what is computed of the window alone is constant.
            keyed.retain(|column| *column != "timestamp");
            assert_eq!(keyed, want, "{name} {window}");
        }
    }
}

#[tokio::test]
async fn all_time_has_no_slide_and_no_neighbour() {
    let count = "SELECT window.end AS e, count(*) AS n FROM events GROUP BY window(created_at, ";
    for (sql, message) in [
        (format!("{count}'all time', '1 hour')"), "no slide"),
        (format!("{count}'1 hour', 'all time')"), "no slide"),
        ("SELECT id, window(created_at, 'all time') AS w FROM events".to_owned(), "kept for all time"),
        (format!("{count}'all time') UNION ALL {count}'1 hour')"), "over windows and over all time"),
    ] {
        let said = refused(&sql).await;
        assert!(said.contains(message), "{sql}\n  {said}");
    }
    let slides = JobOptions { slide: Some(Span::from_secs(60)), window: Some(Span::ALL_TIME), ..JobOptions::default() };
    let of = format!("SET job.slide = '1 minute';\n{count}'${{window}}')");
    assert!(
        Job::plan(&source(&of), &slides).await.is_err_and(|error| error.hint().is_some_and(|h| h.contains("slide")))
    );
    // The slide of the file is that of its windows with a length.
    let file = JobOptions { slide: None, ..slides };
    assert!(Job::plan(&source(&of), &file).await.expect("job").over_all_time());
}

#[tokio::test]
async fn a_job_reads_one_table() {
    let of = |table: &str, time: &str| {
        format!("SELECT window.end AS e, count(*) AS n FROM {table} GROUP BY window({time}, '1 hour')")
    };
    let (events, sightings) = (of("events", "created_at"), of("sightings", "received_at"));
    for (sql, table) in [(&events, Table::Events), (&sightings, Table::Sightings)] {
        let job = Job::plan(&source(sql), &JobOptions::default()).await.expect(sql);
        assert_eq!(job.table(), table);
    }
    for both in
        [format!("{events} UNION ALL {sightings}"), format!("INSERT INTO a {events}; INSERT INTO b {sightings}")]
    {
        let said = refused(&both).await;
        assert!(said.contains("`events` and `sightings`") && said.contains("tidegate sql"), "{said}");
    }
    let said = refused(&of("sightings", "created_at")).await;
    assert!(said.contains("received_at"), "{said}");
}
