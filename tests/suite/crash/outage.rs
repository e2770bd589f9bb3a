//! What a job rests on goes away and comes back: the broker dies, the broker freezes, the object store refuses.

use std::time::{Duration, Instant};

use super::broker::Broker;
use super::process::{Heard, Process};
use super::trial::{SOON, Subject, Trial};
use super::{say, soak};

/// What a job says while it cannot commit.
const WAITING: &str = "could not commit, will try again";

/// A commit after all those that were told of.
fn goes_on(process: &Process, after: &Heard) {
    let commits = after.commits();
    process.must_hear("commit after the outage", SOON, |heard| heard.commits() > commits + 1);
}

/// Waits for a commit to begin, and then some of the time that it takes.
fn amid_a_commit(trial: &mut Trial) {
    assert!(trial.proxy.next_put(SOON), "a job that is fed commits");
    std::thread::sleep(trial.chance.between(Duration::ZERO, Duration::from_millis(40)));
}

pub(super) fn the_broker_is_killed() {
    let Some(broker) = Broker::start(&[]) else { return };
    let Some(mut trial) = Trial::begin("broker killed", Subject::Kinds, Some(&broker.address)) else { return };
    let mut process = trial.start_and_settle();
    for _ in 0..soak().unwrap_or(2) {
        amid_a_commit(&mut trial);
        broker.signal("KILL");
        // It stays away for some ten seconds: that is how long it takes until its old session has expired.
        let away = broker.restart();
        say(&format!("broker killed: away for {:.1} s", away.as_secs_f64()));
        let heard = process.heard();
        goes_on(&process, &heard);
    }
    assert!(process.alive());
    trial.finish(Some(process));
}

/// Of two brokers the one that leads some of the partitions, of the raw topic and of the outputs.
pub(super) fn a_leader_is_killed() {
    let Some((first, second)) = Broker::pair() else { return };
    let brokers = format!("{},{}", first.address, second.address);
    let Some(mut trial) = Trial::begin("leader killed", Subject::Kinds, Some(&brokers)) else { return };
    let mut process = trial.start_and_settle();
    for _ in 0..soak().unwrap_or(2) {
        first.until_second_leads(&trial.raw, true);
        amid_a_commit(&mut trial);
        second.signal("KILL");
        first.until_second_leads(&trial.raw, false);
        goes_on(&process, &process.heard());
        amid_a_commit(&mut trial);
        second.restart();
        goes_on(&process, &process.heard());
    }
    assert!(process.alive());
    trial.finish(Some(process));
}

pub(super) fn the_broker_freezes_for_longer_than_a_transaction_lasts() {
    // The broker looks for transactions that have lasted too long every ten seconds by default.
    let Some(broker) = Broker::start(&["transaction.abort.timed.out.transaction.cleanup.interval.ms=500"]) else {
        return;
    };
    let lasts = Duration::from_secs(3);
    let timeout = format!("transaction.timeout.ms={}", lasts.as_millis());
    let Some(trial) = Trial::begin("broker frozen", Subject::Kinds, Some(&broker.address)) else { return };
    let mut trial = trial.with(&["--kafka-option", &timeout]);
    let process = trial.start_and_settle();
    let mut cut = 0;
    // A freeze that falls beside a transaction cuts none.
    for round in 0..soak().unwrap_or(0).max(12) {
        if cut >= 1 && round >= soak().unwrap_or(3) {
            break;
        }
        amid_a_commit(&mut trial);
        let before = process.heard();
        broker.signal("STOP");
        std::thread::sleep(lasts + Duration::from_secs(if soak().is_some() { 60 } else { 3 }));
        broker.signal("CONT");
        goes_on(&process, &process.heard());
        let heard = process.heard();
        let waited = heard.lines[before.lines.len()..].iter().find(|line| line.contains(WAITING));
        if let Some(why) = waited {
            cut += 1;
            say(&format!("broker frozen: {why}"));
        }
    }
    say(&format!("broker frozen: {cut} transactions were cut"));
    trial.finish(Some(process));
    assert!(cut > 0, "no freeze fell into a transaction");
}

pub(super) fn the_object_store_refuses() {
    let Some(trial) = Trial::begin("store refuses", Subject::Kinds, None) else { return };
    let mut process = trial.start_and_settle();
    let outage = Duration::from_secs(if soak().is_some() { 60 } else { 18 });
    let before = process.heard();
    let began = Instant::now();
    trial.proxy.refuse_with(Some(503));
    process.must_hear("word that it waits", SOON, |heard| heard.said(WAITING));
    let said_after = began.elapsed();
    std::thread::sleep(outage.saturating_sub(said_after));
    assert!(process.alive(), "the job waits");
    let during = process.heard();
    assert!(during.commits() <= before.commits() + 1, "nothing can be committed without its state");
    let refused = trial.proxy.refused();
    assert!(refused > 0);
    trial.proxy.refuse_with(None);
    goes_on(&process, &during);
    say(&format!(
        "store refuses: {:.0} s, {refused} requests refused, said so after {:.1} s",
        began.elapsed().as_secs_f64(),
        said_after.as_secs_f64()
    ));
    trial.finish(Some(process));
}
