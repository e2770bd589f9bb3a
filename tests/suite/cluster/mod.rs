//! A batch on workers says what it says on one thread, whatever happens to the workers.

mod faults;
mod query;

use std::collections::BTreeMap;
use std::time::Duration;

use tests::stage::Stage;
use tests::traffic::Traffic;
use tests::{finish, tidegate};

use crate::crash::process::Process;
use crate::main_job::input::ingest_development_set;

/// By then a worker listens.
const SOON: Duration = Duration::from_secs(60);

/// A `tidegate cluster worker`, killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process,
    pub(crate) address: String,
}

impl Worker {
    pub(crate) fn start(stage: &Stage, arguments: &[&str]) -> Self {
        Self::at(stage, "127.0.0.1:0", arguments)
    }

    pub(crate) fn at(stage: &Stage, listen: &str, arguments: &[&str]) -> Self {
        let mut command = tidegate();
        command.args(["cluster", "worker", "--listen", listen]).args(arguments).envs(stage.variables());
        let mut worker = Self { process: Process::start(command), address: String::new() };
        let ready = worker.hears("worker is ready");
        let (_, address) =
            ready.split_once("listen=").or_else(|| ready.split_once("\"listen\":\"")).expect("an address");
        address.split(['"', ' ']).next().unwrap_or_default().clone_into(&mut worker.address);
        worker
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has said these words; the line.
    pub(crate) fn hears(&self, words: &str) -> String {
        let heard = self.process.must_hear(words, SOON, |heard| heard.said(words));
        heard.lines.into_iter().find(|line| line.contains(words)).expect("it was said")
    }
}

/// The address of all of them.
pub(crate) fn master(workers: &[Worker]) -> String {
    let addresses: Vec<&str> = workers.iter().map(|worker| worker.address.as_str()).collect();
    format!("tidegate://{}", addresses.join(","))
}

/// Standard output of a batch, which is all that it says of its rows.
pub(crate) fn printed(stage: &Stage, topic: &str, job: &[&str], master: &str) -> String {
    let mut command = stage.lake_command(&["batch"]);
    command.args(job).args(["--raw-events-kafka-topic", topic, "--format", "csv", "--debug", "--master", master]);
    finish(&mut command).success().stdout()
}

/// The rows of each output in their order. How those of several are mixed on the console depends on how many windows
/// were closed at once.
fn by_output(printed: &str) -> BTreeMap<usize, Vec<&str>> {
    let mut outputs: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    // The two of `all` differ in the number of their columns.
    printed.lines().for_each(|line| outputs.entry(line.matches(',').count()).or_default().push(line));
    outputs
}

/// Events, their deliveries and frames of the market; none without the shared data.
fn fill(stage: &Stage) -> Option<(String, String)> {
    ingest_development_set(stage, &["--sightings"])?;
    let frames = stage.dir().join("traffic.jsonl");
    let mut file = std::fs::File::create(&frames).expect("a file");
    Traffic::write(7, 4_000, &mut file).expect("written");
    let market = format!("{}-market", stage.topic());
    let mut command = stage.command(&["ingest", "file", &frames.to_string_lossy(), "--table", "market"]);
    finish(command.args(["--topic", &market])).success();
    Some((stage.topic().to_owned(), market))
}

const OF_EVENTS: [&str; 6] = ["activity", "dvm", "hashtags", "kinds", "reactions", "relays"];
const OF_THE_MARKET: [&str; 7] =
    ["global", "collections", "all", "market_totals", "collection_totals", "top_collections", "top_assets"];
const WINDOWS: [&[&str]; 3] = [&["1 hour"], &["6 hours", "--slide-duration", "1 hour"], &["all time"]];

/// What no built-in job has: rows without a window, beside windows; windows over windows; rows that wait for their window;
/// distinct values; values of two sorts in a group.
const OTHERS: [&str; 5] = [
    "INSERT INTO a SELECT encode(id, 'hex') AS id, kind FROM events WHERE kind IN (3, 7);
     INSERT INTO b SELECT window.start AS s, kind, pubkey, count(*) AS n
     FROM events GROUP BY window(created_at, '1 hour'), kind, pubkey",
    "SELECT window.start AS s, kind, sum(n) AS n, count(*) AS windows
     FROM (SELECT window_time(window) AS t, kind, count(*) AS n
           FROM events GROUP BY window(created_at, '10 minutes', '5 minutes'), kind)
     GROUP BY window(t, '1 hour'), kind",
    "SELECT s, id, kind FROM (
         SELECT window.start AS s, encode(id, 'hex') AS id, kind,
                row_number() OVER (PARTITION BY window ORDER BY created_at DESC, id) AS place
         FROM (SELECT window(created_at, '1 hour') AS window, id, kind, created_at FROM events))
     WHERE place <= 3",
    "SELECT window.start AS s, count(DISTINCT pubkey) AS authors, count(DISTINCT kind) AS kinds, count(*) AS n
     FROM events GROUP BY window(created_at, '1 hour')",
    "SELECT window.start AS s, kind, array_agg(content) AS contents, max(length(content)) AS longest
     FROM events WHERE kind < 8 GROUP BY window(created_at, '1 hour'), ROLLUP(kind)",
];

/// Of jobs like these the rows alone: without a window they have no order.
fn other_jobs_say_what_they_say_here(stage: &Stage) {
    let Some((events, _)) = fill(stage) else { return };
    let one = [Worker::start(stage, &["--threads", "2"])];
    let three: Vec<Worker> = (0..3).map(|_| Worker::start(stage, &["--threads", "1"])).collect();
    for (number, sql) in OTHERS.iter().enumerate() {
        let file = stage.dir().join(format!("other-{number}.sql"));
        std::fs::write(&file, sql).expect("written");
        let rows = |master: &str| {
            let printed = printed(stage, &events, &[&file.to_string_lossy()], master);
            let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let want = rows("local");
        assert!(want.len() > 3, "{sql} has rows");
        for master in ["local[2]", &master(&one), &master(&three)] {
            assert!(rows(master) == want, "on {master}: {sql}");
        }
    }
}

/// Every job, tumbling, sliding and over all time: one thread, two, one worker, and three.
fn workers_say_what_one_thread_says(stage: &Stage) {
    let Some((events, market)) = fill(stage) else { return };
    let one = [Worker::start(stage, &["--threads", "1"])];
    let three: Vec<Worker> = ["1", "2", "3"].map(|threads| Worker::start(stage, &["--threads", threads])).into();
    let jobs = OF_EVENTS.map(|job| (job, &events)).into_iter().chain(OF_THE_MARKET.map(|job| (job, &market)));
    for (job, topic) in jobs {
        for window in WINDOWS {
            let job = [&[job], window].concat();
            let want = printed(stage, topic, &job, "local");
            assert!(want.lines().count() > 1, "{job:?} has rows");
            for master in ["local[2]", &master(&one), &master(&three)] {
                let got = printed(stage, topic, &job, master);
                let same = by_output(&got) == by_output(&want);
                assert!(same, "{job:?} on {master}:\n{}", first_difference(&got, &want));
            }
        }
    }
}

fn first_difference(got: &str, want: &str) -> String {
    let (got_lines, want_lines) = (got.lines().count(), want.lines().count());
    let first = got.lines().zip(want.lines()).find(|(got, want)| got != want);
    format!("{got_lines} lines for {want_lines}, first {first:?}")
}

mod embedded {
    use super::*;

    #[test]
    fn workers_say_what_one_thread_says() {
        super::workers_say_what_one_thread_says(&Stage::embedded());
    }

    #[test]
    fn other_jobs_say_what_they_say_here() {
        super::other_jobs_say_what_they_say_here(&Stage::embedded());
    }
}

mod kafka {
    mod minio {
        use super::super::*;

        #[test]
        fn workers_say_what_one_thread_says() {
            if let Some(stage) = Stage::services() {
                super::super::workers_say_what_one_thread_says(&stage);
            }
        }
    }
}
