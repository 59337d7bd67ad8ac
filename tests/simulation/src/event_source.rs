//! The event source mapping and the queue: pollers that hand batches over, doubled, cut anew and given up as they please.
//!
//! # Invariants
//! - A partition's next batch begins where an answer said so: what is not acknowledged comes again.
//! - A group's committed offset may be behind, never ahead of, what was acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use change_event::Clock as _;
use function_kit::{Deadline, KafkaBatchResponse, SqsBatchResponse};

use crate::calls::ProcessId;
use crate::choice::Stream;
use crate::kafka::{Log, Place};
use crate::payload::{group, payload};
use crate::process::{Ended, Program};
use crate::world::{Setup, World};

/// Pollers of a topic at most.
const POLLERS: usize = 3;
/// What functions get, by configuration of their mapping.
const INGEST_MS: i64 = 840_000;
const COMMIT_MS: i64 = 840_000;

/// A message of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) body: String,
    pub(crate) visible_ms: i64,
}

#[derive(Debug, Default)]
struct Poller {
    topic: String,
    positions: BTreeMap<Place, usize>,
    /// The process that has its batch, and where the batch ends in each partition.
    in_flight: Option<(ProcessId, BTreeMap<Place, usize>)>,
}

/// The event source.
#[derive(Debug)]
pub(crate) struct EventSource {
    committed: BTreeMap<Place, usize>,
    pollers: Vec<Poller>,
    pub(crate) queue: Vec<Message>,
    /// Messages by the process that handles them.
    handled: HashMap<ProcessId, Vec<Message>>,
    committed_only: bool,
}

impl EventSource {
    pub(crate) fn new(setup: &Setup, topics: &[String]) -> Self {
        let places = topics.iter().flat_map(|topic| {
            (0..setup.partitions).map(move |partition| ((topic.clone(), partition), 0))
        });
        let pollers = topics.iter().flat_map(|topic| {
            (0..POLLERS).map(move |_| Poller {
                topic: topic.clone(),
                ..Poller::default()
            })
        });
        let mut source = Self {
            committed: places.collect(),
            pollers: pollers.collect(),
            queue: Vec::new(),
            handled: HashMap::new(),
            committed_only: setup.committed_only,
        };
        source.assign(|_| (0, None));
        source
    }

    /// Gives each partition to one poller of its topic, or to two.
    fn assign(&mut self, mut choose: impl FnMut(usize) -> (usize, Option<usize>)) {
        for poller in &mut self.pollers {
            poller.positions.clear();
        }
        for (place, offset) in &self.committed {
            let (first, second) = choose(POLLERS);
            let of_topic = |number: usize| {
                let mut pollers = self.pollers.iter().enumerate();
                let mut of_topic = pollers
                    .by_ref()
                    .filter(|(_, poller)| poller.topic == place.0);
                of_topic.nth(number).map(|(index, _)| index)
            };
            let chosen = [of_topic(first), second.and_then(of_topic)];
            for poller in chosen.into_iter().flatten() {
                self.pollers[poller]
                    .positions
                    .insert(place.clone(), *offset);
            }
        }
    }

    /// One poller for each topic, from what the group committed.
    pub(crate) fn settle(&mut self) {
        for poller in &mut self.pollers {
            poller.in_flight = None;
        }
        self.assign(|_| (0, None));
    }

    /// Whether a reader has everything that there is.
    pub(crate) fn is_polled(&self, log: &Log) -> bool {
        log.is_settled()
            && self
                .committed
                .iter()
                .all(|(place, offset)| log.read(place, *offset, 1, self.committed_only).is_empty())
    }

    fn answered(&mut self, process: ProcessId, response: &KafkaBatchResponse, lost: bool) {
        let poller = self
            .pollers
            .iter_mut()
            .find(|poller| matches!(&poller.in_flight, Some((of, _)) if *of == process));
        let Some(poller) = poller else { return };
        let Some((_, ends)) = poller.in_flight.take() else {
            return;
        };
        for (place, end) in ends {
            let name = group(&place);
            let failures = response.batch_item_failures.iter();
            let mut failed = failures
                .map(|failure| &failure.item_identifier)
                .filter(|failed| failed.partition == name)
                .map(|failed| usize::try_from(failed.offset).unwrap_or(0));
            let position = failed.next().unwrap_or(end);
            if let Some(known) = poller.positions.get_mut(&place) {
                *known = position;
            }
            if !lost {
                self.committed.insert(place, position);
            }
        }
    }

    fn set_ahead(&mut self, place: &Place, offset: usize) {
        self.committed.insert(place.clone(), offset);
        for poller in &mut self.pollers {
            if let Some(known) = poller.positions.get_mut(place) {
                *known = offset.max(*known);
            }
        }
    }

    /// Gives a batch up that a process has: its partitions are polled again from where they were.
    pub(crate) fn give_up(&mut self, process: ProcessId) {
        for poller in &mut self.pollers {
            if matches!(&poller.in_flight, Some((of, _)) if *of == process) {
                poller.in_flight = None;
            }
        }
        if let Some(messages) = self.handled.remove(&process) {
            self.queue.extend(messages);
        }
    }
}

impl World {
    pub(crate) fn is_polled(&self) -> bool {
        self.event_source.is_polled(&self.log())
    }

    /// A poller hands a batch to a function.
    pub(crate) fn poll_one(&mut self) -> Result<bool, String> {
        let pollers = &self.event_source.pollers;
        let free: Vec<usize> = (0..pollers.len())
            .filter(|poller| {
                pollers[*poller].in_flight.is_none() && !pollers[*poller].positions.is_empty()
            })
            .collect();
        if free.is_empty() {
            return Ok(false);
        }
        let poller = free[self.choices.index(Stream::Schedule, free.len())];
        let positions = self.event_source.pollers[poller].positions.clone();
        let log = Arc::clone(&self.log);
        let log = log.lock().expect("not poisoned");
        let mut batch = Vec::new();
        let mut ends = BTreeMap::new();
        for (place, position) in positions {
            let limit = 1 + self.choices.index(
                Stream::Schedule,
                usize::try_from(self.setup.batch_max).unwrap_or(1),
            );
            let records = log.read(&place, position, limit, self.setup.committed_only);
            if let Some((last, _)) = records.last() {
                ends.insert(place.clone(), last + 1);
                batch.push((place, records));
            }
        }
        if batch.is_empty() {
            return Ok(false);
        }
        let payload = payload(&batch);
        drop(log);
        let process = self.warm_process(|program| matches!(program, Program::Ingest(_)));
        let process = process.unwrap_or_else(|| self.new_ingest());
        self.trace
            .line(format_args!("poll {poller} to {process}: {ends:?}"));
        self.event_source.pollers[poller].in_flight = Some((process, ends));
        let Program::Ingest(ingest) = self.processes[process].program.clone() else {
            return Ok(false);
        };
        let deadline = Deadline::after(INGEST_MS, self.clock.as_ref());
        self.processes[process].begin(Box::pin(async move {
            Ended::Ingest(ingest.handle(&payload, deadline).await)
        }));
        self.go_on(process)?;
        Ok(true)
    }

    pub(crate) fn batch_answered(&mut self, process: ProcessId, response: &KafkaBatchResponse) {
        let lost = self.choices.fault(100).is_some();
        self.event_source.answered(process, response, lost);
    }

    /// The group's offset is set ahead, past one record that it did not take yet.
    pub(crate) fn rob(&mut self) {
        let log = Arc::clone(&self.log);
        let log = log.lock().expect("not poisoned");
        let places: Vec<(Place, usize)> = self
            .event_source
            .committed
            .iter()
            .filter_map(|(place, offset)| {
                let (next, _) = log.read(place, *offset, 1, true).into_iter().next()?;
                Some((place.clone(), next + 1))
            })
            .collect();
        if places.is_empty() {
            return;
        }
        let (place, next) = places[self.choices.index(Stream::Schedule, places.len())].clone();
        self.trace
            .line(format_args!("{place:?} is set ahead to {next}"));
        self.robbed = self
            .names
            .iter()
            .position(|name| place.0.ends_with(&format!(".{}", name.table_name)));
        self.event_source.set_ahead(&place, next);
    }

    /// The group is balanced anew.
    pub(crate) fn rebalance(&mut self) {
        let choices = &mut self.choices;
        self.event_source.assign(|pollers| {
            let first = choices.index(Stream::Schedule, pollers);
            let doubled = choices.chance(Stream::Schedule, 40);
            let second = choices.index(Stream::Schedule, pollers);
            (first, doubled.then_some(second))
        });
    }

    /// A message that is due goes to functions/commit, and perhaps comes again.
    pub(crate) fn deliver_message(&mut self) -> Result<bool, String> {
        let now_ms = self.clock.now_ms();
        let queue = &mut self.event_source.queue;
        let Some(due) = queue
            .iter()
            .position(|message| message.visible_ms <= now_ms)
        else {
            return Ok(false);
        };
        let message = queue.remove(due);
        if self.choices.fault(100).is_some() {
            self.event_source.queue.push(message.clone());
        }
        let record = serde_json::json!({"messageId": "m", "body": message.body});
        let payload = serde_json::json!({ "Records": [record] }).to_string();
        self.begin_commit(payload, vec![message])?;
        Ok(true)
    }

    /// The schedule of functions/commit.
    pub(crate) fn sweep(&mut self) -> Result<bool, String> {
        self.begin_commit("{\"sweep\":true}".to_owned(), Vec::new())?;
        Ok(true)
    }

    fn begin_commit(&mut self, payload: String, messages: Vec<Message>) -> Result<(), String> {
        let process = self.warm_process(|program| matches!(program, Program::Commit(_)));
        let process = process.unwrap_or_else(|| self.new_commit());
        self.trace.line(format_args!("commit {process}: {payload}"));
        self.event_source.handled.insert(process, messages);
        let Program::Commit(commit) = self.processes[process].program.clone() else {
            return Ok(());
        };
        let deadline = Deadline::after(COMMIT_MS, self.clock.as_ref());
        self.processes[process].begin(Box::pin(async move {
            Ended::Commit(commit.handle(payload.as_bytes(), deadline).await)
        }));
        self.go_on(process)
    }

    pub(crate) fn messages_answered(&mut self, process: ProcessId, response: &SqsBatchResponse) {
        let messages = self
            .event_source
            .handled
            .remove(&process)
            .unwrap_or_default();
        if !response.batch_item_failures.is_empty() {
            self.event_source.queue.extend(messages);
        }
    }
}
