//! One payload: stage its partitions side by side, publish its tables, say what must come again.
//!
//! # Invariants
//! - Partitions fail one by one: what one cannot do stops no other, and Lambda is told the first offset that is not done.
//! - No I/O outlives the return: whatever is not done in time is dropped, and its partition comes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use change_event::Disposition;
use function_kit::failure::{INVALID_EVENT, chain};
use function_kit::{Deadline, Failure, KafkaBatchResponse, Metric};
use futures_util::{StreamExt, stream};

use crate::error::{Reason, StageError};
use crate::ports::Ports;
use crate::publish::publish;
use crate::quarantine::{set_aside, set_aside_unplaced};
use crate::record::{Batches, PartitionBatch, Unplaced, batches};
use crate::stage::{Counts, Failed, Stager};
use crate::topic::Topic;

/// Kept back from the deadline for the answer, and for a message to functions/commit.
const RESERVE_MS: i64 = 2_000;

/// The function, with what it keeps warm.
#[derive(Debug)]
pub struct Ingest {
    ports: Ports,
    concurrency: usize,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

/// What is known about a topic: announced, not announced, or not to be had now.
pub(crate) type Known = Result<Option<Arc<Topic>>, Arc<StageError>>;

/// What became of one partition.
pub(crate) struct Ended {
    topic: String,
    pub(crate) name: String,
    pub(crate) counts: Counts,
    pub(crate) failed: Option<(i64, Arc<StageError>)>,
}

impl Ingest {
    /// A function over these ports that stages `concurrency` partitions at a time.
    #[must_use]
    pub fn new(ports: Ports, concurrency: usize) -> Self {
        Self {
            ports,
            concurrency,
            topics: Mutex::default(),
        }
    }

    /// Answers one Kafka event.
    ///
    /// # Errors
    /// [`Failure`] if it is no Kafka event. Everything else is told per partition.
    pub async fn handle(
        &self,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<KafkaBatchResponse, Failure> {
        let staging = deadline.earlier(RESERVE_MS);
        let (ended, topics) = self.stage(payload, staging).await?;
        let response = self.report(&ended);
        stream::iter(
            topics
                .values()
                .filter_map(|known| known.as_ref().ok()?.as_ref()),
        )
        .map(|topic| publish(&self.ports, topic, staging))
        .buffer_unordered(self.concurrency)
        .collect::<()>()
        .await;
        Ok(response)
    }

    /// Stages the partitions of one Kafka event.
    ///
    /// # Errors
    /// [`Failure`] if it is no Kafka event.
    pub(crate) async fn stage(
        &self,
        payload: &[u8],
        staging: Deadline,
    ) -> Result<(Vec<Ended>, BTreeMap<String, Known>), Failure> {
        let Batches {
            partitions,
            unplaced,
        } = batches(payload).map_err(|error| Failure::of(INVALID_EVENT, &error))?;
        let topics = self.resolve(&partitions, &unplaced, staging).await;
        let known = |topic: &str| topics.get(topic);
        let mut ended: Vec<Ended> = stream::iter(&partitions)
            .map(|batch| self.partition(batch, known(&batch.topic), staging))
            .buffer_unordered(self.concurrency)
            .collect()
            .await;
        for record in &unplaced {
            ended.push(self.unplaced(record, &topics, &partitions, staging).await);
        }
        Ok((ended, topics))
    }

    /// The topics of a payload.
    async fn resolve(
        &self,
        partitions: &[PartitionBatch],
        unplaced: &[Unplaced],
        deadline: Deadline,
    ) -> BTreeMap<String, Known> {
        let mut topics = BTreeMap::new();
        let names = partitions.iter().map(|batch| &batch.topic);
        for name in names.chain(unplaced.iter().filter_map(|record| record.topic.as_ref())) {
            if !topics.contains_key(name) {
                let known = self
                    .within(deadline, self.topic(name))
                    .await
                    .map_err(Arc::new);
                topics.insert(name.clone(), known);
            }
        }
        topics
    }

    async fn topic(&self, name: &str) -> Result<Option<Arc<Topic>>, StageError> {
        let now_ms = self.ports.clock.now_ms();
        let warm = self.warm().get(name).cloned();
        if let Some(topic) = warm.as_ref().filter(|topic| topic.is_current(now_ms)) {
            return Ok(Some(Arc::clone(topic)));
        }
        let Some(registration) = self.ports.registry.registration(name).await? else {
            self.warm().remove(name);
            return Ok(None);
        };
        let topic = Arc::new(match warm {
            Some(topic) => topic.renewed(registration, now_ms),
            None => Topic::new(registration, now_ms),
        });
        self.warm().insert(name.to_owned(), Arc::clone(&topic));
        Ok(Some(topic))
    }

    fn warm(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn partition(
        &self,
        batch: &PartitionBatch,
        known: Option<&Known>,
        deadline: Deadline,
    ) -> Ended {
        let mut counts = Counts {
            records: u64::try_from(batch.records.len()).unwrap_or(0),
            ..Counts::default()
        };
        let first_offset = batch.records.first().map_or(0, |record| record.offset);
        let failed = match known {
            Some(Ok(Some(topic))) => {
                let stager = Stager {
                    ports: &self.ports,
                    topic,
                    batch,
                };
                let staged = self
                    .within(deadline, async { Ok(stager.run(&mut counts).await) })
                    .await;
                match staged {
                    Ok(Ok(())) => None,
                    Ok(Err(Failed { offset, error })) => Some((offset, Arc::new(error))),
                    Err(error) => {
                        topic.forget_tail(batch.partition);
                        Some((first_offset, Arc::new(error)))
                    }
                }
            }
            Some(Ok(None)) => {
                let set_aside = self.strangers(batch, &mut counts);
                let ended = self.within(deadline, set_aside).await;
                ended.err().map(|error| (first_offset, Arc::new(error)))
            }
            Some(Err(error)) => Some((first_offset, Arc::clone(error))),
            None => Some((first_offset, Arc::new(StageError::OutOfTime))),
        };
        Ended {
            topic: batch.topic.clone(),
            name: batch.name.clone(),
            counts,
            failed,
        }
    }

    /// Records of a topic that no agent announced: all of them are set aside.
    async fn strangers(
        &self,
        batch: &PartitionBatch,
        counts: &mut Counts,
    ) -> Result<(), StageError> {
        for record in &batch.records {
            set_aside(&self.ports, None, batch, record, &Reason::UnknownTopic).await?;
            counts.quarantined += 1;
        }
        Ok(())
    }

    async fn unplaced(
        &self,
        record: &Unplaced,
        topics: &BTreeMap<String, Known>,
        partitions: &[PartitionBatch],
        deadline: Deadline,
    ) -> Ended {
        let topic = record.topic.clone().unwrap_or_else(|| record.name.clone());
        let known = topics
            .get(&topic)
            .and_then(|known| known.as_ref().ok()?.as_ref());
        let registration = known.map(|topic| topic.registration.as_ref());
        let set_aside = async { Ok(set_aside_unplaced(&self.ports, registration, record).await?) };
        let ended = self.within(deadline, set_aside).await;
        let counts = Counts {
            records: 1,
            quarantined: u64::from(ended.is_ok()),
            ..Counts::default()
        };
        // It has no offset: its group comes again from its first.
        let of_group = partitions.iter().filter(|batch| batch.name == record.name);
        let offset = of_group
            .flat_map(|batch| batch.records.first())
            .map(|first| first.offset)
            .min();
        let failed = ended
            .err()
            .map(|error| (offset.unwrap_or(0), Arc::new(error)));
        Ended {
            topic,
            name: record.name.clone(),
            counts,
            failed,
        }
    }

    /// What `work` gives, or out of time.
    async fn within<T>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        let left = Duration::from_millis(deadline.remaining_ms(self.ports.clock.as_ref()));
        if left.is_zero() {
            return Err(StageError::OutOfTime);
        }
        tokio::time::timeout(left, work)
            .await
            .unwrap_or(Err(StageError::OutOfTime))
    }

    /// Logs and counts what became of each partition, and makes the answer.
    fn report(&self, ended: &[Ended]) -> KafkaBatchResponse {
        let mut again: BTreeMap<&str, i64> = BTreeMap::new();
        for Ended {
            topic,
            name,
            counts,
            failed,
        } in ended
        {
            let mut values = vec![
                (Metric::RecordsTotal, counts.records),
                (Metric::RowsTotal, counts.rows),
                (Metric::DuplicatesTotal, counts.duplicates),
                (Metric::QuarantinedTotal, counts.quarantined),
                (Metric::IntentsTotal, counts.intents),
                (Metric::StagedBytes, counts.staged_bytes),
            ];
            if let Some((offset, error)) = failed {
                again
                    .entry(name)
                    .and_modify(|first| *first = (*first).min(*offset))
                    .or_insert(*offset);
                let disposition = error.disposition();
                let cause = chain(error.as_ref());
                values.push((Metric::PartitionsFailedTotal, 1));
                values.push((
                    Metric::GapsTotal,
                    u64::from(matches!(**error, StageError::Gap { .. })),
                ));
                if disposition == Disposition::Halt {
                    values.push((Metric::HaltsTotal, 1));
                    tracing::error!(topic = %topic, group = %name, offset, cause, "partition halted");
                } else {
                    tracing::warn!(topic = %topic, group = %name, offset, cause, ?disposition, "batch comes again");
                }
            }
            self.ports.metrics.count(topic, &values);
        }
        let mut response = KafkaBatchResponse::default();
        for (name, offset) in again {
            response.fail(name.to_owned(), offset);
        }
        response
    }
}
