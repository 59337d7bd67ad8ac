//! A table that was dropped or lost its state, and an operator's way to have it back.
//!
//! Flow: [`CommitError::TableDropped`] -> operator -> **here** -> the catalog, create-only; [`CommitError::NoState`], [`CommitError::MalformedState`] -> operator -> **here** -> property `firn.state` by
//! compare-and-set -> combining goes on.
//!
//! # Invariants
//! - A state is found, in the newest snapshot that has one, or given by the operator; it is never made up.
//! - A state that stands is never replaced: a table that is merely rolled back has its own ways out ([`crate::rollback`]).
//! - A partition that the found state does not have begins where its chain begins, so that nothing staged is passed over.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use change_event::layout::table_location;
use change_event::{SourceSchema, TopicRegistration};
use iceberg::spec::{ManifestList, TableMetadata};

use crate::act::{Act, ActKind, Operator, acts};
use crate::catalog::{CreateOutcome, TableName};
use crate::chain::Chain;
use crate::error::CommitError;
use crate::metadata_file::{decode, fetch, key_of, version_of};
use crate::publish::Race;
use crate::rollback::Head;
use crate::state::{Frontier, STATE_FORMAT, STATE_PROPERTY, TableState};
use crate::table::{Committer, FoundTable, LoadedTable};

/// What an operator knows about a table of which no snapshot says how far it is.
#[derive(Debug, Clone)]
pub struct GivenState {
    /// Frontier of each partition.
    pub partitions: BTreeMap<u32, Frontier>,
    /// The document that the table's schema holds.
    pub document: SourceSchema,
}

/// A state to be written, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The state.
    pub state: TableState,
    /// The snapshot whose summary had it; none if it was given.
    pub snapshot_id: Option<i64>,
}

/// How adopting a state ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptOutcome {
    /// This state would be written.
    Found(Box<Adoption>),
    /// This state was written, by this call.
    Adopted(Box<Adoption>),
    /// The table was dropped; this metadata would be put back into the catalog.
    Dropped {
        /// Address of the newest metadata that is whole.
        metadata_location: String,
    },
    /// The table was put back into the catalog, by this call.
    PutBack {
        /// Address of its metadata.
        metadata_location: String,
    },
    /// The table has a state.
    HasState,
    /// No snapshot has a state, and none was given.
    NothingFound,
    /// The table was not made by firn: it lacks this column.
    NotOurs {
        /// The column.
        column: String,
    },
}

impl Committer {
    /// What adopting would write. Changes nothing.
    ///
    /// # Errors
    /// [`CommitError::NoTable`], [`CommitError::ForeignTable`], [`CommitError::RolledBack`] (Halt); Retry from the ports.
    pub async fn examine_adoption(
        &self,
        registration: &TopicRegistration,
        given: Option<&GivenState>,
    ) -> Result<AdoptOutcome, CommitError> {
        let name = TableName::of(registration);
        let Some(found) = self.find(&name).await? else {
            let metadata_location = self.newest_metadata(&name).await?.0;
            return Ok(AdoptOutcome::Dropped { metadata_location });
        };
        self.adoption(&found, registration, given).await
    }

    /// Writes the state that is found or given, unless the table has one.
    ///
    /// Safe under concurrent callers, and harmless when called again.
    ///
    /// # Errors
    /// Those of [`Committer::examine_adoption`]; [`CommitError::TriesExhausted`] (Refresh);
    /// [`CommitError::OutcomeUnknown`] (Verify): call again.
    pub async fn adopt(
        &self,
        registration: &TopicRegistration,
        given: Option<&GivenState>,
        operator: &Operator,
    ) -> Result<AdoptOutcome, CommitError> {
        let name = TableName::of(registration);
        let mut race = Race::new(&name, "adopt", self.limits.tries_max);
        let id = self.ids.next_id();
        let mut written = None;
        loop {
            let Some(found) = self.find(&name).await? else {
                race.begin()?;
                let (metadata_location, metadata) = self.newest_metadata(&name).await?;
                let created = self.catalog.create(&name, &metadata_location, &metadata);
                match created.await? {
                    CreateOutcome::Created => {
                        return Ok(AdoptOutcome::PutBack { metadata_location });
                    }
                    // Whoever did it, the table is there by now or it is tried again.
                    CreateOutcome::Exists | CreateOutcome::Unknown => continue,
                }
            };
            if let Some(adoption) = written.take()
                && acts(&found.metadata).iter().any(|act| act.id == id)
            {
                return Ok(AdoptOutcome::Adopted(adoption));
            }
            let outcome = self.adoption(&found, registration, given).await?;
            let AdoptOutcome::Found(adoption) = outcome else {
                return Ok(outcome);
            };
            race.begin()?;
            let act = Act {
                id: id.clone(),
                at_ms: self.clock.now_ms(),
                operator: operator.clone(),
                kind: ActKind::StateAdopted {
                    snapshot_id: adoption.snapshot_id,
                },
            };
            let table = found.with_state(adoption.state.clone());
            race.note(self.publish_act(&table, &adoption.state, act).await?);
            written = Some(adoption);
        }
    }

    /// The newest metadata of the table on record: what it was when it was dropped, or a commit further that did not get
    /// to the catalog. One that is not whole (its writer died at it) is passed over.
    async fn newest_metadata(
        &self,
        name: &TableName,
    ) -> Result<(String, TableMetadata), CommitError> {
        let gone = || CommitError::NoTable {
            table: name.clone(),
        };
        let known = self.identity(name).await?.0.ok_or_else(gone)?;
        let folder = format!("{}/metadata/", table_location(&name.database, &name.table));
        let objects = self.store().list(&folder).await?;
        let mut keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
        keys.retain(|key| key.ends_with(".metadata.json"));
        keys.sort_by_key(|key| std::cmp::Reverse(version_of(key)));
        for key in keys {
            let location = format!("{}{key}", self.store().uri_prefix());
            let bytes = fetch(self.store(), name, &location).await?;
            let metadata = decode(bytes, &location).await?;
            if metadata.uuid().to_string() == known.table_uuid
                && self.is_whole(name, &metadata).await?
            {
                return Ok((location, metadata));
            }
        }
        Err(gone())
    }

    /// Whether the manifests of the head are there.
    async fn is_whole(
        &self,
        name: &TableName,
        metadata: &TableMetadata,
    ) -> Result<bool, CommitError> {
        let Some(head) = metadata.current_snapshot() else {
            return Ok(true);
        };
        let store = self.store();
        let Some(list) = store.get(key_of(store, head.manifest_list())?).await? else {
            return Ok(false);
        };
        let list = ManifestList::parse_with_version(&list, metadata.format_version())
            .map_err(CommitError::iceberg("reading manifests"))?;
        for manifest in list.entries() {
            let key = key_of(store, &manifest.manifest_path)?;
            if store.get(key).await?.is_none() {
                tracing::warn!(table = %name, key, "manifest is gone: metadata passed over");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn adoption(
        &self,
        found: &FoundTable,
        registration: &TopicRegistration,
        given: Option<&GivenState>,
    ) -> Result<AdoptOutcome, CommitError> {
        let (name, metadata) = (&found.name, &found.metadata);
        match TableState::of(name, metadata) {
            Ok(_) => return Ok(AdoptOutcome::HasState),
            Err(
                CommitError::NoState { .. }
                | CommitError::MalformedState { .. }
                | CommitError::ForeignTable { .. },
            ) => {}
            Err(other) => return Err(other),
        }
        if let Some(column) = missing_column(metadata)? {
            return Ok(AdoptOutcome::NotOurs { column });
        }
        let adoption = match (newest_state(name, metadata), given) {
            (Some(adoption), _) => adoption,
            (None, Some(given)) => given_state(metadata, registration, given),
            (None, None) => return Ok(AdoptOutcome::NothingFound),
        };
        if adoption.state.topic != registration.topic {
            return Err(CommitError::ForeignTable {
                table: name.clone(),
                topic: registration.topic.clone(),
                found: Some(adoption.state.topic),
            });
        }
        let table = found.clone().with_state(adoption.state);
        let state = self.with_partitions(&table, registration).await?;
        Ok(AdoptOutcome::Found(Box::new(Adoption {
            state,
            ..adoption
        })))
    }

    /// The table's state with every partition of the registration; one that it does not have begins with its first slot.
    async fn with_partitions(
        &self,
        table: &LoadedTable,
        registration: &TopicRegistration,
    ) -> Result<TableState, CommitError> {
        let mut state = table.state.clone();
        state.topic_incarnation = state.topic_incarnation.max(registration.topic_incarnation);
        let newest = registration.topic_incarnation;
        for partition in 0..registration.partition_map.partitions.max(1) {
            if let Entry::Vacant(missing) = state.partitions.entry(partition) {
                let first = self.first_of(&table.chain(partition), newest).await?;
                missing.insert(Frontier {
                    map_version: registration.partition_map.introduced_in(partition),
                    ..first
                });
            }
        }
        Ok(state)
    }

    /// Where a chain begins: in the first incarnation that has a slot.
    async fn first_of(&self, chain: &Chain, newest: u32) -> Result<Frontier, CommitError> {
        for incarnation in 1..newest {
            let start = Frontier::start(incarnation);
            if chain.next(self.store(), &start).await?.is_some() {
                return Ok(start);
            }
        }
        Ok(Frontier::start(newest))
    }
}

/// The state of the newest snapshot that has one, on whatever branch: if that is not of the head's history, the table is
/// rolled back besides, and says so next.
fn newest_state(table: &TableName, metadata: &TableMetadata) -> Option<Adoption> {
    let mut newest: Option<(i64, Adoption)> = None;
    for snapshot in metadata.snapshots() {
        let json = snapshot.summary().additional_properties.get(STATE_PROPERTY);
        let Some(state) = json.and_then(|json| TableState::parse(table, json).ok()) else {
            continue;
        };
        let sequence_number = snapshot.sequence_number();
        if newest
            .as_ref()
            .is_none_or(|(known, _)| *known < sequence_number)
        {
            let snapshot_id = Some(snapshot.snapshot_id());
            newest = Some((sequence_number, Adoption { state, snapshot_id }));
        }
    }
    newest.map(|(_, adoption)| adoption)
}

fn given_state(
    metadata: &TableMetadata,
    registration: &TopicRegistration,
    given: &GivenState,
) -> Adoption {
    let state = TableState {
        v: STATE_FORMAT,
        topic: registration.topic.clone(),
        topic_incarnation: registration.topic_incarnation,
        partition_map_version: registration.partition_map.version,
        schema_version: given.document.version,
        next_field_id: given.document.next_field_id,
        sequence_number: 0,
        snapshot_id: None,
        committed_ms: 0,
        // Whoever says where a partition goes on says that nothing before it is waited for, no barrier either.
        partitions: given
            .partitions
            .iter()
            .map(|(partition, frontier)| {
                let map_version = registration.partition_map.version;
                let reached = Frontier {
                    map_version,
                    ..*frontier
                };
                (*partition, reached)
            })
            .collect(),
    };
    Adoption {
        state: state.belonging_to(metadata, Head(metadata.current_snapshot_id())),
        snapshot_id: None,
    }
}

/// A column that every table of firn has and this one has not.
fn missing_column(metadata: &TableMetadata) -> Result<Option<String>, CommitError> {
    let ours = table_file::base_schema().map_err(|error| CommitError::File {
        doing: "base schema",
        source: Box::new(error),
    })?;
    let schema = metadata.current_schema();
    let fields = ours.as_struct().fields();
    let missing = fields.iter().find(|field| {
        schema
            .field_by_id(field.id)
            .is_none_or(|found| found.name != field.name)
    });
    Ok(missing.map(|field| field.name.clone()))
}
