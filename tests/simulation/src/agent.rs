//! The agent: production's take-over, plan, outbox, frames and rows, on a simulated broker and a scripted source.
//!
//! Flow: [`take_over`] -> plan of `slot` -> lanes, documents -> announce or resume -> frames until something ends it.
//!
//! What is written here anew is only what in production speaks to PostgreSQL or waits for its clock: `start` (whose order is
//! kept) and the loop of `capture` (whose turns the seed takes).

use std::sync::Arc;

use capture_agent::broker::TransactionalProducer;
use capture_agent::copy::{self, CopyManifest};
use capture_agent::copy_id::{self, Purpose};
use capture_agent::frames::Frames;
use capture_agent::objects;
use capture_agent::progress::PositionRecord;
use capture_agent::session::take_over;
use capture_agent::slot::{self, Known, Plan, SlotMark, SlotState};
use capture_agent::source::TableLookup;
use capture_agent::tables::{CapturedName, Shape, Tables};
use capture_agent::transaction::Outbox;
use capture_agent::truncates::{Events, events_shape};
use capture_agent::{AgentError, Context, schemas::SchemaBook};
use change_event::{TopicRegistration, layout, naming};
use source_postgres::client::SystemIdentity;
use source_postgres::{Acknowledger, CatalogTable, SourceError};

use crate::calls::{Answer, Event, Op};
use crate::kafka::SimulatedBroker;
use crate::ports::Ports;
use crate::source::{BEGIN, INCARNATION};

/// One run of the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Its surroundings.
    pub(crate) context: Context,
    /// The broker.
    pub(crate) broker: SimulatedBroker,
    /// Its calls.
    pub(crate) ports: Ports,
    /// The captured tables.
    pub(crate) names: Vec<CapturedName>,
    /// How far the source may forget.
    pub(crate) acknowledger: Acknowledger,
}

/// A catalog that is behind the stream: the shape is concluded from the relation message.
#[derive(Debug)]
struct NoCatalog;

impl TableLookup for NoCatalog {
    async fn table_by_oid(&mut self, _oid: u32) -> Result<Option<CatalogTable>, SourceError> {
        Ok(None)
    }
}

const NO_REGISTRATION: AgentError = AgentError::StreamOrder {
    what: "a topic that nobody registered",
};

impl Agent {
    /// One session, to its end.
    ///
    /// # Errors
    /// Whatever ended it.
    pub(crate) async fn session(self) -> Result<(), AgentError> {
        let identity = SystemIdentity {
            in_recovery: false,
            system_id: "7".to_owned(),
            timeline: 1,
            flush_lsn: BEGIN,
            database: "shop".to_owned(),
        };
        let (producer, owned) = take_over(&self.context, &self.broker).await?;
        let outbox = owned.outbox(&self.context, producer, &identity);
        let mut starting = Starting {
            agent: &self,
            outbox,
            tables: Tables::default(),
        };
        let events = match starting.start(&owned, &identity).await {
            Ok(events) => events,
            Err(error) => {
                starting.outbox.abandon().await;
                return Err(error);
            }
        };
        let Starting { outbox, tables, .. } = starting;
        self.ports.call(Op::Stream(outbox.reached().end_lsn)).await;
        let mut frames = Frames::new(
            self.context.clone(),
            outbox,
            tables,
            events,
            NoCatalog,
            self.acknowledger.clone(),
        );
        let ended = self.run(&mut frames, owned.epoch + 1).await;
        frames.abandon().await;
        ended
    }

    /// The loop of `capture`, its turns taken by the seed.
    async fn run<P: TransactionalProducer>(
        &self,
        frames: &mut Frames<P, NoCatalog>,
        mut successor: u64,
    ) -> Result<(), AgentError> {
        while let Answer::Event(event) = self.ports.call(Op::Next).await {
            match event {
                Event::Frame(frame) => frames.handle(frame).await?,
                Event::Deadline if frames.outbox().is_open() => frames.commit().await?,
                Event::SayPosition if frames.outbox().has_unsaid() => frames.say_position().await?,
                Event::Deadline | Event::SayPosition => {}
                Event::LookForSuccessor => {
                    successor = frames.look_for_successor(successor).await?;
                }
                Event::Stop => {
                    frames.commit().await?;
                    if frames.outbox().has_unsaid() {
                        frames.say_position().await?;
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

struct Starting<'a, P> {
    agent: &'a Agent,
    outbox: Outbox<P>,
    tables: Tables,
}

impl<P: TransactionalProducer> Starting<'_, P> {
    async fn start(
        &mut self,
        owned: &capture_agent::session::Owned,
        identity: &SystemIdentity,
    ) -> Result<Events, AgentError> {
        let context = &self.agent.context;
        let source_name = context.source_name();
        let store = context.store.as_ref();
        let mark = slot::read_mark(store, source_name).await?;
        let manifest: Option<CopyManifest> = match &mark {
            Some(mark) => {
                objects::read(store, &layout::copy_manifest(source_name, mark.copy_id)).await?
            }
            None => None,
        };
        let confirmed = match self.agent.ports.call(Op::Slot).await {
            Answer::Slot(confirmed) => confirmed,
            _ => BEGIN,
        };
        let plan = Known {
            source_name,
            slot: &context.config.source.slot,
            progress_topic: &owned.progress_topic,
            mark: mark.as_ref(),
            position: owned.progress.position.as_ref(),
            manifest_exists: manifest.is_some(),
            slot_exists: mark.is_some(),
            confirmed: mark.is_some().then_some(confirmed),
        }
        .plan();
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return Err(owned.halted(context, &self.agent.broker, error).await),
        };
        self.open_lanes(owned).await?;
        match (plan, manifest) {
            (Plan::Resume(_), _) => {
                self.mark(
                    SlotState::Streaming,
                    self.outbox.reached().copy_id,
                    mark.as_ref(),
                )
                .await?;
            }
            (Plan::Announce { .. }, Some(manifest)) => self.announce(owned, &manifest).await?,
            (Plan::Announce { .. } | Plan::Copy { .. }, _) => {
                let (clock, ids) = (context.clock.as_ref(), context.ids.as_ref());
                let purpose = Purpose::default();
                let copy_id = copy_id::claim(store, clock, ids, source_name, &purpose).await?;
                self.mark(SlotState::Copying, copy_id, mark.as_ref())
                    .await?;
                let manifest = CopyManifest {
                    copy_id,
                    copy_lsn: BEGIN,
                    system_id: identity.system_id.clone(),
                    timeline: identity.timeline,
                    announcements: Vec::new(),
                    abandoned: false,
                };
                let key = layout::copy_manifest(source_name, copy_id);
                if let objects::Creation::Other(_) = objects::create(store, &key, &manifest).await?
                {
                    return Err(AgentError::ObjectUnknown { key });
                }
                self.announce(owned, &manifest).await?;
            }
        }
        self.events().await
    }

    async fn open_lanes(
        &mut self,
        owned: &capture_agent::session::Owned,
    ) -> Result<(), AgentError> {
        let context = &self.agent.context;
        for name in &self.agent.names {
            let topic =
                naming::topic_name(context.source_name(), &name.table_schema, &name.table_name);
            let registration = self.registration(&topic).await?;
            let lane = self.outbox.add_lane(registration, &owned.progress);
            self.tables.add(context, name.clone(), lane, &topic).await?;
        }
        let registration = self.registration(&self.events_topic()).await?;
        self.outbox.add_lane(registration, &owned.progress);
        Ok(())
    }

    async fn registration(&self, topic: &str) -> Result<TopicRegistration, AgentError> {
        let store = self.agent.context.store.as_ref();
        let found = objects::read(store, &layout::registration(topic)).await?;
        found.ok_or(NO_REGISTRATION)
    }

    fn events_topic(&self) -> String {
        let source_name = self.agent.context.source_name();
        naming::topic_name(source_name, naming::EVENTS_SCHEMA, naming::EVENTS_TABLE)
    }

    async fn announce(
        &mut self,
        owned: &capture_agent::session::Owned,
        manifest: &CopyManifest,
    ) -> Result<(), AgentError> {
        self.outbox.begin_at(PositionRecord {
            system_id: manifest.system_id.clone(),
            timeline: manifest.timeline,
            incarnation: INCARNATION,
            past: Vec::new(),
            commit_lsn: manifest.copy_lsn,
            ordinal: 0,
            end_lsn: manifest.copy_lsn,
            epoch: owned.epoch,
            copy_id: manifest.copy_id,
        })?;
        copy::announce(&mut self.outbox, manifest).await?;
        self.outbox.delivered().await?;
        self.outbox.commit().await?;
        self.mark(SlotState::Streaming, manifest.copy_id, None)
            .await
    }

    async fn mark(
        &self,
        state: SlotState,
        copy_id: u32,
        before: Option<&SlotMark>,
    ) -> Result<(), AgentError> {
        let context = &self.agent.context;
        let mark = SlotMark {
            state,
            slot: context.config.source.slot.clone(),
            copy_id,
            system_id: "7".to_owned(),
            tables: self.agent.names.clone(),
        };
        if before == Some(&mark) {
            return Ok(());
        }
        slot::write_mark(context.store.as_ref(), context.source_name(), &mark).await
    }

    async fn events(&self) -> Result<Events, AgentError> {
        let context = &self.agent.context;
        let topic = self.events_topic();
        let lane = self.outbox.lane_of(&topic).ok_or(NO_REGISTRATION)?;
        let store = context.store.as_ref();
        let mut book = SchemaBook::load(store, context.source_name(), &topic).await?;
        let schema = book
            .resolve(store, &events_shape(), self.outbox.position())
            .await?;
        Ok(Events {
            lane,
            shape: Shape::new(schema, &context.config, &topic),
        })
    }
}

/// The agent's settings, all of them defaults but what must be given.
///
/// # Panics
/// If the text below is no configuration.
#[must_use]
pub(crate) fn config(transaction_max_rows: u64) -> Arc<capture_agent::Config> {
    let text = format!(
        "[source]\nname = \"shop\"\nhost = \"h\"\nuser = \"firn\"\ndatabase = \"shop\"\n\
         [kafka]\nbootstrap_servers = \"b:9092\"\n[lake]\nbucket = \"lake\"\ndatabase = \"lake\"\n\
         [object_store]\nregion = \"eu-central-1\"\n[limits]\ntransaction_max_rows = {transaction_max_rows}\n"
    );
    Arc::new(capture_agent::Config::parse(&text).expect("a configuration"))
}
