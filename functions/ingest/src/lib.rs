//! Takes batches of records from Kafka and stages them for their tables.
//!
//! Flow: Lambda payload -> [`event`] -> record -> slice (accept rule) -> rows -> Parquet -> **slot** -> acknowledged -> publish.
//!
//! # Invariants
//! - A record is acknowledged when it is in a won slot or in quarantine, or is known to add nothing.
//! - One bad record, partition or table stops nothing else.
//! - No I/O outlives the handler's return.

pub mod event;
pub mod failpoints;

mod config;
mod error;
mod handler;
mod ports;
mod publish;
mod quarantine;
mod rebuild;
mod record;
mod reference;
mod rows;
mod slice;
mod stage;
mod tail;
mod topic;

pub use config::Config;
pub use error::{Reason, StageError};
pub use handler::Ingest;
pub use ports::Ports;
pub use rebuild::{RebuildError, Rebuilder};
