//! The vocabulary of firn: positions, schemas, record headers and the envelope of a change event.
//!
//! Flow: source log -> **change event** -> topic -> batch -> Parquet -> commit. Every other crate speaks these
//! words; this one names none of the others.
//!
//! # Invariants
//! - No I/O. Clock and ids are traits, so that a replay owns them.
//! - What is encoded here is decoded here: the agent and the functions cannot disagree about a byte.

pub mod clock;
pub mod copy_request;
pub mod disposition;
pub mod envelope;
pub mod evolution;
pub mod header;
pub mod json;
pub mod layout;
pub mod naming;
pub mod partition;
pub mod position;
pub mod registration;
pub mod schema;

pub use clock::{Clock, IdSource, RandomIds, ShiftedClock, SystemClock};
pub use copy_request::{CopyAnswer, CopyRequest};
pub use disposition::Disposition;
pub use envelope::{Cell, EnvelopeError, EnvelopeView, Operation};
pub use header::{Predecessor, RecordHeader, RecordKind};
pub use position::{Lane, Lsn, Position};
pub use registration::TopicRegistration;
pub use schema::{Column, ColumnType, RetiredColumn, SourceSchema};
