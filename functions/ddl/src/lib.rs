//! Brings a table into being and up to a schema version, when ingest or commit meets one that the table does not have.
//!
//! Flow: schema documents of the agent -> **here** -> the table's schema, in one compare-and-set.
//!
//! # Invariants
//! - Idempotent, and safe under concurrent callers: what is there already is success.
//! - A version only grows: asked for an older one, the answer names the newer one that is there.

mod config;
mod handler;

pub use config::Config;
pub use handler::Ddl;
