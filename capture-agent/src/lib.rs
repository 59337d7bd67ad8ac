//! The capture agent: one process per source database, from its log to Kafka.
//!
//! Flow: **PostgreSQL -> source transactions -> envelopes -> Kafka**; everything behind Kafka is functions.
//!
//! `supervisor` begins sessions; a `session` fences its predecessor, claims an epoch, reads progress back, follows the plan of
//! `slot` (copy or resume) and then runs the loop of `capture`, whose `frames` are turned by rows (`rows`, `truncates`) into records
//! of Kafka transactions (`transaction`). What is asked of Kafka stands in `broker`; `kafka` answers it. Beside the loop `copier` takes
//! new tables in and copies tables (`recopy`) while the stream goes on.
//!
//! # Invariants
//! - The source position is committed in the same Kafka transaction as the records, and the slot is acknowledged only after.
//! - Any failure ends the session; the next one has a new epoch and reads back what is committed.
//! - No row value is in a log line, a metric or an error.

mod answers;
pub mod asks;
pub mod broker;
pub mod capture;
pub mod census;
pub mod check;
pub mod config;
pub mod context;
pub mod copier;
pub mod copy;
pub mod copy_id;
pub mod epoch;
pub mod error;
mod failover;
pub mod failpoints;
pub mod frames;
pub mod http;
pub mod kafka;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod monitor;
pub mod objects;
pub mod page;
pub mod progress;
pub mod quarantine;
pub mod recopy;
pub mod requests;
pub mod rows;
pub mod schemas;
pub mod session;
pub mod settlement;
pub mod signals;
pub mod slot;
pub mod source;
mod start;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod tables;
pub mod topics;
pub mod transaction;
pub mod truncates;

pub use config::Config;
pub use context::Context;
pub use error::AgentError;
pub use supervisor::run;
