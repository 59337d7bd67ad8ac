//! Combines what ingest has staged into snapshots: for the tables that messages name, and on a schedule for all.
//!
//! Flow: staged intents -> **here** -> one snapshot of each table, by compare-and-set.
//!
//! # Invariants
//! - A message is a hint. Two of one table, one too late or one too many change nothing.
//! - A table that fails stops no other.

mod config;
mod handler;
mod request;

pub use config::Config;
pub use handler::{Answer, Commit, Ports, SweepSummary};
pub use request::Request;
