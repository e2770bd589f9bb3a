//! The epoch loop and its commits under crashes, lost answers, torn uploads and second copies, by seed.
//!
//! `TIDEGATE_SIM_SEEDS=n` tries so many seeds, `TIDEGATE_SIM_SEED=n` replays one and prints its steps.

use std::collections::BTreeMap;
use std::env;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tests::log_contract;
use tests::sim::{Defect, Fault, Input, Jobs, Plan, Report, Rules, Scenario, SimLog, simulate};

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 1_000;
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn replay(seed: u64) -> String {
    format!("TIDEGATE_SIM_SEED={seed} cargo test -p tests -p cli --test suite simulation::a_seed -- --nocapture")
}

/// Runs seeds on all processors; the failures, and the counts of those that passed.
fn try_seeds(seeds: u64) -> (Vec<String>, Report) {
    let next = AtomicU64::new(0);
    let work = || {
        block_on(async {
            let jobs = Jobs::plan().await.expect("the jobs are planned");
            let (mut failures, mut sum) = (Vec::new(), Report::default());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || failures.len() > 2 {
                    return (failures, sum);
                }
                match simulate(&jobs, Scenario::of(seed)).await {
                    Ok(report) => sum.add(&report),
                    Err(error) => failures.push(format!("{error:?}\nreplay with: {}", replay(seed))),
                }
            }
        })
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread of seeds ends")).collect()
    });
    let (mut failures, mut sum) = (Vec::new(), Report::default());
    for (failed, report) in parts {
        failures.extend(failed);
        sum.add(&report);
    }
    (failures, sum)
}

#[test]
fn the_model_keeps_the_contract_of_logs() {
    let rules = [(false, false), (false, true), (true, false), (true, true)];
    let logs =
        rules.map(|(slow_markers, late_fencing)| SimLog::flawless(Rules { slow_markers, late_fencing, defect: None }));
    // Its parts wait more than they work.
    let done = block_on(futures::future::join_all(logs.iter().map(|log| log_contract::run_all(log))));
    assert_eq!(done.len(), 4);
    for parts in done {
        assert_eq!(parts.len(), 22, "{parts:?}");
    }
}

#[test]
fn any_seed_ends_with_what_the_oracle_says() {
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let (failures, sum) = try_seeds(seeds);
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n\n"));
    println!(
        "{seeds} seeds: {} runs, {} commits within runs, {} steps, {} late pairs, {} sleepers fenced, {:?}",
        sum.runs, sum.commits_within_runs, sum.steps, sum.late, sum.fenced_sleepers, sum.struck
    );
    if seeds >= SEEDS {
        // Otherwise the seeds would show nothing.
        assert!(Fault::ALL.iter().all(|fault| sum.struck.contains_key(fault)), "{:?}", sum.struck);
        assert!(sum.fenced_sleepers > 0 && sum.late > 0 && sum.commits_within_runs > seeds);
    }
}

#[test]
fn a_seed_run_twice_makes_the_same_steps() {
    let replayed = number("TIDEGATE_SIM_SEED");
    block_on(async {
        let jobs = Jobs::plan().await.expect("the jobs are planned");
        for seed in replayed.map_or(0..8, |seed| seed..seed + 1) {
            let again = async || {
                simulate(&jobs, Scenario::of(seed)).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"))
            };
            let mut one = again().await;
            if replayed.is_some() {
                println!("{}{one:?}", one.trace);
            }
            let mut two = again().await;
            for _ in 0..2 {
                // A machine that stood still for half a second had a run commit on its way.
                if one != two {
                    (one, two) = (two, again().await);
                }
            }
            assert!(one == two, "seed {seed} made other steps:\n{}\nthan before:\n{}", two.trace, one.trace);
        }
    });
}

/// A job that is stopped twice and then finishes, small enough to be befallen at every step.
fn small(rules: Rules) -> Scenario {
    Scenario {
        seed: 7,
        input: Input { partitions: 2, rows: 24, disorder_secs: 20, transactions: true },
        job: 0,
        delay: 0,
        idle_at_once: false,
        reads_max: 3,
        rules,
        plan: Plan::Clean,
        read_time: None,
    }
}

#[test]
fn no_single_fault_at_any_step_does_harm() {
    block_on(async {
        let jobs = Jobs::plan().await.expect("the jobs are planned");
        for late in [false, true] {
            let scenario = small(Rules { slow_markers: late, late_fencing: late, defect: None });
            let clean = simulate(&jobs, scenario).await.unwrap_or_else(|error| panic!("{error:?}"));
            assert!(clean.runs > 2 && clean.struck.is_empty() && !clean.output.is_empty(), "{clean:?}");
            let mut struck: BTreeMap<Fault, u64> = BTreeMap::new();
            for step in 0..clean.steps {
                for fault in Fault::ALL {
                    let befallen = Scenario { plan: Plan::At { step, fault }, ..scenario };
                    let report = simulate(&jobs, befallen).await.unwrap_or_else(|error| panic!("{error:?}"));
                    assert!(report.struck.len() == 1 || step >= report.steps, "{fault:?} missed step {step}");
                    for (fault, count) in report.struck {
                        *struck.entry(fault).or_default() += u64::from(count);
                    }
                }
            }
            println!("{} steps: {struck:?}", clean.steps);
            assert!(clean.steps > 40 && struck.values().sum::<u64>() > 40 * Fault::ALL.len() as u64, "{struck:?}");
        }
    });
}

/// The first seed in which a reader or the job finds `sign` where the model has `defect`.
async fn found_out(jobs: &Jobs, defect: Defect, sign: &str) -> Option<u64> {
    for seed in 0..200 {
        let mut scenario = Scenario::of(seed);
        // Only what the job writes is to suffer.
        scenario.input.transactions = false;
        scenario.rules = Rules { slow_markers: true, late_fencing: false, defect: Some(defect) };
        scenario.plan = Plan::Dice { seed, every: 12, most: 12 };
        if simulate(jobs, scenario).await.is_err_and(|error| error.root_cause().to_string().contains(sign)) {
            return Some(seed);
        }
    }
    None
}

#[test]
fn a_model_that_breaks_a_promise_is_found_out() {
    block_on(async {
        let jobs = Jobs::plan().await.expect("the jobs are planned");
        for (defect, sign) in [
            (Defect::VisibleBeforeCommit, "too many: [\n"),
            (Defect::NoFencing, "too many: [\n"),
            (Defect::NoFencing, "stands at"),
            (Defect::ForgottenDecision, "missing: [\n"),
            (Defect::SilentTear, "is not what was written"),
        ] {
            let seed = found_out(&jobs, defect, sign).await;
            println!("{defect:?} is found out by {sign:?} with seed {seed:?}");
            assert!(seed.is_some(), "{defect:?} was not found out by {sign:?}");
        }
    });
}
