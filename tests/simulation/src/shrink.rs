//! Makes a failing schedule small: leaves faults and source transactions out as long as it still fails.
//!
//! # Source
//! Delta debugging (Zeller, Hildebrandt 2002): chunks of falling size are left out.

use std::collections::BTreeSet;

use crate::world::{Outcome, Request, run};

/// Runs at most, so that shrinking has an end.
const RUNS_MAX: u32 = 400;

/// A small schedule that fails.
#[derive(Debug)]
pub struct Shrunk {
    /// What to run again.
    pub request: Request,
    /// What it comes to, with the trace's lines.
    pub outcome: Outcome,
    /// Runs that this took.
    pub runs: u32,
}

/// Shrinks a seed that fails.
#[must_use]
pub fn shrink(failing: &Request) -> Shrunk {
    let mut best = failing.clone();
    let mut outcome = run(&best);
    let mut runs = 1;
    let attempt = |request: &Request, runs: &mut u32| {
        *runs += 1;
        let outcome = run(request);
        outcome.violation.is_some().then_some(outcome)
    };
    let fewer = [1, 2, 3, 5, 8, 12, 20].into_iter();
    for transactions in fewer.take_while(|fewer| *fewer < outcome.transactions) {
        let request = Request {
            transactions: Some(transactions),
            ..best.clone()
        };
        if let Some(failed) = attempt(&request, &mut runs) {
            (best, outcome) = (request, failed);
            break;
        }
    }
    let mut chunk = outcome.struck.len().max(1);
    loop {
        let before = best.left_out.len();
        let mut start = 0;
        while start < outcome.struck.len() && runs < RUNS_MAX {
            let dropped = outcome.struck.iter().skip(start).take(chunk).copied();
            let left_out: BTreeSet<u64> = best.left_out.iter().copied().chain(dropped).collect();
            let request = Request {
                left_out,
                ..best.clone()
            };
            match attempt(&request, &mut runs) {
                Some(failed) => (best, outcome) = (request, failed),
                None => start += chunk,
            }
        }
        // At the end no fault that is left can be left out.
        if runs >= RUNS_MAX || (chunk == 1 && best.left_out.len() == before) {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    best.keep_lines = true;
    Shrunk {
        outcome: run(&best),
        request: best,
        runs,
    }
}
