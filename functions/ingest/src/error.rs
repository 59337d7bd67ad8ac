//! Why a partition's batch is not acknowledged, and why a record goes to quarantine.

use change_event::header::HeaderError;
use change_event::{Disposition, EnvelopeError};
use function_kit::{InvokeError, RegistryError};
use object_io::ObjectError;
use table_commit::{CommitError, GapPlace};
use table_file::{FileError, RowError};

use crate::event::RecordError;

/// Why a partition's batch is not acknowledged from some offset on. It comes again.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A record is missing.
    #[error(
        "records are missing before offset {} of partition {}: taken up to {}, found {} (epoch:number). Nothing behind the \
         gap is taken; see docs/operations.md, \"A gap\". To go on without them: `{}`",
        place.offset, place.partition, place.covered, place.found, place.command(topic)
    )]
    Gap {
        /// The topic.
        topic: String,
        /// Where.
        place: GapPlace,
    },
    /// An offset that was taken before holds a newer record.
    #[error(
        "offset {offset} was taken before and now holds a newer record: the topic was replaced behind the agent's back; see \
         docs/operations.md, \"A replaced topic\""
    )]
    TopicReplaced {
        /// The offset.
        offset: i64,
    },
    /// The announcements cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A record names a schema version that was never published.
    #[error(
        "schema version {version} was never published, but the record at offset {offset} needs it; see that the agent's \
         bucket is this one"
    )]
    NoDocument {
        /// The version.
        version: u32,
        /// Offset of the first record that needs it.
        offset: i64,
    },
    /// The object that a record stands for is not there.
    #[error(
        "the record at offset {offset} stands for {key}, which is not there; restore the object"
    )]
    NoObject {
        /// Key of the object.
        key: String,
        /// Offset of the record.
        offset: i64,
    },
    /// functions/ddl did not do it.
    #[error(transparent)]
    Ddl(#[from] InvokeError),
    /// The table is there, but this partition is not in its state.
    #[error("partition {partition} is not registered in the table; see the topic's registration")]
    NotRegistered {
        /// The partition.
        partition: u32,
    },
    /// Staged batches were not committed for so long that no more are taken.
    #[error(
        "the oldest staged batch is {hours} h old and not committed: nothing more is taken until functions/commit works; see \
         docs/operations.md, \"A commit fails\""
    )]
    CommitOverdue {
        /// Age of the oldest staged batch.
        hours: i64,
    },
    /// The commit protocol failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Object storage failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A data file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Other writers won every slot.
    #[error("lost {tries} slots to other writers")]
    SlotsLost {
        /// Number of tries.
        tries: u32,
    },
    /// The invocation ends.
    #[error("out of time")]
    OutOfTime,
}

impl StageError {
    /// Whether another table goes on in the place of the one that was staged for.
    pub(crate) const fn is_sealed(&self) -> bool {
        matches!(self, Self::Commit(CommitError::ChainSealed { .. }))
    }

    /// What may be done: anything but Halt is done by the batch that comes again.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Gap { .. }
            | Self::TopicReplaced { .. }
            | Self::NoDocument { .. }
            | Self::NoObject { .. }
            | Self::NotRegistered { .. }
            | Self::CommitOverdue { .. }
            | Self::File(_)
            | Self::Object(ObjectError::Refused { .. }) => Disposition::Halt,
            Self::Registry(error) => error.disposition(),
            Self::Ddl(error) => error.disposition(),
            Self::Commit(error) => error.disposition(),
            Self::Object(ObjectError::Unavailable { .. }) | Self::OutOfTime => Disposition::Retry,
            Self::SlotsLost { .. } => Disposition::Refresh,
        }
    }
}

/// Why a record can never succeed. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The record itself cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No agent announced the topic.
    #[error("no agent announced this topic")]
    UnknownTopic,
    /// Not written by an agent.
    #[error("no firn header: not written by an agent")]
    NoHeader,
    /// A firn header that cannot be read.
    #[error("firn header: {0}")]
    Header(#[from] HeaderError),
    /// The value is no envelope.
    #[error("envelope: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The row does not suit its schema.
    #[error("row: {0}")]
    Row(String),
    /// The value is no reference that can be followed.
    #[error("reference: {0}")]
    Reference(&'static str),
    /// The value is no copy announcement that can be followed.
    #[error("copy announcement: {0}")]
    Announcement(&'static str),
}

impl From<RowError> for Reason {
    fn from(error: RowError) -> Self {
        // Names columns and types, never values (table-file's promise).
        Self::Row(error.to_string())
    }
}
