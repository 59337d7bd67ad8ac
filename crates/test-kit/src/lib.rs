//! What several crates' tests need: ports in memory, faults drawn from a seed, time and ids that a test owns; stand-ins and
//! real peers, each with its start and its end.
//!
//! # Invariants
//! - Only tests depend on this crate.
//! - The same seed gives the same faults, ids and interleaving on a current-thread runtime.

pub mod fault;
pub mod kafka;
pub mod meter;
pub mod postgres;
pub mod seed;

pub use fault::{FaultPlan, FaultyCatalog, FaultyStore};
pub use meter::{Meter, MeteredCatalog, MeteredStore, Requests};
pub use seed::{ManualClock, Seed, SeededIds};
