//! Files of one table that nothing names: of lost slots and lost commits, of functions and agents that died, and of snapshots
//! that expired.
//!
//! # Why nothing that is needed goes
//! - A file of a batch is written, then named by an intent, then by a snapshot; an intent goes ([`crate::slots`]) only when a
//!   snapshot has its files. Intents are read **before** the table is loaded, so that a file which moves from the one to the
//!   other meanwhile is seen in one of them.
//! - A file that is old and that no intent names will never be named: an invocation lives for minutes, the age is a day at
//!   least.
//! - Copied files are announced after days, maybe: one that no copy manifest names is kept until a newer copy of the table is
//!   complete.
//! - Metadata of a commit whose outcome is unknown is kept, with all that it names, until the pointer has moved past it.
//! - A topic that fed another table before keeps everything: that table's files lie in the same folder.
//!
//! # Invariants
//! - Only names that firn gives, directly in the table's folders, older than the stated age.

use std::collections::HashSet;

use change_event::layout::{
    AGENTS, DataFileKind, data_file_kind, is_copy_manifest, table_location,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_io::{ListedObject, PAGE_OBJECTS_MAX};
use serde_json::Value;
use table_commit::{
    CommitError, Committer, INTENTS, Intent, LoadedTable, MetadataFile, Referenced, file_name,
};

use crate::ages::{Ages, written_within};
use crate::counts::Counts;
use crate::error::MaintainError;
use crate::remover::Remover;
use crate::slots::reload;

/// Intents read at a time.
const READS_AT_ONCE: usize = 16;
/// Files removed between two looks at the pointer.
const BATCH: usize = 1000;

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data(DataFileKind),
    Metadata(MetadataFile),
}

/// What a file of this name is in one folder, if it is ours.
type KindOf = fn(&str) -> Option<Kind>;

/// A file that nothing read so far names.
#[derive(Debug)]
struct Candidate {
    kind: Kind,
    object: ListedObject,
}

impl Candidate {
    fn name(&self) -> &str {
        file_name(&self.object.key)
    }
}

/// Sweeps one table.
#[derive(Debug)]
pub(crate) struct Sweep<'a> {
    pub(crate) committer: &'a Committer,
    pub(crate) table: &'a LoadedTable,
    pub(crate) ages: &'a Ages,
    pub(crate) now_ms: i64,
    pub(crate) remover: &'a Remover<'a>,
}

impl Sweep<'_> {
    /// Finds and removes them.
    ///
    /// # Errors
    /// [`MaintainError`]; what was removed before is counted.
    pub(crate) async fn run(&self, counts: &mut Counts) -> Result<(), MaintainError> {
        let Some(location) = self.location() else {
            tracing::info!(table = %self.table.name, "its files lie elsewhere: not swept");
            return Ok(());
        };
        let store = self.committer.store();
        let mut referenced = Referenced::default();
        referenced.add(store, self.table).await?;
        let mut candidates = self.candidates(&location, &referenced).await?;
        if candidates.is_empty() {
            return Ok(());
        }
        self.keep_copies(&location, &mut candidates).await?;
        self.keep_staged(&mut candidates).await?;
        let now = reload(self.committer, self.table).await?;
        referenced.add(store, &now).await?;
        self.keep_attempts(&now, &candidates, &mut referenced)
            .await?;
        candidates.retain(|candidate| !referenced.holds(candidate.name()));
        self.remove(&candidates, counts).await
    }

    /// The table's folder in the bucket, if it is where every part of firn writes.
    fn location(&self) -> Option<String> {
        let name = &self.table.name;
        let expected = table_location(&name.database, &name.table);
        let prefix = self.committer.store().uri_prefix();
        let found = self.table.metadata.location().strip_prefix(prefix)?;
        (found == expected).then_some(expected)
    }

    fn is_old(&self, object: &ListedObject) -> bool {
        self.ages.is_old_file(object, self.now_ms)
    }

    /// Files of ours that are not named. Young ones only in a dry run, which says how much may become an orphan.
    async fn candidates(
        &self,
        location: &str,
        referenced: &Referenced,
    ) -> Result<Vec<Candidate>, MaintainError> {
        let store = self.committer.store();
        let folders: [(&str, KindOf); 2] = [
            ("data", |name| data_file_kind(name).map(Kind::Data)),
            ("metadata", |name| {
                MetadataFile::parse(name).map(Kind::Metadata)
            }),
        ];
        let mut candidates = Vec::new();
        for (folder, kind_of) in folders {
            let folder = format!("{location}/{folder}/");
            let mut after: Option<String> = None;
            loop {
                let page = store
                    .list_page(&folder, after.as_deref(), PAGE_OBJECTS_MAX)
                    .await?;
                after = page.objects.last().map(|last| last.key.clone());
                for object in page.objects {
                    let Some(name) = object.key.strip_prefix(&folder) else {
                        continue;
                    };
                    let Some(kind) = kind_of(name) else {
                        continue;
                    };
                    let looked_at = self.is_old(&object) || self.remover.is_dry_run();
                    if looked_at && !referenced.holds(name) {
                        candidates.push(Candidate { kind, object });
                    }
                }
                if !page.truncated || after.is_none() {
                    break;
                }
            }
        }
        Ok(candidates)
    }

    /// Keeps copied files that a copy manifest names, and those that are not older than the newest manifest of this table:
    /// their copy may be under way.
    async fn keep_copies(
        &self,
        location: &str,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), MaintainError> {
        let copied = |candidate: &Candidate| candidate.kind == Kind::Data(DataFileKind::Copied);
        if !candidates.iter().any(copied) {
            return Ok(());
        }
        let store = self.committer.store();
        let folder = format!("/{location}/data/");
        let mut announced: HashSet<String> = HashSet::new();
        let mut newest_ms = i64::MIN;
        for object in store.list(AGENTS).await? {
            if !is_copy_manifest(&object.key) {
                continue;
            }
            let Some(body) = store.get(&object.key).await? else {
                continue;
            };
            let manifest: Value =
                serde_json::from_slice(&body).map_err(|source| MaintainError::Manifest {
                    key: object.key.clone(),
                    source,
                })?;
            let before = announced.len();
            texts(&manifest, &mut |text| {
                if text.contains(&folder) {
                    announced.insert(file_name(text).to_owned());
                }
            });
            if announced.len() > before {
                newest_ms = newest_ms.max(object.modified_ms);
            }
        }
        candidates.retain(|candidate| {
            let abandoned = candidate.object.modified_ms < newest_ms;
            !copied(candidate) || abandoned && !announced.contains(candidate.name())
        });
        Ok(())
    }

    /// Keeps files that an intent names, whether it is committed or not.
    async fn keep_staged(&self, candidates: &mut Vec<Candidate>) -> Result<(), MaintainError> {
        let store = self.committer.store();
        let mut written_ms = Vec::new();
        let mut copied = false;
        for candidate in candidates.iter() {
            match candidate.kind {
                Kind::Data(DataFileKind::Batch) => written_ms.push(candidate.object.modified_ms),
                Kind::Data(DataFileKind::Copied) => copied = true,
                Kind::Metadata(_) => {}
            }
        }
        if written_ms.is_empty() && !copied {
            return Ok(());
        }
        written_ms.sort_unstable();
        // An announcement may be taken at any time.
        let may_name_one = |intent_ms: i64| {
            let written = written_within(intent_ms);
            let first = written_ms.partition_point(|file_ms| file_ms < written.start());
            copied
                || written_ms
                    .get(first)
                    .is_some_and(|file_ms| written.contains(file_ms))
        };
        let of_table = format!("{INTENTS}{}/", self.table.metadata.uuid());
        let slots = store.list(&of_table).await?;
        let slots = slots.iter().filter(|slot| may_name_one(slot.modified_ms));
        let mut intents = stream::iter(slots)
            .map(|slot| async move {
                // One that is gone was committed: the table is loaded after this.
                match store.get(&slot.key).await? {
                    Some(body) => Intent::from_bytes(&slot.key, &body).map(Some),
                    None => Ok(None),
                }
            })
            .buffer_unordered(READS_AT_ONCE);
        let mut staged: HashSet<String> = HashSet::new();
        while let Some(intent) = intents.try_next().await? {
            let files = intent.into_iter().flat_map(|intent| intent.files);
            staged.extend(files.map(|file| file_name(&file.path).to_owned()));
        }
        candidates.retain(|candidate| !staged.contains(candidate.name()));
        Ok(())
    }

    /// Keeps what the metadata of commits names that may still land: the pointer has not moved past their base.
    async fn keep_attempts(
        &self,
        table: &LoadedTable,
        candidates: &[Candidate],
        referenced: &mut Referenced,
    ) -> Result<(), MaintainError> {
        let current = match MetadataFile::parse(file_name(&table.pointer.metadata_location)) {
            Some(MetadataFile::Metadata { version }) => Some(version),
            // Another engine's name: nothing is known to be overtaken.
            Some(MetadataFile::Manifest | MetadataFile::ManifestList) | None => None,
        };
        let store = self.committer.store();
        for candidate in candidates {
            let Kind::Metadata(MetadataFile::Metadata { version }) = candidate.kind else {
                continue;
            };
            if current.is_some_and(|current| version <= current) {
                continue;
            }
            let location = format!("{}{}", store.uri_prefix(), candidate.object.key);
            let metadata = match self.committer.read_metadata(&table.name, &location).await {
                Ok(metadata) => metadata,
                Err(CommitError::MissingObject { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // A table that was dropped, or a creation that lost: no commit of this one.
            if metadata.uuid() != table.metadata.uuid() {
                continue;
            }
            let added = referenced.add_metadata(store, &table.name, &location, &metadata);
            match added.await {
                // A commit moves the pointer after all of its files are written: this one cannot land.
                Ok(()) | Err(CommitError::MissingObject { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn remove(
        &self,
        candidates: &[Candidate],
        counts: &mut Counts,
    ) -> Result<(), MaintainError> {
        for candidate in candidates {
            let old = self.is_old(&candidate.object);
            match candidate.kind {
                Kind::Data(_) => counts.data.found(&candidate.object, old),
                Kind::Metadata(_) => counts.metadata.found(&candidate.object, old),
            }
        }
        let of_kind = |data: bool| -> Vec<ListedObject> {
            candidates
                .iter()
                .filter(|candidate| matches!(candidate.kind, Kind::Data(_)) == data)
                .map(|candidate| candidate.object.clone())
                .collect()
        };
        for (what, data) in [
            ("orphaned data file", true),
            ("orphaned metadata file", false),
        ] {
            let kind_counts = if data {
                &mut counts.data
            } else {
                &mut counts.metadata
            };
            for batch in of_kind(data).chunks(BATCH) {
                if self.remover.left() == 0 {
                    return Ok(());
                }
                // Dropped or made anew since: its files are the business of whoever did so.
                reload(self.committer, self.table).await?;
                let removed = |object: &ListedObject| {
                    kind_counts.removed += 1;
                    kind_counts.removed_bytes += object.size_bytes;
                };
                self.remover.remove(what, batch, removed).await?;
            }
        }
        Ok(())
    }
}

/// All texts in a JSON value, whatever its shape: a copy manifest may grow fields that this reader does not know.
fn texts(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
