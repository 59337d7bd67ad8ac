//! At a size of a minute: the core with two racing combiners and three changes, every family alone, and every mutant. The large
//! searches are `./dev model`.

use crate::{Family, Grain, Mutant, Setup, check};

/// Call by call, and by invocations: both hold, and reach the same states at rest.
fn holds(families: &[Family]) {
    let [calls, invocations] = [Grain::Call, Grain::Invocation].map(|grain| {
        let line = check(Setup::of(families).by(grain), None);
        assert!(line.counterexample.is_none(), "{}", line.told());
        line
    });
    assert!(calls.states > 100, "{} states", calls.states);
    assert_eq!(
        (calls.rests, calls.digest),
        (invocations.rests, invocations.digest)
    );
}

#[test]
fn core_holds_with_two_combiners_and_three_changes() {
    let line = check(Setup::of(&[]).sized(2, 3, 1), None);
    assert!(line.counterexample.is_none(), "{}", line.told());
    assert!(line.states > 50_000, "{} states", line.states);
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
fn invocations_as_steps_reach_the_rests_that_calls_reach() {
    let setup = Setup::of(&[]).sized(2, 3, 1);
    let [calls, invocations] = [Grain::Call, Grain::Invocation].map(|grain| {
        let line = check(setup.by(grain), None);
        (line.rests, line.digest)
    });
    assert_eq!(calls, invocations);
}

#[test]
fn every_mutant_is_caught() {
    let searches = Mutant::ALL
        .iter()
        .flat_map(|mutant| [Grain::Call, Grain::Invocation].map(|grain| (*mutant, grain)));
    let alive: Vec<(&str, Grain)> = searches
        .filter(|(mutant, grain)| {
            let line = check(mutant.setup().by(*grain), Some(*mutant));
            line.counterexample.is_none()
        })
        .map(|(mutant, grain)| (mutant.name(), grain))
        .collect();
    assert!(alive.is_empty(), "not caught: {alive:?}");
}
