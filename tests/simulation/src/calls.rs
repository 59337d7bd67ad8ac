//! External calls of production code, each held until the simulator completes it.
//!
//! Flow: a port's method -> **[`Calls::call`]** (pending) -> the simulator picks it, lets it happen or not, and answers ->
//! the caller goes on.
//!
//! # Invariants
//! - A call that is dropped before it was answered is left to the simulator: it may have happened, or may happen later.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use capture_agent::progress::Progress;
use change_event::Lsn;
use function_kit::InvokeError;
use iceberg::spec::TableMetadata;
use object_io::{ListPage, PutOutcome};
use source_postgres::Frame;
use table_commit::{CreateOutcome, Pointer, SwapOutcome, TableName};

/// Who calls: an environment of a function, or an agent.
pub(crate) type ProcessId = usize;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Object storage.
    Get(String),
    /// Create-only.
    PutNew(String, Bytes),
    /// Whatever is there.
    Put(String, Bytes),
    /// A page of the keys below a prefix, behind a key.
    List(String, Option<String>, usize),
    /// An object's end.
    Delete(String),
    /// Catalog: where a table's metadata is.
    Pointer(TableName),
    /// A new table.
    Create(TableName, String, Arc<TableMetadata>),
    /// The compare-and-set.
    Swap(TableName, Box<Pointer>, String, Arc<TableMetadata>),
    /// functions/ddl.
    Invoke(Vec<u8>),
    /// A delayed message.
    Send(String, u32),
    /// Broker: `init_transactions`.
    Fence,
    /// The progress topic.
    Progress(String),
    /// Everything handed over by a session is to reach the broker.
    Deliver(usize),
    /// The session's transaction is to be committed.
    Commit(usize),
    /// It is to be aborted.
    Abort(usize),
    /// Source: what the slot has confirmed.
    Slot,
    /// Source: the stream begins.
    Stream(Lsn),
    /// What the agent's loop meets next.
    Next,
}

/// What the agent's loop meets.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame of the stream.
    Frame(Frame),
    /// The open transaction's time is over.
    Deadline,
    /// The position is to be said although no row came.
    SayPosition,
    /// Time to look whether there is a successor.
    LookForSuccessor,
    /// The agent is to stop.
    Stop,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An object, or none.
    Object(Option<Bytes>),
    /// How a create-only write ended.
    Put(PutOutcome),
    /// A page of a listing.
    Page(ListPage),
    /// It is done.
    Done,
    /// Where a table is.
    Pointer(Option<Pointer>),
    /// How a creation ended.
    Created(CreateOutcome),
    /// How a compare-and-set ended.
    Swapped(SwapOutcome),
    /// What a function answered.
    Invoked(Result<Vec<u8>, InvokeError>),
    /// Number of the producer's session.
    Session(usize),
    /// What is committed of progress.
    Progress(Box<Progress>),
    /// What the slot has confirmed.
    Slot(Lsn),
    /// What the loop meets.
    Event(Event),
    /// Another session owns the source.
    Fenced,
    /// No answer, or one that says "try again".
    Failed,
}

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Its number.
    pub(crate) id: u64,
    /// Who calls.
    pub(crate) process: ProcessId,
    /// What for.
    pub(crate) op: Op,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Held {
    next_id: u64,
    pending: Vec<Pending>,
    answers: HashMap<u64, Answer>,
    abandoned: Vec<(ProcessId, Op)>,
}

/// All calls of a run.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Held>);

impl Calls {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the simulator's answer.
    pub(crate) fn call(self: &Arc<Self>, process: ProcessId, op: Op) -> Call {
        Call {
            calls: Arc::clone(self),
            process,
            op: Some(op),
            id: None,
        }
    }

    /// Places of the calls that wait, by whether their caller may go on.
    pub(crate) fn waiting(&self, may_go_on: impl Fn(ProcessId) -> bool) -> Vec<usize> {
        let held = self.held();
        let places = held.pending.iter().enumerate();
        places
            .filter(|(_, pending)| may_go_on(pending.process))
            .map(|(place, _)| place)
            .collect()
    }

    /// Takes a waiting call out.
    pub(crate) fn take(&self, place: usize) -> Pending {
        self.held().pending.remove(place)
    }

    /// Answers a call that was taken out. Gives false if its caller has gone.
    pub(crate) fn answer(&self, pending: Pending, answer: Answer) {
        self.held().answers.insert(pending.id, answer);
        pending.waker.wake();
    }

    /// Calls that were dropped since the last look.
    pub(crate) fn abandoned(&self) -> Vec<(ProcessId, Op)> {
        std::mem::take(&mut self.held().abandoned)
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    calls: Arc<Calls>,
    process: ProcessId,
    op: Option<Op>,
    id: Option<u64>,
}

impl Future for Call {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let calls = Arc::clone(&self.calls);
        let mut held = calls.held();
        if let Some(op) = self.op.take() {
            let id = held.next_id;
            held.next_id += 1;
            held.pending.push(Pending {
                id,
                process: self.process,
                op,
                waker: context.waker().clone(),
            });
            self.id = Some(id);
            return Poll::Pending;
        }
        let Some(id) = self.id else {
            return Poll::Pending;
        };
        if let Some(answer) = held.answers.remove(&id) {
            self.id = None;
            return Poll::Ready(answer);
        }
        if let Some(pending) = held.pending.iter_mut().find(|pending| pending.id == id) {
            pending.waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut held = self.calls.held();
        held.answers.remove(&id);
        if let Some(place) = held.pending.iter().position(|pending| pending.id == id) {
            let pending = held.pending.remove(place);
            held.abandoned.push((pending.process, pending.op));
        }
    }
}
