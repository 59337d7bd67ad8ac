//! What the function keeps warm about a topic: registration, schema documents, the table, and the tails of its chains.
//!
//! # Invariants
//! - Nothing kept is used when it is older than its bound by the wall clock. A slot is removed a day after it was covered at the
//!   earliest, so a tail that was walked to within the hour is never behind a removed slot.
//! - A tail is where the chain ends, never where a batch ends: records that only move the offset do not move it.
//! - The table is asked for by what a batch needs of it; if it lacks that, functions/ddl is called once and the table read anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use change_event::{SourceSchema, TopicRegistration};
use function_kit::Pacing;
use table_commit::{Chain, Frontier, LoadedTable, TableName};

use crate::error::StageError;
use crate::ports::Ports;

/// How long a registration is believed. Partitions and freshness change rarely, and a table read tells more.
const REGISTRATION_MS: i64 = 300_000;

/// How long a table and the tails of its chains are believed.
const TABLE_MS: i64 = 3_600_000;

/// A walk begins at the frontier of a table that is at most this old: each committed slot that it need not read is a GET.
const RECENT_MS: i64 = 60_000;

/// Slots of other processes were seen this long ago at most: the table has several writers.
const SHARED_MS: i64 = 300_000;

/// The end of a partition's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// What the next slot is named by.
    pub(crate) frontier: Frontier,
    /// When the chain was walked from the table's frontier, in milliseconds. Slots won since then do not count: once an
    /// hour it is seen anew how far the table is behind.
    pub(crate) walked_ms: i64,
}

/// A table and when it was read.
#[derive(Debug, Clone)]
struct Known {
    table: Arc<LoadedTable>,
    read_ms: i64,
}

/// A topic that an agent announced.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) registration: Arc<TopicRegistration>,
    registered_ms: i64,
    table: tokio::sync::Mutex<Option<Known>>,
    documents: tokio::sync::Mutex<HashMap<u32, Arc<SourceSchema>>>,
    /// By table and partition: a table made anew has other chains.
    tails: Mutex<HashMap<(String, u32), Tail>>,
    pub(crate) pacing: Mutex<Pacing>,
    /// When a slot of another process was met last.
    shared_ms: AtomicI64,
}

/// What a batch needs of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// The partition must be in the table's state.
    pub(crate) partition: u32,
    /// The table must hold this schema version.
    pub(crate) schema_version: u32,
    /// The table must have every partition of this version of the partition map: a combiner waits for all that it knows.
    pub(crate) map_version: u32,
}

impl Topic {
    pub(crate) fn new(registration: TopicRegistration, now_ms: i64) -> Self {
        Self {
            registration: Arc::new(registration),
            registered_ms: now_ms,
            table: tokio::sync::Mutex::default(),
            documents: tokio::sync::Mutex::default(),
            tails: Mutex::default(),
            pacing: Mutex::default(),
            shared_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether the registration may still be believed, and knows the partition.
    pub(crate) fn is_current(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.registered_ms) < REGISTRATION_MS
    }

    /// Takes over what is warm, because only the registration was read anew.
    pub(crate) fn renewed(&self, registration: TopicRegistration, now_ms: i64) -> Self {
        let same_table = (&registration.lake_database, &registration.lake_table)
            == (
                &self.registration.lake_database,
                &self.registration.lake_table,
            );
        let renewed = Self::new(registration, now_ms);
        if !same_table {
            return renewed;
        }
        Self {
            table: tokio::sync::Mutex::new(
                self.table.try_lock().ok().and_then(|known| known.clone()),
            ),
            documents: tokio::sync::Mutex::new(
                self.documents
                    .try_lock()
                    .map(|documents| documents.clone())
                    .unwrap_or_default(),
            ),
            tails: Mutex::new(self.tails().clone()),
            pacing: Mutex::new(*self.pacing()),
            shared_ms: AtomicI64::new(self.shared_ms.load(Ordering::Relaxed)),
            ..renewed
        }
    }

    pub(crate) fn table_name(&self) -> TableName {
        TableName {
            database: self.registration.lake_database.clone(),
            table: self.registration.lake_table.clone(),
        }
    }

    /// The schema document of a version, or `None` if it was never published.
    pub(crate) async fn document(
        &self,
        ports: &Ports,
        version: u32,
    ) -> Result<Option<Arc<SourceSchema>>, StageError> {
        let mut documents = self.documents.lock().await;
        if let Some(document) = documents.get(&version) {
            return Ok(Some(Arc::clone(document)));
        }
        let Some(document) = ports.registry.document(&self.registration, version).await? else {
            return Ok(None);
        };
        let document = Arc::new(document);
        documents.insert(version, Arc::clone(&document));
        Ok(Some(document))
    }

    /// The table, with all that a batch needs of it.
    pub(crate) async fn table(
        &self,
        ports: &Ports,
        need: Need,
    ) -> Result<Arc<LoadedTable>, StageError> {
        let mut known = self.table.lock().await;
        let now_ms = ports.clock.now_ms();
        if let Some(kept) = known.as_ref()
            && now_ms.saturating_sub(kept.read_ms) < TABLE_MS
            && suits(&kept.table, need)
        {
            return Ok(Arc::clone(&kept.table));
        }
        if let Some(table) = self.read(ports, &mut known).await?
            && suits(&table, need)
        {
            return Ok(table);
        }
        ports
            .ddl
            .request(&self.registration.topic, need.schema_version)
            .await?;
        let table = self
            .read(ports, &mut known)
            .await?
            .filter(|table| suits(table, need));
        table.ok_or(StageError::NotRegistered {
            partition: need.partition,
        })
    }

    /// The table as it was not long ago: its frontier is where a walk begins.
    pub(crate) async fn recent_table(
        &self,
        ports: &Ports,
    ) -> Result<Option<Arc<LoadedTable>>, StageError> {
        self.table_within(ports, |_| RECENT_MS).await
    }

    /// The table as it was after its last commit, or almost: read again only when it has been due since.
    pub(crate) async fn table_as_fresh_as_it_gets(
        &self,
        ports: &Ports,
    ) -> Result<Option<Arc<LoadedTable>>, StageError> {
        let age_ms = |table: &LoadedTable| i64::from(table.freshness_seconds().max(1)) * 1000;
        self.table_within(ports, age_ms).await
    }

    async fn table_within(
        &self,
        ports: &Ports,
        age_ms: impl Fn(&LoadedTable) -> i64,
    ) -> Result<Option<Arc<LoadedTable>>, StageError> {
        let mut known = self.table.lock().await;
        let now_ms = ports.clock.now_ms();
        let young = |kept: &&Known| now_ms.saturating_sub(kept.read_ms) < age_ms(&kept.table);
        match known.as_ref().filter(young) {
            Some(kept) => Ok(Some(Arc::clone(&kept.table))),
            None => self.read(ports, &mut known).await,
        }
    }

    /// The table as it is now.
    pub(crate) async fn reload(
        &self,
        ports: &Ports,
    ) -> Result<Option<Arc<LoadedTable>>, StageError> {
        let mut known = self.table.lock().await;
        self.read(ports, &mut known).await
    }

    /// Forgets the table: another one stands in its place, or will.
    pub(crate) async fn forget_table(&self) {
        *self.table.lock().await = None;
    }

    async fn read(
        &self,
        ports: &Ports,
        known: &mut Option<Known>,
    ) -> Result<Option<Arc<LoadedTable>>, StageError> {
        let read_ms = ports.clock.now_ms();
        let table = ports
            .committer
            .load(&self.table_name())
            .await?
            .map(Arc::new);
        let uuid = |table: &LoadedTable| table.metadata.uuid();
        if known.as_ref().map(|kept| uuid(&kept.table)) != table.as_deref().map(uuid) {
            // Another table, or none: its chains are other ones.
            self.tails().clear();
        }
        *known = table.as_ref().map(|table| Known {
            table: Arc::clone(table),
            read_ms,
        });
        Ok(table)
    }

    /// The end of a chain, if it was walked within the bound.
    pub(crate) fn tail(&self, chain: &Chain, now_ms: i64) -> Option<Tail> {
        let tail = self.tails().get(&key(chain)).copied();
        tail.filter(|tail| now_ms.saturating_sub(tail.walked_ms) < TABLE_MS)
    }

    /// A slot of another process was met.
    pub(crate) fn note_shared(&self, now_ms: i64) {
        self.shared_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Whether other processes stage for the same table, as far as their slots were met.
    pub(crate) fn is_shared(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.shared_ms.load(Ordering::Relaxed)) < SHARED_MS
    }

    pub(crate) fn keep_tail(&self, chain: &Chain, tail: Tail) {
        self.tails().insert(key(chain), tail);
    }

    pub(crate) fn forget_tail(&self, partition: u32) {
        self.tails().retain(|(_, other), _| *other != partition);
    }

    fn tails(&self) -> MutexGuard<'_, HashMap<(String, u32), Tail>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pacing(&self) -> MutexGuard<'_, Pacing> {
        self.pacing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(chain: &Chain) -> (String, u32) {
    (chain.table_uuid.clone(), chain.partition)
}

/// Whether a table has what a batch needs.
pub(crate) fn suits(table: &LoadedTable, need: Need) -> bool {
    table.frontier(need.partition).is_some()
        && table.state.schema_version >= need.schema_version
        && table.state.partition_map_version >= need.map_version
}
