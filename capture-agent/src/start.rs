//! From the plan to streaming: topics and registrations, copy or resume, the atomic end of a copy.
//!
//! Flow: `session` (fenced, epoch, progress, plan) -> **here** -> `capture`.
//!
//! # Invariants
//! - Mark before publication before slot before rows before manifest before announcement: each step finds after a crash what
//!   the state machine of `slot` needs to go on.

use change_event::{Lsn, TopicRegistration, layout, naming};
use object_io::failpoint;
use source_postgres::{CatalogTable, Connection, ReplicationStart};

use crate::context::Context;
use crate::copy::{self, CopyManifest, CopyPlan};
use crate::copy_id::{self, Purpose};
use crate::error::AgentError;
use crate::ledger::Ledger;
use crate::progress::PositionRecord;
use crate::session::{FIRST_INCARNATION, Found};
use crate::slot::{self, Plan, SlotMark, SlotState};
use crate::source::{capture_request, connect_options, start_problems};
use crate::status::{AgentState, SlotStatus, TableStatus};
use crate::tables::{CapturedName, Shape, Tables};
use crate::topics::{TopicRequest, Topics};
use crate::transaction::Outbox;
use crate::truncates::{Events, events_shape};
use crate::{failover, failpoints, objects};

const NO_CONNECTION: AgentError = AgentError::StreamOrder {
    what: "a session without a connection",
};

/// What streaming needs.
pub(crate) type Started = (Connection, Events, ReplicationStart);

/// A session on its way to streaming.
pub(crate) struct Starting<'a> {
    pub(crate) context: &'a Context,
    pub(crate) found: Found,
    pub(crate) outbox: Outbox,
    pub(crate) tables: Tables,
    /// Tables that were taken in later, and what is owed.
    pub(crate) ledger: Ledger,
    /// Lines of the status page, one per lane.
    pub(crate) lines: Vec<TableStatus>,
}

impl Starting<'_> {
    /// Follows the plan; `None` if the agent was told to stop meanwhile.
    pub(crate) async fn start(&mut self) -> Result<Option<Started>, AgentError> {
        let (store, source_name) = (self.context.store.as_ref(), self.context.source_name());
        self.ledger = Ledger::load(store, source_name).await?;
        match self.found.plan.clone() {
            Plan::Resume(_) => {
                let names = self.captured_names().await?;
                self.open_topics(&names).await?;
                self.check_publication().await?;
                self.mark_streaming(&names).await?;
            }
            Plan::Announce { copy_id } => {
                let names = self.captured_names().await?;
                self.open_topics(&names).await?;
                let key = layout::copy_manifest(self.context.source_name(), copy_id);
                let manifest: Option<CopyManifest> =
                    objects::read(self.context.store.as_ref(), &key).await?;
                let Some(manifest) = manifest else {
                    return Err(AgentError::StreamOrder {
                        what: "a copy manifest that went away",
                    });
                };
                self.announce(&manifest, &names).await?;
            }
            Plan::Copy { drop_slot } => {
                if !self.copy(drop_slot).await? {
                    return Ok(None);
                }
            }
        }
        let Some(replication) = self.found.replication.take() else {
            return Err(NO_CONNECTION);
        };
        let events = self.events().await?;
        let reached = self.outbox.reached();
        let position = self.outbox.position();
        self.context.status.update(|snapshot| {
            snapshot.position = position.to_string();
            snapshot.acknowledged = reached.end_lsn;
        });
        let start = ReplicationStart {
            slot: self.context.config.source.slot.clone(),
            publications: vec![self.context.config.source.publication.clone()],
            start_lsn: reached.end_lsn,
        };
        Ok(Some((replication, events, start)))
    }

    async fn copy(&mut self, drop_slot: bool) -> Result<bool, AgentError> {
        let (plan, names) = self.prepare_copy(drop_slot).await?;
        let (context, copy_id) = (self.context, plan.copy_id);
        let options = connect_options(&context.config);
        let copied = copy::copy_tables(
            context,
            &options,
            &plan,
            &mut self.tables,
            &self.outbox,
            &names,
        )
        .await?;
        let Some(announcements) = copied else {
            return Ok(false);
        };
        let manifest = CopyManifest {
            copy_id,
            copy_lsn: plan.copy_lsn,
            system_id: self.found.identity.system_id.clone(),
            timeline: self.found.identity.timeline,
            announcements,
            abandoned: false,
        };
        let key = layout::copy_manifest(context.source_name(), copy_id);
        // Create-only: were one there, it would be the one to announce, and the next session finds it.
        if let objects::Creation::Other(_) =
            objects::create(context.store.as_ref(), &key, &manifest).await?
        {
            return Err(AgentError::ObjectUnknown { key });
        }
        failpoint::hit(failpoints::AFTER_COPY_MANIFEST_PUT);
        self.announce(&manifest, &names).await?;
        Ok(true)
    }

    /// Checks, topics, number, mark, publication and slot, in this order: what a copy needs before its first row.
    async fn prepare_copy(
        &mut self,
        drop_slot: bool,
    ) -> Result<(CopyPlan, Vec<CapturedName>), AgentError> {
        let context = self.context;
        let config = &context.config;
        let request = capture_request(config);
        let problems = start_problems(config, &mut self.found.catalog, &request).await?;
        if !problems.is_empty() {
            return Err(AgentError::Preflight(problems));
        }
        let found = self.found.catalog.tables(&request.tables).await?;
        let names: Vec<CapturedName> = found.iter().map(captured_name).collect();
        context
            .status
            .update(|snapshot| snapshot.state = AgentState::Copying);
        self.open_topics(&names).await?;
        let (clock, ids) = (context.clock.as_ref(), context.ids.as_ref());
        let (store, source_name) = (context.store.as_ref(), context.source_name());
        let purpose = Purpose::default();
        let copy_id = copy_id::claim(store, clock, ids, source_name, &purpose).await?;
        failpoint::hit(failpoints::AFTER_COPY_CLAIM);
        let mark = SlotMark {
            state: SlotState::Copying,
            slot: config.source.slot.clone(),
            copy_id,
            system_id: self.found.identity.system_id.clone(),
            tables: names.clone(),
        };
        // The mark first: a slot without it would be someone else's.
        slot::write_mark(context.store.as_ref(), context.source_name(), &mark).await?;
        let tables: Vec<_> = names.iter().map(CapturedName::table).collect();
        let publication = &config.source.publication;
        self.found
            .catalog
            .ensure_publication(publication, &tables)
            .await?;
        let Some(replication) = self.found.replication.as_mut() else {
            return Err(NO_CONNECTION);
        };
        if drop_slot {
            tracing::warn!(
                slot = config.source.slot,
                "the slot of an abandoned copy is dropped"
            );
            replication.drop_slot(&config.source.slot).await?;
        }
        let created = replication.create_slot(&config.source.slot).await?;
        failpoint::hit(failpoints::AFTER_SLOT_CREATED);
        tracing::info!(slot = created.slot, from = %created.consistent_point, copy_id, "slot created");
        let plan = CopyPlan {
            copy_id,
            incarnation: FIRST_INCARNATION,
            copy_lsn: created.consistent_point,
            snapshot: created.snapshot,
        };
        Ok((plan, names))
    }

    /// The atomic end of a copy: all announcements and the first position, in one Kafka transaction.
    async fn announce(
        &mut self,
        manifest: &CopyManifest,
        names: &[CapturedName],
    ) -> Result<(), AgentError> {
        let start = PositionRecord {
            system_id: manifest.system_id.clone(),
            timeline: manifest.timeline,
            incarnation: FIRST_INCARNATION,
            past: Vec::new(),
            commit_lsn: manifest.copy_lsn,
            ordinal: 0,
            end_lsn: manifest.copy_lsn,
            epoch: self.found.owned.epoch,
            copy_id: manifest.copy_id,
        };
        let Found {
            identity,
            replication: Some(replication),
            ..
        } = &mut self.found
        else {
            return Err(NO_CONNECTION);
        };
        let source_name = self.context.source_name();
        let start = failover::followed(source_name, &start, identity, replication).await?;
        let (copy_lsn, position) = (start.commit_lsn, start.position());
        self.outbox.begin_at(start)?;
        let tables = &self.tables;
        self.outbox
            .send_barriers(copy_lsn, |lane| tables.version_of_lane(lane, position))
            .await?;
        copy::announce(&mut self.outbox, manifest).await?;
        self.outbox.delivered().await?;
        failpoint::hit(failpoints::BEFORE_ANNOUNCEMENT_COMMIT);
        self.outbox.commit().await?;
        failpoint::hit(failpoints::AFTER_ANNOUNCEMENT_COMMIT);
        tracing::info!(
            copy_id = manifest.copy_id,
            announcements = manifest.announcements.len(),
            "copy announced"
        );
        self.mark_streaming(names).await
    }

    async fn mark_streaming(&self, names: &[CapturedName]) -> Result<(), AgentError> {
        let mark = SlotMark {
            state: SlotState::Streaming,
            slot: self.context.config.source.slot.clone(),
            copy_id: self.outbox.reached().copy_id,
            system_id: self.found.identity.system_id.clone(),
            tables: names.to_vec(),
        };
        if self.found.mark.as_ref() == Some(&mark) {
            return Ok(());
        }
        slot::write_mark(
            self.context.store.as_ref(),
            self.context.source_name(),
            &mark,
        )
        .await
    }

    /// The tables that the first copy took in; without a mark, those of the publication.
    async fn captured_names(&mut self) -> Result<Vec<CapturedName>, AgentError> {
        if let Some(mark) = &self.found.mark {
            return Ok(mark.tables.clone());
        }
        let request = capture_request(&self.context.config);
        let matching = self.found.catalog.tables(&request.tables).await?;
        let publication = self.found.catalog.publication(&request.publication).await?;
        let published = publication
            .map(|publication| publication.tables)
            .unwrap_or_default();
        let published = matching
            .iter()
            .filter(|table| published.contains(&table.name));
        Ok(published.map(captured_name).collect())
    }

    /// A publication that leaves changes out of every table is a gap in the stream: an alarm, never a skip. One that has lost a
    /// table is seen by the copier, and stops no other table.
    async fn check_publication(&mut self) -> Result<(), AgentError> {
        let publication = &self.context.config.source.publication;
        let state = self.found.catalog.publication(publication).await?;
        if state.is_some_and(|state| state.filtered || !state.complete) {
            return Err(AgentError::Preflight(vec![format!(
                "publication {publication}: it has row filters, column lists or leaves operations out, so changes are missing"
            )]));
        }
        Ok(())
    }

    /// Topics, registrations and lanes of `names` and of the tables that were taken in later, and of the pseudo table
    /// `firn.events` last.
    async fn open_topics(&mut self, names: &[CapturedName]) -> Result<(), AgentError> {
        let topics = Topics::open(self.context).await?;
        let sent_until = match &self.found.plan {
            Plan::Copy { .. } => Lsn(0),
            // A walsender sends no more than is flushed, and the predecessor is fenced.
            Plan::Announce { .. } | Plan::Resume(_) => self.found.identity.flush_lsn,
        };
        self.tables.sent_until(sent_until);
        let is_late = |late: &&CapturedName| !names.iter().any(|name| name.oid == late.oid);
        let late: Vec<CapturedName> = self.ledger.tables().filter(is_late).cloned().collect();
        for name in names.iter().chain(&late) {
            let config = &self.context.config;
            let mut request = TopicRequest::of(config, &name.table_schema, &name.table_name);
            request.sent_until = sent_until;
            let registration = topics.ensure(&request).await?;
            let topic = registration.topic.clone();
            let lane = self.add_lane(registration);
            self.tables
                .add(self.context, name.clone(), lane, &topic)
                .await?;
            let version = self.tables.version_at(name.oid, self.outbox.position());
            if let Some(line) = self.lines.get_mut(lane) {
                line.schema_version = version;
            }
        }
        let config = &self.context.config;
        let mut request = TopicRequest::of(config, naming::EVENTS_SCHEMA, naming::EVENTS_TABLE);
        request.partitions = None;
        let registration = topics.ensure(&request).await?;
        self.add_lane(registration);
        let lines = std::mem::take(&mut self.lines);
        let slot = self.context.config.source.slot.clone();
        self.context.status.update(|snapshot| {
            for mut line in lines {
                // Counters belong to the process, not to the session.
                let before = snapshot
                    .tables
                    .iter()
                    .position(|before| before.topic == line.topic);
                if let Some(before) = before {
                    let before = snapshot.tables.swap_remove(before);
                    line.records = before.records;
                    line.last_record_ms = before.last_record_ms;
                    line.copied_rows = before.copied_rows;
                }
                self.lines.push(line);
            }
            snapshot.tables = std::mem::take(&mut self.lines);
            snapshot.slot = SlotStatus {
                slot,
                ..snapshot.slot.clone()
            };
        });
        Ok(())
    }

    fn add_lane(&mut self, registration: TopicRegistration) -> usize {
        self.lines.push(TableStatus::of(&registration));
        self.outbox
            .add_lane(registration, &self.found.owned.progress)
    }

    async fn events(&mut self) -> Result<Events, AgentError> {
        let source_name = self.context.source_name();
        let topic = naming::topic_name(source_name, naming::EVENTS_SCHEMA, naming::EVENTS_TABLE);
        let Some(lane) = self.outbox.lane_of(&topic) else {
            return Err(AgentError::StreamOrder {
                what: "no topic for events",
            });
        };
        let store = self.context.store.as_ref();
        let mut book = crate::schemas::SchemaBook::load(store, source_name, &topic).await?;
        let schema = book
            .resolve(store, &events_shape(), self.outbox.position())
            .await?;
        self.context.status.update(|snapshot| {
            if let Some(line) = snapshot.tables.get_mut(lane) {
                line.schema_version = schema.version;
            }
        });
        Ok(Events {
            lane,
            shape: Shape::new(schema, &self.context.config, &topic),
        })
    }
}

fn captured_name(table: &CatalogTable) -> CapturedName {
    CapturedName {
        oid: table.oid,
        table_schema: table.name.schema.clone(),
        table_name: table.name.table.clone(),
    }
}
