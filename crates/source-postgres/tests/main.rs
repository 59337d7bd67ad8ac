//! The source against a real server: `FIRN_PG_BIN` names its programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests: a scenario against one server reads in one piece"
)]

mod catalog;
mod copy;
mod login;
mod slots;
mod streaming;
mod support;

use std::process::ExitCode;

use test_kit::postgres::{PostgresTest, run_tests};

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(PostgresTest {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |programs| support::block_on($module::$name(programs)),
        }),*]
    };
}

fn main() -> ExitCode {
    run_tests(tests![
        catalog::printed_types_are_those_of_the_catalog,
        catalog::publication_holds_exactly_the_tables_asked_for,
        catalog::sound_source_has_no_problem_and_each_flaw_is_one,
        copy::copied_values_have_the_text_of_streamed_ones,
        copy::copy_sees_its_snapshot_and_refuses_a_rewritten_table,
        login::passwords_are_checked_by_every_method,
        login::encryption_is_refused_and_an_unreachable_server_is_retried,
        slots::acknowledged_keepalive_moves_an_idle_slot,
        slots::missing_slot_is_an_error_and_is_not_created,
        slots::slot_in_use_and_slot_lost_are_told_apart,
        slots::server_that_goes_away_ends_the_stream_with_a_retry,
        streaming::every_kind_of_change_arrives_in_order,
        streaming::slow_consumer_is_not_dropped_by_the_server,
        streaming::publication_dropped_under_the_stream_is_an_error,
        streaming::renamed_and_added_columns_keep_their_identity,
    ])
}
