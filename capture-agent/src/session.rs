//! One session: from fencing the predecessor to streaming, in the order that the promises need.
//!
//! Flow: `init_transactions` -> epoch -> progress -> source identity -> plan (`slot`) -> topics, documents -> copy or resume ->
//! `capture`. Whatever fails ends the session; the supervisor begins a new one or stops.
//!
//! # Invariants
//! - Fence first, then claim the epoch, then read progress: what is read cannot change any more.
//! - A session never reuses a producer, an epoch or a connection of another.

use change_event::{TopicRegistration, layout, naming};
use object_io::failpoint;
use source_postgres::client::SystemIdentity;
use source_postgres::{Catalog, CatalogTable, Connection, ReplicationStart};

use crate::capture::{Capture, Ended};
use crate::context::Context;
use crate::copy::{self, CopyManifest, CopyPlan};
use crate::error::AgentError;
use crate::kafka::Producer;
use crate::progress::{PositionRecord, Progress};
use crate::slot::{self, Known, Plan, SlotMark, SlotState};
use crate::source::{capture_request, connect_options, start_problems};
use crate::status::{AgentState, SlotStatus, TableStatus};
use crate::tables::{CapturedName, Shape, Tables};
use crate::topics::{TopicRequest, Topics};
use crate::transaction::Outbox;
use crate::truncates::{Events, events_shape};
use crate::{epoch, failpoints, objects};

/// Incarnation of a source log that was never continued elsewhere.
const FIRST_INCARNATION: u32 = 1;

/// Runs one session.
///
/// # Errors
/// Whatever ended it; its disposition says whether another one is begun.
pub async fn run(context: &Context) -> Result<Ended, AgentError> {
    context.status.update(|snapshot| {
        snapshot.state = AgentState::Starting;
        snapshot.totals.sessions += 1;
    });
    failpoint::hit(failpoints::BEFORE_INIT_TRANSACTIONS);
    let producer = Producer::connect(&context.config).await?;
    failpoint::hit(failpoints::AFTER_INIT_TRANSACTIONS);
    let found = match Found::look(context).await {
        Ok(found) => found,
        Err(error) => {
            producer.close().await;
            return Err(error);
        }
    };
    let outbox = found.outbox(context, producer);
    let mut starting = Starting {
        context,
        found,
        outbox,
        tables: Tables::default(),
        lines: Vec::new(),
    };
    let started = starting.start().await;
    let Starting {
        outbox,
        tables,
        found,
        ..
    } = starting;
    let (replication, events, start) = match started {
        Ok(Some(started)) => started,
        Ok(None) => {
            outbox.abandon().await;
            return Ok(Ended::Stopped);
        }
        Err(error) => {
            outbox.abandon().await;
            return Err(error);
        }
    };
    let stream = match replication.start_replication(&start).await {
        Ok(stream) => stream,
        Err(error) => {
            outbox.abandon().await;
            return Err(error.into());
        }
    };
    tracing::info!(epoch = found.epoch, from = %start.start_lsn, "streaming");
    let context = context.clone();
    let mut capture = Capture {
        context,
        outbox,
        tables,
        events,
        catalog: found.catalog,
        epoch: found.epoch,
    };
    let ended = capture.run(stream).await;
    capture.outbox.abandon().await;
    ended
}

/// What is known once the predecessor is fenced.
struct Found {
    epoch: u64,
    progress: Progress,
    progress_topic: String,
    identity: SystemIdentity,
    replication: Option<Connection>,
    catalog: Catalog,
    mark: Option<SlotMark>,
    plan: Plan,
}

impl Found {
    async fn look(context: &Context) -> Result<Self, AgentError> {
        let config = &context.config;
        let source_name = context.source_name();
        let store = context.store.as_ref();
        let epoch = epoch::claim_epoch(
            store,
            context.clock.as_ref(),
            context.ids.as_ref(),
            source_name,
        )
        .await?;
        failpoint::hit(failpoints::AFTER_EPOCH_CLAIM);
        context.status.update(|snapshot| snapshot.epoch = epoch);
        let progress_topic = naming::progress_topic_name(source_name);
        Topics::open(context)
            .await?
            .ensure_progress(&progress_topic)
            .await?;
        let progress = Progress::load(config, &progress_topic).await?;

        let options = connect_options(config);
        let mut replication = Connection::connect_replication(&options).await?;
        let identity = replication.identify_system().await?;
        let mut catalog = Catalog::connect(&options).await?;
        if let Some(position) = &progress.position {
            same_source(source_name, position, &identity)?;
        }
        let state = catalog.slot_state(&config.source.slot).await?;
        let mark = slot::read_mark(store, source_name).await?;
        let manifest_exists = match &mark {
            Some(mark) => store
                .get(&layout::copy_manifest(source_name, mark.copy_id))
                .await?
                .is_some(),
            None => false,
        };
        let plan = Known {
            source_name,
            slot: &config.source.slot,
            progress_topic: &progress_topic,
            mark: mark.as_ref(),
            position: progress.position.as_ref(),
            manifest_exists,
            // A lost slot is as good as none.
            slot_exists: state.is_some_and(|state| !state.is_lost() || progress.position.is_none()),
        }
        .plan()?;
        tracing::info!(epoch, ?plan, "session begins");
        let replication = Some(replication);
        Ok(Self {
            epoch,
            progress,
            progress_topic,
            identity,
            replication,
            catalog,
            mark,
            plan,
        })
    }

    /// The outbox of the session; where it stands is corrected once a copy has its position.
    fn outbox(&self, context: &Context, producer: Producer) -> Outbox {
        let start = match &self.progress.position {
            Some(position) => PositionRecord {
                epoch: self.epoch,
                ..position.clone()
            },
            None => PositionRecord {
                system_id: self.identity.system_id.clone(),
                timeline: self.identity.timeline,
                incarnation: FIRST_INCARNATION,
                commit_lsn: change_event::Lsn(0),
                ordinal: 0,
                end_lsn: change_event::Lsn(0),
                epoch: self.epoch,
                copy_id: 0,
            },
        };
        let limits = context.config.limits.clone();
        Outbox::new(
            producer,
            context.source_name(),
            &self.progress_topic,
            limits,
            start,
        )
        .with_inline_schema(context.config.envelope.inline_schema)
    }
}

fn same_source(
    source_name: &str,
    position: &PositionRecord,
    identity: &SystemIdentity,
) -> Result<(), AgentError> {
    let changed = |what, expected: String, found: String| AgentError::SourceChanged {
        source_name: source_name.to_owned(),
        what,
        expected,
        found,
    };
    if position.system_id != identity.system_id {
        let (expected, found) = (position.system_id.clone(), identity.system_id.clone());
        return Err(changed("system identifier", expected, found));
    }
    if position.timeline != identity.timeline {
        let (expected, found) = (position.timeline.to_string(), identity.timeline.to_string());
        return Err(changed("timeline", expected, found));
    }
    Ok(())
}

/// What streaming needs.
type Started = (Connection, Events, ReplicationStart);

/// A session on its way to streaming.
struct Starting<'a> {
    context: &'a Context,
    found: Found,
    outbox: Outbox,
    tables: Tables,
    lines: Vec<TableStatus>,
}

impl Starting<'_> {
    /// Follows the plan; `None` if the agent was told to stop meanwhile.
    async fn start(&mut self) -> Result<Option<Started>, AgentError> {
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
            return Err(AgentError::StreamOrder {
                what: "a session without a connection",
            });
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
            return Ok(false);
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
        let options = connect_options(config);
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
            commit_lsn: manifest.copy_lsn,
            ordinal: 0,
            end_lsn: manifest.copy_lsn,
            epoch: self.found.epoch,
            copy_id: manifest.copy_id,
        };
        same_source(self.context.source_name(), &start, &self.found.identity)?;
        self.outbox.begin_at(start)?;
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
                     make its lake table anew (docs/operations.md), then ALTER PUBLICATION \"{publication}\" ADD TABLE ONLY {}",
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
        for name in names {
            let request = topic_request(self.context, &name.table_schema, &name.table_name);
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
        self.outbox.add_lane(registration, &self.found.progress)
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
#[must_use]
pub fn topic_request(context: &Context, table_schema: &str, table_name: &str) -> TopicRequest {
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
        freshness_seconds: of_table
            .freshness_seconds
            .unwrap_or(config.lake.freshness_seconds),
    }
}
