//! The protocol as a state machine, searched exhaustively: from the source's changes to committed rows, under every
//! interleaving of its actors and every fault of a family.
//!
//! Flow: [`agent`] (transaction loop, broker) gives every log that can come to be -> `view` (what a poller shows of it, at
//! either isolation level) -> `ingest`, `combine` and `faults` take steps on a `state` -> `completion` says of every state
//! whether the pipeline, left alone from there, ends whole.
//!
//! # Invariants
//! - What production decides by pure functions is decided by those functions here: [`table_commit::judge`],
//!   [`table_commit::Frontier`] with `pass`, `needs_slot` and `reopened`, [`table_commit::RecordIdentity`].
//! - A mutant replaces one step. It must be caught, or the model would not see that step missing.
//!
//! # Reductions, and why they lose nothing
//! - *Agent apart from pipeline.* The agent reads nothing that the pipeline writes, and the pipeline reads of it only a log
//!   that grows. A batch that is cut from a growing log is also a batch of the finished one. So every interleaving of both is
//!   one of the pipeline's on a finished log.
//! - *A walk is one step*, except where slots are removed: a slot is written once, so that a walk of many reads gives what one
//!   read of everything at the moment of the last would give. In the family of removed slots each read is a step.
//! - *Caches.* A function may start from every tail that the chain ever had: any number of warm functions exist.
//! - *Parquet before the slot* is no step: nobody reads a file that no slot names.
//! - *Workers are alike*: a state and the one with two workers exchanged are one.
//! - *Offsets are dense*: they are compared with offsets only, and a slot is named by a frontier's, so that what markers and
//!   hidden records leave out between two changes nothing. The mutant that names a slot by a record's offset keeps them.
//!
//! # Invocations as steps
//! A search by [`Grain::Call`] takes every call of every worker as a step. One by [`Grain::Invocation`] takes an invocation up to
//! a call that others can see as one, and the worker may end there. So it holds for any number of invocations. It loses nothing:
//! - *Ingest before its PUT* changes nothing, and what it read stays to be had: acknowledgements and chains only grow, and a
//!   function may start from any tail. It could as well start just before its PUT. A PUT that finds its slot taken is a start
//!   from the next tail.
//! - *Ingest behind its PUT* still has to acknowledge. Who gets the batch again from the tail behind that slot acknowledges the
//!   same, at any moment later.
//! - *A worker that crashes* crashed just as well behind its last call that was seen.
//! - *A combiner* builds from a table that the swap compares, and from a prefix of the chains as they are at the swap. It could
//!   as well build just before it. One whose table moved on is only told of a conflict.
//! - *Where slots are removed* none of this is taken for granted: which tails two workers know is part of the state, and a
//!   combiner loads and swaps in two steps. The same for a combiner of the mutant that swaps without comparing.
//! - It is tried, too: both ways reach the same states at rest (`invocations_as_steps_reach_the_rests_that_calls_reach`), and of states at rest everything is asked.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a model over bounds it sets itself"
)]

mod agent;
mod combine;
mod completion;
mod family;
mod faults;
mod ingest;
mod invocation;
mod mutant;
mod report;
mod rules;
mod search;
mod session;
mod state;
mod view;
mod world;

#[cfg(test)]
mod tests;

pub use family::{Family, Grain, Setup};
pub use mutant::Mutant;
pub use report::{Line, check, check_telling, families, pairs, table};
