//! One copy of one captured table while the stream goes on.
//!
//! Flow: claim -> temporary slot: position P and snapshot -> the stream passes P -> document -> files -> **manifest**; `copier` has it
//! announced.
//!
//! The snapshot holds exactly the transactions that committed before P, and the stream has handed over exactly those when the copy
//! begins: so the shape of the table is decided in the order of the log, and the announcement comes after every change that its rows
//! contain. A change behind P may be on the topic before the announcement; its position says that it is later.
//!
//! # Invariants
//! - Nothing is announced before the manifest is written. Without one, the files are orphans, and a successor seals the number.
//! - The slot ends as soon as the copy is inside of its snapshot: it holds no log while the rows are read.
//!
//! # Source
//! PostgreSQL manual, "Streaming Replication Protocol", CREATE_REPLICATION_SLOT; `snapbuild.c`: the exported snapshot shows what
//! committed before the consistent point, and a slot streams what commits at or after it.

use object_io::failpoint;
use source_postgres::{Connection, SourceError, TableCopy, TableName, relation};

use change_event::layout;

use crate::asks::Port;
use crate::context::Context;
use crate::copy::{self, CopyManifest, CopyPlan, Target};
use crate::copy_id::{self, Purpose};
use crate::error::AgentError;
use crate::failpoints;
use crate::objects::{self, Creation};
use crate::progress::{PastLog, PositionRecord};
use crate::source::connect_options;

/// Most of the stream's slot name that the name of a temporary slot repeats: PostgreSQL takes 63 characters.
const SLOT_NAME_CHARS: usize = 40;

/// The log that the positions of copies belong to.
#[derive(Debug, Clone)]
pub struct SourceLog {
    /// Its incarnation.
    pub incarnation: u32,
    /// Server's system identifier.
    pub system_id: String,
    /// Server's timeline.
    pub timeline: u32,
    /// The logs that it goes on from, if the server is a promoted standby.
    pub past: Vec<PastLog>,
}

impl SourceLog {
    /// That of a server whose log has reached a position.
    #[must_use]
    pub fn of(reached: &PositionRecord) -> Self {
        Self {
            incarnation: reached.incarnation,
            system_id: reached.system_id.clone(),
            timeline: reached.timeline,
            past: reached.past.clone(),
        }
    }

    /// Whether the rows of a copy are rows of this log. A copy that was made on a server which was left, behind the point at
    /// which this log begins, holds what never was.
    #[must_use]
    pub fn holds(&self, manifest: &CopyManifest) -> bool {
        let is_of =
            |past: &PastLog| past.timeline == manifest.timeline && manifest.copy_lsn <= past.until;
        self.system_id == manifest.system_id
            && (self.timeline == manifest.timeline || self.past.iter().any(is_of))
    }
}

/// One copy of one table.
#[derive(Debug)]
pub struct Recopy<'a> {
    /// The agent's surroundings.
    pub context: &'a Context,
    /// The loop.
    pub port: &'a Port,
    /// The log.
    pub log: &'a SourceLog,
    /// The table and where its rows go.
    pub target: &'a Target,
    /// What the table is called now.
    pub now: &'a TableName,
    /// What the copy is for.
    pub purpose: &'a Purpose,
}

impl Recopy<'_> {
    /// Copies up to the manifest; without one if the agent was told to stop.
    ///
    /// # Errors
    /// [`AgentError::Source`], [`AgentError::Objects`] and others: the number is to be sealed, and a new copy begun.
    pub async fn run(&self) -> Result<(), AgentError> {
        let context = self.context;
        let (store, source_name) = (context.store.as_ref(), context.source_name());
        let (clock, ids) = (context.clock.as_ref(), context.ids.as_ref());
        let copy_id = copy_id::claim(store, clock, ids, source_name, self.purpose).await?;
        failpoint::hit(failpoints::AFTER_COPY_CLAIM);
        let (plan, copy) = self.enter(copy_id).await?;
        self.port.passed(plan.copy_lsn).await?;
        let oid = self.target.name.oid;
        let observed = relation::observe_catalog(copy.table());
        let document = self.port.document(oid, observed, plan.position(0)).await?;
        let Some(schema) = document else {
            let table = self.now.to_string();
            return Err(SourceError::TableChanged { table }.into());
        };
        let copied = copy::copy_table(context, &plan, copy, schema, self.target).await?;
        let Some(announcements) = copied else {
            return Ok(());
        };
        let manifest = CopyManifest {
            copy_id,
            copy_lsn: plan.copy_lsn,
            system_id: self.log.system_id.clone(),
            timeline: self.log.timeline,
            announcements,
            abandoned: false,
        };
        let key = layout::copy_manifest(source_name, copy_id);
        match objects::create(store, &key, &manifest).await? {
            Creation::Ours => {}
            // A successor gave it up: this agent is fenced.
            Creation::Other(_) => return Err(AgentError::ObjectUnknown { key }),
        }
        failpoint::hit(failpoints::AFTER_COPY_MANIFEST_PUT);
        Ok(())
    }

    /// Takes a position and enters its snapshot.
    async fn enter(&self, copy_id: u32) -> Result<(CopyPlan, TableCopy), AgentError> {
        let context = self.context;
        let config = &context.config;
        let options = connect_options(config);
        let mut exporting = Connection::connect_replication(&options).await?;
        let server = exporting.identify_system().await?;
        if (&server.system_id, server.timeline) != (&self.log.system_id, self.log.timeline) {
            return Err(AgentError::SourceChanged {
                source_name: context.source_name().to_owned(),
                what: "timeline beside the stream",
                expected: format!("{}/{}", self.log.system_id, self.log.timeline),
                found: format!("{}/{}", server.system_id, server.timeline),
            });
        }
        let prefix: String = config.source.slot.chars().take(SLOT_NAME_CHARS).collect();
        let slot = format!("{prefix}_copy_{copy_id}");
        let created = exporting.create_temporary_slot(&slot).await?;
        failpoint::hit(failpoints::AFTER_SLOT_CREATED);
        tracing::info!(table = %self.now, at = %created.consistent_point, copy_id, "table copy begins beside the stream");
        let plan = CopyPlan {
            copy_id,
            incarnation: self.log.incarnation,
            copy_lsn: created.consistent_point,
            snapshot: created.snapshot,
        };
        let copy = TableCopy::begin(&options, &plan.snapshot, self.now).await?;
        if copy.table().oid != self.target.name.oid {
            let table = self.now.to_string();
            return Err(SourceError::TableChanged { table }.into());
        }
        Ok((plan, copy))
    }
}

#[cfg(test)]
mod tests {
    use change_event::Lsn;

    use super::*;

    #[test]
    fn complete_copy_of_a_server_that_was_left_is_not_of_this_log() {
        let log = SourceLog {
            incarnation: 2,
            system_id: "7".to_owned(),
            timeline: 2,
            past: vec![PastLog {
                timeline: 1,
                incarnation: 1,
                until: Lsn(100),
            }],
        };
        let manifest = |system_id: &str, timeline, copy_lsn| CopyManifest {
            copy_lsn: Lsn(copy_lsn),
            system_id: system_id.to_owned(),
            timeline,
            abandoned: false,
            ..CopyManifest::abandoned(3)
        };
        for (timeline, copy_lsn) in [(1, 99), (1, 100), (2, 120)] {
            assert!(log.holds(&manifest("7", timeline, copy_lsn)), "{copy_lsn}");
        }
        let others = [("7", 1, 101), ("7", 3, 99), ("8", 2, 120)];
        for (system_id, timeline, copy_lsn) in others {
            assert!(!log.holds(&manifest(system_id, timeline, copy_lsn)));
        }
    }
}
