//! A Kafka log with transactions, as its documentation describes it.
//!
//! Flow: producer's queue -> **log** (records of open transactions among them) -> markers -> readers at either isolation level.
//!
//! # Invariants
//! - A marker takes an offset in each partition of its transaction, and comes to each in its own time.
//! - A session that was fenced, or whose transaction the broker ended, writes nothing any more.
//! - `read_committed` stops before the first record whose transaction is not settled in that partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capture_agent::AgentError;
use capture_agent::broker::{Broker, Outgoing, TransactionalProducer};
use capture_agent::progress::Progress;

use crate::calls::{Answer, Op};
use crate::ports::Ports;

/// Topic and partition.
pub(crate) type Place = (String, u32);

/// A record as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Key.
    pub(crate) key: Option<Vec<u8>>,
    /// Value.
    pub(crate) value: Vec<u8>,
    /// The firn header.
    pub(crate) header: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Entry {
    Record(usize, Record),
    Marker,
}

#[derive(Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    settled: BTreeSet<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    outcome: Outcome,
    places: BTreeSet<Place>,
}

#[derive(Debug, Default)]
struct Session {
    queue: VecDeque<(Place, Record)>,
    transaction: Option<usize>,
    dead: bool,
    /// The queue refuses the record after so many.
    refuses_in: Option<u64>,
}

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Log {
    partitions: BTreeMap<Place, Partition>,
    transactions: Vec<Transaction>,
    sessions: Vec<Session>,
    /// Markers on their way.
    markers: VecDeque<(Place, usize)>,
}

impl Log {
    /// `init_transactions`: a new session, and the end of every one before.
    pub(crate) fn fence(&mut self) -> usize {
        for session in 0..self.sessions.len() {
            self.end(session);
        }
        while self.write_marker() {}
        self.sessions.push(Session::default());
        self.sessions.len() - 1
    }

    /// Ends a session's transaction without committing it; the session is over.
    pub(crate) fn end(&mut self, session: usize) {
        let Some(ended) = self.sessions.get_mut(session) else {
            return;
        };
        ended.dead = true;
        ended.queue.clear();
        if let Some(transaction) = ended.transaction.take() {
            self.settle(transaction, Outcome::Aborted);
        }
    }

    /// The session that may write.
    #[must_use]
    pub(crate) fn current(&self) -> Option<usize> {
        self.sessions.len().checked_sub(1)
    }

    /// Whether the session writes nothing any more.
    #[must_use]
    pub(crate) fn is_dead(&self, session: usize) -> bool {
        self.sessions
            .get(session)
            .is_none_or(|session| session.dead)
    }

    /// The queue of the session refuses a record after so many.
    pub(crate) fn refuse_in(&mut self, session: usize, records: u64) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.refuses_in = Some(records);
        }
    }

    fn settle(&mut self, transaction: usize, outcome: Outcome) {
        if let Some(settled) = self.transactions.get_mut(transaction) {
            settled.outcome = outcome;
            let places = settled.places.iter().cloned();
            self.markers
                .extend(places.map(|place| (place, transaction)));
        }
    }

    /// Writes one marker; false if none is on its way.
    pub(crate) fn write_marker(&mut self) -> bool {
        let Some((place, transaction)) = self.markers.pop_front() else {
            return false;
        };
        let partition = self.partitions.entry(place).or_default();
        partition.entries.push(Entry::Marker);
        partition.settled.insert(transaction);
        true
    }

    /// Whether no transaction is open and no marker on its way.
    #[must_use]
    pub(crate) fn is_settled(&self) -> bool {
        let open = |transaction: &Transaction| transaction.outcome == Outcome::Open;
        self.markers.is_empty() && !self.transactions.iter().any(open)
    }

    /// Takes at most `limit` records of a session's queue into the log.
    pub(crate) fn flush(&mut self, session: usize, limit: usize) -> usize {
        let mut taken = 0;
        while taken < limit {
            let Some(open) = self.sessions.get_mut(session).filter(|open| !open.dead) else {
                break;
            };
            let Some((place, record)) = open.queue.pop_front() else {
                break;
            };
            let transaction = *open.transaction.get_or_insert_with(|| {
                self.transactions.push(Transaction {
                    outcome: Outcome::Open,
                    places: BTreeSet::new(),
                });
                self.transactions.len() - 1
            });
            self.transactions[transaction].places.insert(place.clone());
            let partition = self.partitions.entry(place).or_default();
            partition.entries.push(Entry::Record(transaction, record));
            taken += 1;
        }
        taken
    }

    /// `commit_transaction`; false if the session is over.
    pub(crate) fn commit(&mut self, session: usize) -> bool {
        let Some(open) = self.sessions.get_mut(session).filter(|open| !open.dead) else {
            return false;
        };
        if let Some(transaction) = open.transaction.take() {
            self.settle(transaction, Outcome::Committed);
        }
        true
    }

    /// Throws away what is queued: the process has gone.
    pub(crate) fn purge(&mut self, session: usize) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.queue.clear();
        }
    }

    fn hand_over(&mut self, session: usize, record: &Outgoing<'_>) -> Answer {
        match self.sessions.get_mut(session) {
            Some(open) if !open.dead => {
                match &mut open.refuses_in {
                    Some(0) => return Answer::Failed,
                    Some(left) => *left -= 1,
                    None => {}
                }
                let place = (record.topic.to_owned(), record.partition);
                let kept = Record {
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.to_vec(),
                    header: record.header.map(<[u8]>::to_vec),
                };
                open.queue.push_back((place, kept));
                Answer::Done
            }
            Some(_) | None => Answer::Fenced,
        }
    }

    /// At most `limit` records from an offset on that a reader sees; offset and record.
    #[must_use]
    pub(crate) fn read(
        &self,
        place: &Place,
        from: usize,
        limit: usize,
        committed_only: bool,
    ) -> Vec<(usize, &Record)> {
        let mut seen = Vec::new();
        let Some(partition) = self.partitions.get(place) else {
            return seen;
        };
        for (offset, entry) in partition.entries.iter().enumerate().skip(from) {
            if seen.len() == limit {
                break;
            }
            let Entry::Record(transaction, record) = entry else {
                continue;
            };
            if committed_only {
                if !partition.settled.contains(transaction) {
                    break;
                }
                if self.transactions[*transaction].outcome != Outcome::Committed {
                    continue;
                }
            }
            seen.push((offset, record));
        }
        seen
    }

    /// What a session reads back, by production's reading of the records.
    #[must_use]
    pub(crate) fn progress(&self, source_name: &str, topic: &str) -> Option<Progress> {
        let mut progress = Progress::default();
        for (_, record) in self.read(&(topic.to_owned(), 0), 0, usize::MAX, true) {
            let key = record.key.as_deref().map(String::from_utf8_lossy)?;
            progress
                .apply(source_name, &key, Some(&record.value))
                .ok()?;
        }
        Some(progress)
    }
}

/// The broker as one agent reaches it.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedBroker {
    ports: Ports,
    log: Arc<Mutex<Log>>,
}

/// A session's producer.
#[derive(Debug)]
pub(crate) struct SimulatedProducer {
    broker: SimulatedBroker,
    session: usize,
}

const SOURCE_NAME: &str = "shop";

fn failed(operation: &'static str) -> AgentError {
    AgentError::KafkaTimeout {
        operation,
        seconds: 0,
    }
}

fn fenced() -> AgentError {
    AgentError::Fenced {
        source_name: SOURCE_NAME.to_owned(),
    }
}

impl SimulatedBroker {
    /// Through these ports.
    #[must_use]
    pub(crate) const fn new(ports: Ports, log: Arc<Mutex<Log>>) -> Self {
        Self { ports, log }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker for SimulatedBroker {
    type Producer = SimulatedProducer;

    async fn fence(&self) -> Result<SimulatedProducer, AgentError> {
        match self.ports.call(Op::Fence).await {
            Answer::Session(session) => Ok(SimulatedProducer {
                broker: self.clone(),
                session,
            }),
            _ => Err(failed("init_transactions")),
        }
    }

    async fn progress(&self, topic: &str) -> Result<Progress, AgentError> {
        match self.ports.call(Op::Progress(topic.to_owned())).await {
            Answer::Progress(progress) => Ok(*progress),
            _ => Err(failed("read progress")),
        }
    }
}

fn outcome(operation: &'static str, answer: &Answer) -> Result<(), AgentError> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Fenced => Err(fenced()),
        _ => Err(failed(operation)),
    }
}

impl TransactionalProducer for SimulatedProducer {
    fn begin(&self) -> Result<(), AgentError> {
        if self.broker.log().is_dead(self.session) {
            return Err(fenced());
        }
        Ok(())
    }

    async fn send(&self, record: &Outgoing<'_>) -> Result<(), AgentError> {
        let answer = self.broker.log().hand_over(self.session, record);
        outcome("produce", &answer)
    }

    async fn delivered(&self) -> Result<(), AgentError> {
        let answer = self.broker.ports.call(Op::Deliver(self.session)).await;
        outcome("delivery", &answer)
    }

    async fn commit(&self) -> Result<(), AgentError> {
        let answer = self.broker.ports.call(Op::Commit(self.session)).await;
        outcome("commit_transaction", &answer)
    }

    async fn abandon(self) {
        self.broker.log().purge(self.session);
        let _ended = self.broker.ports.call(Op::Abort(self.session)).await;
    }

    async fn close(self) {}
}
