//! Processes: environments of functions and agents, each at most one future that the simulator polls.
//!
//! # Invariants
//! - A process runs only while it is polled; frozen, its calls are not completed; killed, its future is dropped.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use capture_agent::AgentError;
use commit::{Answer, Commit};
use ddl::Ddl;
use function_kit::{DdlResponse, Failure, KafkaBatchResponse};
use ingest::Ingest;

/// How a process' work ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// functions/ingest answered.
    Ingest(Result<KafkaBatchResponse, Failure>),
    /// functions/commit answered.
    Commit(Result<Answer, Failure>),
    /// functions/ddl answered.
    Ddl(Result<DdlResponse, Failure>),
    /// The agent's session is over.
    Agent(Result<(), AgentError>),
}

/// Work under way.
pub(crate) type Work = Pin<Box<dyn Future<Output = Ended>>>;

/// What runs in a process.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// functions/ingest, warm.
    Ingest(Arc<Ingest>),
    /// functions/commit, warm.
    Commit(Arc<Commit>),
    /// functions/ddl, warm.
    Ddl(Arc<Ddl>),
    /// An agent.
    Agent,
    /// Nothing any more.
    Dead,
}

/// One process.
pub(crate) struct Process {
    /// What runs in it.
    pub(crate) program: Program,
    work: Option<Work>,
    woken: Arc<Woken>,
    /// Its calls are not completed.
    pub(crate) frozen: bool,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("program", &self.program)
            .field("frozen", &self.frozen)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Process {
    /// A process without work.
    #[must_use]
    pub(crate) fn new(program: Program) -> Self {
        Self {
            program,
            work: None,
            woken: Arc::default(),
            frozen: false,
        }
    }

    /// Begins work.
    pub(crate) fn begin(&mut self, work: Work) {
        self.work = Some(work);
        self.woken.0.store(true, Ordering::Relaxed);
    }

    /// Whether it works.
    #[must_use]
    pub(crate) const fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Ends it; what it waited for is left to the simulator.
    pub(crate) fn kill(&mut self) {
        self.work = None;
        self.program = Program::Dead;
        self.frozen = false;
    }

    /// Lets it go on as far as it can without an answer.
    pub(crate) fn run(&mut self) -> Option<Ended> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        while self.woken.0.swap(false, Ordering::Relaxed) {
            let work = self.work.as_mut()?;
            if let Poll::Ready(ended) = work.as_mut().poll(&mut context) {
                self.work = None;
                return Some(ended);
            }
        }
        None
    }
}
