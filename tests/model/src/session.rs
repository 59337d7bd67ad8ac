//! A session of an agent: fence, claim, read progress, then transactions until something fails.
//!
//! Flow: `init_transactions` -> epoch -> progress -> send, send, **commit**, acknowledge.
//!
//! # Invariants
//! - Whatever fails ends the session; the next one has a new epoch.
//! - A larger map: where it begins is decided once, behind all that any predecessor can have sent. Up to there every session
//!   sends by the old one, the barrier is a transaction of its own, and nothing is sent by the new one before that is known to be
//!   committed.

use change_event::Predecessor;

use crate::agent::{AgentAction, AgentState, Agents, Fate, Item, Progress, Sent};
use crate::family::Family;
use crate::mutant::Mutant;
use crate::search::{Steps, Violation};

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Session {
    Down,
    /// The predecessor is fenced.
    Fenced,
    Claimed(u64),
    Streaming(Stream),
}

/// A session that streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    pub(crate) epoch: u64,
    /// The last change handed over.
    pub(crate) sent: u8,
    pub(crate) pseq: [u64; 2],
    pub(crate) predecessor: [Option<Predecessor>; 2],
    pub(crate) open: bool,
    /// The larger map is written by.
    pub(crate) raised: bool,
    /// The map is raised after this change.
    pub(crate) raise_at: Option<u8>,
    /// A committed transaction that the source was not told of.
    pub(crate) unacknowledged: bool,
}

impl Session {
    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self, changes: u8) -> bool {
        matches!(self, Self::Streaming(stream) if stream.sent == changes && !stream.open)
    }
}

impl Agents {
    pub(crate) fn session_steps(&self, state: &AgentState, agent: usize, steps: &mut Steps<Self>) {
        let mut step = |what, change, next: Result<AgentState, Violation>| {
            let agent = agent as u8 + 1;
            let action = AgentAction {
                agent,
                what,
                change,
            };
            steps.push((action, next));
        };
        let with = |session| {
            let mut next = state.clone();
            next.agents[agent] = session;
            next
        };
        match state.agents[agent] {
            Session::Down => {
                if self.is(Mutant::EpochClaimedBeforeFencing) {
                    let mut next = with(Session::Claimed(state.epochs + 1));
                    next.epochs += 1;
                    if self.pays_to_start(&mut next, agent) {
                        step("claims an epoch", 0, Ok(next));
                    }
                } else {
                    let mut next = state.clone();
                    if self.pays_to_start(&mut next, agent) {
                        fence(&mut next, agent);
                        next.agents[agent] = Session::Fenced;
                        step("init_transactions", 0, Ok(next));
                    }
                }
            }
            Session::Fenced if self.is(Mutant::EpochClaimedBeforeFencing) => {}
            Session::Fenced => {
                let mut next = with(Session::Claimed(state.epochs + 1));
                next.epochs += 1;
                step("claims an epoch", 0, Ok(next));
            }
            Session::Claimed(epoch) => {
                let mut base = state.clone();
                if self.is(Mutant::EpochClaimedBeforeFencing) {
                    fence(&mut base, agent);
                }
                self.begin(&base, agent, epoch, &mut step);
            }
            Session::Streaming(stream) if state.is_owner(agent) => {
                self.stream(state, agent, stream, &mut step);
            }
            // Fenced: the next call to the broker says so.
            Session::Streaming(_) => step("hears that it is fenced", 0, Ok(with(Session::Down))),
        }
    }

    /// A start beside a living session is a fault; one after a crash was paid for by the crash.
    fn pays_to_start(&self, next: &mut AgentState, agent: usize) -> bool {
        if next.agents[1 - agent] == Session::Down {
            // Two agents that are down are alike.
            return agent == 0;
        }
        let allowed = next.faults > 0;
        next.faults = next.faults.saturating_sub(1);
        allowed
    }

    /// Reads progress and begins to stream.
    fn begin(
        &self,
        state: &AgentState,
        agent: usize,
        epoch: u64,
        step: &mut impl FnMut(&'static str, u8, Result<AgentState, Violation>),
    ) {
        if !state.is_owner(agent) {
            let mut next = state.clone();
            next.agents[agent] = Session::Down;
            step("hears that it is fenced", 0, Ok(next));
            return;
        }
        let progress = &state.progress;
        if state.acknowledged > progress.whole {
            let halt = Violation::FalseAlarm("the slot is ahead of progress");
            step("halts", 0, Err(halt));
            return;
        }
        let mut stream = Stream {
            epoch,
            sent: progress.change,
            pseq: [0; 2],
            predecessor: progress.last,
            open: false,
            raised: progress.raised,
            raise_at: None,
            unacknowledged: false,
        };
        if self.is(Mutant::EpochKeptAfterAbort) {
            stream.epoch = 1;
        }
        if self.is(Mutant::PredecessorIsTheLastSent) {
            stream.predecessor = state.last_sent();
        }
        let mut base = state.clone();
        base.agents[agent] = Session::Streaming(stream);
        let raises = self.setup.has(Family::Map) && !progress.raised;
        let decided = state.raise.filter(|_| !self.is(Mutant::RaiseDecidedAnew));
        if !raises || decided.is_none() {
            step(
                "reads progress and streams from change",
                progress.change,
                Ok(base.clone()),
            );
        }
        if state.may_recreate {
            // Between two sessions: the topic is found to be gone, and made anew under a claimed incarnation.
            for noticed in [true, false] {
                let mut next = base.clone();
                next.may_recreate = false;
                next.incarnation += u32::from(noticed);
                next.late = None;
                next.lives.push([Vec::new(), Vec::new()]);
                if noticed || raises {
                    // In a new incarnation the barrier stands again, before the first change that is behind it.
                    next.progress.raised = false;
                    next.agents[agent] = Session::Streaming(Stream {
                        raised: false,
                        raise_at: decided.map(|at| at.max(progress.change)),
                        ..stream
                    });
                }
                let what = if noticed {
                    "finds the topic gone, makes a new incarnation, streams from change"
                } else {
                    "streams into a topic that was replaced, from change"
                };
                step(what, progress.change, Ok(next));
            }
        }
        if raises {
            self.decide(&base, agent, stream, decided, step);
        }
    }

    /// Where the larger map begins: as it was decided, or anywhere that nobody has sent anything of yet.
    fn decide(
        &self,
        base: &AgentState,
        agent: usize,
        stream: Stream,
        decided: Option<u8>,
        step: &mut impl FnMut(&'static str, u8, Result<AgentState, Violation>),
    ) {
        let least = if self.is(Mutant::MapRaisedWithoutRepeating) {
            stream.sent
        } else {
            stream.sent.max(base.sent_max)
        };
        let places = decided.map_or(least..self.setup.changes, |at| at..at + 1);
        for at in places {
            let mut next = base.clone();
            next.raise = Some(at);
            next.agents[agent] = Session::Streaming(Stream {
                raise_at: Some(at.max(stream.sent)),
                ..stream
            });
            step(
                "reads progress, is to raise the map after change",
                at,
                Ok(next),
            );
        }
    }

    fn stream(
        &self,
        state: &AgentState,
        agent: usize,
        stream: Stream,
        step: &mut impl FnMut(&'static str, u8, Result<AgentState, Violation>),
    ) {
        let put = |stream: Stream| {
            let mut next = state.clone();
            next.agents[agent] = Session::Streaming(stream);
            next
        };
        if stream.unacknowledged {
            let mut next = put(Stream {
                unacknowledged: false,
                ..stream
            });
            next.acknowledged = state.progress.whole;
            step("acknowledges up to change", state.progress.whole, Ok(next));
        }
        let change = stream.sent + 1;
        let raises = stream.raise_at == Some(stream.sent);
        let barrier_open = stream.raise_at.is_some_and(|at| at > self.setup.changes);
        if raises && !stream.open {
            step(
                "writes the barrier after change",
                stream.sent,
                Ok(self.barrier(state, agent, stream)),
            );
        } else if change <= self.setup.changes && !raises && !barrier_open {
            let (next, sent, partition) = self.send(state, agent, stream, change);
            step("sends change", change, Ok(next));
            if state.faults > 0 && state.late.is_none() {
                let mut next = state.clone();
                next.faults -= 1;
                next.agents[agent] = Session::Down;
                next.late = Some((partition, sent));
                next.sent_max = next.sent_max.max(change);
                step("crashes, while under way is change", change, Ok(next));
            }
            if self.is(Mutant::PseqCountedBeforeAccepted) && state.faults > 0 {
                let mut refused = stream;
                refused.pseq[usize::from(partition)] += 1;
                let mut next = put(refused);
                next.faults -= 1;
                step("finds the queue full for change", change, Ok(next));
            }
        }
        if stream.open {
            let mut next = state.clone();
            self.commit(&mut next, agent, stream);
            step("commits, up to change", stream.sent, Ok(next.clone()));
            if state.faults > 0 {
                next.faults -= 1;
                next.agents[agent] = Session::Down;
                step(
                    "commits and never hears of it, up to change",
                    stream.sent,
                    Ok(next),
                );
            }
        }
        self.failures(state, agent, stream, step);
    }

    fn failures(
        &self,
        state: &AgentState,
        agent: usize,
        stream: Stream,
        step: &mut impl FnMut(&'static str, u8, Result<AgentState, Violation>),
    ) {
        // The next start ends what is open.
        let mut next = state.clone();
        next.agents[agent] = Session::Down;
        if !stream.open && state.restarts > 0 {
            next.restarts -= 1;
            step("restarts", 0, Ok(next));
        } else if state.faults > 0 {
            next.faults -= 1;
            step("crashes", 0, Ok(next));
        }
        if state.faults > 0 && stream.open {
            let mut next = state.clone();
            next.faults -= 1;
            next.end(Fate::Aborted);
            next.agents[agent] = Session::Down;
            step("aborts", 0, Ok(next));
        }
        if self.is(Mutant::SourceAcknowledgedBeforeCommit) && stream.open {
            let mut next = state.clone();
            next.acknowledged = self.whole(stream.sent).max(state.acknowledged);
            step("acknowledges up to change", next.acknowledged, Ok(next));
        }
        if self.is(Mutant::ProgressOutsideOfTransaction) && stream.open {
            let mut next = state.clone();
            next.progress = self.progress_of(&stream, &state.progress);
            step("writes progress up to change", stream.sent, Ok(next));
        }
    }

    /// The record of a change, on the log in an open transaction.
    fn send(
        &self,
        state: &AgentState,
        agent: usize,
        mut stream: Stream,
        change: u8,
    ) -> (AgentState, Sent, u8) {
        let partition = self.partition(change, stream.raised);
        let sent = numbered(state, &mut stream, partition, change, false);
        stream.sent = change;
        stream.open = true;
        let mut next = state.clone();
        next.append(partition, Item::Record(sent, Fate::Open));
        next.sent_max = next.sent_max.max(change);
        next.agents[agent] = Session::Streaming(stream);
        (next, sent, partition as u8)
    }

    /// The barrier in the old partition, in a transaction of its own.
    fn barrier(&self, state: &AgentState, agent: usize, mut stream: Stream) -> AgentState {
        let mut next = state.clone();
        let last = stream.sent;
        let sent = numbered(state, &mut stream, 0, last, true);
        // Marks that the barrier is open: no change has this number.
        stream.raise_at = Some(u8::MAX);
        stream.open = true;
        next.append(0, Item::Record(sent, Fate::Open));
        next.agents[agent] = Session::Streaming(stream);
        next
    }

    fn commit(&self, next: &mut AgentState, agent: usize, mut stream: Stream) {
        if stream.raise_at == Some(u8::MAX) {
            stream.raise_at = None;
            stream.raised = true;
        }
        next.end(Fate::Committed);
        next.progress = self.progress_of(&stream, &next.progress);
        stream.open = false;
        stream.unacknowledged = next.acknowledged < next.progress.whole;
        next.agents[agent] = Session::Streaming(stream);
    }

    fn progress_of(&self, stream: &Stream, before: &Progress) -> Progress {
        let mut progress = Progress {
            change: stream.sent,
            whole: self.whole(stream.sent).max(before.whole),
            raised: stream.raised,
            ..*before
        };
        for (last, pseq) in progress.last.iter_mut().zip(stream.pseq) {
            if pseq > 0 {
                *last = Some(Predecessor {
                    epoch: stream.epoch,
                    pseq,
                });
            }
        }
        progress
    }
}

/// `init_transactions`: whoever had the id is fenced, what was open is aborted.
fn fence(next: &mut AgentState, agent: usize) {
    next.end(Fate::Aborted);
    next.owner = Some(agent as u8);
}

/// Numbers a record; the first of an epoch in its partition names its predecessor.
fn numbered(
    state: &AgentState,
    stream: &mut Stream,
    partition: usize,
    change: u8,
    barrier: bool,
) -> Sent {
    let pseq = &mut stream.pseq[partition];
    *pseq += 1;
    let predecessor = stream.predecessor[partition].filter(|_| *pseq == 1);
    Sent {
        incarnation: state.incarnation,
        epoch: stream.epoch,
        pseq: *pseq,
        predecessor,
        change,
        barrier,
    }
}
