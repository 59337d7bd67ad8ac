//! A table built anew beside the one that stands, and swapped in for it by one compare-and-set.
//!
//! Flow: operator -> [`Committer::plan_rebuild`] -> [`Draft`], into whose chains ingest stages the topic from its beginning ->
//! [`Committer::seal`]: the standing table's chains take no more -> ingest once more, up to the seals -> [`Committer::swap_in`].
//!
//! # Invariants
//! - Until the swap the standing table is as it was, and readers see it so.
//! - Whatever the standing table took stands before the seals, and the draft has it before it is swapped in. What comes later
//!   is refused by the sealed chains, comes again, and is taken by the new table's.
//! - The plan is create-only and names the draft's identity: who was interrupted, or a second operator, goes on with the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use change_event::{TopicRegistration, layout};
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use object_io::{VerifiedPut, put_if_absent_verified};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::act::{ACTS_PROPERTY, Act, ActKind, Operator, with_acts};
use crate::catalog::{CreateOutcome, Pointer, SwapOutcome, TableName};
use crate::chain::{Chain, SlotOutcome};
use crate::draft::Draft;
use crate::error::CommitError;
use crate::intent::Intent;
use crate::memory::MemoryCatalog;
use crate::metadata_file::{encode, key_of, next_location, uuid_of};
use crate::publish::Race;
use crate::state::{FRESHNESS_PROPERTY, Frontier, STATE_PROPERTY, TableState};
use crate::table::{Committer, LoadedTable};

/// Format of the plan.
const PLAN_FORMAT: u32 = 1;

/// What is to be rebuilt, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format of the plan.
    v: u32,
    /// Identity of the table that is built.
    pub table_uuid: String,
    /// Who and why.
    pub operator: Operator,
    /// When it was planned, in milliseconds since the Unix epoch.
    pub planned_ms: i64,
}

/// The table that stands, or stood.
#[derive(Debug, Clone)]
pub struct Former {
    /// Its identity.
    pub uuid: String,
    /// Its pointer; none if it was dropped.
    pointer: Option<Pointer>,
    /// Its metadata, if it can be read.
    metadata: Option<Arc<TableMetadata>>,
}

impl Former {
    /// Whether it was dropped.
    #[must_use]
    pub const fn is_dropped(&self) -> bool {
        self.pointer.is_none()
    }

    /// Its state, if it has one that can be read.
    fn state(&self) -> Option<TableState> {
        self.metadata.as_deref().and_then(state_of)
    }
}

/// How a swap ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapIn {
    /// The new table stands, by this call or by one of which the answer was lost.
    Stands {
        /// Address of its metadata.
        metadata_location: String,
    },
    /// The topic held nothing that makes a table.
    NothingBuilt,
    /// The standing table has partitions by now that are not sealed: seal, stage and call again.
    MorePartitions,
}

/// What a swap starts from.
enum SwapBase {
    /// This pointer; none if the table was dropped.
    Pointer(Option<Pointer>),
    /// The table of the plan stands: an attempt of this call has landed, or another operator's.
    Landed {
        /// Where its metadata is.
        metadata_location: String,
    },
    /// Not every partition is sealed.
    MorePartitions,
}

impl Committer {
    /// The table that would be rebuilt, and the plan if there is one already. Changes nothing.
    ///
    /// # Errors
    /// [`CommitError::NoTable`] (Halt) if there never was one; Retry from the ports.
    pub async fn examine_rebuild(
        &self,
        registration: &TopicRegistration,
    ) -> Result<(Former, Option<Plan>), CommitError> {
        let name = TableName::of(registration);
        let former = self.standing(&name).await?;
        let plan = self.plan_of(&former).await?;
        Ok((former, plan))
    }

    /// The plan to rebuild a table: an earlier one that is not done yet, or else this one.
    ///
    /// # Errors
    /// [`CommitError::SlotUnknown`] (Verify): call again; Retry from the store.
    pub async fn plan_rebuild(
        &self,
        former: &Former,
        operator: &Operator,
    ) -> Result<Plan, CommitError> {
        let plan = Plan {
            v: PLAN_FORMAT,
            table_uuid: uuid_of(&self.ids.next_id()).to_string(),
            operator: operator.clone(),
            planned_ms: self.clock.now_ms(),
        };
        let key = layout::rebuild_plan(&former.uuid);
        let body = serde_json::to_vec(&plan).map_err(malformed(&key))?;
        match put_if_absent_verified(self.store(), &key, Bytes::from(body)).await? {
            VerifiedPut::Created => Ok(plan),
            VerifiedPut::ExistsOther(body) => {
                serde_json::from_slice(&body).map_err(malformed(&key))
            }
            VerifiedPut::Unknown => Err(CommitError::SlotUnknown { key }),
        }
    }

    /// The table that a plan builds, as yet without metadata.
    ///
    /// # Errors
    /// [`CommitError::MalformedAnswer`] (Halt) if the plan names no identity.
    pub fn draft(&self, former: &Former, plan: &Plan) -> Result<Draft, CommitError> {
        let uuid = Uuid::parse_str(&plan.table_uuid).map_err(|error| {
            let key = layout::rebuild_plan(&former.uuid);
            let source = serde::de::Error::custom(error);
            CommitError::MalformedAnswer { key, source }
        })?;
        let committer = Self {
            catalog: Arc::new(MemoryCatalog::default()),
            ..self.clone()
        };
        Ok(Draft { committer, uuid })
    }

    /// Seals every chain of the standing table. Gives where each of its partitions ends: nothing was taken behind that, or
    /// will be. Safe under ingests, combiners and a second caller.
    ///
    /// # Errors
    /// Those of winning a slot; [`CommitError::ChainSealed`] (Refresh) if another table takes its place.
    pub async fn seal(
        &self,
        registration: &TopicRegistration,
        former: &Former,
        plan: &Plan,
    ) -> Result<BTreeMap<u32, Frontier>, CommitError> {
        let chain_of = |partition| Chain {
            table_uuid: former.uuid.clone(),
            topic: registration.topic.clone(),
            partition,
        };
        let listed = self.store().list(&chain_of(0).folder()).await?;
        let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        let committed = former.state().map(|state| state.partitions);
        let mut ends = BTreeMap::new();
        for partition in partitions(registration, former) {
            let chain = chain_of(partition);
            let mut places = Vec::new();
            // What was given to `firn adopt` may lie ahead of every slot.
            places.extend(committed.as_ref().and_then(|all| all.get(&partition)));
            match chain.newest(keys.iter().copied()) {
                Some(newest) => {
                    let body = self.store().get(newest).await?.unwrap_or_default();
                    places.push(Intent::from_bytes(newest, &body)?.after);
                }
                // Nothing was ever staged. The first slot is that of the incarnation at which the table was made.
                None => places.extend((1..=registration.topic_incarnation).map(Frontier::start)),
            }
            let mut end = Frontier::start(0);
            for place in places {
                let sealed = self.seal_from(&chain, place, plan).await?;
                if (sealed.incarnation, sealed.offset) > (end.incarnation, end.offset) {
                    end = sealed;
                }
            }
            ends.insert(partition, end);
        }
        Ok(ends)
    }

    /// Walks on from a place of the chain and seals its end.
    async fn seal_from(
        &self,
        chain: &Chain,
        mut tail: Frontier,
        plan: &Plan,
    ) -> Result<Frontier, CommitError> {
        loop {
            tail = chain.walk(self.store(), &tail, usize::MAX).await?.tail;
            let (id, now_ms) = (self.ids.next_id(), self.clock.now_ms());
            let seal = Intent::sealing(id, &tail, &plan.table_uuid, now_ms);
            match chain.win(self.store(), &tail, &seal).await {
                Ok(SlotOutcome::Won) => return Ok(tail),
                Ok(SlotOutcome::Taken(_)) => {}
                Err(CommitError::ChainSealed { moved_to, .. }) if moved_to == plan.table_uuid => {
                    return Ok(tail);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the draft has everything that the sealed chains took.
    ///
    /// # Errors
    /// [`CommitError::RebuiltTooLittle`] (Halt) with the first partition that ends earlier; those of walking a chain.
    pub async fn check_rebuilt(
        &self,
        table: &LoadedTable,
        ends: &BTreeMap<u32, Frontier>,
    ) -> Result<(), CommitError> {
        for (partition, end) in ends {
            let frontier = table.frontier(*partition).copied();
            let frontier = frontier.unwrap_or(Frontier::start(0));
            let chain = table.chain(*partition);
            let reached = chain.walk(self.store(), &frontier, usize::MAX).await?.tail;
            let place = |frontier: &Frontier| (frontier.incarnation, frontier.last_record());
            if end.last_record().pseq > 0 && place(&reached) < place(end) {
                return Err(CommitError::RebuiltTooLittle {
                    table: table.name.clone(),
                    partition: *partition,
                    reached: reached.last_record(),
                    taken: end.last_record(),
                });
            }
        }
        Ok(())
    }

    /// Puts the draft in the place of the table that stands, or stood.
    ///
    /// The caller has sealed the chains, and the draft has all that was taken by them and is combined.
    ///
    /// # Errors
    /// [`CommitError::RebuiltAnother`] (Halt); [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`]
    /// (Verify): call again; those of the ports.
    pub async fn swap_in(
        &self,
        name: &TableName,
        former: &Former,
        (draft, ends): (&Draft, &BTreeMap<u32, Frontier>),
        operator: &Operator,
    ) -> Result<SwapIn, CommitError> {
        let Some(table) = draft.table(name).await? else {
            return Ok(SwapIn::NothingBuilt);
        };
        let metadata = self.rebuilt_metadata(&table, former, operator)?;
        let previous = Some(table.pointer.metadata_location.as_str());
        let location = next_location(previous, &metadata, &self.ids.next_id());
        let body = encode(&metadata, &location).await?;
        let key = key_of(self.store(), &location)?;
        self.store().put(key, body).await?;
        let mut race = Race::new(name, "rebuild", self.limits.tries_max);
        let metadata_location = loop {
            let pointer = match self.swap_base(name, former, (draft, ends)).await? {
                SwapBase::Landed { metadata_location } => break metadata_location,
                SwapBase::MorePartitions => {
                    self.discard(&[location]).await;
                    return Ok(SwapIn::MorePartitions);
                }
                SwapBase::Pointer(pointer) => pointer,
            };
            race.begin()?;
            let outcome = match &pointer {
                Some(pointer) => {
                    self.catalog
                        .swap(name, pointer, &location, &metadata)
                        .await?
                }
                None => match self.catalog.create(name, &location, &metadata).await? {
                    CreateOutcome::Created => SwapOutcome::Swapped,
                    CreateOutcome::Exists => SwapOutcome::Conflict,
                    CreateOutcome::Unknown => SwapOutcome::Unknown,
                },
            };
            if outcome == SwapOutcome::Swapped {
                break location;
            }
            race.note(outcome);
        };
        let stands = self.load_existing(name).await?;
        self.identify(&stands, stands.state.topic_incarnation)
            .await?;
        Ok(SwapIn::Stands { metadata_location })
    }

    /// The draft's metadata as it is swapped in: with what the standing table's owner has set, and with the act.
    fn rebuilt_metadata(
        &self,
        table: &LoadedTable,
        former: &Former,
        operator: &Operator,
    ) -> Result<TableMetadata, CommitError> {
        let act = Act {
            id: self.ids.next_id(),
            at_ms: self.clock.now_ms(),
            operator: operator.clone(),
            kind: ActKind::Rebuilt {
                former_uuid: former.uuid.clone(),
            },
        };
        let theirs = former.metadata.as_deref();
        let acts = with_acts(theirs.unwrap_or(&table.metadata), &[act]);
        let mut properties: HashMap<String, String> = theirs
            .into_iter()
            .flat_map(TableMetadata::properties)
            .filter(|(name, _)| !name.starts_with("firn.") || *name == FRESHNESS_PROPERTY)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        properties.insert(ACTS_PROPERTY.to_owned(), acts);
        properties.insert(STATE_PROPERTY.to_owned(), table.state.to_json(&table.name)?);
        let failed = CommitError::iceberg("building the rebuilt table");
        table
            .builder_of_change()
            .set_properties(properties)
            .and_then(TableMetadataBuilder::build)
            .map(|built| built.metadata)
            .map_err(failed)
    }

    /// What the pointer is moved from. A partition is in a table's state before its first slot can be won, so that a swap
    /// from a state whose partitions are all sealed leaves nothing behind.
    async fn swap_base(
        &self,
        name: &TableName,
        former: &Former,
        (draft, ends): (&Draft, &BTreeMap<u32, Frontier>),
    ) -> Result<SwapBase, CommitError> {
        let another = || CommitError::RebuiltAnother {
            table: name.clone(),
            former_uuid: former.uuid.clone(),
        };
        let Some(pointer) = self.catalog.pointer(name).await? else {
            return Ok(SwapBase::Pointer(None));
        };
        if let Some(known) = former
            .pointer
            .as_ref()
            .filter(|_| former.metadata.is_none())
            && pointer.version == known.version
        {
            // It cannot be read, but nothing has changed at all.
            return Ok(SwapBase::Pointer(Some(pointer)));
        }
        let found = self.find_existing(name).await?;
        let uuid = found.metadata.uuid();
        if uuid == draft.uuid {
            let metadata_location = found.pointer.metadata_location;
            return Ok(SwapBase::Landed { metadata_location });
        }
        if former.metadata.is_none() || uuid.to_string() != former.uuid {
            return Err(another());
        }
        let state = state_of(&found.metadata);
        let mut registered = state.iter().flat_map(|state| state.partitions.keys());
        if registered.all(|partition| ends.contains_key(partition)) {
            Ok(SwapBase::Pointer(Some(found.pointer)))
        } else {
            Ok(SwapBase::MorePartitions)
        }
    }

    async fn standing(&self, name: &TableName) -> Result<Former, CommitError> {
        let pointer = self.catalog.pointer(name).await?;
        if pointer.is_some() {
            match self.find(name).await {
                Ok(Some(found)) => {
                    return Ok(Former {
                        uuid: found.metadata.uuid().to_string(),
                        pointer: Some(found.pointer),
                        metadata: Some(found.metadata),
                    });
                }
                // Dropped since, or it cannot be read: then it is the one on record.
                Ok(None) | Err(CommitError::MissingObject { .. } | CommitError::Iceberg { .. }) => {
                }
                Err(other) => return Err(other),
            }
        }
        let known = self.identity(name).await?.0;
        let known = known.ok_or_else(|| CommitError::NoTable {
            table: name.clone(),
        })?;
        Ok(Former {
            uuid: known.table_uuid,
            pointer,
            metadata: None,
        })
    }

    async fn plan_of(&self, former: &Former) -> Result<Option<Plan>, CommitError> {
        let key = layout::rebuild_plan(&former.uuid);
        match self.store().get(&key).await? {
            None => Ok(None),
            Some(body) => serde_json::from_slice(&body)
                .map(Some)
                .map_err(malformed(&key)),
        }
    }
}

/// Partitions that the table may have taken something for.
fn partitions(registration: &TopicRegistration, former: &Former) -> BTreeSet<u32> {
    let announced = 0..registration.partition_map.partitions.max(1);
    let registered = former.state().into_iter();
    let registered = registered.flat_map(|state| state.partitions.into_keys());
    announced.chain(registered).collect()
}

/// The state of a table, if it has one that can be read.
fn state_of(metadata: &TableMetadata) -> Option<TableState> {
    let json = metadata.properties().get(STATE_PROPERTY)?;
    serde_json::from_str(json).ok()
}

fn malformed(key: &str) -> impl Fn(serde_json::Error) -> CommitError {
    move |source| CommitError::MalformedAnswer {
        key: key.to_owned(),
        source,
    }
}
