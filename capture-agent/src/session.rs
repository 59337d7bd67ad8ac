//! One session: from fencing the predecessor to streaming, in the order that the promises need.
//!
//! Flow: `init_transactions` -> epoch -> progress -> source identity -> plan (`slot`) -> `start` (topics, copy or resume) ->
//! `capture`. Whatever fails ends the session; the supervisor begins a new one or stops.
//!
//! # Invariants
//! - Fence first, then claim the epoch, then read progress: what is read cannot change any more.
//! - A session never reuses a producer, an epoch or a connection of another.

use change_event::{layout, naming};
use object_io::failpoint;
use source_postgres::client::SystemIdentity;
use source_postgres::{Catalog, Connection};

use crate::capture::{Capture, Ended};
use crate::context::Context;
use crate::error::AgentError;
use crate::kafka::Producer;
use crate::progress::{PositionRecord, Progress};
use crate::slot::{self, Known, Plan, SlotMark};
use crate::source::connect_options;
use crate::start::Starting;
use crate::status::AgentState;
use crate::tables::Tables;
use crate::topics::Topics;
use crate::transaction::Outbox;
use crate::{epoch, failpoints};

/// Incarnation of a source log that was never continued elsewhere.
pub(crate) const FIRST_INCARNATION: u32 = 1;

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
pub(crate) struct Found {
    pub(crate) epoch: u64,
    pub(crate) progress: Progress,
    pub(crate) progress_topic: String,
    pub(crate) identity: SystemIdentity,
    pub(crate) replication: Option<Connection>,
    pub(crate) catalog: Catalog,
    pub(crate) mark: Option<SlotMark>,
    pub(crate) plan: Plan,
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
            confirmed: state.as_ref().and_then(|state| state.confirmed_flush_lsn),
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

/// Whether the server is the one that progress speaks of.
pub(crate) fn same_source(
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
