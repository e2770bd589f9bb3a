//! What may happen to a stream job from outside, on real services: `kill -9` at any moment, a second copy, a broker
//! that dies or freezes, an object store that refuses. Afterwards an auditor reads everything that was written.
//!
//! `TIDEGATE_SOAK=N` asks for N rounds, and for outages of a minute. The trials run one at a time: each wants the
//! machine to itself, for a busy one would hit fewer phases.

mod auditor;
pub(crate) mod broker;
pub(crate) mod chance;
mod kill_loop;
mod outage;
pub(crate) mod process;
mod producer;
pub(crate) mod proxy;
mod takeover;
mod trial;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rounds that `TIDEGATE_SOAK` asks for.
pub(crate) fn soak() -> Option<usize> {
    let rounds = std::env::var("TIDEGATE_SOAK").ok().filter(|rounds| !rounds.is_empty())?;
    Some(rounds.parse().expect("TIDEGATE_SOAK is a number of rounds"))
}

/// Tells what was measured, past the test runner's capture.
pub(crate) fn say(line: &str) {
    // Nobody reads stderr when this write fails.
    let _ = writeln!(std::io::stderr(), "crash: {line}");
}

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TRIAL: Mutex<()> = Mutex::new(());
    // A trial that failed harms no other.
    TRIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

mod kafka {
    mod minio {
        use super::super::trial::Subject;
        use super::super::{alone, kill_loop, outage, takeover};

        #[test]
        fn a_job_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing() {
            let _turn = alone();
            kill_loop::killed_again_and_again("kill loop", Subject::Kinds, 20);
        }

        #[test]
        fn a_job_with_two_outputs_that_is_killed_again_and_again_keeps_both_whole() {
            let _turn = alone();
            kill_loop::killed_again_and_again("kill loop, two outputs", Subject::TwoInserts, 14);
        }

        #[test]
        fn a_second_copy_takes_over_and_the_first_says_by_whom() {
            let _turn = alone();
            takeover::a_second_copy_takes_over();
        }

        #[test]
        fn a_second_copy_that_restores_slowly_repeats_nothing_that_the_first_committed_meanwhile() {
            let _turn = alone();
            takeover::a_slow_copy_contends();
        }

        #[test]
        fn a_start_is_not_misled_by_the_open_transaction_of_another_job() {
            let _turn = alone();
            takeover::another_job_has_a_transaction_open();
        }

        #[test]
        fn a_job_outlives_its_broker() {
            let _turn = alone();
            outage::the_broker_is_killed();
        }

        #[test]
        fn a_job_outlives_a_leader() {
            let _turn = alone();
            outage::a_leader_is_killed();
        }

        #[test]
        fn a_job_outlives_its_transaction() {
            let _turn = alone();
            outage::the_broker_freezes_for_longer_than_a_transaction_lasts();
        }

        #[test]
        fn a_job_waits_for_an_object_store_that_refuses() {
            let _turn = alone();
            outage::the_object_store_refuses();
        }
    }
}
