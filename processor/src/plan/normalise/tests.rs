//! The rewritten text of every form, that DataFusion plans it, and what is refused.

use std::sync::Arc;

use arrow::array::{Int64Array, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::parser::Parser;

use super::*;
use crate::plan::dialect::JobDialect;
use crate::plan::functions::{register_functions, time_type, window_fields};

fn normalised(sql: &str, slide: Option<&str>) -> Result<Statement> {
    let mut statements = Parser::parse_sql(&JobDialect::default(), sql).expect(sql);
    assert_eq!(statements.len(), 1, "{sql}");
    let mut statement = statements.remove(0);
    normalise(&mut statement, slide).map(|()| statement)
}

fn rewritten(sql: &str) -> String {
    rewritten_with(sql, None)
}

fn rewritten_with(sql: &str, slide: Option<&str>) -> String {
    match normalised(sql, slide) {
        Ok(statement) => statement.to_string(),
        Err(error) => format!("{error} | {}", error.hint().unwrap_or_default()),
    }
}

fn untouched(sql: &str) {
    assert_eq!(rewritten(sql), sql);
}

/// A session with `t (ts, kind, x)`, where `x` is a list of texts, and `u`, the same.
fn session() -> SessionContext {
    let times = TimestampMicrosecondArray::from(vec![0, 1, 2, 3]).with_timezone("UTC");
    let mut lists = ListBuilder::new(StringBuilder::new());
    for list in [Some(&["a", "b"][..]), Some(&[]), None, Some(&["c"])] {
        for item in list.unwrap_or_default() {
            lists.values().append_value(item);
        }
        lists.append(list.is_some());
    }
    let kinds = Int64Array::from(vec![10, 20, 30, 40]);
    let batch = RecordBatch::try_from_iter([
        ("ts", Arc::new(times) as _),
        ("kind", Arc::new(kinds) as _),
        ("x", Arc::new(lists.finish()) as _),
    ])
    .expect("batch");
    let mut context = SessionContext::new();
    for table in ["t", "u"] {
        context.register_batch(table, batch.clone()).expect(table);
    }
    register_functions(&mut context).expect("functions");
    let time = |_: &[ColumnarValue]| datafusion::common::exec_err!("planned only");
    let window = DataType::Struct(window_fields());
    context.register_udf(create_udf("window_time", vec![window], time_type(), Volatility::Immutable, Arc::new(time)));
    context
}

/// The names of the columns, or what the planner says.
async fn planned(sql: &str) -> String {
    let statement = match normalised(sql, None) {
        Ok(statement) => DfStatement::Statement(Box::new(statement)),
        Err(error) => return error.to_string(),
    };
    match session().state().statement_to_plan(statement).await {
        Ok(plan) => plan.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "),
        Err(error) => error.strip_backtrace(),
    }
}

/// The rows as text, sorted.
async fn rows(sql: &str) -> Vec<String> {
    let context = session();
    let statement = DfStatement::Statement(Box::new(normalised(sql, None).expect(sql)));
    let plan = context.state().statement_to_plan(statement).await.expect(sql);
    let batches = context.execute_logical_plan(plan).await.expect(sql).collect().await.expect(sql);
    let table = pretty_format_batches(&batches).expect(sql).to_string();
    let cells =
        |line: &str| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<String> = table.lines().filter(|line| line.starts_with('|')).skip(1).map(cells).collect();
    rows.sort();
    rows
}

const CALL: &str = "window(ts, '1 hour', '10 minutes')";

/// Puts the call and its fields where `W`, `S` and `E` stand.
fn with_call(sql: &str) -> String {
    let field = |name: &str| format!("get_field({CALL}, '{name}')");
    sql.replace("<W>", CALL).replace("<S>", &field("start")).replace("<E>", &field("end"))
}

#[test]
fn the_names_of_a_window_mean_the_call_in_every_clause() {
    let sql = "SELECT window, window.start, Window.End AS e, count(*) OVER (PARTITION BY window) FROM t \
               GROUP BY window(ts, '1 hour', '10 minutes'), kind HAVING window.end > 0 \
               QUALIFY rank() OVER (PARTITION BY window.start ORDER BY kind) < 3 ORDER BY window, window.end DESC";
    let want = "SELECT <W> AS window, <S> AS start, <E> AS e, count(*) OVER (PARTITION BY <W>) FROM t \
                GROUP BY <W>, kind HAVING <E> > 0 \
                QUALIFY rank() OVER (PARTITION BY <S> ORDER BY kind) < 3 ORDER BY <W>, <E> DESC";
    assert_eq!(rewritten(sql), with_call(want));
}

#[test]
fn a_star_of_the_window_is_its_start_and_end() {
    let sql = "SELECT window.*, count(*) FROM t GROUP BY window(ts, '1 hour', '10 minutes')";
    assert_eq!(rewritten(sql), with_call("SELECT <S> AS start, <E> AS end, count(*) FROM t GROUP BY <W>"));
}

#[test]
fn a_call_without_a_slide_takes_the_jobs_wherever_it_stands() {
    let sql = "SELECT window.start FROM t GROUP BY WINDOW(ts, '1 hour') \
               QUALIFY rank() OVER (PARTITION BY window(ts, '1 hour') ORDER BY kind) < 3";
    let want = "SELECT <S> AS start FROM t GROUP BY <W> QUALIFY rank() OVER (PARTITION BY <W> ORDER BY kind) < 3";
    assert_eq!(rewritten_with(sql, Some("10 minutes")), with_call(want));
    let own = "SELECT count(*) FROM t GROUP BY window(ts, '1 hour', '5 minutes')";
    assert_eq!(rewritten_with(own, Some("10 minutes")), own);
}

#[test]
fn two_different_windows_in_a_select_are_refused() {
    assert_eq!(
        rewritten("SELECT window(ts, '1 hour') FROM t GROUP BY window(ts, '2 hours')"),
        "a SELECT calls `window` with different arguments | use one window a SELECT, and join two SELECTs on window.end"
    );
}

#[test]
fn windows_of_other_engines_are_refused() {
    let refused = |name: &str| format!("`{name}` windows are not supported | use window(time, size[, slide[, start]])");
    for (sql, name) in [
        ("SELECT count(*) FROM t GROUP BY session_window(ts, '5 minutes')", "session_window"),
        ("SELECT count(*) FROM t GROUP BY Cumulate(ts, '1 minute', '5 minutes')", "cumulate"),
        (
            "SELECT * FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '2' MINUTES, INTERVAL '10' MINUTES))",
            "CUMULATE",
        ),
        ("SELECT * FROM TABLE(SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTES))", "SESSION"),
        ("SELECT * FROM (SELECT * FROM session(t, ts, INTERVAL '5 minutes')) AS s", "SESSION"),
    ] {
        assert_eq!(rewritten(sql), refused(name), "{sql}");
    }
}

#[test]
fn a_column_called_window_stays_one_where_no_window_is_called() {
    untouched("SELECT l.window, window, window.start FROM l JOIN r ON l.window = r.window");
}

#[test]
fn what_from_calls_window_stays_so_beside_a_call() {
    let call = "GROUP BY window(ts, '1 hour')";
    untouched(&format!("SELECT window.end, count(*) FROM t AS window {call}"));
    untouched(&format!("SELECT window, window.end AS e FROM (SELECT kind AS window, ts FROM t) AS d {call}"));
    untouched(&format!("SELECT window FROM (SELECT window, ts FROM u UNION ALL SELECT kind, ts FROM t) AS d {call}"));
}

#[test]
fn an_alias_called_window_hides_the_call_behind_the_select_list() {
    let sql =
        "SELECT kind AS window, window.end FROM t GROUP BY window(ts, '1 hour', '10 minutes'), window ORDER BY window";
    assert_eq!(
        rewritten(sql),
        with_call("SELECT kind AS window, <E> AS end FROM t GROUP BY <W>, window ORDER BY window")
    );
    let own = "SELECT window AS window FROM t GROUP BY window(ts, '1 hour', '10 minutes') ORDER BY window";
    assert_eq!(rewritten(own), with_call("SELECT <W> AS window FROM t GROUP BY <W> ORDER BY <W>"));
}

#[test]
fn the_names_of_one_select_are_not_those_of_another() {
    let sql = "SELECT window.start, (SELECT max(window) FROM r) AS m FROM (SELECT window.end, ts FROM l) AS d \
               WHERE EXISTS (SELECT window.start FROM r) GROUP BY window(ts, '1 hour', '10 minutes') \
               HAVING count(*) IN (SELECT window FROM r)";
    let want = "SELECT <S> AS start, (SELECT max(window) FROM r) AS m FROM (SELECT window.end, ts FROM l) AS d \
                WHERE EXISTS (SELECT window.start FROM r) GROUP BY <W> HAVING count(*) IN (SELECT window FROM r)";
    assert_eq!(rewritten(sql), with_call(want));
}

#[test]
fn an_inner_window_is_expanded_in_its_own_select_and_each_side_of_a_union_has_its_own() {
    let one = |size: &str| format!("SELECT window.end FROM t GROUP BY window(ts, '{size}')");
    let want = |size: &str| {
        format!("SELECT get_field(window(ts, '{size}'), 'end') AS end FROM t GROUP BY window(ts, '{size}')")
    };
    assert_eq!(
        rewritten(&format!("{} UNION ALL {} ORDER BY window", one("1 hour"), one("1 day"))),
        format!("{} UNION ALL {} ORDER BY window", want("1 hour"), want("1 day"))
    );
    assert_eq!(
        rewritten(&format!("SELECT max(end) FROM ({}) AS d", one("1 hour"))),
        format!("SELECT max(end) FROM ({}) AS d", want("1 hour"))
    );
}

#[test]
fn arguments_of_a_window_are_not_its_names() {
    untouched("SELECT count(*) FROM d GROUP BY window(window.end, '1 day')");
}

#[test]
fn a_named_window_is_put_where_it_is_used() {
    let sql = "SELECT kind FROM t GROUP BY window(ts, '1 hour', '10 minutes'), kind \
               QUALIFY rank() OVER w < 3 WINDOW w AS (PARTITION BY window) ORDER BY rank() OVER W";
    let want = "SELECT kind FROM t GROUP BY <W>, kind QUALIFY rank() OVER (PARTITION BY <W>) < 3 \
                WINDOW w AS (PARTITION BY <W>) ORDER BY rank() OVER (PARTITION BY <W>)";
    assert_eq!(rewritten(sql), with_call(want));
    untouched("SELECT rank() OVER b FROM t WINDOW a AS (PARTITION BY x)");
}

fn windowed(table: &str, args: &str) -> String {
    format!(
        "(SELECT * EXCEPT (__w), __w.start AS window_start, __w.end AS window_end, window_time(__w) AS window_time \
         FROM (SELECT *, window({args}) AS __w FROM {table}))"
    )
}

#[test]
fn tumble_is_a_derived_table() {
    let size = "INTERVAL '10' MINUTES";
    let want = format!("SELECT t.kind FROM {} AS t", windowed("t", &format!("ts, {size}, {size}")));
    for from in [
        "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTES))",
        "table(tumble(table t, descriptor(ts), interval '10' minutes))",
        "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTES)",
        "TUMBLE(t, ts, INTERVAL '10' MINUTES)",
        "tumble(t, descriptor(ts), INTERVAL '10' MINUTES)",
        "TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' MINUTES))",
        "TABLE(TUMBLE(size => INTERVAL '10' MINUTES, timecol => DESCRIPTOR(ts), data => TABLE t))",
    ] {
        assert_eq!(rewritten_with(&format!("SELECT t.kind FROM {from}"), Some("1 minute")), want, "{from}");
    }
}

#[test]
fn hop_takes_its_slide_before_its_size() {
    let want = format!("SELECT * FROM {} AS h", windowed("t", "ts, INTERVAL '10 minutes', INTERVAL '2 minutes'"));
    for from in [
        "TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '2 minutes', INTERVAL '10 minutes'))",
        "HOP(t, ts, INTERVAL '2 minutes', INTERVAL '10 minutes')",
        "TABLE(Hop(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10 minutes', SLIDE => INTERVAL '2 minutes'))",
    ] {
        assert_eq!(rewritten(&format!("SELECT * FROM {from} AS h")), want, "{from}");
    }
}

#[test]
fn an_offset_comes_last_and_lengths_stay_as_written() {
    for (from, args) in [
        ("TUMBLE(t, ts, '1 hour', '5 minutes')", "ts, '1 hour', '1 hour', '5 minutes'"),
        ("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), 3600000000, -60))", "ts, 3600000000, 3600000000, -60"),
        (
            "TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => '1 hour', \"OFFSET\" => '5 minutes'))",
            "ts, '1 hour', '1 hour', '5 minutes'",
        ),
        ("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), OFFSET => '1 s', SIZE => '1 h'))", "ts, '1 h', '1 h', '1 s'"),
        (
            "HOP(t, ts, INTERVAL '2' MINUTE, INTERVAL '10' MINUTE, INTERVAL '1' MINUTE)",
            "ts, INTERVAL '10' MINUTE, INTERVAL '2' MINUTE, INTERVAL '1' MINUTE",
        ),
    ] {
        assert_eq!(rewritten(&format!("SELECT * FROM {from}")), format!("SELECT * FROM {} AS t", windowed("t", args)));
    }
}

#[test]
fn a_table_function_stands_over_any_table_and_in_any_join() {
    let args = "ts, '1 hour', '1 hour'";
    assert_eq!(
        rewritten(
            "SELECT * FROM TUMBLE(a.b, ts, '1 hour') JOIN TUMBLE(TABLE u, DESCRIPTOR(`ts`), '1 hour') AS v ON true"
        ),
        format!(
            "SELECT * FROM {} AS b JOIN {} AS v ON true",
            windowed("a.b", args),
            windowed("u", "`ts`, '1 hour', '1 hour'")
        )
    );
    assert_eq!(
        rewritten("SELECT * FROM TUMBLE((SELECT * FROM t WHERE kind = 1), ts, '1 hour') AS w"),
        format!("SELECT * FROM {} AS w", windowed("(SELECT * FROM t WHERE kind = 1)", args))
    );
}

#[test]
fn wrong_table_functions_are_refused_with_their_form() {
    let tumble = "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), size[, offset]))";
    let hop = "write TABLE(HOP(TABLE t, DESCRIPTOR(time), slide, size[, offset]))";
    for (from, message, hint) in [
        ("TUMBLE()", "`TUMBLE` has no data", tumble),
        ("TUMBLE(t, ts)", "`TUMBLE` has no size", tumble),
        ("TABLE(HOP(TABLE t, DESCRIPTOR(ts), '1 hour'))", "`HOP` has no size", hop),
        ("HOP(t, ts, '1 m', '2 m', '3 m', '4 m')", "`HOP` has 6 arguments", hop),
        ("TABLE(TUMBLE(TABLE t, ts, '1 hour'))", "`TUMBLE` takes DESCRIPTOR(ts) after TABLE, not `ts`", tumble),
        ("TABLE(TUMBLE(TABLE t, DESCRIPTOR(), '1 hour'))", "`TUMBLE` takes a DESCRIPTOR of one column", tumble),
        ("TUMBLE(t, DESCRIPTOR(a, b), '1 hour')", "`TUMBLE` takes a DESCRIPTOR of one column", tumble),
        ("TUMBLE(t, '1 hour', ts)", "`TUMBLE` takes a column of times second, not `'1 hour'`", tumble),
        ("TABLE(TUMBLE(TABLE 't', DESCRIPTOR(ts), '1 hour'))", "`TUMBLE` takes a table first, not `TABLE 't'`", tumble),
        ("TABLE(TUMBLE(TABLE 1, DESCRIPTOR(ts), '1 hour'))", "`TUMBLE` takes a table first, not `TABLE 1`", tumble),
        ("TUMBLE('t', ts, '1 hour')", "`TUMBLE` takes a table first, not `'t'`", tumble),
        ("TUMBLE(t, ts, *)", "`TUMBLE` takes a table, a column and lengths", tumble),
        ("TUMBLE(t, ts, SLIDE => '1 hour')", "`TUMBLE` has no argument `SLIDE`", tumble),
        ("TUMBLE(t, ts, '1 hour', SIZE => '1 hour')", "`TUMBLE` is given one argument twice", tumble),
    ] {
        assert_eq!(rewritten(&format!("SELECT * FROM {from}")), format!("{message} | {hint}"), "{from}");
    }
}

#[test]
fn other_table_functions_are_left_alone() {
    untouched("SELECT * FROM generate_series(1, 3)");
    untouched("SELECT * FROM TABLE(range(1, 3))");
    untouched("SELECT * FROM other.tumble(t, ts, '1 hour')");
    untouched("SELECT tumble FROM tumble");
}

#[tokio::test]
async fn table_functions_plan() {
    for from in [
        "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTES))",
        "TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '10 minutes'))",
        "HOP(t, ts, '1 minute', '1 hour', '5 seconds')",
        "TUMBLE((SELECT * FROM t WHERE kind = 1), ts, 60000000) AS t",
    ] {
        assert_eq!(
            planned(&format!("SELECT * FROM {from}")).await,
            "ts, kind, x, window_start, window_end, window_time",
            "{from}"
        );
        let grouped = format!(
            "SELECT window_start, t.kind, count(*) AS n FROM {from} GROUP BY window_start, window_end, t.kind ORDER BY n"
        );
        assert_eq!(planned(&grouped).await, "window_start, kind, n", "{from}");
    }
    let cte = "WITH c AS (SELECT ts, kind FROM t) SELECT c.kind, window_end FROM TUMBLE(c, ts, '1 hour')";
    assert_eq!(planned(cte).await, "kind, window_end");
}

#[tokio::test]
async fn the_shorthand_plans() {
    let sql = "SELECT window.start AS s, window, kind, row_number() OVER w AS rn FROM t \
               GROUP BY window(ts, '1 hour'), kind HAVING count(*) > 1 AND window.end IS NOT NULL \
               QUALIFY row_number() OVER w < 3 WINDOW w AS (PARTITION BY window ORDER BY count(*) DESC, kind) \
               ORDER BY window.end, rn";
    assert_eq!(planned(sql).await, "s, window, kind, rn");
}

#[tokio::test]
async fn qualify_may_name_an_alias() {
    let sql = "SELECT window.end AS e, kind, count(*) AS n, \
               row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, kind) AS rn \
               FROM t GROUP BY window(ts, '1 hour'), kind QUALIFY rn <= 3 AND n > 1";
    assert_eq!(planned(sql).await, "e, kind, n, rn");
    let run = "SELECT kind, row_number() OVER (ORDER BY kind DESC) AS rn FROM t QUALIFY rn <= 2";
    assert_eq!(rows(run).await, ["30 2", "40 1"]);
}

#[test]
fn explode_is_unnest_without_a_row_for_null() {
    for (sql, want) in [
        ("SELECT kind, explode(x) AS c FROM t", "SELECT kind, unnest(x) AS c FROM t"),
        ("SELECT Explode(x) FROM t WHERE a OR b", "SELECT unnest(x) AS col FROM t WHERE a OR b"),
        ("SELECT explode_outer(x) AS c FROM t WHERE a", "SELECT unnest_outer(x) AS c FROM t WHERE a"),
        (
            "SELECT explode(y) AS z FROM (SELECT explode(x) AS y FROM t) AS d",
            "SELECT unnest(y) AS z FROM (SELECT unnest(x) AS y FROM t) AS d",
        ),
    ] {
        assert_eq!(rewritten(sql), want);
    }
}

#[test]
fn explode_elsewhere_is_refused() {
    let name = "give it a name in a subquery: SELECT lower(item) FROM (SELECT explode(list) AS item FROM …)";
    let once = "explode one list a SELECT: put the first into a subquery, or use LATERAL VIEW explode(…) v AS c";
    let list = "write explode(tag_values(tags, 't')), for example";
    for (sql, message, hint) in [
        ("SELECT lower(explode(x)) FROM t", "`explode` stands within another expression", name),
        ("SELECT explode(x) || 'a' AS c FROM t", "`explode` stands within another expression", name),
        ("SELECT explode(explode(x)) FROM t", "`explode` stands within another expression", name),
        ("SELECT explode(x) AS (k, v) FROM t", "`explode` stands within another expression", name),
        ("SELECT 1 FROM t WHERE explode(x) = 'a'", "`explode` stands outside the select list", name),
        ("SELECT 1 FROM t GROUP BY EXPLODE_OUTER(x)", "`explode_outer` stands outside the select list", name),
        ("SELECT 1 FROM t ORDER BY explode(x)", "`explode` stands outside the select list", name),
        (
            "SELECT explode_outer(x) AS c, count(*) FROM t GROUP BY c",
            "`explode_outer` stands in a SELECT with GROUP BY",
            "explode in a subquery, and group what it gives",
        ),
        ("SELECT explode(x) AS a, explode(x) AS b FROM t", "a SELECT calls `explode` more than once", once),
        ("SELECT explode() FROM t", "`explode` takes one list", list),
        ("SELECT explode(x, 1) FROM t", "`explode` takes one list", list),
    ] {
        assert_eq!(rewritten(sql), format!("{message} | {hint}"), "{sql}");
    }
}

#[tokio::test]
async fn explode_gives_the_rows_that_spark_gives() {
    assert_eq!(rows("SELECT kind, explode(x) FROM t").await, ["10 a", "10 b", "40 c"]);
    assert_eq!(rows("SELECT kind, explode_outer(x) FROM t").await, ["10 a", "10 b", "20", "30", "40 c"]);
    assert_eq!(rows("SELECT kind, explode(x) AS c FROM t WHERE kind = 40 OR kind = 30").await, ["40 c"]);
    assert_eq!(rows("SELECT explode(x) AS c, count(*) AS n FROM t GROUP BY c").await, ["a 1", "b 1", "c 1"]);
}

#[test]
fn a_lateral_view_is_a_derived_table_of_the_same_name() {
    for (sql, want) in [
        (
            "SELECT t.kind, v.c, c FROM t LATERAL VIEW explode(t.x) v AS c WHERE v.c <> 'a' ORDER BY v.c",
            "SELECT t.kind, t.c, c FROM (SELECT *, unnest(t.x) AS c FROM t) AS t \
             WHERE t.c <> 'a' ORDER BY t.c",
        ),
        (
            "SELECT e.kind FROM a.t AS e LATERAL VIEW OUTER explode(x) V AS c GROUP BY v.C",
            "SELECT e.kind FROM (SELECT *, unnest_outer(x) AS c FROM a.t AS e) AS e \
             GROUP BY e.C",
        ),
        (
            "SELECT d FROM t LATERAL VIEW explode(x) v AS c LATERAL VIEW explode(split(v.c)) w AS d",
            "SELECT d FROM (SELECT *, unnest(split(t.c)) AS d FROM \
             (SELECT *, unnest(x) AS c FROM t) AS t) AS t",
        ),
        (
            "SELECT v.col FROM (SELECT x FROM t) LATERAL VIEW explode(x) v",
            "SELECT v.col FROM (SELECT *, unnest(x) AS col FROM (SELECT x FROM t)) AS v",
        ),
        (
            "SELECT t.*, v.* FROM t LATERAL VIEW explode(x) v AS c",
            "SELECT t.* EXCEPT (c), t.c FROM (SELECT *, unnest(x) AS c FROM t) AS t",
        ),
        (
            "SELECT v.c FROM t LATERAL VIEW explode(x) v AS c WHERE EXISTS (SELECT v.c FROM u AS v)",
            "SELECT t.c FROM (SELECT *, unnest(x) AS c FROM t) AS t \
             WHERE EXISTS (SELECT v.c FROM u AS v)",
        ),
    ] {
        assert_eq!(rewritten(sql), want);
    }
}

#[test]
fn a_lateral_view_stands_over_a_table_function_and_below_a_window() {
    let sql = "SELECT window.end, v.c, count(*) FROM t LATERAL VIEW explode(x) v AS c \
               GROUP BY window(t.ts, '1 hour'), v.c";
    let want = "SELECT get_field(window(t.ts, '1 hour'), 'end') AS end, t.c, count(*) FROM \
                (SELECT *, unnest(x) AS c FROM t) AS t GROUP BY window(t.ts, '1 hour'), t.c";
    assert_eq!(rewritten(sql), want);
    let args = "ts, '1 hour', '1 hour'";
    assert_eq!(
        rewritten("SELECT window_end, w.c FROM TUMBLE(t, ts, '1 hour') LATERAL VIEW explode(x) w AS c"),
        format!("SELECT window_end, t.c FROM (SELECT *, unnest(x) AS c FROM {} AS t) AS t", windowed("t", args))
    );
}

#[test]
fn lateral_views_that_cannot_be_right_are_refused() {
    let join = "put the join into a subquery with a name: FROM (SELECT … FROM a JOIN b ON …) AS t LATERAL VIEW …";
    let write = "write LATERAL VIEW explode(list) v AS c";
    for (sql, message, hint) in [
        (
            "SELECT c FROM t JOIN u ON t.kind = u.kind LATERAL VIEW explode(x) v AS c",
            "a LATERAL VIEW follows one table",
            join,
        ),
        ("SELECT c FROM t, u LATERAL VIEW explode(x) v AS c", "a LATERAL VIEW follows one table", join),
        ("SELECT c FROM t LATERAL VIEW inline(x) v AS c", "a LATERAL VIEW cannot be made of `inline(x)`", write),
        (
            "SELECT c FROM t LATERAL VIEW lower(explode(x)) v AS c",
            "a LATERAL VIEW cannot be made of `lower(explode(x))`",
            write,
        ),
        (
            "SELECT k FROM t LATERAL VIEW explode(m) v AS k, z",
            "the LATERAL VIEW `v` names more than one column",
            "explode of a list gives one column: LATERAL VIEW explode(list) v AS c",
        ),
        (
            "SELECT v.c FROM t LATERAL VIEW explode(x) v AS c LATERAL VIEW explode(x) w AS C",
            "two LATERAL VIEWs call their column `C`",
            "name each: LATERAL VIEW explode(list) v AS c",
        ),
    ] {
        assert_eq!(rewritten(sql), format!("{message} | {hint}"), "{sql}");
    }
}

#[tokio::test]
async fn lateral_views_give_the_rows_that_spark_gives() {
    let from = "FROM t LATERAL VIEW explode(x) v AS c";
    assert_eq!(
        rows(&format!("SELECT t.kind, kind + 1, v.c, c AS d {from}")).await,
        ["10 11 a a", "10 11 b b", "40 41 c c"]
    );
    assert_eq!(planned(&format!("SELECT * {from}")).await, "ts, kind, x, c");
    assert_eq!(planned(&format!("SELECT v.*, t.* {from}")).await, "c, ts, kind, x");
    assert_eq!(
        rows("SELECT kind, c FROM t LATERAL VIEW OUTER explode(x) v AS c").await,
        ["10 a", "10 b", "20", "30", "40 c"]
    );
    assert_eq!(
        rows("SELECT c, d FROM t LATERAL VIEW explode(x) v AS c LATERAL VIEW explode(make_array(v.c, CAST(kind AS STRING))) w AS d WHERE kind > 10").await,
        ["c 40", "c c"]
    );
    assert_eq!(
        rows("SELECT v.c, count(*) AS n FROM (SELECT x FROM t) LATERAL VIEW explode(x) v AS c GROUP BY v.c HAVING v.c < 'c'").await,
        ["a 1", "b 1"]
    );
}

#[tokio::test]
async fn a_lateral_view_that_repeats_a_column_of_its_table_is_not_taken_for_it() {
    let said = planned("SELECT kind FROM t LATERAL VIEW explode(x) v AS kind").await;
    assert!(said.contains("would be ambiguous"), "{said}");
}
