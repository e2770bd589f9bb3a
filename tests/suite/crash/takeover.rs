//! Who may go on with a job: the copy that started last, and from the last commit, whatever other jobs are doing.

use std::time::{Duration, Instant};

use topic::{KafkaLog, KafkaSettings, Log, Record};

use super::broker::Broker;
use super::process::{Heard, Process};
use super::trial::{SOON, Subject, Trial};
use super::{say, soak};

pub(super) fn a_second_copy_takes_over() {
    let Some(mut trial) = Trial::begin("second copy", Subject::Kinds, None) else { return };
    let mut running = trial.start_and_settle();
    let (mut taken, rounds) = (0, soak().unwrap_or(3));
    // A first copy that commits at that very moment may win, but it is not to be the rule.
    for round in 0..rounds + 10 {
        if round >= rounds && taken > 0 {
            break;
        }
        let (survivor, by_second) = contend(&mut trial, running);
        running = survivor;
        taken += usize::from(by_second);
    }
    trial.finish(Some(running));
    assert!(taken > 0, "no second copy took over");
}

/// A copy that needs long to restore its state leaves the first one time to commit once more, which it must notice.
pub(super) fn a_slow_copy_contends() {
    let Some(mut trial) = Trial::begin("slow copy", Subject::Kinds, None) else { return };
    let mut running = trial.start_and_settle();
    for _ in 0..soak().unwrap_or(2) {
        trial.proxy.set_slow(Duration::from_millis(1500));
        running = contend(&mut trial, running).0;
        trial.proxy.set_slow(Duration::ZERO);
    }
    trial.finish(Some(running));
}

/// Starts a copy beside the first. One of the two has to end with code 6 and to name the other, which has to go on;
/// returns that one, and whether it is the second.
fn contend(trial: &mut Trial, first: Process) -> (Process, bool) {
    // Not always at the same place between two commits.
    std::thread::sleep(trial.chance.between(Duration::ZERO, Duration::from_millis(700)));
    let mut copies = [first, trial.start()];
    let deadline = Instant::now() + SOON;
    let lost = loop {
        if let Some(ended) = copies.iter_mut().position(|copy| !copy.alive()) {
            break ended;
        }
        assert!(Instant::now() < deadline, "both copies run on");
        std::thread::sleep(Duration::from_millis(20));
    };
    let [first, second] = copies;
    let (winner, loser) = if lost == 0 { (second, first) } else { (first, second) };
    let heard = loser.ends_with(6, SOON);
    let taker = format!("was taken over by process {} on ", winner.id());
    let says = heard.lines.iter().find(|line| line.contains(&taker));
    say(says.unwrap_or_else(|| panic!("`{taker}` is not in:\n{}", heard.lines.join("\n"))));
    let (before, commits) = (winner.heard().told.len(), heard.commits());
    let goes_on = |heard: &Heard| heard.told.len() > before + 3 && heard.commits() > commits;
    winner.must_hear("commit of the copy that is left", SOON, goes_on);
    (winner, lost == 0)
}

/// Control records of all jobs share a topic, and a transaction that is open there hides what was committed after it.
pub(super) fn another_job_has_a_transaction_open() {
    // A broker of its own: the transaction would hold up every job on the shared one.
    let Some(broker) = Broker::start(&[]) else { return };
    let Some(trial) = Trial::begin("another's transaction", Subject::Kinds, Some(&broker.address)) else { return };
    let process = trial.start_and_settle();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let id = tests::unique("tidegate.other");
    let mut writer = runtime.block_on(async {
        let log = KafkaLog::connect(KafkaSettings::new(&trial.brokers)).expect("settings");
        let mut writer = log.writer(Some(&id)).await.expect("a writer");
        writer.begin().await.expect("begun");
        let record = Record {
            key: Some(id.clone().into()),
            value: Some("{}".into()),
            headers: Vec::new(),
            timestamp_ms: None,
            partition: None,
        };
        writer.send(event::layout::JOBS_TOPIC, vec![record]).await.expect("sent");
        writer.flush().await.expect("there");
        writer
    });
    let commits = process.heard().commits();
    process.must_hear("commits beside it", SOON, |heard| heard.commits() > commits + 3);
    process.kill();
    let again = trial.start();
    std::thread::sleep(Duration::from_secs(4));
    runtime.block_on(writer.abort()).expect("aborted");
    again.must_hear("progress after a start", SOON, |heard| heard.told.iter().any(|told| told.commit_ms > 0.0));
    trial.finish(Some(again));
}
