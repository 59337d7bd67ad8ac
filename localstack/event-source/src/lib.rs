//! The stand-in for Lambda's Kafka event source mapping: no local cloud has one.
//!
//! Flow: topic -> **here** (poll, batch, invoke) -> functions/ingest. On AWS the service does this; on one machine, and in
//! every test of the pipeline, this crate does it, and misbehaves on request as the service may.
//!
//! ```text
//! registry (bucket) -> supervisor -> one poller per topic-partition (or per topic)
//!                                      records (Kafka) -> batch -> invoke -> response -> commit of the offsets
//! ```
//!
//! # Invariants
//! - Offsets are committed only after the function returned success for them: a crash here redelivers, never loses.
//! - Per partition one invocation at a time, in offset order, until a seeded fault says otherwise.
//! - A batch that fails is delivered again without end, with a growing wait.
//! - No payload is larger than the cap; a single record above it is dropped and counted, as Lambda does.
//!
//! # Source
//! AWS Lambda developer guide, "Using Lambda with Amazon MSK" and "Reporting batch item failures". Which isolation level the
//! service reads with is documented nowhere, so both are a switch here.

pub mod batch;
pub mod config;
pub mod error;
pub mod fault;
pub mod http;
pub mod invoke;
pub mod metrics;
pub mod payload;
pub mod poller;
pub mod records;
pub mod response;
pub mod supervisor;

pub use config::Options;
pub use error::EventSourceError;
