//! What can go wrong here, by what it stops.

use std::net::SocketAddr;

/// Why the event source, or one of its pollers, cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EventSourceError {
    /// The command line or the environment is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The Kafka client could not be made or refused a call.
    #[error("kafka client failed to {operation}")]
    Kafka {
        /// What was tried.
        operation: &'static str,
        /// What the client said.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The registry of topics could not be read; it is read again.
    #[error("cannot read the registry of topics")]
    Registry(#[source] object_io::ObjectError),
    /// The address for the metrics is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A blocking call was lost with its thread.
    #[error("a background call was cancelled")]
    Cancelled,
}
