//! Seeds that nobody chose: different each run, and printed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers")]

use std::time::{Duration, Instant};

use change_event::{IdSource, RandomIds};
use simulation::{Request, run, shrink};

/// `./dev test` gives it 45 seconds: this and the seed that is under way when it ends. A release build runs far more.
const BUDGET: Duration = Duration::from_secs(30);
const SEEDS_MAX: u64 = 400;

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 1..4 {
        let request = Request {
            seed,
            ..Request::default()
        };
        let (one, other) = (run(&request), run(&request));
        assert_eq!(
            (one.hash, one.steps),
            (other.hash, other.steps),
            "seed {seed}"
        );
        assert!(one.steps > 0);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let hash = |seed| {
        run(&Request {
            seed,
            ..Request::default()
        })
        .hash
    };
    assert_ne!(hash(1), hash(2));
}

#[test]
fn schedule_that_fails_is_shrunk_to_the_faults_that_it_needs() {
    let flawed = |seed| Request {
        seed,
        transactions: Some(5),
        late_overwrites: true,
        ..Request::default()
    };
    let failing = (1..).map(flawed).find(|of| run(of).violation.is_some());
    let failing = failing.unwrap();
    let struck = run(&failing).struck.len();

    let shrunk = shrink(&failing);
    let left = &shrunk.outcome.struck;
    assert!(shrunk.outcome.violation.is_some());
    assert!(left.len() < struck, "{} of {struck} faults", left.len());
    assert!(!shrunk.outcome.lines.is_empty(), "the schedule is printed");
    for fault in left {
        let mut without = shrunk.request.clone();
        without.left_out.insert(*fault);
        let outcome = run(&without);
        assert_eq!(outcome.violation, None, "fault {fault} can be left out");
    }
    let sound = Request {
        late_overwrites: false,
        ..shrunk.request.clone()
    };
    assert_eq!(run(&sound).violation, None, "the flaw is what is seen");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "bounded by real time")]
fn drawn_seeds_lose_and_double_nothing_and_keep_the_order_of_a_key() {
    let from = u64::try_from(RandomIds.next_snapshot_id()).unwrap() >> 16;
    let until = Instant::now() + BUDGET;
    let mut steps = 0;
    let mut seed = from;
    while seed < from + SEEDS_MAX && Instant::now() < until {
        let outcome = run(&Request {
            seed,
            ..Request::default()
        });
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\n./dev simulate --seeds 1 --from {seed}");
        }
        steps += outcome.steps;
        seed += 1;
    }
    eprintln!("{} seeds from {from}, {steps} steps", seed - from);
}
