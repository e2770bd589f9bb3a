//! `tidegate sql` on workers, and the plans that `--explain` shows.

use tests::stage::Stage;
use tests::{finish, sorted};

use super::{Worker, fill, master, printed};

/// Aggregates, a join, functions of ours, an id that row groups leave out, an order with a limit, no column at all.
const QUERIES: [&str; 6] = [
    "SELECT kind, count(*) AS n, approx_distinct(pubkey) AS authors FROM events GROUP BY kind ORDER BY kind",
    "SELECT e.kind, count(*) AS n FROM events e JOIN sightings s ON e.id = s.id GROUP BY e.kind ORDER BY n DESC, e.kind",
    "SELECT count(*) AS n FROM events",
    "SELECT encode(id, 'hex') AS id, kind FROM events ORDER BY created_at DESC, id LIMIT 7",
    "SELECT kind FROM events WHERE id = (SELECT min(id) FROM events)",
    "SELECT sum(length(content)) AS bytes, max(created_at) AS last FROM events WHERE created_at > '2024-01-01'",
];

fn sql(stage: &Stage, query: &str, master: &str) -> Vec<String> {
    let mut command = stage.lake_command(&["sql", query, "--raw-events-kafka-topic", stage.topic()]);
    sorted(finish(command.args(["--format", "ndjson", "--master", master])).success().ndjson())
}

fn queries_say_what_they_say_here(stage: &Stage) {
    if fill(stage).is_none() {
        return;
    }
    let one = [Worker::start(stage, &["--threads", "1"])];
    let three: Vec<Worker> = (0..3).map(|_| Worker::start(stage, &["--threads", "2"])).collect();
    for query in QUERIES {
        let want = sql(stage, query, "local");
        assert!(!want.is_empty(), "{query} has rows");
        for master in ["local[2]", &master(&one), &master(&three)] {
            assert_eq!(sql(stage, query, master), want, "{query} on {master}");
        }
    }
    explained(stage, &three);
}

fn explained(stage: &Stage, workers: &[Worker]) {
    let topic = stage.topic().to_owned();
    let said = printed(stage, &topic, &["kinds", "1 hour", "--explain"], &master(workers));
    for operator in ["GatherExec", "WindowExec", "RepartitionExec", "PaneExec", "Stage 2"] {
        assert!(said.contains(operator), "no {operator} in {said}");
    }
    let mut command = stage.lake_command(&["sql", QUERIES[0], "--raw-events-kafka-topic", &topic, "--explain"]);
    let said = finish(command.args(["--master", &master(workers)])).success().stdout();
    assert!(said.contains("RowsExec") && said.contains("AggregateExec"), "{said}");
}

mod embedded {
    use super::*;

    #[test]
    fn queries_say_what_they_say_here() {
        super::queries_say_what_they_say_here(&Stage::embedded());
    }

    #[test]
    fn what_no_cluster_can_do_is_said() {
        let stage = Stage::embedded();
        std::fs::create_dir_all(stage.dir().join("lake/topics").join(stage.topic())).expect("made");
        let run = |arguments: &[&str]| {
            let mut command = stage.batch(arguments);
            finish(command.args(["--master", "tidegate://127.0.0.1:1"])).code(2).stderr()
        };
        let job = stage.dir().join("bounded.sql");
        std::fs::write(&job, "SELECT a.kind FROM events a JOIN events b ON a.id = b.id").expect("written");
        let said = run(&[&job.to_string_lossy()]);
        assert!(said.contains("needs all rows at once") && said.contains("--master local"), "{said}");
        let said = run(&["kinds", "1 hour", "--threads", "2"]);
        assert!(said.contains("tidegate cluster worker --threads"), "{said}");
        for (master, hint) in [("spark://spark:7077", "tidegate cluster worker"), ("yarn", "tidegate://host:7400")] {
            let said = finish(stage.batch(&["kinds"]).args(["--master", master])).code(2).stderr();
            assert!(said.contains(hint), "{said}");
        }
        let said = finish(stage.batch(&["kinds"]).args(["--master", "local[2]", "--explain"])).code(2).stderr();
        assert!(said.contains("no worker is named"), "{said}");
    }
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn queries_say_what_they_say_here() {
            if let Some(stage) = Stage::services() {
                super::super::queries_say_what_they_say_here(&stage);
            }
        }
    }
}
