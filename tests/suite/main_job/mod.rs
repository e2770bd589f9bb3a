//! The main job whole: relay → topic → lake → windows, against answers computed by other means.
//!
//! Every test is a function of a stage; it runs on the embedded log with a local lake, and on real Kafka with MinIO.

mod answers;
mod engine;
pub(crate) mod input;

use tests::stage::Stage;

macro_rules! on_every_stage {
    ($($module:ident: $test:ident),* $(,)?) => {
        mod embedded {
            use super::*;
            $(#[test] fn $test() { $module::$test(&Stage::embedded()); })*
        }

        mod kafka {
            mod minio {
                use super::super::*;
                $(#[test] fn $test() {
                    if let Some(stage) = Stage::services() { $module::$test(&stage); }
                })*
            }
        }
    };
}

on_every_stage!(
    answers: the_built_in_jobs_give_the_expected_answers,
    answers: a_stream_prints_what_a_batch_prints,
    answers: late_rows_are_exactly_what_a_stream_lacks,
    answers: a_range_holds_its_start_and_not_its_end,
    answers: other_jobs_agree_with_duckdb,
    answers: a_lake_of_json_lines_answers_the_same,
    answers: a_job_goes_on_where_it_was_stopped,
    engine: a_stream_that_starts_with_the_lake_misses_nothing_and_repeats_nothing,
    engine: updates_end_with_what_append_emits,
    engine: a_checkpoint_of_another_query_is_refused_and_one_changed_above_is_not,
    input: every_line_of_the_invalid_set_is_in_one_topic,
    input: events_dated_ahead_are_rejected_by_default,
    input: what_was_landed_is_not_landed_again,
);
