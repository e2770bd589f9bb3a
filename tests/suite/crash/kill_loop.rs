//! `kill -9`, again and again: wherever it hits, nothing is lost and nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::process::Heard;
use super::trial::{SOON, Subject, Trial};
use super::{say, soak};

/// Where a kill hit, as far as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Before the first record of progress: planning, fencing, restoring.
    Starting,
    /// Reading, adding, closing, or just before a segment was there.
    BetweenCommits,
    /// A segment of state is there that no control record refers to, and no transaction is open.
    SegmentWritten,
    /// A transaction with results is open.
    InTransaction,
    /// The commit is done, but was not told any more.
    Committed,
}

/// What the rounds of a loop showed.
#[derive(Debug, Default)]
struct Rounds {
    phases: BTreeMap<Phase, usize>,
    recoveries: Vec<f64>,
    commits_ms: Vec<f64>,
    commits: u64,
    /// Objects that were there without being referred to after some kill, and all that ever were referred to.
    orphans: BTreeSet<String>,
    referred: BTreeSet<String>,
}

impl Rounds {
    /// Starts the job, kills it at some moment, and notes what was found.
    fn round(&mut self, trial: &mut Trial) {
        let process = trial.start();
        let early = trial.chance.below(8) == 0;
        if early {
            std::thread::sleep(trial.chance.between(Duration::ZERO, Duration::from_millis(1500)));
        } else {
            let started = process.started;
            let heard = process.must_hear("progress after a start", SOON, |heard| !heard.told.is_empty());
            self.recoveries.push(heard.told[0].at.duration_since(started).as_secs_f64());
            if trial.chance.below(2) == 0 {
                let least = Duration::from_millis(50);
                std::thread::sleep(trial.chance.between(least, Duration::from_secs(2)));
            } else {
                // A commit takes tens of milliseconds and begins with a put: most moments would miss it.
                for _ in 0..=trial.chance.below(4) {
                    trial.proxy.next_put(Duration::from_secs(5));
                }
                std::thread::sleep(trial.chance.between(Duration::ZERO, Duration::from_millis(80)));
            }
        }
        let heard = process.kill();
        self.commits_ms.extend(heard.told.iter().map(|told| told.commit_ms).filter(|ms| *ms > 0.0));
        let phase = self.phase(trial, &heard);
        *self.phases.entry(phase).or_default() += 1;
    }

    fn phase(&mut self, trial: &Trial, heard: &Heard) -> Phase {
        let Some(last) = heard.told.last() else { return Phase::Starting };
        // What was decided is written out by the broker alone, in a few milliseconds; what was not stays open.
        std::thread::sleep(Duration::from_millis(100));
        let open = trial.in_transaction();
        let control = trial.control(&last.id).expect("a job that told of progress has a control record");
        self.commits = control["epoch"].as_u64().expect("a number");
        let segments = control["segments"].as_array().expect("a list");
        let referred = segments.iter().map(|segment| segment["object"].as_str().expect("a path").to_owned());
        self.referred.extend(referred);
        let orphans = &trial.objects() - &self.referred;
        let orphaned = !orphans.is_subset(&self.orphans);
        self.orphans = orphans;
        match () {
            () if open => Phase::InTransaction,
            () if self.commits > last.commits => Phase::Committed,
            () if orphaned => Phase::SegmentWritten,
            () => Phase::BetweenCommits,
        }
    }

    /// Whether the kills left time to work, and hit more than one phase; fewer rounds than CI has prove nothing of that.
    fn tells_enough(&self, rounds: usize, in_ci: usize) -> bool {
        self.commits > rounds as u64 / 4 && (rounds < in_ci || self.phases.len() >= 2)
    }

    fn tell(&mut self, name: &str, rounds: usize, took: Duration) {
        say(&format!(
            "{name}: {rounds} kills in {:.0} s, {} commits; recovery {}; commit {}; kills hit {:?}",
            took.as_secs_f64(),
            self.commits,
            quantiles(&mut self.recoveries, "s", &[0.5, 1.0]),
            quantiles(&mut self.commits_ms, "ms", &[0.5, 0.99]),
            self.phases
        ));
    }
}

/// `p50 1.20 s, p100 3.00 s (40)`, by nearest rank.
fn quantiles(values: &mut [f64], unit: &str, wanted: &[f64]) -> String {
    if values.is_empty() {
        return "not measured".to_owned();
    }
    values.sort_by(f64::total_cmp);
    let quantile = |part: &f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
        let rank = (part * values.len() as f64).ceil() as usize;
        format!("p{:.0} {:.2} {unit}", part * 100.0, values[rank.clamp(1, values.len()) - 1])
    };
    format!("{} of {}", wanted.iter().map(quantile).collect::<Vec<_>>().join(", "), values.len())
}

/// The loop, then a last run to the end, then the audit.
pub(super) fn killed_again_and_again(name: &str, subject: Subject, in_ci: usize) {
    let Some(mut trial) = Trial::begin(name, subject, None) else { return };
    let rounds = soak().unwrap_or(in_ci);
    let started = Instant::now();
    let mut seen = Rounds::default();
    let mut done = 0;
    // Where kills hit is chance, and depends on the machine: some more are tried before they count as hitting nothing.
    while done < rounds || !seen.tells_enough(done, in_ci) && done < 3 * rounds {
        seen.round(&mut trial);
        done += 1;
    }
    seen.tell(name, done, started.elapsed());
    let enough = seen.tells_enough(done, in_ci);
    trial.finish(None);
    assert!(enough, "{} commits in {done} rounds, and kills hit {:?} only", seen.commits, seen.phases);
}

#[test]
fn quantiles_are_by_nearest_rank() {
    let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
    assert_eq!(quantiles(&mut values, "ms", &[0.5, 0.99, 1.0]), "p50 100.00 ms, p99 198.00 ms, p100 200.00 ms of 200");
    assert_eq!(quantiles(&mut [7.0], "s", &[0.5]), "p50 7.00 s of 1");
}
