//! What can go wrong in the agent, and what may be done about it.
//!
//! # Invariants
//! - A session that ends with `Retry`, `Refresh` or `Verify` is followed by a new one, which claims a new epoch and reads progress
//!   back: so a commit of unknown outcome is verified before anything is sent again.
//! - `Halt` ends the process with the words what to do.

use change_event::{Disposition, Lsn};
use object_io::ObjectError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use source_postgres::SourceError;

use crate::config::ConfigError;

/// An error of the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Source, broker or names are not ready for capture.
    #[error("{} problem(s) before capture can begin:{}", .0.len(), .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Preflight(Vec<String>),
    /// The source failed.
    #[error("source: {0}")]
    Source(#[source] Box<SourceError>),
    /// Object storage failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A create-only object may or may not be there.
    #[error("no answer whether object {key} was created")]
    ObjectUnknown {
        /// Its key.
        key: String,
    },
    /// The broker or its client failed.
    #[error("kafka: {operation} failed")]
    Kafka {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// Records could not be handed over or delivered in time.
    #[error("kafka: {operation} did not end within {seconds} s")]
    KafkaTimeout {
        /// What was asked.
        operation: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another agent owns this source.
    #[error(
        "another agent has taken over source {source_name}: this one must stop (run one agent per source)"
    )]
    Fenced {
        /// Name of the source.
        source_name: String,
    },
    /// The slot is not there although it was.
    #[error(
        "replication slot {slot} is gone, and with it the changes after {position}: they are lost to capture. Make the tables \
         of source {source_name} anew: docs/operations.md, \"Make the tables of a source anew\", says what has to go before the agent \
         creates a new slot and copies all tables, {mark} among it"
    )]
    SlotGone {
        /// Name of the slot.
        slot: String,
        /// Up to where changes are durable.
        position: String,
        /// Name of the source.
        source_name: String,
        /// Key of the slot's mark.
        mark: String,
    },
    /// The slot stands behind what progress says: it was made anew, or advanced by others.
    #[error(
        "replication slot {slot} is at {confirmed}, progress ends at {position}: the slot was made anew or advanced by \
         others, and the changes between are lost to this source; see docs/operations.md, \"Slot lost\""
    )]
    SlotMoved {
        /// Name of the slot.
        slot: String,
        /// Up to where changes are durable.
        position: Lsn,
        /// From where the slot would go on.
        confirmed: Lsn,
    },
    /// A slot of that name is there and the agent did not make it.
    #[error(
        "replication slot {slot} exists and was not created by this agent: name another in source.slot, or drop it with \
         SELECT pg_drop_replication_slot('{slot}') if nothing uses it"
    )]
    ForeignSlot {
        /// Name of the slot.
        slot: String,
    },
    /// The table copy is complete and progress is not there.
    #[error(
        "the tables of source {source_name} were copied, but topic {topic} holds no progress of it: where to go on is unknown. \
         Restore the topic, or make the tables anew as docs/operations.md says under «progress lost»"
    )]
    ProgressLost {
        /// Name of the source.
        source_name: String,
        /// The progress topic.
        topic: String,
    },
    /// The topic would lose records.
    #[error(
        "topic {topic} has cleanup.policy={policy}: compaction removes changes before they are read. Set it to delete: \
         kafka-configs --alter --topic {topic} --add-config cleanup.policy=delete"
    )]
    CompactedTopic {
        /// The topic.
        topic: String,
        /// What is set.
        policy: String,
    },
    /// The topic has fewer partitions than the stored map.
    #[error(
        "topic {topic} has {found} partitions, its stored map wants {expected}: records would have no place"
    )]
    PartitionsMissing {
        /// The topic.
        topic: String,
        /// By the stored map.
        expected: u32,
        /// At the broker.
        found: u32,
    },
    /// The configuration asks for fewer partitions than keys are spread over.
    #[error(
        "topic {topic} has {held} partitions and the configuration asks for {asked}: partitions cannot be taken away. Set \
         topics.partitions, or this table's number in [topics.tables], to {held} or more"
    )]
    PartitionsLowered {
        /// The topic.
        topic: String,
        /// By the stored map.
        held: u32,
        /// By the configuration.
        asked: u32,
    },
    /// The database is another one than before.
    #[error(
        "source {source_name} is now a server with {what} {found}, it was {expected}: positions of two logs do not compare. \
         Point the agent back, or make the tables anew"
    )]
    SourceChanged {
        /// Name of the source.
        source_name: String,
        /// `system identifier` or `timeline`.
        what: &'static str,
        /// What progress says.
        expected: String,
        /// What the server says.
        found: String,
    },
    /// A standby was promoted that did not have all that we delivered.
    #[error(
        "source {source_name} was switched over to a standby whose log leaves ours (timeline {timeline}) at {until}, and a change \
         at {position} was delivered: it is in the lake and not in the database any more. See docs/operations.md, \
         \"Source failed over\""
    )]
    SourceDiverged {
        /// Name of the source.
        source_name: String,
        /// Timeline of our position.
        timeline: u32,
        /// Commit position of the last change that was delivered.
        position: Lsn,
        /// Where the new timeline begins.
        until: Lsn,
    },
    /// The server that answers is a standby.
    #[error(
        "source {source_name} is a standby: waiting until it is promoted, or the primary answers"
    )]
    SourceInRecovery {
        /// Name of the source.
        source_name: String,
    },
    /// A control document or progress record cannot be read.
    #[error("malformed document {key}")]
    Document {
        /// Key of the object, or name of the topic.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The stream named a table that it never described, or came in an order that it must not.
    #[error("the replication stream is not as its protocol says: {what}")]
    StreamOrder {
        /// What was met.
        what: &'static str,
    },
    /// A data file could not be made.
    #[error("copy of table {table}: no data file could be made")]
    DataFile {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: Box<table_file::FileError>,
    },
    /// The address of the status page cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A worker thread died.
    #[error("a worker ended without an answer")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<SourceError> for AgentError {
    fn from(source: SourceError) -> Self {
        Self::Source(Box::new(source))
    }
}

impl AgentError {
    /// What may be done about it.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Source(source) => source.disposition(),
            Self::Objects(ObjectError::Unavailable { .. }) | Self::ObjectUnknown { .. } => {
                Disposition::Verify
            }
            Self::SourceInRecovery { .. } => Disposition::Retry,
            Self::Kafka { source, .. } => kafka_disposition(source),
            Self::KafkaTimeout { .. } | Self::Worker(_) => Disposition::Verify,
            Self::Config(_)
            | Self::Preflight(_)
            | Self::Objects(ObjectError::Refused { .. })
            | Self::Fenced { .. }
            | Self::SlotGone { .. }
            | Self::SlotMoved { .. }
            | Self::ForeignSlot { .. }
            | Self::ProgressLost { .. }
            | Self::CompactedTopic { .. }
            | Self::PartitionsMissing { .. }
            | Self::PartitionsLowered { .. }
            | Self::SourceChanged { .. }
            | Self::SourceDiverged { .. }
            | Self::Document { .. }
            | Self::StreamOrder { .. }
            | Self::DataFile { .. }
            | Self::Listen { .. } => Disposition::Halt,
        }
    }
}

/// Whether this failure says that a newer producer has the transactional id.
#[must_use]
pub fn is_fencing(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    )
}

/// A new session makes good whatever the broker may have done; only rights and settings need a person.
fn kafka_disposition(error: &KafkaError) -> Disposition {
    if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = error {
        return Disposition::Halt;
    }
    let refused = matches!(
        code_of(error),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::InvalidConfig
                | RDKafkaErrorCode::InvalidReplicationFactor
                | RDKafkaErrorCode::PolicyViolation
        )
    );
    if refused {
        Disposition::Halt
    } else {
        Disposition::Verify
    }
}

/// The client's code; its own accessor leaves out that of administrative requests.
fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_answer_is_verified_and_missing_right_halts() {
        let lost = AgentError::Kafka {
            operation: "commit_transaction",
            source: KafkaError::Global(RDKafkaErrorCode::OperationTimedOut),
        };
        assert_eq!(lost.disposition(), Disposition::Verify);
        let refused = AgentError::Kafka {
            operation: "create_topics",
            source: KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed),
        };
        assert_eq!(refused.disposition(), Disposition::Halt);
    }

    #[test]
    fn fencing_is_told_from_other_failures() {
        assert!(is_fencing(&KafkaError::MessageProduction(
            RDKafkaErrorCode::Fenced
        )));
        assert!(!is_fencing(&KafkaError::MessageProduction(
            RDKafkaErrorCode::QueueFull
        )));
    }
}
