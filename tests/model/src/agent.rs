//! The agent's side: source, broker and two agents; its search gives every log that can come to be.
//!
//! Flow: source -> `session` (transaction loop) -> **broker's log, progress** -> `view`.
//!
//! # Invariants
//! - The broker lets one producer write: `init_transactions` ends the predecessor's open transaction and fences it.
//! - Progress is what the last committed transaction said of it.
//! - Changes 1 and 2 are one source transaction, so that a Kafka transaction may end inside of one.
//!
//! # Source
//! `capture-agent/src/{session,transaction,kafka,progress,epoch,slot}.rs`, as built. That a log's end is reached with all faults
//! used up or not, that a transaction times out at the broker and that markers reach partitions one by one gives no other log.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};

use change_event::Predecessor;

use crate::family::{Family, Setup};
use crate::mutant::Mutant;
use crate::search::{Machine, Steps, Violation};
use crate::session::Session;
use crate::view::{Log, View};

/// What became of a record's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A record as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) incarnation: u32,
    pub(crate) epoch: u64,
    pub(crate) pseq: u64,
    pub(crate) predecessor: Option<Predecessor>,
    /// The change; for a barrier, the last one before it.
    pub(crate) change: u8,
    pub(crate) barrier: bool,
}

/// What takes an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Record(Sent, Fate),
    /// The end of a transaction.
    Marker,
}

/// What the progress topic says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Progress {
    /// Last change that is on its topic.
    pub(crate) change: u8,
    /// Last change of a whole source transaction.
    pub(crate) whole: u8,
    /// The last record of each partition.
    pub(crate) last: [Option<Predecessor>; 2],
    /// The larger map is written by: its barrier is committed, in the topic as it is now.
    pub(crate) raised: bool,
}

/// Everything on the agent's side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AgentState {
    pub(crate) agents: [Session; 2],
    /// Who may write.
    pub(crate) owner: Option<u8>,
    /// Logs of the topic's lives, each of two partitions.
    pub(crate) lives: Vec<[Vec<Item>; 2]>,
    pub(crate) incarnation: u32,
    pub(crate) progress: Progress,
    /// Epochs claimed.
    pub(crate) epochs: u64,
    /// After which change the larger map begins: decided once, and known to every session from then on.
    pub(crate) raise: Option<u8>,
    /// How far the source was acknowledged.
    pub(crate) acknowledged: u8,
    /// The last change that anybody ever sent: the source's log is at least there.
    pub(crate) sent_max: u8,
    /// A fenced session's record that is still on its way, and its partition.
    pub(crate) late: Option<(u8, Sent)>,
    /// Faults to come.
    pub(crate) faults: u8,
    /// Restarts between two transactions to come.
    pub(crate) restarts: u8,
    pub(crate) may_recreate: bool,
}

/// Who does what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgentAction {
    pub(crate) agent: u8,
    pub(crate) what: &'static str,
    pub(crate) change: u8,
}

impl Display for AgentAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            agent,
            what,
            change,
        } = self;
        if *change == 0 {
            write!(f, "agent {agent}: {what}")
        } else {
            write!(f, "agent {agent}: {what} {change}")
        }
    }
}

/// The machine; what its searches found is kept in it.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) setup: Setup,
    pub(crate) mutant: Option<Mutant>,
    logs: RefCell<BTreeSet<Log>>,
}

impl Agents {
    pub(crate) fn new(setup: Setup, mutant: Option<Mutant>) -> Self {
        Self {
            setup,
            mutant,
            logs: RefCell::default(),
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// What pollers may see of the logs found, shortest first.
    pub(crate) fn views(&self) -> Vec<View> {
        let mut logs: Vec<Log> = self.logs.borrow().iter().cloned().collect();
        logs.sort_by_key(|log| log.lives.iter().flatten().map(Vec::len).sum::<usize>());
        logs.iter().map(View::of).collect()
    }

    /// The last change of a whole source transaction, up to one.
    pub(crate) const fn whole(&self, change: u8) -> u8 {
        if change == 1 { 0 } else { change }
    }

    /// Where a change goes: of three, the second is of a key that the larger map leaves where it was.
    pub(crate) const fn partition(&self, change: u8, raised: bool) -> usize {
        let stays = self.setup.changes == 3 && change == 2;
        (raised && !stays) as usize
    }
}

impl AgentState {
    pub(crate) fn append(&mut self, partition: usize, item: Item) {
        if let Some(log) = self.lives.last_mut() {
            log[partition].push(item);
        }
    }

    /// Ends the open transaction.
    pub(crate) fn end(&mut self, fate: Fate) {
        for log in self.lives.iter_mut().flatten() {
            let mut touched = false;
            for item in log.iter_mut() {
                if let Item::Record(_, open @ Fate::Open) = item {
                    *open = fate;
                    touched = true;
                }
            }
            if touched {
                log.push(Item::Marker);
            }
        }
    }

    /// The last record of each partition, whatever became of it.
    pub(crate) fn last_sent(&self) -> [Option<Predecessor>; 2] {
        let mut last = [None; 2];
        for life in &self.lives {
            for (last, log) in last.iter_mut().zip(life) {
                let records = log.iter().filter_map(|item| match item {
                    Item::Record(sent, _) => Some(Predecessor {
                        epoch: sent.epoch,
                        pseq: sent.pseq,
                    }),
                    Item::Marker => None,
                });
                *last = records.fold(*last, |_, record| Some(record));
            }
        }
        last
    }

    pub(crate) fn is_owner(&self, agent: usize) -> bool {
        self.owner == Some(agent as u8)
    }
}

impl Machine for Agents {
    type State = AgentState;
    type Action = AgentAction;

    fn initial(&self) -> AgentState {
        let needs_restart = [Family::Map, Family::Incarnation, Family::Reset];
        let restarts = needs_restart
            .iter()
            .filter(|family| self.setup.has(**family))
            .count();
        let faults = if self.setup.has(Family::Agent) {
            self.setup.agent_faults
        } else {
            0
        };
        AgentState {
            agents: [Session::Down; 2],
            owner: None,
            lives: vec![[Vec::new(), Vec::new()]],
            incarnation: 1,
            progress: Progress::default(),
            epochs: 0,
            raise: None,
            acknowledged: 0,
            sent_max: 0,
            late: None,
            faults,
            restarts: restarts as u8,
            may_recreate: self.setup.has(Family::Incarnation),
        }
    }

    fn steps(&self, state: &AgentState, steps: &mut Steps<Self>) {
        for agent in 0..2 {
            self.session_steps(state, agent, steps);
        }
        if let Some((partition, sent)) = state.late {
            let mut next = state.clone();
            next.late = None;
            next.append(usize::from(partition), Item::Record(sent, Fate::Aborted));
            let action = AgentAction {
                agent: 0,
                what: "a record that was on its way arrives, change",
                change: sent.change,
            };
            steps.push((action, Ok(next)));
        }
    }

    /// Keeps the log of a state in which all is done.
    fn check(&self, state: &AgentState) -> Result<(), Violation> {
        let done = (0..2)
            .any(|agent| state.is_owner(agent) && state.agents[agent].is_done(self.setup.changes));
        if done {
            // A slot's name is never a record's own offset, but for the mutant that gives it one.
            let offsets_dense = !self.is(Mutant::SlotNamedByFirstOffset);
            for aborted_seen in [false, true] {
                let log = Log::of(&state.lives, aborted_seen, offsets_dense);
                self.logs.borrow_mut().insert(log);
            }
        }
        Ok(())
    }
}
