//! P7: what may stand above the windows means the same over one closing instant as over all.
//!
//! Queries over windowed aggregates are made up from a grammar that also says what has to be refused. Whatever the
//! checker accepts is run by the engine, one closing instant at a time and all at once, and by plain DataFusion over
//! the rows of all closed windows in tables; these are counted by hand.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::StructArray;
use arrow::compute::filter_record_batch;
use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::Optimizer;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::error::ErrorKind;
use crate::plan::functions::window_fields;

/// A way to make a query over others: its name, what is expected of it, and its text.
///
/// Every query has the columns `s`, `e`, `k` and `n` (start, end, key and number), and `w`, the window, where all
/// queries below have it and the text takes it over. `{w}` in a select list is that column, and nothing without it;
/// a text with `{W}` needs it, and stands for nothing without it.
type Production = (&'static str, Expected, &'static str);

/// What the checker says of a production over windowed aggregates themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Local,
    OverAll,
}
use Expected::{Local, OverAll};

/// Over `{x}`.
const ONE: &[Production] = &[
    ("where", Local, "SELECT {w}s, e, k, n FROM {x} WHERE n > 1"),
    ("where on keys", Local, "SELECT {w}s, e, k, n FROM {x} WHERE k IS NULL OR k IN ('key 0', 'key 2')"),
    (
        "expressions",
        Local,
        "SELECT {w}s, e, coalesce(k, 'no key') AS k, CASE WHEN n > 2 THEN n + 1 ELSE -n END AS n FROM {x}",
    ),
    ("moved end", Local, "SELECT {w}s, e + INTERVAL '10 seconds' AS e, k, n FROM {x}"),
    ("end by value", Local, "SELECT {w}s, CASE WHEN n > 1 THEN e END AS e, k, n FROM {x}"),
    ("start for end", Local, "SELECT {w}s, s AS e, k, n FROM {x}"),
    (
        "no end",
        Local,
        "SELECT s, arrow_cast('2000-01-01T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))') AS e, k, n FROM {x}",
    ),
    ("last instant", Local, "SELECT {w}s, window_time({W}) AS e, k, n FROM {x}"),
    ("group by end", Local, "SELECT min(s) AS s, e, max(k) AS k, sum(n) AS n FROM {x} GROUP BY e"),
    (
        "group by window",
        Local,
        "SELECT {w}min(s) AS s, get_field({W}, 'end') AS e, max(k) AS k, count(*) AS n FROM {x} GROUP BY w",
    ),
    ("group by end and key", Local, "SELECT min(s) AS s, e, k, count(DISTINCT n) AS n FROM {x} GROUP BY e, k"),
    ("having", Local, "SELECT min(s) AS s, e, min(k) AS k, max(n) AS n FROM {x} GROUP BY e HAVING count(*) > 1"),
    ("group by key", OverAll, "SELECT min(s) AS s, max(e) AS e, k, sum(n) AS n FROM {x} GROUP BY k"),
    ("group by nothing", OverAll, "SELECT min(s) AS s, max(e) AS e, max(k) AS k, count(*) AS n FROM {x}"),
    (
        "rank by end",
        Local,
        "SELECT {w}s, e, k, CAST(rank() OVER (PARTITION BY e ORDER BY n DESC) AS BIGINT) AS n FROM {x}",
    ),
    (
        "row number by window",
        Local,
        "SELECT {w}s, e, k, CAST(row_number() OVER (PARTITION BY {W} ORDER BY n, k, s, e) AS BIGINT) AS n FROM {x}",
    ),
    ("sum by end", Local, "SELECT {w}s, e, k, sum(n) OVER (PARTITION BY e, k) AS n FROM {x}"),
    ("lag by end", Local, "SELECT {w}s, e, k, lag(n) OVER (PARTITION BY e ORDER BY n, k, s) AS n FROM {x}"),
    ("rank over all", OverAll, "SELECT {w}s, e, k, CAST(rank() OVER (ORDER BY n) AS BIGINT) AS n FROM {x}"),
    ("lag by key", OverAll, "SELECT {w}s, e, k, lag(n) OVER (PARTITION BY k ORDER BY e, s, n) AS n FROM {x}"),
    (
        "top of the end",
        Local,
        "SELECT {w}s, e, k, n FROM {x} QUALIFY row_number() OVER (PARTITION BY e ORDER BY n DESC, k, s) <= 2",
    ),
    ("top of all", OverAll, "SELECT {w}s, e, k, n FROM {x} QUALIFY row_number() OVER (ORDER BY n DESC, k, s, e) <= 2"),
    ("limit", OverAll, "SELECT {w}s, e, k, n FROM {x} ORDER BY n, k, s, e LIMIT 3"),
    ("distinct with end", Local, "SELECT DISTINCT s, e, k, n FROM {x}"),
    (
        "distinct without end",
        OverAll,
        "SELECT DISTINCT CAST(NULL AS TIMESTAMP) AS s, CAST(NULL AS TIMESTAMP) AS e, k, n FROM {x}",
    ),
    (
        "look-up",
        Local,
        "SELECT {w}s, e, k, n + m AS n FROM {x} JOIN (VALUES ('key 0', 1), ('key 1', 2), ('key 1', 3)) v(name, m) ON k = name",
    ),
    (
        "outer look-up",
        Local,
        "SELECT {w}s, e, k, coalesce(m, n) AS n FROM {x} LEFT JOIN (VALUES ('key 0', 1), ('key 3', 2)) v(name, m) ON k = name",
    ),
    (
        "what the look-up lacks",
        OverAll,
        "SELECT {w}s, e, name AS k, n FROM {x} RIGHT JOIN (VALUES ('key 0', 1), ('key 3', 2)) v(name, m) ON k = name",
    ),
    ("in a list", Local, "SELECT {w}s, e, k, n FROM {x} WHERE n NOT IN (SELECT m FROM (VALUES (1), (3)) v(m))"),
    (
        "constant rows beside",
        OverAll,
        "SELECT s, e, k, n FROM {x} UNION ALL SELECT CAST(NULL AS TIMESTAMP), CAST(NULL AS TIMESTAMP), 'one', 1",
    ),
];

/// Over `{x}` and `{y}`.
const TWO: &[Production] = &[
    ("union all", Local, "SELECT {w}s, e, k, n FROM {x} UNION ALL SELECT {w}s, e, k, n FROM {y}"),
    ("union", Local, "SELECT s, e, k, n FROM {x} UNION SELECT s, e, k, n FROM {y}"),
    ("except", Local, "SELECT s, e, k, n FROM {x} EXCEPT SELECT s, e, k, n FROM {y}"),
    (
        "exists at the end",
        Local,
        "SELECT s, e, k, n FROM {x} WHERE EXISTS (SELECT 1 FROM {y} WHERE y.e = x.e AND y.n < x.n)",
    ),
    (
        "exists nowhere at the end",
        Local,
        "SELECT s, e, k, n FROM {x} WHERE NOT EXISTS (SELECT 1 FROM {y} WHERE y.e = x.e AND y.k = x.k)",
    ),
    ("exists anywhere", OverAll, "SELECT s, e, k, n FROM {x} WHERE EXISTS (SELECT 1 FROM {y} WHERE y.n = x.n)"),
    ("exists at all", OverAll, "SELECT s, e, k, n FROM {x} WHERE EXISTS (SELECT 1 FROM {y} WHERE n > 3)"),
    ("end in", Local, "SELECT s, e, k, n FROM {x} WHERE e IN (SELECT e FROM {y} WHERE n > 1)"),
    ("number in", OverAll, "SELECT s, e, k, n FROM {x} WHERE n IN (SELECT n FROM {y})"),
    (
        "number not in at the end",
        Local,
        "SELECT s, e, k, n FROM {x} WHERE coalesce(x.n, 0) NOT IN (SELECT coalesce(y.n, 0) FROM {y} WHERE (x.e = y.e))",
    ),
    ("end not in", Local, "SELECT s, e, k, n FROM {x} WHERE e NOT IN (SELECT e FROM {y} WHERE n > 1)"),
    ("greatest at the end", Local, "SELECT s, e, k, n FROM {x} WHERE n = (SELECT max(n) FROM {y} WHERE y.e = x.e)"),
    ("greatest of all", OverAll, "SELECT s, e, k, n FROM {x} WHERE n >= (SELECT max(n) FROM {y})"),
];

/// Joins of `{x}` and `{y}`; the rest of the text is [`joined`].
const JOINS: &[&str] = &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"];

/// On what they are joined.
const ON: &[(&str, Expected)] = &[
    ("x.w = y.w", Local),
    ("x.e = y.e", Local),
    ("x.e = y.e AND x.k = y.k", Local),
    ("x.s = y.s AND x.n < y.n", Local),
    ("(x.w IS NOT DISTINCT FROM y.w) AND (x.k IS NOT DISTINCT FROM y.k)", Local),
    ("x.k = y.k", OverAll),
    ("x.n < y.n", OverAll),
    ("x.e = y.s", OverAll),
    ("x.e = y.e + INTERVAL '10 seconds'", OverAll),
];

/// A query above the windows.
#[derive(Clone, Debug)]
enum Query {
    /// One of the windowed aggregates of [`VIEWS`].
    View(usize),
    One(usize, Box<Query>),
    Two(usize, Box<Query>, Box<Query>),
    Join(usize, usize, Box<Query>, Box<Query>),
}

/// Windowed aggregates: by key over one window, by key over another, and over the first without a key.
const VIEWS: [&str; 3] = ["a", "b", "c"];

/// SQL, and whether it has the column `w`.
struct Text {
    sql: String,
    window: bool,
}

impl Query {
    fn text(&self) -> Text {
        match self {
            Self::View(at) => Text { sql: format!("SELECT w, s, e, k, n FROM {}", VIEWS[*at]), window: true },
            Self::One(at, x) => {
                let (x, (_, _, text)) = (x.text(), ONE[*at]);
                if text.contains("{W}") && !x.window {
                    return x;
                }
                let sql = text
                    .replace("{w}", if x.window { "w, " } else { "" })
                    .replace("{W}", "w")
                    .replace("{x}", &format!("({}) x", x.sql));
                Text { sql, window: x.window && text.contains("{w}") }
            }
            Self::Two(at, x, y) => {
                let (x, y, (_, _, text)) = (x.text(), y.text(), TWO[*at]);
                let window = x.window && y.window && text.contains("{w}");
                let sql = text
                    .replace("{w}", if window { "w, " } else { "" })
                    .replace("{x}", &format!("({}) x", x.sql))
                    .replace("{y}", &format!("({}) y", y.sql));
                Text { sql, window }
            }
            Self::Join(how, on, x, y) => {
                let (x, y) = (x.text(), y.text());
                let on = if x.window && y.window { ON[*on].0.to_owned() } else { ON[*on].0.replace(".w", ".e") };
                joined(JOINS[*how], &on, &x, &y)
            }
        }
    }

    /// The productions that it is made from.
    fn names(&self, found: &mut BTreeSet<&'static str>) {
        match self {
            Self::View(_) => {}
            Self::One(at, x) => {
                found.insert(ONE[*at].0);
                x.names(found);
            }
            Self::Two(at, x, y) => {
                found.insert(TWO[*at].0);
                x.names(found);
                y.names(found);
            }
            Self::Join(how, on, x, y) => {
                found.extend([JOINS[*how], ON[*on].0]);
                x.names(found);
                y.names(found);
            }
        }
    }

    /// What is expected of its outermost part; what is below may be left out where nothing wants it.
    fn expected(&self) -> Expected {
        match self {
            Self::View(_) => Local,
            Self::One(at, _) => ONE[*at].1,
            Self::Two(at, ..) => TWO[*at].1,
            Self::Join(_, on, ..) => ON[*on].1,
        }
    }
}

fn joined(how: &str, on: &str, x: &Text, y: &Text) -> Text {
    let columns = match how {
        "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => ["x.w", "x.s", "x.e", "x.k", "x.n"],
        "JOIN" | "LEFT JOIN" => ["x.w", "x.s", "x.e", "y.k", "coalesce(x.n, 0) - coalesce(y.n, 0)"],
        "RIGHT JOIN" => ["y.w", "coalesce(x.s, y.s)", "y.e", "x.k", "coalesce(x.n, y.n)"],
        _ => [
            "coalesce(x.w, y.w)",
            "coalesce(x.s, y.s)",
            "coalesce(x.e, y.e)",
            "coalesce(x.k, y.k)",
            "coalesce(x.n, y.n)",
        ],
    };
    let window = x.window && y.window;
    let columns = columns.iter().zip(["w", "s", "e", "k", "n"]).filter(|(_, name)| window || *name != "w");
    let columns: Vec<String> = columns.map(|(column, name)| format!("{column} AS {name}")).collect();
    let sql = format!("SELECT {} FROM ({}) x {how} ({}) y ON {on}", columns.join(", "), x.sql, y.sql);
    Text { sql, window }
}

fn queries() -> impl Strategy<Value = Query> {
    let view = (0..VIEWS.len()).prop_map(Query::View);
    view.prop_recursive(3, 8, 2, |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            5 => (0..ONE.len(), inner.clone()).prop_map(|(at, x)| Query::One(at, Box::new(x))),
            2 => (0..TWO.len(), pair()).prop_map(|(at, (x, y))| Query::Two(at, Box::new(x), Box::new(y))),
            2 => (0..JOINS.len(), 0..ON.len(), pair())
                .prop_map(|(how, on, (x, y))| Query::Join(how, on, Box::new(x), Box::new(y))),
        ]
    })
}

/// The windows of the views: equal, of another size with the same slide, or with ends that seldom meet.
fn two_windows() -> impl Strategy<Value = [Windows; 2]> {
    let windows =
        || {
            prop::sample::select(vec![(10, 10), (20, 10), (30, 10), (10, 5), (20, 20)])
                .prop_map(|(size, slide)| Windows { size, slide, start: 0 })
        };
    (windows(), windows()).prop_map(|(a, b)| [a, b])
}

fn few_rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0..60_i64, prop::option::of(0..3_u8), -3..4_i64).prop_map(|(time, key, value)| Row {
        time: Some(time),
        key,
        value: Some(value),
        partition: 0,
    });
    prop::collection::vec(row, 0..25)
}

/// The job: the views, and the query over them.
fn job_text(query: &str, [a, b]: [Windows; 2]) -> String {
    let (a, b) = (a.call(), b.call());
    let columns = "SELECT window AS w, window.start AS s, window.end AS e";
    format!(
        "CREATE TEMPORARY VIEW a AS {columns}, k, count(*) AS n FROM t GROUP BY {a}, k;\n\
         CREATE TEMPORARY VIEW b AS {columns}, k, sum(v) AS n FROM t GROUP BY {b}, k;\n\
         CREATE TEMPORARY VIEW c AS {columns}, CAST(NULL AS VARCHAR) AS k, count(*) AS n FROM t GROUP BY {a};\n\
         {query};"
    )
}

async fn plan(query: &str, windows: [Windows; 2]) -> Result<Job> {
    let source = JobSource { name: "t".into(), sql: job_text(query, windows), path: None };
    Job::plan_over(&source, &JobOptions::default(), &table()).await
}

/// Plans a query; none where the checker refuses it, which has to be for what it looks for.
async fn accepted(query: &str, windows: [Windows; 2]) -> Option<Job> {
    match plan(query, windows).await {
        Ok(job) => Some(job),
        Err(error) => {
            let reasons = ["reaches over several windows", "gives the same rows whatever its tables hold"];
            let known = reasons.iter().any(|reason| error.to_string().contains(reason));
            assert!(error.kind() == ErrorKind::Job && known, "{query}\n{error:?}");
            None
        }
    }
}

/// Output lines of the engine when all rows are there and windows close as `ends` say, sorted.
async fn engine_lines(job: &Job, rows: &[Row], ends: impl IntoIterator<Item = i64>) -> Vec<String> {
    let mut engine = Engine::new(job, ALL(), vec![0], [(0, 0)]).await.expect("engine");
    let mut lines = Vec::new();
    let mut emit = |_: usize, rows: RecordBatch| {
        lines.extend(json_rows(&rows)?);
        Ok(())
    };
    let read = batch(rows).project(&job.plan.tables[0].columns).expect("columns");
    let taken = engine.intakes[0].take(0, &[read], None).await.expect("taken");
    engine.add(taken, &mut emit).expect("added");
    for end in ends {
        engine.close(end * 1_000_000, &mut emit).await.expect("closed");
    }
    engine.finish(&mut emit).await.expect("finish");
    lines.sort();
    lines
}

/// Closed windows counted by hand: columns `w`, `s`, `e`, `k`, `n`.
fn closed(rows: &[Row], windows: Windows, by_key: bool, number: fn(&[&Row]) -> i64) -> RecordBatch {
    let mut groups: BTreeMap<(i64, Option<u8>), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        for start in row.time.into_iter().flat_map(|time| windows.of(time)) {
            groups.entry((start, row.key.filter(|_| by_key))).or_default().push(row);
        }
    }
    let time = |add: i64| -> ArrayRef {
        let times = groups.keys().map(|(start, _)| (start + add) * 1_000_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let (starts, ends) = (time(0), time(windows.size));
    let window = StructArray::try_new(window_fields(), vec![Arc::clone(&starts), Arc::clone(&ends)], None);
    let keys: StringArray = groups.keys().map(|(_, key)| key.map(|key| format!("key {key}"))).collect();
    let numbers: Int64Array = groups.values().map(|rows| Some(number(rows))).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("w", Arc::new(window.expect("a window"))),
        ("s", starts),
        ("e", ends),
        ("k", Arc::new(keys)),
        ("n", Arc::new(numbers)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("rows")
}

/// The tables `a`, `b` and `c`.
fn tables(rows: &[Row], [a, b]: [Windows; 2]) -> [RecordBatch; 3] {
    let count = |rows: &[&Row]| i64::try_from(rows.len()).expect("few");
    let sum = |rows: &[&Row]| rows.iter().filter_map(|row| row.value).sum();
    [closed(rows, a, true, count), closed(rows, b, true, sum), closed(rows, a, false, count)]
}

/// Plain DataFusion's answer over tables, sorted.
async fn plain_lines(query: &str, tables: &[RecordBatch; 3]) -> Vec<String> {
    // Decision 0003: with these two rules it answers wrong.
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| !["extract_leaf_expressions", "push_down_leaf_projections"].contains(&rule.name()));
    let state = SessionStateBuilder::new().with_default_features().with_optimizer_rules(rules).build();
    let context = SessionContext::new_with_state(state);
    for (name, rows) in VIEWS.iter().zip(tables) {
        context.register_batch(*name, rows.clone()).expect("registered");
    }
    // It has no `window_time`, and NOT IN that looks at the outer row is more than it can plan; no number is NULL here.
    let query = query
        .replace("window_time(w)", "(get_field(w, 'end') - INTERVAL '1 microsecond')")
        .replace("coalesce(x.n, 0) NOT IN (SELECT coalesce(y.n, 0) FROM", "NOT EXISTS (SELECT 1 FROM")
        .replace("(x.e = y.e))", "x.e = y.e AND coalesce(x.n, 0) = coalesce(y.n, 0))");
    let frame = context.sql(&query).await.unwrap_or_else(|error| panic!("{query}\n{error}"));
    let rows = frame.collect().await.unwrap_or_else(|error| panic!("{query}\n{error}"));
    let mut lines: Vec<String> = rows.iter().flat_map(|rows| json_rows(rows).expect("lines")).collect();
    lines.sort();
    lines
}

/// Every end of a window of the rows, ascending, in seconds.
fn ends(rows: &[Row], windows: [Windows; 2]) -> BTreeSet<i64> {
    let of = |windows: Windows| {
        rows.iter()
            .flat_map(move |row| row.time.into_iter().flat_map(move |time| windows.of(time)))
            .map(move |start| start + windows.size)
    };
    windows.into_iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * cases(), ..ProptestConfig::default() })]

    /// P7: (A)(all windows) = ⋃ (A)(each closing instant), for whatever the checker accepts.
    #[test]
    fn what_is_accepted_means_the_same_per_instant_as_over_all(
        query in queries(), windows in two_windows(), rows in few_rows()
    ) {
        block_on(async {
            let text = query.text().sql;
            let Some(job) = accepted(&text, windows).await else { return Ok(()) };
            let want = plain_lines(&text, &tables(&rows, windows)).await;
            prop_assert_eq!(&engine_lines(&job, &rows, []).await, &want, "all at once: {}", &text);
            prop_assert_eq!(&engine_lines(&job, &rows, ends(&rows, windows)).await, &want, "one by one: {}", &text);
            Ok(())
        })?;
    }
}

/// The property cannot hold by refusing: a third and more of what the grammar makes is accepted, every production that
/// is local among it; and what is not is refused where it is outermost.
#[tokio::test]
async fn the_grammar_is_accepted_and_refused_where_it_has_to_be() {
    const QUERIES: usize = 400;
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), random);
    let (mut taken, mut refused) = (0, 0);
    let mut used = BTreeSet::new();
    for _ in 0..QUERIES {
        let made = (queries(), two_windows()).new_tree(&mut runner).expect("a query").current();
        let (query, windows) = made;
        match accepted(&query.text().sql, windows).await {
            Some(_) => {
                assert_eq!(query.expected(), Local, "{}", query.text().sql);
                query.names(&mut used);
                taken += 1;
            }
            None => refused += 1,
        }
    }
    assert!(taken * 3 >= QUERIES && refused * 5 >= QUERIES, "{taken} accepted, {refused} refused");
    let names = ONE.iter().chain(TWO).map(|(name, expected, _)| (*name, *expected)).chain(ON.iter().copied());
    let local = names.filter(|(_, expected)| *expected == Local).map(|(name, _)| name);
    let never: Vec<&str> = local.chain(JOINS.iter().copied()).filter(|name| !used.contains(name)).collect();
    assert!(never.is_empty(), "never accepted: {never:?}");
}

/// What a checker that knows less would accept gives other answers per instant than over all: the property's oracle
/// would tell.
#[tokio::test]
async fn what_reaches_over_several_windows_has_another_answer_per_instant() {
    let row = |time, key, value| Row { time: Some(time), key: Some(key), value: Some(value), partition: 0 };
    let rows = [
        row(1, 0, 1),
        row(2, 0, 2),
        row(3, 1, -3),
        row(12, 0, 1),
        row(13, 1, 4),
        row(24, 2, 2),
        row(25, 2, 2),
        row(41, 0, -5),
    ];
    let windows = [Windows { size: 10, slide: 10, start: 0 }, Windows { size: 20, slide: 10, start: 0 }];
    let tables = tables(&rows, windows);
    let view = |at| Box::new(Query::View(at));
    let over_all =
        |part: &[Production]| -> Vec<usize> { (0..part.len()).filter(|at| part[*at].1 == OverAll).collect() };
    let mut queries: Vec<Query> = over_all(ONE).into_iter().map(|at| Query::One(at, view(0))).collect();
    queries.extend(over_all(TWO).into_iter().map(|at| Query::Two(at, view(0), view(1))));
    for on in (0..ON.len()).filter(|on| ON[*on].1 == OverAll) {
        queries.push(Query::Join(0, on, view(0), view(1)));
    }
    // Starts of windows of different sizes, and ends that an outer join or an expression has made into something else.
    let at = |name: &str| ONE.iter().position(|part| part.0 == name).expect("a production");
    let by_end = |x: Query| Query::One(at("group by end"), Box::new(x));
    let join = |how: &str, on: &str, x, y| {
        let how = JOINS.iter().position(|name| *name == how).expect("a join");
        Query::Join(how, ON.iter().position(|(name, _)| *name == on).expect("a condition"), x, y)
    };
    queries.push(join("JOIN", "x.s = y.s AND x.n < y.n", view(0), view(1)));
    queries.push(join("FULL JOIN", "x.s = y.s AND x.n < y.n", view(0), view(1)));
    queries.push(by_end(Query::One(at("end by value"), view(0))));
    queries.push(by_end(Query::One(at("no end"), view(0))));
    for query in queries {
        let text = query.text().sql;
        assert!(accepted(&text, windows).await.is_none(), "accepted: {text}");
        let mut parts = Vec::new();
        for end in ends(&rows, windows) {
            let at_end = tables.clone().map(|table| rows_at(&table, end));
            // An instant at which no window closes is none: no query is asked.
            if at_end.iter().any(|table| table.num_rows() > 0) {
                parts.extend(plain_lines(&text, &at_end).await);
            }
        }
        parts.sort();
        assert_ne!(parts, plain_lines(&text, &tables).await, "{text}");
    }
}

/// What the optimizer makes of a query, once it sees that no window can pass: constant rows, nothing, or as before.
#[tokio::test]
async fn a_query_that_no_window_can_pass_is_refused_if_it_has_rows() {
    let windows = [Windows { size: 10, slide: 10, start: 0 }; 2];
    // The keys of `c` are NULL: with the condition the optimizer sees that nothing is joined, and leaves `v` alone.
    let alone = "SELECT * FROM (SELECT s, e, name AS k, n FROM c RIGHT JOIN (VALUES ('key 0', 1)) v(name, m) ON k = name) \
                 WHERE k IN ('key 0', 'key 2')";
    let error = plan(alone, windows).await.expect_err("constant rows");
    assert!(error.to_string().contains("gives the same rows whatever its tables hold"), "{error}");
    let beside = "INSERT INTO one SELECT 'no table' AS k;\nINSERT INTO two SELECT * FROM a";
    let error = plan(beside, windows).await.expect_err("constant rows");
    assert!(error.to_string().contains("gives the same rows whatever its tables hold"), "{error}");
    let rows = [Row { time: Some(1), key: Some(0), value: Some(1), partition: 0 }];
    let partner = "SELECT c.s, c.e, name AS k, n FROM c LEFT JOIN (VALUES ('key 0', 1)) v(name, m) ON k = name";
    for (query, lines) in [("SELECT s, e, k, n FROM a WHERE 1 = 2", 0), (partner, 1)] {
        let job = accepted(query, windows).await.expect(query);
        let want = plain_lines(query, &tables(&rows, windows)).await;
        assert_eq!((engine_lines(&job, &rows, []).await, want.len()), (want, lines), "{query}");
    }
}

/// The rows of closed windows that end at `end`, in seconds.
fn rows_at(closed: &RecordBatch, end: i64) -> RecordBatch {
    let ends = closed.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let these = ends.iter().map(|at| at.map(|at| at == end * 1_000_000)).collect();
    filter_record_batch(closed, &these).expect("some rows")
}
