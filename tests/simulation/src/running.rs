//! Processes of a run: begun, let go on, ended, killed, frozen, disrupted.

use std::sync::Arc;

use capture_agent::Context;
use capture_agent::status::Status;
use change_event::{Clock, Disposition, IdSource};
use commit::{Answer as CommitAnswer, Commit};
use ddl::Ddl;
use function_kit::ddl::DdlClient;
use function_kit::{
    DelayedQueue, FunctionInvoker, InvokeError, Metrics, Registry, SqsBatchResponse,
};
use ingest::Ingest;
use object_io::ObjectStore;
use source_postgres::Acknowledger;
use table_commit::{Catalog, Committer};

use crate::agent::{Agent, config};
use crate::calls::{Answer, ProcessId};
use crate::choice::Stream;
use crate::kafka::SimulatedBroker;
use crate::ports::{Ports, SkewedClock};
use crate::process::{Ended, Process, Program};
use crate::world::{RunningAgent, World};

/// What a machine's clock is off by, at most.
const SKEW_MS: i64 = 300_000;
/// Jumps of the clock in one run, all together: a table that is not committed for twelve hours rightly raises an alarm.
const JUMPED_MINUTES_MAX: i64 = 600;
/// Partitions staged, and tables combined, at a time.
const CONCURRENCY: usize = 4;

/// What a function is given.
struct Surroundings {
    ports: Arc<Ports>,
    clock: Arc<dyn Clock>,
    committer: Committer,
    ddl: DdlClient,
}

impl World {
    fn surroundings(&mut self) -> Surroundings {
        let ports = Arc::new(Ports::new(Arc::clone(&self.calls), self.processes.len()));
        let skew_ms = self
            .choices
            .one_of(Stream::Schedule, &[0, 0, 0, SKEW_MS, -SKEW_MS]);
        let clock: Arc<dyn Clock> = Arc::new(SkewedClock::new(Arc::clone(&self.clock), skew_ms));
        let committer = Committer::new(
            Arc::clone(&ports) as Arc<dyn ObjectStore>,
            Arc::clone(&ports) as Arc<dyn Catalog>,
            Arc::clone(&clock),
            Arc::clone(&self.ids) as Arc<dyn IdSource>,
        )
        .with_limits(self.setup.limits);
        let invoker = Arc::clone(&ports) as Arc<dyn FunctionInvoker>;
        Surroundings {
            ddl: DdlClient::new(invoker, "firn-ddl".to_owned()),
            ports,
            clock,
            committer,
        }
    }

    fn metrics(&self, function: &'static str, clock: Arc<dyn Clock>) -> Metrics {
        Metrics::new(function, clock, Arc::new(self.alarms.clone()))
    }

    fn add(&mut self, program: Program) -> ProcessId {
        self.processes.push(Process::new(program));
        self.processes.len() - 1
    }

    pub(crate) fn new_ingest(&mut self) -> ProcessId {
        let around = self.surroundings();
        let store = Arc::clone(&around.ports) as Arc<dyn ObjectStore>;
        let ports = ingest::Ports {
            registry: Registry::new(Arc::clone(&store)),
            store,
            committer: around.committer,
            ddl: around.ddl,
            queue: Arc::clone(&around.ports) as Arc<dyn DelayedQueue>,
            metrics: self.metrics("ingest", Arc::clone(&around.clock)),
            clock: around.clock,
            ids: Arc::clone(&self.ids) as Arc<dyn IdSource>,
        };
        self.add(Program::Ingest(Arc::new(Ingest::new(ports, CONCURRENCY))))
    }

    pub(crate) fn new_commit(&mut self) -> ProcessId {
        let around = self.surroundings();
        let ports = commit::Ports {
            registry: Registry::new(Arc::clone(&around.ports) as Arc<dyn ObjectStore>),
            committer: around.committer,
            ddl: around.ddl,
            queue: Arc::clone(&around.ports) as Arc<dyn DelayedQueue>,
            metrics: self.metrics("commit", Arc::clone(&around.clock)),
            clock: around.clock,
        };
        self.add(Program::Commit(Arc::new(Commit::new(ports, CONCURRENCY))))
    }

    pub(crate) fn new_ddl(&mut self) -> ProcessId {
        let around = self.surroundings();
        let registry = Registry::new(Arc::clone(&around.ports) as Arc<dyn ObjectStore>);
        let metrics = self.metrics("ddl", around.clock);
        let ddl = Ddl::new(registry, around.committer, metrics);
        self.add(Program::Ddl(Arc::new(ddl)))
    }

    /// An environment that waits for work; most often one is taken before a new one begins.
    pub(crate) fn warm_process(&mut self, is: impl Fn(&Program) -> bool) -> Option<ProcessId> {
        let warm: Vec<ProcessId> = (0..self.processes.len())
            .filter(|process| {
                let known = &self.processes[*process];
                is(&known.program) && !known.is_busy()
            })
            .collect();
        if warm.is_empty() || self.choices.chance(Stream::Schedule, 10) {
            return None;
        }
        Some(warm[self.choices.index(Stream::Schedule, warm.len())])
    }

    /// Begins an agent if none runs.
    pub(crate) fn start_agent(&mut self) -> Result<bool, String> {
        if !self.agents.is_empty() {
            return Ok(false);
        }
        self.begin_agent()?;
        Ok(true)
    }

    fn begin_agent(&mut self) -> Result<(), String> {
        let around = self.surroundings();
        let process = self.add(Program::Agent);
        self.trace.line(format_args!("agent {process} begins"));
        let (_never_sent, shutdown) = tokio::sync::watch::channel(false);
        let acknowledger = Acknowledger::default();
        let agent = Agent {
            context: Context {
                config: config(self.setup.transaction_max_rows),
                store: Arc::clone(&around.ports) as Arc<dyn ObjectStore>,
                clock: around.clock,
                ids: Arc::clone(&self.ids) as Arc<dyn IdSource>,
                status: Arc::new(Status::default()),
                shutdown,
            },
            broker: SimulatedBroker::new(around.ports.as_ref().clone(), Arc::clone(&self.log)),
            ports: around.ports.as_ref().clone(),
            names: self.names.clone(),
            acknowledger: acknowledger.clone(),
        };
        self.agents.push(RunningAgent {
            process,
            stream: None,
            acknowledger,
            session: None,
        });
        self.processes[process].begin(Box::pin(async move { Ended::Agent(agent.session().await) }));
        self.go_on(process)
    }

    /// Lets a process go on, and takes note of its end.
    pub(crate) fn go_on(&mut self, process: ProcessId) -> Result<(), String> {
        if self.processes[process].frozen {
            return Ok(());
        }
        let ended = {
            let _timers = self.runtime.enter();
            self.processes[process].run()
        };
        if let Some(ended) = ended {
            self.ended(process, ended)?;
        }
        self.settle_abandoned()
    }

    fn ended(&mut self, process: ProcessId, ended: Ended) -> Result<(), String> {
        self.trace.line(format_args!("{process} ended"));
        match ended {
            Ended::Ingest(Ok(response)) => self.batch_answered(process, &response),
            Ended::Ingest(Err(failure)) => return Err(format!("ingest: {failure:?}")),
            Ended::Commit(Ok(CommitAnswer::Messages(response))) => {
                self.messages_answered(process, &response);
            }
            Ended::Commit(Ok(CommitAnswer::Sweep(_)) | Err(_)) => {
                let mut all = SqsBatchResponse::default();
                all.fail("m".to_owned());
                self.messages_answered(process, &all);
            }
            Ended::Ddl(answer) => {
                let answer = match answer {
                    Ok(answer) => Ok(serde_json::to_vec(&answer).expect("it has a JSON form")),
                    Err(failure) => Err(InvokeError::Failed {
                        function: "firn-ddl".to_owned(),
                        error_type: failure.error_type.to_owned(),
                        message: failure.message,
                    }),
                };
                if let Some(caller) = self.callers.remove(&process) {
                    let of = caller.process;
                    self.calls.answer(caller, Answer::Invoked(answer));
                    self.go_on(of)?;
                }
            }
            Ended::Agent(result) => {
                self.agent_gone(process);
                if let Err(error) = result
                    && error.disposition() == Disposition::Halt
                    && !matches!(error, capture_agent::AgentError::Fenced { .. })
                {
                    return Err(format!("the agent halted: {error}"));
                }
            }
        }
        Ok(())
    }

    fn agent_gone(&mut self, process: ProcessId) {
        if let Some(place) = self
            .agents
            .iter()
            .position(|agent| agent.process == process)
        {
            let agent = self.agents.remove(place);
            if let Some(session) = agent.session {
                self.log().purge(session);
            }
        }
        self.processes[process].kill();
    }

    pub(crate) fn kill(&mut self, process: ProcessId) -> Result<(), String> {
        self.trace.line(format_args!("{process} killed"));
        self.processes[process].kill();
        self.agent_gone(process);
        self.event_source.give_up(process);
        if let Some(caller) = self.callers.remove(&process) {
            let of = caller.process;
            self.calls.answer(caller, Answer::Failed);
            self.go_on(of)?;
        }
        self.settle_abandoned()
    }

    /// A frozen process goes on.
    pub(crate) fn thaw_one(&mut self) -> Result<bool, String> {
        let frozen: Vec<ProcessId> = (0..self.processes.len())
            .filter(|process| self.processes[*process].frozen)
            .collect();
        if frozen.is_empty() {
            return Ok(false);
        }
        let process = frozen[self.choices.index(Stream::Schedule, frozen.len())];
        self.trace.line(format_args!("{process} thaws"));
        self.processes[process].frozen = false;
        self.go_on(process)?;
        Ok(true)
    }

    fn one_busy(&mut self, drawn: u64) -> Option<ProcessId> {
        let busy: Vec<ProcessId> = (0..self.processes.len())
            .filter(|process| self.processes[*process].is_busy())
            .collect();
        let place = usize::try_from(drawn.checked_rem(busy.len() as u64)?).ok()?;
        busy.get(place).copied()
    }

    /// Something goes wrong that is no failed call.
    pub(crate) fn disrupt(&mut self, drawn: u64) -> Result<(), String> {
        let rest = drawn / 16;
        self.trace.line(format_args!("disruption {}", drawn % 16));
        match drawn % 16 {
            0..=3 => match self.one_busy(rest) {
                Some(process) => self.kill(process),
                None => Ok(()),
            },
            4..=6 => {
                if let Some(process) = self.one_busy(rest) {
                    self.processes[process].frozen = true;
                    if rest.is_multiple_of(2) {
                        self.event_source.give_up(process);
                    }
                }
                Ok(())
            }
            7..=9 => {
                self.rebalance();
                Ok(())
            }
            10 if self.agents.len() < 3 => self.begin_agent(),
            11 => {
                // Past the deadline of what runs, or past what is kept warm.
                let minutes = [1, 15, 61, 180][usize::try_from(rest % 4).unwrap_or(0)];
                if self.jumped_minutes + minutes > JUMPED_MINUTES_MAX {
                    return Ok(());
                }
                self.jumped_minutes += minutes;
                self.advance(minutes * 60_000, !(rest / 4).is_multiple_of(3))
            }
            12 | 13 => {
                let current = self.log().current();
                if let Some(session) = current {
                    self.log().refuse_in(session, rest % 5);
                }
                Ok(())
            }
            14 => {
                let current = self.log().current();
                if let Some(session) = current {
                    self.log().end(session);
                }
                Ok(())
            }
            _ => self.foreign_commit(),
        }
    }
}
