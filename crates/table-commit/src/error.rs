//! Why a table operation did not come to its end, and what may be done about it.

use change_event::Disposition;
use object_io::ObjectError;

use crate::catalog::{CatalogError, TableName};
use crate::rollback::Head;

/// Why a table operation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Object storage failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The Iceberg library refused what it was given or what it read.
    #[error("iceberg: {doing}")]
    Iceberg {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        #[source]
        source: Box<iceberg::Error>,
    },
    /// A staged file cannot be made an entry of a manifest, or a schema cannot be made a table's.
    #[error("table file: {doing}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// What was wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such table.
    #[error("no table {table}")]
    NoTable {
        /// The table.
        table: TableName,
    },
    /// The table was there and is not any more.
    #[error(
        "{table} was dropped (its identity was {table_uuid}); nothing more is taken for it. See what `firn adopt {table}` \
         would put back; docs/operations.md, \"A dropped table\""
    )]
    TableDropped {
        /// The table.
        table: TableName,
        /// Identity of the table that was there.
        table_uuid: String,
    },
    /// Table metadata names an object that is not there.
    #[error("{table}: {key} is named by the table but is not there")]
    MissingObject {
        /// The table.
        table: TableName,
        /// Its address.
        key: String,
    },
    /// An address outside the bucket that firn was given.
    #[error("{location} is outside {uri_prefix}")]
    ForeignLocation {
        /// The address.
        location: String,
        /// Prefix of the bucket.
        uri_prefix: String,
    },
    /// The table's state does not have the partition.
    #[error("{table}: partition {partition} is not registered; see the topic's registration")]
    NotRegistered {
        /// The table.
        table: TableName,
        /// The partition.
        partition: u32,
    },
    /// A slot holds what is no intent.
    #[error(
        "{key} holds no intent that this version can read; see who wrote it, nothing of it is applied"
    )]
    MalformedIntent {
        /// Key of the slot.
        key: String,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A control object holds what this version cannot read.
    #[error("{key} cannot be read; see what wrote it")]
    MalformedAnswer {
        /// Its key.
        key: String,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A slot holds an intent that does not continue the chain it is in.
    #[error(
        "the intent in {key} does not continue its chain; see who wrote it, nothing of it is applied"
    )]
    BrokenChain {
        /// Key of the slot.
        key: String,
    },
    /// The chain takes nothing any more: its table is being rebuilt, or was.
    #[error(
        "{key} seals its chain: table {moved_to} goes on in its place as soon as `firn rebuild` has swapped it in; the batch \
         comes again until then. If nobody is at it any more, run the command once more"
    )]
    ChainSealed {
        /// Key of the slot.
        key: String,
        /// Identity of the table that goes on.
        moved_to: String,
    },
    /// The table that an operator has rebuilt is not the one that stands any more.
    #[error("{table} is another table than the one that was rebuilt ({former_uuid}); look again")]
    RebuiltAnother {
        /// The table.
        table: TableName,
        /// Identity of the one that was rebuilt.
        former_uuid: String,
    },
    /// What was built anew does not have all that the standing table took.
    #[error(
        "partition {partition} of the rebuilt {table} ends at record {reached}, and the standing table has taken up to \
         {taken} (epoch:number); the topic does not hold the rest"
    )]
    RebuiltTooLittle {
        /// The table.
        table: TableName,
        /// The partition.
        partition: u32,
        /// The last record that was rebuilt.
        reached: change_event::Predecessor,
        /// The last record that the standing table has taken.
        taken: change_event::Predecessor,
    },
    /// Whether the slot was won is not known.
    #[error("not known whether {key} was written")]
    SlotUnknown {
        /// Key of the slot.
        key: String,
    },
    /// The state in the table's properties cannot be read.
    #[error(
        "{table}: property firn.state cannot be read; see what `firn adopt {table}` would write"
    )]
    MalformedState {
        /// The table.
        table: TableName,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The table has snapshots but no state of ours: nobody knows how far it is.
    #[error(
        "{table} has snapshots but no property firn.state; see what `firn adopt {table}` would write"
    )]
    NoState {
        /// The table.
        table: TableName,
    },
    /// The table's head is not of the history of our last snapshot: somebody moved it.
    #[error(
        "{table} was rolled back: snapshot {state} of its state is no ancestor of its head {head}; see what \
         `firn rollback accept {table}` or `firn rollback replay {table}` would do, or set the head back"
    )]
    RolledBack {
        /// The table.
        table: TableName,
        /// The snapshot that the state names.
        state: Head,
        /// The head now.
        head: Head,
    },
    /// Whether the table was rolled back cannot be told any more.
    #[error(
        "{table}: snapshot {expired_snapshot_id} lies between its head ({head}) and the snapshot of its state ({state}), was \
         expired, and no former metadata file knows it: whether the table was rolled back cannot be told; see \
         docs/operations.md, \"A table halts\""
    )]
    HistoryExpired {
        /// The table.
        table: TableName,
        /// The snapshot that the state names.
        state: Head,
        /// The head now.
        head: Head,
        /// The last ancestor of the head that is known by its id only.
        expired_snapshot_id: i64,
    },
    /// The table is not the one that this topic feeds.
    #[error(
        "{table} is not fed by topic {topic} (its property firn.topic: {found:?}); drop or rename it, or capture into another name"
    )]
    ForeignTable {
        /// The table.
        table: TableName,
        /// The topic asked for.
        topic: String,
        /// The topic that the table names.
        found: Option<String>,
    },
    /// Another engine dropped a column that the source still has.
    #[error(
        "{table}: column {column} (field {field_id}) was dropped in the lake but the source has it; restore an older schema, which has it with this field id, or build the table anew: `firn rebuild {table}`"
    )]
    ColumnDropped {
        /// The table.
        table: TableName,
        /// Its name in the document.
        column: String,
        /// Its field id.
        field_id: i32,
    },
    /// A column of the table cannot become what the document says.
    #[error(
        "{table}: column {column} is {found} in the lake and cannot become {wanted}; build the table anew (`firn rebuild {table}`), or capture into another"
    )]
    ColumnConflict {
        /// The table.
        table: TableName,
        /// Its name in the document.
        column: String,
        /// Its type in the lake.
        found: String,
        /// Its type by the document, or the name another column has taken.
        wanted: String,
    },
    /// Another engine removed the partition spec that our files are written by.
    #[error("{table}: partition spec 0 is gone; restore it, files are staged by it")]
    NoPartitionSpec {
        /// The table.
        table: TableName,
    },
    /// Lost every race, within bounds.
    #[error("{table}: {operation} lost {tries} races")]
    TriesExhausted {
        /// The table.
        table: TableName,
        /// `combine`, `register`, `evolve` or `create`.
        operation: &'static str,
        /// Number of tries.
        tries: u32,
    },
    /// It is not known whether the table was changed, and reading back did not settle it. Files stay.
    #[error("{table}: not known whether {operation} was done")]
    OutcomeUnknown {
        /// The table.
        table: TableName,
        /// `combine`, `register`, `evolve` or `create`.
        operation: &'static str,
    },
}

impl CommitError {
    /// What may be done about it.
    #[deny(clippy::wildcard_enum_match_arm)]
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Object(ObjectError::Unavailable { .. }) => Disposition::Retry,
            Self::Catalog(error) => error.disposition(),
            Self::TriesExhausted { .. } | Self::ChainSealed { .. } => Disposition::Refresh,
            Self::SlotUnknown { .. } | Self::OutcomeUnknown { .. } => Disposition::Verify,
            Self::Object(ObjectError::Refused { .. })
            | Self::Iceberg { .. }
            | Self::File { .. }
            | Self::NoTable { .. }
            | Self::TableDropped { .. }
            | Self::NotRegistered { .. }
            | Self::MissingObject { .. }
            | Self::ForeignLocation { .. }
            | Self::MalformedIntent { .. }
            | Self::MalformedAnswer { .. }
            | Self::BrokenChain { .. }
            | Self::RebuiltAnother { .. }
            | Self::RebuiltTooLittle { .. }
            | Self::MalformedState { .. }
            | Self::NoState { .. }
            | Self::RolledBack { .. }
            | Self::HistoryExpired { .. }
            | Self::ForeignTable { .. }
            | Self::ColumnDropped { .. }
            | Self::ColumnConflict { .. }
            | Self::NoPartitionSpec { .. } => Disposition::Halt,
        }
    }

    /// For `map_err` on results of the Iceberg library.
    pub(crate) fn iceberg(doing: &'static str) -> impl Fn(iceberg::Error) -> Self {
        move |source| Self::Iceberg {
            doing,
            source: Box::new(source),
        }
    }
}
