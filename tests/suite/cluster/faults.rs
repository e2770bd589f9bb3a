//! Workers that die, freeze, join late or lack a key; batches that are broken off, or asked for twice.

use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::stage::Stage;
use tests::traffic::Traffic;
use tests::{finish, signal};

use super::{Worker, master, printed};
use crate::crash::{say, soak};

const JOB: [&str; 4] = ["collection_totals", "1 hour", "--slide-duration", "10 minutes"];
const ONE_THREAD: [&str; 2] = ["--threads", "1"];

/// A lake of the market that takes a while, and its topic.
fn market(stage: &Stage, frames: usize) -> String {
    let path = stage.dir().join("traffic.jsonl");
    let mut file = std::fs::File::create(&path).expect("a file");
    Traffic::write(11, frames, &mut file).expect("written");
    let topic = format!("{}-market", stage.topic());
    let mut command = stage.command(&["ingest", "file", &path.to_string_lossy(), "--table", "market"]);
    finish(command.args(["--topic", &topic])).success();
    topic
}

fn batch(stage: &Stage, topic: &str, master: &str) -> Command {
    let mut command = stage.lake_command(&["batch"]);
    command.args(JOB).args(["--raw-events-kafka-topic", topic, "--format", "csv", "--debug", "--master", master]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn workers(stage: &Stage, count: usize) -> Vec<Worker> {
    (0..count).map(|_| Worker::start(stage, &ONE_THREAD)).collect()
}

fn ended(child: Child) -> (Output, String) {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// `kill -9` of one of three at any moment: the answer is the same.
fn a_killed_worker_changes_no_answer(stage: &Stage) {
    let topic = market(stage, 20_000);
    let want = printed(stage, &topic, &JOB, "local");
    let mut workers = workers(stage, 3);
    let begun = Instant::now();
    assert!(want == printed(stage, &topic, &JOB, &master(&workers)), "undisturbed");
    let undisturbed = begun.elapsed();
    let mut random = StdRng::seed_from_u64(7);
    let (mut lost, rounds) = (0, soak().unwrap_or(4));
    for round in 0..rounds {
        let after = undisturbed.mul_f64(random.random_range(0.0..1.1));
        let child = batch(stage, &topic, &master(&workers)).spawn().expect("it starts");
        std::thread::sleep(after);
        drop(workers.remove(random.random_range(0..workers.len())));
        let (output, said) = ended(child);
        assert!(output.status.success(), "round {round}, killed after {after:?}: {said}");
        assert!(output.stdout == want.as_bytes(), "round {round}, killed after {after:?}: another answer\n{said}");
        lost += usize::from(said.contains("a worker was lost"));
        workers.push(Worker::start(stage, &ONE_THREAD));
    }
    say(&format!("cluster: {lost} of {rounds} batches lost a worker on the way, all ended with the right answer"));
}

/// Both die: an error that names them, after whole windows at most.
fn without_workers_a_batch_ends_with_an_error(stage: &Stage) {
    let topic = market(stage, 20_000);
    let want = printed(stage, &topic, &JOB, "local");
    let workers = workers(stage, 2);
    let addresses: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
    let child = batch(stage, &topic, &master(&workers)).spawn().expect("it starts");
    workers[0].hears("stage begun");
    drop(workers);
    let (output, said) = ended(child);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no worker answers at") && addresses.iter().all(|one| said.contains(one)), "{said}");
    assert!(want.as_bytes().starts_with(&output.stdout), "what was printed is no beginning of the answer");
    let again = batch(stage, &topic, &format!("tidegate://{}", addresses.join(","))).spawn().expect("it starts");
    let (output, said) = ended(again);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(output.stdout.is_empty() && said.contains("tidegate cluster worker"), "{said}");
}

/// It answers nothing any more, and its connections stay: it is left out.
fn a_frozen_worker_is_left_out(stage: &Stage) {
    let topic = market(stage, 20_000);
    let want = printed(stage, &topic, &JOB, "local");
    let workers = workers(stage, 2);
    let child = batch(stage, &topic, &master(&workers)).spawn().expect("it starts");
    workers[0].hears("stage begun");
    signal("STOP", workers[0].id());
    let (output, said) = ended(child);
    signal("CONT", workers[0].id());
    assert!(output.status.success(), "{said}");
    assert!(output.stdout == want.as_bytes(), "another answer\n{said}");
}

/// A batch begins with those that answer; the next one with those that have come.
fn a_worker_that_joins_is_used(stage: &Stage) {
    let topic = market(stage, 2_000);
    let want = printed(stage, &topic, &JOB, "local");
    let first = Worker::start(stage, &ONE_THREAD);
    let second = Worker::start(stage, &ONE_THREAD);
    let (both, address) = (format!("tidegate://{},{}", first.address, second.address), second.address.clone());
    drop(second);
    let (output, said) = ended(batch(stage, &topic, &both).spawn().expect("it starts"));
    assert!(output.stdout == want.as_bytes() && output.status.success(), "{said}");
    assert!(said.contains("does not answer") && said.contains(&address), "{said}");
    let second = Worker::at(stage, &address, &ONE_THREAD);
    let (output, said) = ended(batch(stage, &topic, &both).spawn().expect("it starts"));
    assert!(output.stdout == want.as_bytes() && output.status.success(), "{said}");
    second.hears("stage begun");
}

/// The client is told to stop: the workers stop too. Two clients at once are two batches.
fn a_batch_that_is_broken_off_ends_on_the_workers(stage: &Stage) {
    let topic = market(stage, 20_000);
    let want = printed(stage, &topic, &JOB, "local");
    let workers = workers(stage, 2);
    let child = batch(stage, &topic, &master(&workers)).spawn().expect("it starts");
    workers[0].hears("stage begun");
    signal("INT", child.id());
    let (output, said) = ended(child);
    assert_eq!(output.status.code(), Some(130), "{said}");
    // A stage that was cut off is not complete.
    workers[0].hears("complete\":false");
    let twice: Vec<Child> =
        (0..2).map(|_| batch(stage, &topic, &master(&workers)).spawn().expect("it starts")).collect();
    for child in twice {
        let (output, said) = ended(child);
        assert!(output.status.success() && output.stdout == want.as_bytes(), "{said}");
    }
}

macro_rules! on_both_stages {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            use super::*;
            $(#[test] fn $test() { super::$test(&Stage::embedded()); })*
        }

        mod kafka {
            mod minio {
                use super::super::*;
                $(#[test] fn $test() { if let Some(stage) = Stage::services() { super::super::$test(&stage); } })*

                /// Its own key opens the lake, not the client's.
                #[test]
                fn a_worker_without_a_key_says_so() {
                    let Some(stage) = Stage::services() else { return };
                    let topic = market(&stage, 200);
                    let worker = Worker::start(&Stage::embedded(), &ONE_THREAD);
                    let address = worker.address.clone();
                    let (output, said) = ended(batch(&stage, &topic, &master(&[worker])).spawn().expect("it starts"));
                    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
                    assert!(said.contains(&address) && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
                }
            }
        }
    };
}

on_both_stages!(
    a_killed_worker_changes_no_answer,
    without_workers_a_batch_ends_with_an_error,
    a_frozen_worker_is_left_out,
    a_worker_that_joins_is_used,
    a_batch_that_is_broken_off_ends_on_the_workers,
);
