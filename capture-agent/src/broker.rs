//! The port to the broker: a producer that fences its predecessor, and progress as it is read back.
//!
//! Flow: session -> **[`Broker::fence`], [`Broker::progress`]** -> outbox -> **[`TransactionalProducer`]**. The adapter that
//! ships is [`crate::kafka`].
//!
//! # Invariants
//! - A session that meets any failure drops its producer; the next one's [`Broker::fence`] ends its open transaction.
//! - [`TransactionalProducer::send`] gives `Ok` only for a record that the queue accepted: the caller numbers it only then.
//! - Generic, never boxed: a record costs no allocation for the port's sake.

use std::fmt::Debug;

use crate::error::AgentError;
use crate::progress::Progress;

/// A record on its way.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition, by the stored map.
    pub partition: u32,
    /// Key; absent for a table without one.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: &'a [u8],
    /// The firn header; absent on progress records.
    pub header: Option<&'a [u8]>,
}

/// The broker of one source, as a session begins.
pub trait Broker: Debug + Sync {
    /// The producer of a session.
    type Producer: TransactionalProducer;

    /// Makes a producer and fences whoever had the transactional id before; their open transaction is ended by the broker.
    ///
    /// # Errors
    /// [`AgentError::Kafka`] (Verify; Halt for missing rights or unknown settings).
    fn fence(&self) -> impl Future<Output = Result<Self::Producer, AgentError>> + Send;

    /// All that is committed on the progress topic, which is made if it is missing. To be called after [`Broker::fence`].
    ///
    /// # Errors
    /// [`AgentError::Kafka`], [`AgentError::KafkaTimeout`] (Verify), [`AgentError::Document`] (Halt).
    fn progress(&self, topic: &str) -> impl Future<Output = Result<Progress, AgentError>> + Send;
}

/// A session's producer.
pub trait TransactionalProducer: Debug + Send + Sync + Sized {
    /// Opens a transaction.
    ///
    /// # Errors
    /// [`AgentError::Kafka`], [`AgentError::Fenced`].
    fn begin(&self) -> Result<(), AgentError>;

    /// Hands a record to the queue, waiting for room if there is none.
    ///
    /// # Errors
    /// [`AgentError::Kafka`], [`AgentError::KafkaTimeout`], [`AgentError::Fenced`]: the session is over.
    fn send(&self, record: &Outgoing<'_>) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Waits until the broker has everything that was handed over.
    ///
    /// # Errors
    /// [`AgentError::KafkaTimeout`] (Verify).
    fn delivered(&self) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Commits the open transaction. To be called once everything is [`TransactionalProducer::delivered`].
    ///
    /// # Errors
    /// [`AgentError::Kafka`] (Verify: progress says whether it was committed), [`AgentError::Fenced`].
    fn commit(&self) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Gives the producer up: what is queued is thrown away before the abort, so that nothing of it is sent after.
    fn abandon(self) -> impl Future<Output = ()> + Send;

    /// Closes the producer when no transaction is open.
    fn close(self) -> impl Future<Output = ()> + Send;
}
