//! At a size of a minute: the core with two racing combiners and three changes, every family alone, and every mutant. The large
//! searches are `./dev model`.

use crate::{Family, Mutant, Setup, check};

fn holds(families: &[Family]) {
    let line = check(Setup::of(families), None);
    assert!(line.counterexample.is_none(), "{}", line.told());
    assert!(line.states > 100, "{} states", line.states);
}

#[test]
fn core_holds_with_two_combiners_and_three_changes() {
    let line = check(Setup::of(&[]).sized(2, 3, 1), None);
    assert!(line.counterexample.is_none(), "{}", line.told());
    assert!(line.states > 100_000, "{} states", line.states);
}

#[test]
fn lost_answers_lose_and_double_nothing() {
    holds(&[Family::Lost]);
}

#[test]
fn agent_that_aborts_crashes_and_is_doubled_loses_and_doubles_nothing() {
    holds(&[Family::Agent]);
}

#[test]
fn removed_slots_lose_nothing() {
    holds(&[Family::Removal]);
}

#[test]
fn foreign_commits_lose_and_double_nothing() {
    holds(&[Family::Foreign]);
}

#[test]
fn schema_change_loses_and_doubles_nothing() {
    holds(&[Family::Schema]);
}

#[test]
fn rollback_halts_and_both_ways_out_end_whole() {
    holds(&[Family::Rollback]);
}

#[test]
fn topic_made_anew_loses_nothing_in_silence() {
    holds(&[Family::Incarnation]);
}

#[test]
fn raised_map_keeps_order_per_key() {
    holds(&[Family::Map]);
}

#[test]
fn table_made_anew_loses_nothing_in_silence() {
    holds(&[Family::Recreated]);
}

#[test]
fn offsets_moved_ahead_are_a_gap() {
    holds(&[Family::Reset]);
}

#[test]
fn every_mutant_is_caught() {
    let caught = Mutant::ALL.iter().map(|mutant| {
        let line = check(mutant.setup(), Some(*mutant));
        (mutant.name(), line.counterexample)
    });
    let alive: Vec<&str> = caught
        .filter(|(_, counterexample)| counterexample.is_none())
        .map(|(name, _)| name)
        .collect();
    assert!(alive.is_empty(), "not caught: {alive:?}");
}
