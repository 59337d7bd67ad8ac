//! What every function of firn shares with Lambda: start-up, environment, deadline, metrics, failures, and the two
//! services by which functions reach each other (invoke, delayed queue), and the registry of topics that all of them read.
//!
//! Flow: Lambda runtime -> [`start::run`] -> a function's handler -> response types of [`batch`].
//!
//! # Invariants
//! - The Lambda and SQS SDKs live only here; handlers see the ports [`invoke::FunctionInvoker`],
//!   [`queue::DelayedQueue`] and [`mappings::EventSourceMappings`].
//! - Logs, metrics and failures carry names, counts and positions, never row values.

pub mod aws;
pub mod batch;
pub mod ddl;
pub mod deadline;
pub mod environment;
pub mod failure;
pub mod invoke;
pub mod mappings;
pub mod metric;
pub mod pacing;
pub mod queue;
pub mod registry;
pub mod start;

pub use batch::{KafkaBatchResponse, SqsBatchResponse, SqsEvent};
pub use ddl::{DdlRequest, DdlResponse};
pub use deadline::Deadline;
pub use environment::{ConfigError, Environment};
pub use failure::Failure;
pub use invoke::{FunctionInvoker, InvokeError};
pub use mappings::EventSourceMappings;
pub use metric::{Metric, Metrics};
pub use pacing::{Pacing, remind};
pub use queue::{DelayedQueue, QueueError};
pub use registry::{Registry, RegistryError};
