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
use crate::error::AgentError;
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
    /// Lines of the status page, one per lane.
    pub(crate) lines: Vec<TableStatus>,
}

impl Starting<'_> {
    /// Follows the plan; `None` if the agent was told to stop meanwhile.
    pub(crate) async fn start(&mut self) -> Result<Option<Started>, AgentError> {
        match self.found.plan.clone() {
            Plan::Resume(_) => {
                let names = self.captured_names().await?;
                self.open_topics(&names).await?;
                self.check_publication(&names).await?;
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
            Plan::Copy { copy_id, drop_slot } => {
                if !self.copy(copy_id, drop_slot).await? {
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

    async fn copy(&mut self, copy_id: u32, drop_slot: bool) -> Result<bool, AgentError> {
        let (plan, names) = self.prepare_copy(copy_id, drop_slot).await?;
        let context = self.context;
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

    /// Checks, topics, mark, publication and slot, in this order: what a copy needs before its first row.
    async fn prepare_copy(
        &mut self,
        copy_id: u32,
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
            catalog,
            ..
        } = &mut self.found
        else {
            return Err(NO_CONNECTION);
        };
        let source_name = self.context.source_name();
        let start = failover::followed(source_name, &start, identity, replication, catalog).await?;
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
        let request = capture_request(&self.context.config);
        let matching = self.found.catalog.tables(&request.tables).await?;
        let names = match &self.found.mark {
            Some(mark) => mark.tables.clone(),
            None => {
                let publication = self.found.catalog.publication(&request.publication).await?;
                let published = publication
                    .map(|publication| publication.tables)
                    .unwrap_or_default();
                let published = matching
                    .iter()
                    .filter(|table| published.contains(&table.name));
                published.map(captured_name).collect()
            }
        };
        let late: Vec<String> = matching
            .iter()
            .filter(|table| !names.iter().any(|name| name.oid == table.oid))
            .map(|table| table.name.to_string())
            .collect();
        if !late.is_empty() {
            tracing::warn!(
                tables = late.join(", "),
                "tables match source.tables and came after the first copy: this version does not capture them; name them in a \
                 second agent with its own source.name, slot and publication"
            );
        }
        self.context
            .status
            .update(|snapshot| snapshot.not_captured = late);
        Ok(names)
    }

    /// A captured table that left the publication has a gap in the stream: an alarm, never a skip.
    async fn check_publication(&mut self, names: &[CapturedName]) -> Result<(), AgentError> {
        let publication = &self.context.config.source.publication;
        let state = self.found.catalog.publication(publication).await?;
        let mut problems = Vec::new();
        for name in names {
            let Some(table) = self.found.catalog.table_by_oid(name.oid).await? else {
                tracing::warn!(table = %name.table(), "a captured table was dropped at the source");
                continue;
            };
            if !state
                .as_ref()
                .is_some_and(|state| state.wide || state.tables.contains(&table.name))
            {
                problems.push(format!(
                    "table {}: it is no longer in publication {publication}, so its changes since then are not in the stream; \
                     make its lake table anew (docs/operations.md, \"Make the tables of a source anew\"), then ALTER PUBLICATION \"{publication}\" ADD TABLE ONLY {}",
                    table.name,
                    table.name.quoted()
                ));
            }
        }
        if state.is_some_and(|state| state.filtered || !state.complete) {
            problems.push(format!(
                "publication {publication}: it has row filters, column lists or leaves operations out, so changes are missing"
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(AgentError::Preflight(problems))
        }
    }

    /// Topics, registrations and lanes of all tables, and of the pseudo table `firn.events` last.
    async fn open_topics(&mut self, names: &[CapturedName]) -> Result<(), AgentError> {
        let topics = Topics::open(self.context).await?;
        let sent_until = match &self.found.plan {
            Plan::Copy { .. } => Lsn(0),
            // A walsender sends no more than is flushed, and the predecessor is fenced.
            Plan::Announce { .. } | Plan::Resume(_) => self.found.identity.flush_lsn,
        };
        self.tables.sent_until(sent_until);
        for name in names {
            let mut request = topic_request(self.context, &name.table_schema, &name.table_name);
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
        let mut request = topic_request(self.context, naming::EVENTS_SCHEMA, naming::EVENTS_TABLE);
        request.partitions = 1;
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
        self.lines.push(TableStatus {
            table: format!("{}.{}", registration.table_schema, registration.table_name),
            topic: registration.topic.clone(),
            lake_table: format!("{}.{}", registration.lake_database, registration.lake_table),
            partitions: registration.partition_map.partitions,
            ..TableStatus::default()
        });
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

/// How a table's topic and lake table are to be named and set.
fn topic_request(context: &Context, table_schema: &str, table_name: &str) -> TopicRequest {
    let config = &context.config;
    let name = format!("{table_schema}.{table_name}");
    let of_table = config.lake.tables.get(&name).cloned().unwrap_or_default();
    TopicRequest {
        table_schema: table_schema.to_owned(),
        table_name: table_name.to_owned(),
        topic: naming::topic_name(&config.source.name, table_schema, table_name),
        lake_table: of_table
            .name
            .unwrap_or_else(|| naming::lake_table_name(table_schema, table_name)),
        partitions: config
            .topics
            .tables
            .get(&name)
            .copied()
            .unwrap_or(config.topics.partitions),
        sent_until: Lsn(0),
        freshness_seconds: of_table
            .freshness_seconds
            .unwrap_or(config.lake.freshness_seconds),
    }
}
