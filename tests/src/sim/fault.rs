//! What goes wrong, and when: every call to the log or the store is a step, and a plan decides what befalls it.
//!
//! A run of the job has one [`Hand`], which all its calls pass through. Steps are numbered over all runs of a seed, so
//! that a plan can name one. Dice look at the run, the sort of call and how often this run has made it, not at the
//! step's number: one call more or less elsewhere leaves the rest of a seed as it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

/// A sort of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the calls of `topic::Log`, `Reader`, `Writer` and of an object store, by their names")]
pub enum Op {
    CreateTopic,
    Topics,
    Ranges,
    OffsetsAt,
    OpenReader,
    OpenWriter,
    Committed,
    LastByKey,
    Read,
    Begin,
    Send,
    Flush,
    SendOffsets,
    Commit,
    Abort,
    Put,
    Get,
    Delete,
    List,
}

/// What befalls a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies before the call has an effect.
    CrashBefore,
    /// The process dies when the call has had its effect, before it is told.
    CrashAfter,
    /// The call fails as unavailable, without an effect.
    FailBefore,
    /// The call has its effect and is reported as unavailable.
    FailAfter,
    /// The process stands still before the call, and wakes when another has taken over.
    Suspend,
    /// A put leaves the first half of its bytes and is reported as unavailable.
    TearAndFail,
    /// A put leaves the first half of its bytes and the process dies.
    TearAndCrash,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::FailBefore,
        Self::FailAfter,
        Self::Suspend,
        Self::TearAndFail,
        Self::TearAndCrash,
    ];

    /// The fault as it can befall `op`: only a put can be torn, and a read that failed has moved nothing.
    const fn on(self, op: Op) -> Self {
        match (self, op) {
            (Self::FailAfter, Op::Read) => Self::FailBefore,
            (Self::TearAndFail, Op::Put) => Self::TearAndFail,
            (Self::TearAndCrash, Op::Put) => Self::TearAndCrash,
            (Self::TearAndFail, _) => Self::FailBefore,
            (Self::TearAndCrash, _) => Self::CrashBefore,
            (other, _) => other,
        }
    }
}

/// Which steps are befallen.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// None.
    Clean,
    /// One, by its number.
    At {
        /// Number of the step, from 0, over all runs.
        step: u64,
        /// What befalls it.
        fault: Fault,
    },
    /// One in `every`, at random, and `most` in all.
    Dice {
        /// What the dice fall by.
        seed: u64,
        /// Steps a fault, on average.
        every: u32,
        /// Faults of a seed at most, so that it ends.
        most: u32,
    },
}

/// The plan of a seed, and what came of it so far; shared by its runs.
#[derive(Debug)]
pub(super) struct Faults {
    plan: Plan,
    steps: u64,
    struck: BTreeMap<Fault, u32>,
    trace: Vec<(u32, Op, Option<Fault>)>,
}

impl Faults {
    pub(super) fn new(plan: Plan) -> Shared<Self> {
        Shared::new(Self { plan, steps: 0, struck: BTreeMap::new(), trace: Vec::new() })
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) const fn struck(&self) -> &BTreeMap<Fault, u32> {
        &self.struck
    }

    /// Every step as one line: its number, the run, the call, what befell it.
    pub(super) fn trace(&self) -> String {
        let mut text = String::new();
        for (number, (run, op, fault)) in self.trace.iter().enumerate() {
            let fault = fault.map(|fault| format!("  <- {fault:?}")).unwrap_or_default();
            writeln!(text, "{number:5} run {run} {op:?}{fault}").expect("a string takes everything");
        }
        text
    }

    /// Notes a step, and says what befalls it.
    fn draw(&mut self, run: u32, op: Op, nth: u64, woken: bool) -> Option<Fault> {
        let number = self.steps;
        self.steps += 1;
        let fault = match self.plan {
            Plan::Clean => None,
            Plan::At { step, fault } => (step == number).then_some(fault),
            Plan::Dice { most, .. } if self.struck.values().sum::<u32>() >= most => None,
            Plan::Dice { seed, every, .. } => {
                // Odd constants keep the four numbers from falling together.
                let mixed = seed
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .wrapping_add(u64::from(run).wrapping_mul(0xbf58_476d_1ce4_e5b9))
                    .wrapping_add((op as u64).wrapping_mul(0x94d0_49bb_1331_11eb))
                    .wrapping_add(nth.wrapping_mul(0xd6e8_feb8_6659_fd93));
                let mut dice = StdRng::seed_from_u64(mixed);
                dice.random_ratio(1, every).then(|| Fault::ALL[dice.random_range(0..Fault::ALL.len())])
            }
        };
        // Who stood still once goes on to its end, so that a seed ends.
        let fault = fault.map(|fault| fault.on(op)).filter(|fault| !(woken && *fault == Fault::Suspend));
        if let Some(fault) = fault {
            *self.struck.entry(fault).or_default() += 1;
        }
        self.trace.push((run, op, fault));
        fault
    }
}

/// Something that several owners on one thread change by turns.
#[derive(Debug, Default)]
pub(super) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    pub(super) fn new(inner: T) -> Self {
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It goes on.
    Running,
    /// It is dead: none of its calls has an effect or ends any more.
    Crashed,
    /// Its calls wait until it is woken.
    Suspended,
}

/// What a call is told to do, once crashes and standstills before it are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Have the effect and say so.
    Go,
    /// Say that it failed.
    Fail,
    /// Have the effect, and say that it failed.
    GoAndFail,
    /// Have the effect, and [`Hand::die`].
    GoAndDie,
    /// Have half of the effect, and say that it failed.
    TearAndFail,
    /// Have half of the effect, and [`Hand::die`].
    TearAndDie,
}

/// What one run's calls pass through.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    run: u32,
    faults: Shared<Faults>,
    state: Shared<State>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    woken: bool,
    waker: Option<Waker>,
    steps: u64,
    made: BTreeMap<Op, u64>,
    failed: Vec<Op>,
    fenced: bool,
    reads_left: Option<u64>,
    shutdown: CancellationToken,
}

impl Hand {
    /// A hand for run number `run`; after `reads` reads it asks the run to stop.
    pub(super) fn new(run: u32, faults: Shared<Faults>, reads: Option<u64>) -> Self {
        let state = State {
            standing: Standing::Running,
            woken: false,
            waker: None,
            steps: 0,
            made: BTreeMap::new(),
            failed: Vec::new(),
            fenced: false,
            reads_left: reads,
            shutdown: CancellationToken::new(),
        };
        Self { run, faults, state: Shared::new(state) }
    }

    /// A hand that nothing befalls.
    pub(super) fn clean() -> Self {
        Self::new(u32::MAX, Faults::new(Plan::Clean), None)
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    pub(super) fn shutdown(&self) -> CancellationToken {
        self.state.lock().shutdown.clone()
    }

    pub(super) fn standing(&self) -> Standing {
        self.state.lock().standing
    }

    /// Steps this run has made.
    pub(super) fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// How often this run has called `op`.
    pub(super) fn made(&self, op: Op) -> u64 {
        self.state.lock().made.get(&op).copied().unwrap_or(0)
    }

    /// The calls that were reported as failed.
    pub(super) fn failed(&self) -> Vec<Op> {
        self.state.lock().failed.clone()
    }

    /// Whether the run was told that another took over.
    pub(super) fn was_fenced(&self) -> bool {
        self.state.lock().fenced
    }

    pub(super) fn note_fenced(&self) {
        self.state.lock().fenced = true;
    }

    /// Whether the run stood still and was woken.
    pub(super) fn was_woken(&self) -> bool {
        self.state.lock().woken
    }

    /// Lets a run that stands still go on.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        if state.standing == Standing::Suspended {
            (state.standing, state.woken) = (Standing::Running, true);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// The run is dead from here on; never returns.
    pub(super) async fn die<T>(&self) -> T {
        self.state.lock().standing = Standing::Crashed;
        pending().await
    }

    /// Makes a step: waits while the run stands still, and says what the call has to do.
    pub(super) async fn enter(&self, op: Op) -> Verdict {
        // Whoever drives the runs gets its turn before every step.
        tokio::task::yield_now().await;
        self.alive().await;
        match self.draw(op) {
            None => Verdict::Go,
            Some(Fault::FailBefore) => Verdict::Fail,
            Some(Fault::FailAfter) => Verdict::GoAndFail,
            Some(Fault::CrashAfter) => Verdict::GoAndDie,
            Some(Fault::TearAndFail) => Verdict::TearAndFail,
            Some(Fault::TearAndCrash) => Verdict::TearAndDie,
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::Suspend) => {
                self.state.lock().standing = Standing::Suspended;
                self.alive().await;
                Verdict::Go
            }
        }
    }

    /// Makes a step whose effect is at once; `lost` is what a call says that failed.
    pub(super) async fn step<T, E>(
        &self,
        op: Op,
        lost: impl FnOnce() -> E,
        effect: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match self.enter(op).await {
            Verdict::Go => effect(),
            Verdict::Fail | Verdict::TearAndFail => Err(lost()),
            Verdict::GoAndFail => effect().and_then(|_| Err(lost())),
            Verdict::GoAndDie | Verdict::TearAndDie => {
                // What it would have been told is never heard.
                drop(effect());
                self.die().await
            }
        }
    }

    fn draw(&self, op: Op) -> Option<Fault> {
        let mut state = self.state.lock();
        let made = state.made.entry(op).or_default();
        *made += 1;
        let nth = *made;
        state.steps += 1;
        let fault = self.faults.lock().draw(self.run, op, nth, state.woken);
        if matches!(fault, Some(Fault::FailBefore | Fault::FailAfter | Fault::TearAndFail)) {
            state.failed.push(op);
        }
        if op == Op::Read
            && let Some(left) = &mut state.reads_left
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.shutdown.cancel();
            }
        }
        fault
    }

    /// Returns once the run is neither dead nor at a standstill.
    async fn alive(&self) {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if state.standing == Standing::Running {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
