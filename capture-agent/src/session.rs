//! One session: from fencing the predecessor to streaming, in the order that the promises need.
//!
//! Flow: `init_transactions` -> epoch -> progress -> source identity -> plan (`slot`) -> `start` (topics, copy or resume) ->
//! `capture`, with `copier` beside it. Whatever fails ends the session; the supervisor begins a new one or stops.
//!
//! # Invariants
//! - Fence first, then claim the epoch, then read progress: what is read cannot change any more.
//! - A session never reuses a producer, an epoch or a connection of another.

use change_event::{Disposition, layout, naming};
use object_io::failpoint;
use source_postgres::client::SystemIdentity;
use source_postgres::{Catalog, Connection, ReplicationStream};

use crate::asks;
use crate::broker::{Broker, TransactionalProducer};
use crate::capture::{Capture, Ended};
use crate::context::Context;
use crate::copier::Copier;
use crate::copy::Target;
use crate::error::AgentError;
use crate::frames::Frames;
use crate::kafka::KafkaBroker;
use crate::ledger::Ledger;
use crate::progress::{PositionRecord, Progress};
use crate::recopy::SourceLog;
use crate::slot::{self, Known, Plan, SlotMark};
use crate::source::connect_options;
use crate::start::Starting;
use crate::status::AgentState;
use crate::tables::Tables;
use crate::transaction::Outbox;
use crate::truncates::Events;
use crate::{epoch, failover, failpoints};

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
    let (producer, owned) = take_over(context, &KafkaBroker(context)).await?;
    let taken = owned.clone();
    let found = match Found::look(context, owned).await {
        Ok(found) => found,
        Err(error) => {
            producer.close().await;
            return Err(taken.halted(context, &KafkaBroker(context), error).await);
        }
    };
    let outbox = found.owned.outbox(context, producer, &found.identity);
    let mut starting = Starting {
        context,
        found,
        outbox,
        tables: Tables::default(),
        ledger: Ledger::default(),
        lines: Vec::new(),
    };
    let (replication, events, start) = match starting.start().await {
        Ok(Some(started)) => started,
        Ok(None) => {
            starting.outbox.abandon().await;
            return Ok(Ended::Stopped);
        }
        Err(error) => {
            starting.outbox.abandon().await;
            return Err(error);
        }
    };
    match replication.start_replication(&start).await {
        Ok(stream) => {
            tracing::info!(epoch = starting.found.owned.epoch, from = %start.start_lsn, "streaming");
            follow(starting, events, stream).await
        }
        Err(error) => {
            starting.outbox.abandon().await;
            Err(error.into())
        }
    }
}

/// Follows the stream, with the copier beside it, until the session ends.
async fn follow(
    started: Starting<'_>,
    events: Events,
    stream: ReplicationStream,
) -> Result<Ended, AgentError> {
    let Starting {
        context,
        outbox,
        tables,
        ledger,
        found,
        ..
    } = started;
    let (port, asks) = asks::channel();
    let log = SourceLog::of(outbox.reached());
    let all = tables.all();
    let captured = all.filter_map(|table| Target::of(table, &outbox)).collect();
    let announced = outbox.reached().copy_id;
    let copier = Copier::new(context, port, ledger, captured, log, announced);
    let frames = Frames::new(
        context.clone(),
        outbox,
        tables,
        events,
        found.catalog,
        stream.acknowledger(),
    );
    let mut capture = Capture {
        context: context.clone(),
        frames,
        epoch: found.owned.epoch,
        progress: found.owned.progress,
        asks,
    };
    let mut copying = tokio::spawn(copier.run());
    let ended = tokio::select! {
        ended = capture.run(stream) => ended,
        // Without it no table would be copied any more, in silence: a defect there ends the agent like one here.
        copied = &mut copying => match copied {
            Ok(never) => match never {},
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
    };
    // What it leaves half done, the next session finds.
    copying.abort();
    capture.frames.abandon().await;
    ended
}

/// What a session knows once it owns its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its epoch, above that of everyone before.
    pub epoch: u64,
    /// The progress topic.
    pub progress_topic: String,
    /// How far its predecessors came.
    pub progress: Progress,
}

/// Takes the source over: fences the predecessor, claims an epoch, reads progress back, in this order.
///
/// # Errors
/// Those of [`Broker::fence`], [`epoch::claim_epoch`] and [`Broker::progress`]: nothing was begun.
pub async fn take_over<B: Broker>(
    context: &Context,
    broker: &B,
) -> Result<(B::Producer, Owned), AgentError> {
    failpoint::hit(failpoints::BEFORE_INIT_TRANSACTIONS);
    let producer = broker.fence().await?;
    failpoint::hit(failpoints::AFTER_INIT_TRANSACTIONS);
    match Owned::read(context, broker).await {
        Ok(owned) => Ok((producer, owned)),
        Err(error) => {
            producer.close().await;
            Err(error)
        }
    }
}

impl Owned {
    async fn read<B: Broker>(context: &Context, broker: &B) -> Result<Self, AgentError> {
        let source_name = context.source_name();
        let epoch = epoch::claim_epoch(
            context.store.as_ref(),
            context.clock.as_ref(),
            context.ids.as_ref(),
            source_name,
        )
        .await?;
        failpoint::hit(failpoints::AFTER_EPOCH_CLAIM);
        context.status.update(|snapshot| snapshot.epoch = epoch);
        let progress_topic = naming::progress_topic_name(source_name);
        let progress = broker.progress(&progress_topic).await?;
        Ok(Self {
            epoch,
            progress_topic,
            progress,
        })
    }

    /// What a session's halt over its slot or its progress comes to: fenced, if progress went on or a later epoch is claimed.
    ///
    /// A session that stood still sees what its successor did since, and would call that a loss: the slot is ahead of the
    /// progress that it knows, or progress is missing. A slot is acknowledged only after progress is committed, so progress that is
    /// read behind the look tells. Its epoch alone would not: it may have claimed it after its successor did.
    pub async fn halted<B: Broker>(
        &self,
        context: &Context,
        broker: &B,
        error: AgentError,
    ) -> AgentError {
        if error.disposition() != Disposition::Halt {
            return error;
        }
        match self.is_succeeded(context, broker).await {
            Ok(true) => AgentError::Fenced {
                source_name: context.source_name().to_owned(),
            },
            Ok(false) => error,
            Err(unread) => unread,
        }
    }

    async fn is_succeeded<B: Broker>(
        &self,
        context: &Context,
        broker: &B,
    ) -> Result<bool, AgentError> {
        let highest = epoch::highest_epoch(context.store.as_ref(), context.source_name()).await?;
        if highest > self.epoch {
            return Ok(true);
        }
        Ok(broker.progress(&self.progress_topic).await?.position != self.progress.position)
    }

    /// The outbox of the session; where it stands is corrected once a copy has its position.
    #[must_use]
    pub fn outbox<P: TransactionalProducer>(
        &self,
        context: &Context,
        producer: P,
        identity: &SystemIdentity,
    ) -> Outbox<P> {
        let start = match &self.progress.position {
            Some(position) => PositionRecord {
                epoch: self.epoch,
                ..position.clone()
            },
            None => PositionRecord {
                system_id: identity.system_id.clone(),
                timeline: identity.timeline,
                incarnation: FIRST_INCARNATION,
                past: Vec::new(),
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

/// What is known once the source was looked at, too.
pub(crate) struct Found {
    pub(crate) owned: Owned,
    pub(crate) identity: SystemIdentity,
    pub(crate) replication: Option<Connection>,
    pub(crate) catalog: Catalog,
    pub(crate) mark: Option<SlotMark>,
    pub(crate) plan: Plan,
}

impl Found {
    async fn look(context: &Context, mut owned: Owned) -> Result<Self, AgentError> {
        let config = &context.config;
        let source_name = context.source_name();
        let store = context.store.as_ref();
        let options = connect_options(config);
        let mut replication = Connection::connect_replication(&options).await?;
        let identity = replication.identify_system().await?;
        let mut catalog = Catalog::connect(&options).await?;
        if let Some(position) = &mut owned.progress.position {
            *position =
                failover::followed(source_name, position, &identity, &mut replication).await?;
        }
        let progress = &owned.progress;
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
            progress_topic: &owned.progress_topic,
            mark: mark.as_ref(),
            position: progress.position.as_ref(),
            manifest_exists,
            confirmed: state.as_ref().and_then(|state| state.confirmed_flush_lsn),
            // A lost slot is as good as none.
            slot_exists: state.is_some_and(|state| !state.is_lost() || progress.position.is_none()),
        }
        .plan()?;
        tracing::info!(epoch = owned.epoch, ?plan, "session begins");
        let replication = Some(replication);
        Ok(Self {
            owned,
            identity,
            replication,
            catalog,
            mark,
            plan,
        })
    }
}
