//! The agent between a real PostgreSQL and a real Kafka: `FIRN_PG_BIN` and `FIRN_KAFKA_LIB` name them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a scenario against real parts reads in one piece"
)]

mod bench;
mod failover;
mod late;
mod raise;
mod restart;
mod topic;

use std::process::ExitCode;

use test_kit::postgres::{PostgresTest, run_tests};

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(PostgresTest {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |programs| bench::block_on($module::$name(programs)),
        }),*]
    };
}

fn main() -> ExitCode {
    run_tests(tests![
        failover::change_behind_the_switch_point_halts_with_words,
        failover::promoted_standby_goes_on_where_the_primary_ended,
        raise::kill_at_every_failpoint_of_a_raise_keeps_each_change_once_and_each_key_in_order,
        raise::lower_number_of_partitions_halts_with_words,
        late::new_table_is_taken_in_and_copied_while_the_stream_goes_on,
        late::kill_at_every_failpoint_of_a_later_copy_doubles_and_loses_nothing,
        late::table_that_left_the_publication_is_shown_and_stops_no_other,
        restart::kill_at_every_failpoint_of_the_copy_doubles_and_loses_nothing,
        restart::kill_at_every_failpoint_of_the_stream_doubles_and_loses_nothing,
        restart::lost_progress_topic_halts_with_words,
        restart::lost_slot_halts_with_words,
        restart::second_agent_fences_the_first,
    ])
}
