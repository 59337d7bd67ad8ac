//! Tables as this protocol sees them: loading, creating, registering partitions.
//!
//! # Invariants
//! - Coverage is judged by the state property of the metadata just loaded, and by nothing else.
//! - A table whose history does not hold our last snapshot, or that has snapshots and no state, is not touched.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::TableCreation;
use iceberg::spec::{FormatVersion, TableMetadata, TableMetadataBuilder};
use uuid::Uuid;

use change_event::layout::table_location;
use change_event::registration::FRESHNESS_DEFAULT_SECONDS;
use change_event::{Clock, IdSource, SourceSchema, SystemClock, TopicRegistration};
use object_io::{ObjectStore, VerifiedPut, failpoint, put_if_absent_verified};

use crate::cache::ObjectCache;
use crate::catalog::{Catalog, CreateOutcome, Pointer, SwapOutcome, TableName};
use crate::chain::Chain;
use crate::error::CommitError;
use crate::failpoints;
use crate::metadata_file::{decode, encode, fetch, key_of, next_location, uuid_of};
use crate::publish::Race;
use crate::state::{
    FRESHNESS_PROPERTY, Frontier, SCHEMA_VERSION_PROPERTY, SOURCE_PROPERTY, STATE_FORMAT,
    STATE_PROPERTY, TOPIC_PROPERTY, TableState,
};
use crate::times;

/// Former metadata files that the metadata log names. Coverage is judged by the state, so that this only serves people.
const METADATA_VERSIONS_KEPT: u32 = 20;

/// Bounds of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Intents in one snapshot: what a later call takes is not lost.
    pub intents_per_commit_max: usize,
    /// Races lost before a call gives up.
    pub tries_max: u32,
    /// Snapshots kept in the metadata; older ones that no tag or branch names are expired by the commit.
    pub snapshots_kept: usize,
    /// Entries from which a manifest is full: the next commit's entries begin a new one.
    pub manifest_entries_max: usize,
    /// Manifests of a tier that one commit merges into one of the next.
    pub manifests_per_merge: usize,
    /// Entries of a merged manifest: bounds the worst commit, as the bytes do.
    pub merged_entries_max: usize,
    /// Bytes of the manifests that one commit merges.
    pub merged_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Measured over ten thousand commits (docs/PERFORMANCE.md). Eight megabytes are what Iceberg's own writers aim at
        // for a manifest; that many entries are merged in about a second.
        Self {
            intents_per_commit_max: 500,
            tries_max: 10,
            snapshots_kept: 100,
            manifest_entries_max: 100,
            manifests_per_merge: 8,
            merged_entries_max: 10_000,
            merged_bytes_max: 8 << 20,
        }
    }
}

/// The protocol with its ports. A clone shares what is kept in memory.
#[derive(Debug, Clone)]
pub struct Committer {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) limits: Limits,
    pub(crate) cache: Arc<ObjectCache>,
}

/// A table as it was read.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Its name.
    pub name: TableName,
    /// Where its metadata was, and the version to compare.
    pub pointer: Pointer,
    /// Its metadata.
    pub metadata: Arc<TableMetadata>,
    /// Its state.
    pub state: TableState,
}

/// A table of which the state was not judged.
#[derive(Debug, Clone)]
pub(crate) struct FoundTable {
    pub(crate) name: TableName,
    pub(crate) pointer: Pointer,
    pub(crate) metadata: Arc<TableMetadata>,
}

impl FoundTable {
    /// The table with this state.
    pub(crate) fn with_state(self, state: TableState) -> LoadedTable {
        LoadedTable {
            name: self.name,
            pointer: self.pointer,
            metadata: self.metadata,
            state,
        }
    }
}

impl LoadedTable {
    /// Frontier of a partition, if it is registered.
    #[must_use]
    pub fn frontier(&self, partition: u32) -> Option<&Frontier> {
        self.state.partitions.get(&partition)
    }

    /// The chain of a partition.
    #[must_use]
    pub fn chain(&self, partition: u32) -> Chain {
        Chain {
            table_uuid: self.metadata.uuid().to_string(),
            topic: self.state.topic.clone(),
            partition,
        }
    }

    /// A builder of the metadata that follows, with a snapshot.
    pub(crate) fn builder(&self) -> TableMetadataBuilder {
        let metadata = self.metadata.as_ref().clone();
        metadata.into_builder(Some(self.pointer.metadata_location.clone()))
    }

    /// The same without a snapshot: the library stamps it by the machine's clock, which may be behind another's.
    pub(crate) fn builder_of_change(&self) -> TableMetadataBuilder {
        let metadata = times::until(&self.metadata, SystemClock.now_ms());
        metadata.into_builder(Some(self.pointer.metadata_location.clone()))
    }

    /// Address of its data folder, without a trailing slash.
    #[must_use]
    pub fn data_location(&self) -> String {
        format!("{}/data", self.metadata.location())
    }

    /// Seconds between two commits, as the table's owner set it.
    #[must_use]
    pub fn freshness_seconds(&self) -> u32 {
        let property = self.metadata.properties().get(FRESHNESS_PROPERTY);
        property
            .and_then(|text| text.parse().ok())
            .unwrap_or(FRESHNESS_DEFAULT_SECONDS)
    }

    /// Whether the last commit is as old as the table's freshness allows. A last commit in the future (clocks are
    /// skewed) counts as now; one that lies further ahead than the freshness says nothing, and the next commit sets it right.
    #[must_use]
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.due_in_ms(now_ms) == 0
    }

    /// Milliseconds until the table is due; 0 if it is.
    #[must_use]
    pub fn due_in_ms(&self, now_ms: i64) -> i64 {
        let freshness_ms = i64::from(self.freshness_seconds()) * 1000;
        let age_ms = now_ms.saturating_sub(self.state.committed_ms);
        if age_ms < -freshness_ms {
            return 0;
        }
        (freshness_ms - age_ms.max(0)).max(0)
    }
}

impl Committer {
    /// The protocol over these ports, with default limits.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        catalog: Arc<dyn Catalog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        Self {
            store,
            catalog,
            clock,
            ids,
            limits: Limits::default(),
            cache: Arc::default(),
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The store that it works on.
    #[must_use]
    pub fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// The table as it is now, or `None` if there is none.
    ///
    /// # Errors
    /// Halt: [`CommitError::NoState`], [`CommitError::RolledBack`], [`CommitError::HistoryExpired`],
    /// [`CommitError::MalformedState`]; Retry from the ports.
    pub async fn load(&self, name: &TableName) -> Result<Option<LoadedTable>, CommitError> {
        let Some(found) = self.find(name).await? else {
            return Ok(None);
        };
        let state = TableState::of(name, &found.metadata)?;
        self.check_expired(name, &state, &found.metadata).await?;
        Ok(Some(found.with_state(state)))
    }

    /// The table as the catalog has it, whatever its state says.
    pub(crate) async fn find(&self, name: &TableName) -> Result<Option<FoundTable>, CommitError> {
        let Some(pointer) = self.catalog.pointer(name).await? else {
            return Ok(None);
        };
        let bytes = self.read(name, &pointer.metadata_location).await?;
        let metadata = decode(bytes, &pointer.metadata_location).await?;
        Ok(Some(FoundTable {
            name: name.clone(),
            pointer,
            metadata: Arc::new(metadata),
        }))
    }

    /// An object that table metadata names, which never changes: from memory if this process wrote or read it lately.
    pub(crate) async fn read(
        &self,
        table: &TableName,
        location: &str,
    ) -> Result<Bytes, CommitError> {
        if let Some(body) = self.cache.get(location) {
            return Ok(body);
        }
        let body = fetch(self.store.as_ref(), table, location).await?;
        self.cache.keep(location, body.clone());
        Ok(body)
    }

    /// Like [`Committer::find`], for callers that need the table to be there.
    pub(crate) async fn find_existing(&self, name: &TableName) -> Result<FoundTable, CommitError> {
        self.find(name).await?.ok_or_else(|| CommitError::NoTable {
            table: name.clone(),
        })
    }

    /// Like [`Committer::load`], for callers that need the table to be there.
    pub(crate) async fn load_existing(&self, name: &TableName) -> Result<LoadedTable, CommitError> {
        self.load(name).await?.ok_or_else(|| CommitError::NoTable {
            table: name.clone(),
        })
    }

    /// The table of a topic, made if there is none, with every partition of the registration in its state.
    ///
    /// Safe under concurrent callers. `schema` is used to create the table; an existing one is not evolved here.
    ///
    /// # Errors
    /// [`CommitError::ForeignTable`] (Halt) if another topic feeds the table; [`CommitError::TableDropped`] (Halt); those of [`Committer::load`];
    /// [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn ensure_table(
        &self,
        registration: &TopicRegistration,
        schema: &SourceSchema,
    ) -> Result<LoadedTable, CommitError> {
        let name = TableName::of(registration);
        let mut race = Race::new(&name, "register", self.limits.tries_max);
        loop {
            let Some(table) = self.load(&name).await? else {
                self.may_be_made(&name, registration.topic_incarnation)
                    .await?;
                race.begin()?;
                self.create(&name, registration, schema).await?;
                continue;
            };
            if table.state.topic != registration.topic {
                return Err(CommitError::ForeignTable {
                    table: name,
                    topic: registration.topic.clone(),
                    found: Some(table.state.topic),
                });
            }
            let Some(state) = registered(&table.state, registration) else {
                self.identify(&table, table.state.topic_incarnation).await?;
                return Ok(table);
            };
            race.begin()?;
            race.note(self.publish_registered(&table, &state).await?);
        }
    }

    /// Publishes a state that has more partitions.
    pub(crate) async fn publish_registered(
        &self,
        table: &LoadedTable,
        state: &TableState,
    ) -> Result<SwapOutcome, CommitError> {
        let properties = HashMap::from([(STATE_PROPERTY.to_owned(), state.to_json(&table.name)?)]);
        let failed = CommitError::iceberg("registering partitions");
        let builder = table
            .builder_of_change()
            .set_properties(properties)
            .map_err(&failed)?;
        let metadata = builder.build().map_err(&failed)?.metadata;
        self.publish(table, &metadata, Vec::new()).await
    }

    /// Tries to create the table once. Whether by us or by another, the caller loads it next.
    async fn create(
        &self,
        name: &TableName,
        registration: &TopicRegistration,
        schema: &SourceSchema,
    ) -> Result<(), CommitError> {
        let uuid = uuid_of(&self.ids.next_id());
        let metadata = self.first_metadata(name, registration, schema, uuid)?;
        let location = next_location(None, &metadata, &self.ids.next_id());
        let body = encode(&metadata, &location).await?;
        let key = key_of(self.store.as_ref(), &location)?;
        match put_if_absent_verified(self.store.as_ref(), key, body).await? {
            VerifiedPut::Created => {}
            VerifiedPut::ExistsOther(_) | VerifiedPut::Unknown => return Ok(()),
        }
        failpoint::hit(failpoints::CREATE_BEFORE_CATALOG);
        match self.catalog.create(name, &location, &metadata).await? {
            CreateOutcome::Created | CreateOutcome::Unknown => {}
            // It may be ours, made by an attempt of which the answer was lost: only then does the pointer name our file.
            CreateOutcome::Exists => {
                let found = self.catalog.pointer(name).await?;
                if found.is_some_and(|pointer| pointer.metadata_location != location) {
                    self.discard(&[location]).await;
                }
            }
        }
        Ok(())
    }

    /// Metadata of a new table of this identity, with every partition of the registration at its beginning.
    pub(crate) fn first_metadata(
        &self,
        name: &TableName,
        registration: &TopicRegistration,
        schema: &SourceSchema,
        uuid: Uuid,
    ) -> Result<TableMetadata, CommitError> {
        let file_error = |doing| {
            move |error| CommitError::File {
                doing,
                source: Box::new(error),
            }
        };
        let failed = CommitError::iceberg("building a new table");
        let location = table_location(&registration.lake_database, &registration.lake_table);
        let partitions = 0..registration.partition_map.partitions.max(1);
        let state = TableState {
            v: STATE_FORMAT,
            topic: registration.topic.clone(),
            topic_incarnation: registration.topic_incarnation,
            partition_map_version: registration.partition_map.version,
            schema_version: schema.version,
            next_field_id: schema.next_field_id,
            sequence_number: 0,
            snapshot_id: None,
            committed_ms: 0,
            partitions: partitions
                .map(|partition| (partition, first_frontier(registration, partition)))
                .collect(),
        };
        let properties = [
            (STATE_PROPERTY, state.to_json(name)?),
            (TOPIC_PROPERTY, registration.topic.clone()),
            (SOURCE_PROPERTY, registration.source.clone()),
            (SCHEMA_VERSION_PROPERTY, schema.version.to_string()),
            (
                FRESHNESS_PROPERTY,
                registration.freshness_seconds.to_string(),
            ),
            ("write.metadata.compression-codec", "gzip".to_owned()),
            (
                "write.metadata.previous-versions-max",
                METADATA_VERSIONS_KEPT.to_string(),
            ),
            ("write.parquet.compression-codec", "zstd".to_owned()),
        ];
        // Creation re-assigns field ids from 1 in schema order, which gives the base columns theirs; the whole schema,
        // whose ids come from the document, is added in the same build and keeps them.
        let creation = TableCreation::builder()
            .name(name.table.clone())
            .location(format!("{}{location}", self.store.uri_prefix()))
            .schema(table_file::base_schema().map_err(file_error("base schema"))?)
            .partition_spec(table_file::partition_spec().map_err(file_error("partition spec"))?)
            .format_version(FormatVersion::V2)
            .properties(properties.map(|(key, value)| (key.to_owned(), value)))
            .build();
        let schema =
            table_file::lake_schema(schema).map_err(file_error("schema of a new table"))?;
        TableMetadataBuilder::from_table_creation(creation)
            .map_err(&failed)?
            .assign_uuid(uuid)
            .add_current_schema(schema)
            .map_err(&failed)?
            .build()
            .map(|built| built.metadata)
            .map_err(&failed)
    }
}

/// The state with every partition of the registration, or `None` if it has them already.
pub(crate) fn registered(
    state: &TableState,
    registration: &TopicRegistration,
) -> Option<TableState> {
    let mut next = state.clone();
    next.topic_incarnation = state.topic_incarnation.max(registration.topic_incarnation);
    next.partition_map_version = state
        .partition_map_version
        .max(registration.partition_map.version);
    for partition in 0..registration.partition_map.partitions.max(1) {
        next.partitions
            .entry(partition)
            .or_insert_with(|| first_frontier(registration, partition));
    }
    if next == *state { None } else { Some(next) }
}

/// Where a partition begins: nothing stands before it of a map that did not have it.
fn first_frontier(registration: &TopicRegistration, partition: u32) -> Frontier {
    Frontier {
        map_version: registration.partition_map.introduced_in(partition),
        ..Frontier::start(registration.topic_incarnation)
    }
}
