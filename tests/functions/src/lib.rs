//! The functions in one process: their handlers over ports in memory, fed by what an agent would write, read back from
//! the Parquet files that the table's head names.
//!
//! # Invariants
//! - Handlers are the ones that ship; only ports stand in.
//! - A row is read from the file, not from what somebody remembers to have written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "test helpers"
)]

pub mod lake;
mod ports;
mod topic;
mod world;

pub use lake::Row;
pub use ports::{CountingStore, InProcess, MemoryQueue};
pub use topic::{TopicWriter, column, event, schema};
pub use world::{NOW_MS, World, days, hours, minutes};
