//! How far a table was a day ago, because that is what may be removed behind.
//!
//! # Why
//! A slot may stay uncommitted for long, and be committed and old at once. A function that loaded the table before, and walks
//! the chain from there, would then find the slot gone, take it for free and win it: its batch would be acknowledged and
//! lost. So a slot goes only if a frontier that was read a day ago is past it: every frontier that a living function loaded
//! is at or past that one.
//!
//! # Invariants
//! - A note is younger than the frontiers in it, and dated by the store.
//! - After an operator set a table back, its note is worth nothing.
//!
//! # Source
//! The search over the model's states (tests/model), which found the loss.

use std::collections::BTreeMap;

use bytes::Bytes;
use change_event::layout::frontier_note;
use object_io::{ObjectError, ObjectStore};
use serde::{Deserialize, Serialize};
use table_commit::act::ACTS_PROPERTY;
use table_commit::{Frontier, LoadedTable};

use crate::error::MaintainError;

/// How old a note must be: far longer than a function may believe what it loaded (an hour) and than it lives (15 minutes).
const NOTE_MS: i64 = 24 * 3_600_000;

/// What was seen of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// Frontiers of its partitions.
    partitions: BTreeMap<u32, Frontier>,
    /// [`ACTS_PROPERTY`]: another text, and an operator may have set the frontier back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acts: Option<String>,
}

/// What may be done by a table's note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    /// There is none that is worth anything: a new one is to be written.
    Nothing,
    /// It is not old enough.
    Young,
    /// What is behind it may go.
    Old(Note),
}

impl Note {
    pub(crate) fn of(table: &LoadedTable) -> Self {
        Self {
            partitions: table.state.partitions.clone(),
            acts: table.metadata.properties().get(ACTS_PROPERTY).cloned(),
        }
    }

    /// Whether the slot is behind what was noted *and* behind what the table says now.
    pub(crate) fn is_past(&self, key: &str, partition: u32, table: &LoadedTable) -> bool {
        let chain = table.chain(partition);
        match (self.partitions.get(&partition), table.frontier(partition)) {
            (Some(noted), Some(now)) => {
                self.leads_to(table) && chain.is_behind(key, noted) && chain.is_behind(key, now)
            }
            (None, _) | (_, None) => false,
        }
    }

    /// Whether the table has only gone forward since.
    pub(crate) fn leads_to(&self, table: &LoadedTable) -> bool {
        let acts = table.metadata.properties().get(ACTS_PROPERTY);
        let forward = |(partition, noted): (&u32, &Frontier)| {
            table.frontier(*partition).is_some_and(|now| {
                let chain = table.chain(*partition);
                let (at_noted, at_now) = (chain.slot_key(noted), chain.slot_key(now));
                at_noted == at_now || chain.is_behind(&at_noted, now)
            })
        };
        acts == self.acts.as_ref() && self.partitions.iter().all(forward)
    }
}

/// The note of a table that was just loaded.
///
/// # Errors
/// [`MaintainError::Object`]. A note that cannot be understood is worth nothing.
pub(crate) async fn read(
    store: &dyn ObjectStore,
    table: &LoadedTable,
    now_ms: i64,
) -> Result<Noted, MaintainError> {
    let key = key_of(table);
    // Content before date: what is written in between makes it younger.
    let Some(body) = store.get(&key).await? else {
        return Ok(Noted::Nothing);
    };
    let page = store.list_page(&key, None, 1).await?;
    let dated = page.objects.first().filter(|object| object.key == key);
    let (Some(object), Ok(note)) = (dated, serde_json::from_slice::<Note>(&body)) else {
        return Ok(Noted::Nothing);
    };
    if !note.leads_to(table) {
        return Ok(Noted::Nothing);
    }
    if now_ms.saturating_sub(object.modified_ms) < NOTE_MS {
        return Ok(Noted::Young);
    }
    Ok(Noted::Old(note))
}

/// Notes how far a table is that was loaded before.
///
/// # Errors
/// [`MaintainError::Object`].
pub(crate) async fn write(
    store: &dyn ObjectStore,
    table: &LoadedTable,
) -> Result<(), MaintainError> {
    let key = key_of(table);
    let body = serde_json::to_vec(&Note::of(table)).map_err(|source| ObjectError::Refused {
        operation: "put",
        key: key.clone(),
        source: Box::new(source),
    })?;
    Ok(store.put(&key, Bytes::from(body)).await?)
}

fn key_of(table: &LoadedTable) -> String {
    frontier_note(&table.metadata.uuid().to_string())
}
