//! Production code in one process, on a simulated Kafka, object storage and catalog, with one seed for time, ids, order and
//! faults.
//!
//! Flow: `source` (script) -> `agent` (production) -> `kafka` (log) -> `event_source` -> functions (production) -> `lake` (the
//! reference model). `calls` holds every external call of production code until `world` completes it: which one is next, whether
//! it happens and whether its caller is told is the seed's.
//!
//! # Invariants
//! - What is judged is production code; only ports, the source and the waiting for clocks are simulated.
//! - The same seed gives the same trace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "test helpers"
)]

mod agent;
mod calls;
mod choice;
mod completion;
mod event_source;
mod kafka;
mod lake;
mod payload;
mod ports;
mod process;
mod running;
mod shrink;
mod source;
mod trace;
mod world;

pub use shrink::{Shrunk, shrink};
pub use world::{Outcome, Request, run};
