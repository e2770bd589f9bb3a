//! The harness: starts runs of the job one after another, lets them die or sleep as the plan has it, wakes sleepers in
//! the midst of their successors, and judges how each ended.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use event::Clock;
use object_store::memory::InMemory;
use processor::ErrorKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use topic::TopicSpec;

use super::audit::audit;
use super::broker::{Broker, Rules};
use super::fault::{Fault, Faults, Hand, Op, Plan, Shared, Standing};
use super::input::{BEGIN_SECS, Feed, Input, RAW_TOPIC};
use super::log::{Cluster, Pace, SimLog};
use super::runner::{DELAYS_SECS, Ending, JOB_COUNT, Jobs, Manner, Running, start};
use super::store::SimStore;

/// A seed ends long before it has had so many runs; more are a job that does not come on.
const RUNS_MAX: u32 = 200;
/// Steps of a successor, at most, until a sleeper is woken.
const SLEEP_STEPS: u64 = 40;

/// Everything that decides what a simulation does.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What all dice but those of the plan fall by.
    pub seed: u64,
    /// What comes in.
    pub input: Input,
    /// Which job, by its place in the list of them.
    pub job: usize,
    /// Which delay of the watermark, by its place in the list of them.
    pub delay: usize,
    /// Partitions that are caught up do not hold the watermark back.
    pub idle_at_once: bool,
    /// Reads of a run at most before it is asked to stop.
    pub reads_max: u64,
    /// What Kafka leaves open.
    pub rules: Rules,
    /// What goes wrong.
    pub plan: Plan,
    /// Real time that every read takes, so that a run commits more than once; none for as little as can be.
    pub read_time: Option<Duration>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        Self {
            seed,
            input: Input {
                partitions: dice.random_range(1..=4),
                rows: dice.random_range(30..=150),
                disorder_secs: [0, 20, 100][dice.random_range(0..3)],
                transactions: dice.random_bool(0.5),
            },
            job: dice.random_range(0..JOB_COUNT),
            delay: dice.random_range(0..DELAYS_SECS.len()),
            idle_at_once: dice.random_ratio(1, 4),
            reads_max: dice.random_range(2..=10),
            rules: Rules { slow_markers: dice.random(), late_fencing: dice.random(), defect: None },
            plan: Plan::Dice { seed, every: dice.random_range(10..60), most: dice.random_range(0..=12) },
            read_time: None,
        }
    }

    /// Whether no row can come too late: none is more out of order than the watermark waits for.
    fn is_punctual(&self) -> bool {
        !self.idle_at_once && self.input.disorder_secs < i64::from(DELAYS_SECS[self.delay])
    }
}

/// What happened, for those who count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs of the job.
    pub runs: u32,
    /// Calls to log and store.
    pub steps: u64,
    /// Faults that struck, by their sort.
    pub struck: BTreeMap<Fault, u32>,
    /// Transactions that a run tried to commit beside its last.
    pub commits_within_runs: u64,
    /// Runs that were woken after a successor had taken over, and were told so.
    pub fenced_sleepers: u32,
    /// (Row, window) pairs that came too late.
    pub late: usize,
    /// Rows of the output topic, in their order.
    pub output: Vec<String>,
    /// Every step as a line.
    pub trace: String,
}

impl Report {
    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.commits_within_runs += other.commits_within_runs;
        self.fenced_sleepers += other.fenced_sleepers;
        self.late += other.late;
        for (fault, count) in &other.struck {
            *self.struck.entry(*fault).or_default() += count;
        }
    }
}

/// Runs a scenario to its end.
///
/// # Errors
/// What was found wrong, with the scenario and every step.
pub async fn simulate(jobs: &Jobs, scenario: Scenario) -> Result<Report> {
    let (world, events) = World::new(jobs, scenario);
    let done = Box::pin(world.run()).await;
    let report = world.report.lock().clone();
    let audited = match done {
        Ok(()) => {
            let log = SimLog { hand: Hand::clean(), pace: Pace::Never, ..world.log(Hand::clean()) };
            audit(&log, scenario.job, &events, scenario.is_punctual()).await
        }
        Err(error) => Err(error),
    };
    let faults = world.faults.lock();
    let findings = audited.with_context(|| format!("{scenario:#?}\n{}", faults.trace()))?;
    Ok(Report {
        steps: faults.steps(),
        struck: faults.struck().clone(),
        trace: faults.trace(),
        late: findings.late,
        output: findings.output,
        ..report
    })
}

/// What the runs of a scenario share.
struct World<'a> {
    jobs: &'a Jobs,
    scenario: Scenario,
    cluster: Shared<Cluster>,
    objects: Arc<InMemory>,
    faults: Shared<Faults>,
    clock: Clock,
    report: Shared<Report>,
}

/// A run that was started.
struct Live<'a> {
    hand: Hand,
    finishes: bool,
    /// Step of the successor from which on a run that sleeps is woken.
    wakes_at: u64,
    running: Running<'a>,
}

/// Where driving a run ended.
enum Halt {
    Ended(Ending),
    Crashed,
    Suspended,
}

/// What a run's end means for the job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    GoesOn,
    Finished,
}

impl<'a> World<'a> {
    fn new(jobs: &'a Jobs, scenario: Scenario) -> (Self, Vec<crate::oracle::PlainEvent>) {
        let (feed, events) = Feed::new(scenario.seed, scenario.input);
        let mut broker = Broker::new(scenario.rules);
        let raw = TopicSpec { name: RAW_TOPIC.to_owned(), partitions: scenario.input.partitions, config: Vec::new() };
        broker.create_topic(&raw).expect("a topic as any");
        let world = Self {
            jobs,
            scenario,
            cluster: Shared::new(Cluster { broker, feed }),
            objects: Arc::default(),
            faults: Faults::new(scenario.plan),
            clock: Clock::mock(BEGIN_SECS * 1_000),
            report: Shared::default(),
        };
        (world, events)
    }

    fn log(&self, hand: Hand) -> SimLog {
        let pace = self.scenario.read_time.map_or(Pace::Never, Pace::Takes);
        SimLog { cluster: self.cluster.clone(), hand, pace, clock: self.clock.clone() }
    }

    fn start(&self, run: u32) -> Live<'a> {
        let mut dice = StdRng::seed_from_u64(self.scenario.seed.wrapping_add(u64::from(run) << 32));
        // The last run reads to the end as it stands when it starts.
        let cluster = self.cluster.lock();
        let finishes = cluster.feed.is_dry() && cluster.broker.is_stable(RAW_TOPIC);
        drop(cluster);
        let reads = dice.random_range(1..=self.scenario.reads_max);
        let hand = Hand::new(run, self.faults.clone(), (!finishes).then_some(reads));
        let manner = Manner {
            until_latest: finishes,
            epoch_records_max: dice.random_range(1..=40),
            // Another number than the run before.
            threads: run as usize % 3 + 1,
            idle_at_once: self.scenario.idle_at_once,
        };
        let defect = self.scenario.rules.defect;
        let store = SimStore { objects: Arc::clone(&self.objects), hand: hand.clone(), defect };
        let job = self.jobs.get(self.scenario.job, self.scenario.delay);
        let (log, shutdown) = (Arc::new(self.log(hand.clone())), hand.shutdown());
        let running = start(job, log, Arc::new(store), self.clock.clone(), manner, shutdown);
        Live { hand, finishes, wakes_at: dice.random_range(0..SLEEP_STEPS), running }
    }

    /// Starts runs until the job has finished, and lets all sleepers come to their end.
    async fn run(&self) -> Result<()> {
        let mut sleepers: Vec<Live<'a>> = Vec::new();
        let mut finished = false;
        for run in 0..RUNS_MAX {
            self.report.lock().runs += 1;
            let mut live = self.start(run);
            match self.drive(&mut live, &mut sleepers).await? {
                Halt::Ended(ending) => finished = self.judge(&live, &ending)? == Outcome::Finished,
                Halt::Crashed => {}
                Halt::Suspended => sleepers.push(live),
            }
            if finished {
                break;
            }
        }
        ensure!(finished, "the job has not finished after {RUNS_MAX} runs");
        while let Some(mut live) = sleepers.pop() {
            live.hand.wake();
            if let Halt::Ended(ending) = self.drive(&mut live, &mut sleepers).await? {
                self.judge(&live, &ending)?;
            }
        }
        Ok(())
    }

    /// Polls a run until it ends, dies or falls asleep; and beside it those whose time to wake has come.
    async fn drive(&self, live: &mut Live<'a>, sleepers: &mut Vec<Live<'a>>) -> Result<Halt> {
        poll_fn(|context| {
            if let Err(error) = self.poll_sleepers(live, sleepers, context) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(ending) = live.running.as_mut().poll(context) {
                return Poll::Ready(Ok(Halt::Ended(ending)));
            }
            match live.hand.standing() {
                Standing::Running => Poll::Pending,
                Standing::Crashed => Poll::Ready(Ok(Halt::Crashed)),
                Standing::Suspended => Poll::Ready(Ok(Halt::Suspended)),
            }
        })
        .await
    }

    fn poll_sleepers(
        &self,
        successor: &Live<'a>,
        sleepers: &mut Vec<Live<'a>>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let mut at = 0;
        while let Some(sleeper) = sleepers.get_mut(at) {
            let taken_over = successor.hand.made(Op::OpenWriter) > 0;
            if taken_over && successor.hand.steps() >= sleeper.wakes_at {
                sleeper.hand.wake();
            }
            let over = match sleeper.hand.standing() {
                Standing::Suspended => false,
                Standing::Crashed => true,
                Standing::Running => match sleeper.running.as_mut().poll(context) {
                    Poll::Ready(ending) => self.judge(sleeper, &ending).map(|_| true)?,
                    Poll::Pending => sleeper.hand.standing() == Standing::Crashed,
                },
            };
            if over {
                drop(sleepers.swap_remove(at));
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether a run may end so, and whether the job has finished with it.
    fn judge(&self, live: &Live<'a>, ending: &Ending) -> Result<Outcome> {
        let hand = &live.hand;
        self.report.lock().commits_within_runs += hand.made(Op::Commit).saturating_sub(1);
        let (run, fenced, failed) = (hand.run(), hand.was_fenced(), hand.failed());
        if fenced && hand.was_woken() {
            self.report.lock().fenced_sleepers += 1;
        }
        match ending {
            // Whoever was fenced by a run that came to nothing may go on; that it does no harm the audit sees.
            Ok(()) if live.finishes => Ok(Outcome::Finished),
            Ok(()) => Ok(Outcome::GoesOn),
            Err((ErrorKind::Fenced, _)) if fenced => Ok(Outcome::GoesOn),
            // Another run's name in the control record tells as well, where a sleeper may have put it.
            Err((ErrorKind::Fenced, text)) if text.contains("was taken over") && self.slept() => Ok(Outcome::GoesOn),
            // Another run finished it while this one slept.
            Err((ErrorKind::Config, text)) if text.contains("has finished") => Ok(Outcome::Finished),
            Err((ErrorKind::Unavailable, _)) if !failed.is_empty() => Ok(Outcome::GoesOn),
            Err((kind, text)) => bail!("run {run} ended with {kind:?} after the failures {failed:?}: {text}"),
        }
    }

    fn slept(&self) -> bool {
        self.faults.lock().struck().contains_key(&Fault::Suspend)
    }
}
