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

pub use family::{Family, Setup};
pub use mutant::Mutant;
pub use report::{Line, check, families, pairs, table};
