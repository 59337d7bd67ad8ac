//! Which pollers run: one set per registered topic, as the registry and the broker say now.
//!
//! Flow: registry (bucket) and metadata (broker) -> **here** -> pollers.
//!
//! # Invariants
//! - A topic-partition never has two pollers: a set that must change is stopped, waited for, and made anew.
//! - A topic that is registered but not there yet is looked for again; nothing else waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use change_event::{TopicRegistration, layout};
use object_io::ObjectStore;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::batch::PendingRecords;
use crate::config::Options;
use crate::error::EventSourceError;
use crate::fault::{FaultSchedule, SeededRandom};
use crate::invoke::Deliverer;
use crate::metrics::Metrics;
use crate::payload::{PayloadFrame, RecordRenderer};
use crate::poller::Poller;
use crate::records::{Broker, KafkaRecords, KafkaTopics};

/// Registrations that are known are read again every so many rounds: one changes when its topic is made anew.
const REREAD_ROUNDS: u64 = 10;

/// Runs the pollers.
#[derive(Debug)]
pub struct Supervisor {
    /// Settings.
    pub options: Options,
    /// Seed of all faults.
    pub seed: u64,
    /// The bucket with the registry.
    pub store: Arc<dyn ObjectStore>,
    /// How to read.
    pub broker: Broker,
    /// What the broker says of topics.
    pub topics: KafkaTopics,
    /// The way to the function.
    pub deliverer: Arc<Deliverer>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What identifies a poller.
type PollerId = (String, Vec<i32>);

/// What one topic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    incarnation: u32,
    partition_count: i32,
}

#[derive(Debug)]
struct Running {
    wanted: Wanted,
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    round: u64,
    registered: BTreeMap<String, u32>,
    running: BTreeMap<PollerId, Running>,
    tasks: JoinSet<PollerId>,
}

impl Supervisor {
    /// Keeps the pollers as the registry wants them until `stop`; `look_again` starts a round at once.
    ///
    /// Running invocations are waited for up to the shutdown time.
    pub async fn run(self, look_again: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let interval = Duration::from_millis(self.options.registry_interval_ms);
        let mut state = State::default();
        loop {
            if let Err(error) = self.round(&mut state).await {
                let cause = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::warn!(%error, cause, "topics not looked at; the next round does");
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = look_again.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
        for running in state.running.values() {
            running.stop.send_replace(true);
        }
        let finish = async { while state.tasks.join_next().await.is_some() {} };
        let bound = Duration::from_secs(self.options.shutdown_seconds);
        if tokio::time::timeout(bound, finish).await.is_err() {
            tracing::warn!("invocations still run; their batches will be delivered again");
        }
    }

    async fn round(&self, state: &mut State) -> Result<(), EventSourceError> {
        reap(state);
        self.read_registry(state).await?;
        if state.registered.is_empty() {
            return Ok(());
        }
        let counts = self.topics.partition_counts().await?;
        let mut waiting = 0;
        for (topic, incarnation) in state.registered.clone() {
            let partition_count = counts.get(&topic).copied().unwrap_or(0);
            let wanted = Wanted {
                incarnation,
                partition_count,
            };
            if !self.align(state, &topic, wanted).await {
                waiting += 1;
            }
        }
        self.metrics.set_topics_waiting(waiting);
        Ok(())
    }

    async fn read_registry(&self, state: &mut State) -> Result<(), EventSourceError> {
        let objects = self
            .store
            .list(layout::REGISTRY)
            .await
            .map_err(EventSourceError::Registry)?;
        let reread = state.round.is_multiple_of(REREAD_ROUNDS);
        state.round += 1;
        for key in objects.into_iter().map(|object| object.key) {
            let name = key
                .strip_prefix(layout::REGISTRY)
                .and_then(|name| name.strip_suffix(".json"));
            if !reread && name.is_some_and(|topic| state.registered.contains_key(topic)) {
                continue;
            }
            let body = self
                .store
                .get(&key)
                .await
                .map_err(EventSourceError::Registry)?;
            let Some(body) = body else { continue };
            match serde_json::from_slice::<TopicRegistration>(&body) {
                Ok(found) => {
                    state
                        .registered
                        .insert(found.topic, found.topic_incarnation);
                }
                Err(error) => {
                    tracing::error!(key, %error, "registration cannot be read and is left out");
                }
            }
        }
        Ok(())
    }

    /// Starts and stops pollers of one topic; true if all that it needs run.
    async fn align(&self, state: &mut State, topic: &str, wanted: Wanted) -> bool {
        let sets = self.partition_sets(wanted.partition_count);
        let mut all_run = !sets.is_empty();
        let of_topic = |id: &&PollerId| id.0 == topic;
        let stale: Vec<PollerId> = state
            .running
            .iter()
            .filter(|(id, running)| {
                of_topic(id)
                    && (running.wanted.incarnation != wanted.incarnation || !sets.contains(&id.1))
            })
            .map(|(id, _)| id.clone())
            .collect();
        let blocked: BTreeSet<i32> = stale.iter().flat_map(|id| id.1.clone()).collect();
        for id in &stale {
            tracing::info!(topic, partitions = ?id.1, "poller stops: its topic changed");
            if let Some(running) = state.running.get(id) {
                running.stop.send_replace(true);
            }
        }
        for partitions in sets {
            let id = (topic.to_owned(), partitions);
            if stale.contains(&id) || id.1.iter().any(|partition| blocked.contains(partition)) {
                // Its predecessor ends first; a later round starts it.
                all_run = false;
                continue;
            }
            if state.running.contains_key(&id) {
                continue;
            }
            match self.start(state, id, wanted).await {
                Ok(()) => {}
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(topic, %error, cause, "poller not started; the next round tries");
                    all_run = false;
                }
            }
        }
        all_run
    }

    fn partition_sets(&self, partition_count: i32) -> Vec<Vec<i32>> {
        let partitions = 0..partition_count;
        if self.options.merge_partitions && partition_count > 0 {
            vec![partitions.collect()]
        } else {
            partitions.map(|partition| vec![partition]).collect()
        }
    }

    async fn start(
        &self,
        state: &mut State,
        id: PollerId,
        wanted: Wanted,
    ) -> Result<(), EventSourceError> {
        let (topic, partitions) = &id;
        let name = format!("{topic}-{partitions:?}");
        let header_random = SeededRandom::new(self.seed, &format!("header {name}"));
        let renderer = RecordRenderer::new(topic, self.options.header_bytes, header_random);
        let source = KafkaRecords::open(&self.broker, topic, partitions, renderer).await?;
        let frame = PayloadFrame::new(
            topic,
            &self.options.event_source_arn,
            &self.broker.bootstrap_servers,
        );
        let progress = partitions
            .iter()
            .map(|p| (*p, self.metrics.begin_partition(topic, *p)))
            .collect();
        let poller = Poller {
            topic: topic.clone(),
            source,
            pending: PendingRecords::new(self.options.batch_limits(), frame),
            deliverer: Arc::clone(&self.deliverer),
            times: self.options.poller_times(),
            faults: FaultSchedule::new(self.options.faults, self.seed, &name),
            metrics: Arc::clone(&self.metrics),
            progress,
        };
        let (stop, stopped) = watch::channel(false);
        tracing::info!(topic, ?partitions, "poller starts");
        let finished = id.clone();
        state.tasks.spawn(async move {
            poller.run(stopped).await;
            finished
        });
        state.running.insert(id, Running { wanted, stop });
        Ok(())
    }
}

/// Forgets pollers that ended, so that the round may start them anew.
fn reap(state: &mut State) {
    while let Some(ended) = state.tasks.try_join_next() {
        match ended {
            Ok(id) => {
                state.running.remove(&id);
            }
            Err(error) => {
                // A defect of ours: without its id, the pollers whose receiver is gone are the ones that ended.
                tracing::error!(%error, "a poller broke off");
                state.running.retain(|_, running| !running.stop.is_closed());
            }
        }
    }
}
