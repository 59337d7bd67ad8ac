//! Calls completed: whether each happens, and whether its caller is told, are drawn apart.

use std::collections::HashMap;
use std::sync::Arc;

use change_event::{Clock as _, IdSource as _};
use futures_util::FutureExt as _;
use iceberg::spec::{MAIN_BRANCH, Operation, Snapshot, Summary, TableMetadata};
use object_io::{ObjectStore as _, PutOutcome};
use source_postgres::Frame;
use table_commit::{Catalog as _, CreateOutcome, SwapOutcome, TableName};
use test_kit::fault::Fate;

use crate::calls::{Answer, Event, Op, Pending, ProcessId};
use crate::choice::Stream;
use crate::event_source::Message;
use crate::process::{Ended, Program};
use crate::source::Replication;
use crate::world::World;

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

impl World {
    /// Completes one call of a process that is not frozen.
    pub(crate) fn complete_one(&mut self) -> Result<bool, String> {
        let processes = &self.processes;
        let waiting = self.calls.waiting(|process| !processes[process].frozen);
        if waiting.is_empty() {
            return Ok(false);
        }
        let place = waiting[self.choices.index(Stream::Schedule, waiting.len())];
        let pending = self.calls.take(place);
        let process = pending.process;
        let answer = match &pending.op {
            Op::Next => Some(self.next_event(process)),
            Op::Slot => Some(Answer::Slot(self.source.confirmed)),
            Op::Stream(from) => {
                let stream = Replication::begin(&self.source, *from, self.setup.tables);
                if let Some(agent) = self
                    .agents
                    .iter_mut()
                    .find(|agent| agent.process == process)
                {
                    agent.stream = Some(stream);
                }
                Some(Answer::Done)
            }
            op => {
                self.steps += 1;
                let fate = self.fate();
                self.trace
                    .line(format_args!("{process} {} {fate:?}", Words(op)));
                let op = op.clone();
                self.complete(process, op, fate)?
            }
        };
        match answer {
            Some(answer) => {
                self.calls.answer(pending, answer);
                self.go_on(process)?;
            }
            // functions/ddl is at work for it.
            None => self.invoke(pending)?,
        }
        Ok(true)
    }

    fn fate(&mut self) -> Fate {
        match self
            .choices
            .fault(self.setup.failing)
            .map(|drawn| drawn % 3)
        {
            None => Fate::Done,
            Some(0) => Fate::DoneInSilence,
            Some(1) => Fate::Refused,
            Some(_) => Fate::Late,
        }
    }

    /// Lets a call happen or not; `None` if its answer comes later.
    fn complete(
        &mut self,
        process: ProcessId,
        op: Op,
        fate: Fate,
    ) -> Result<Option<Answer>, String> {
        let silence = silence(&op);
        match (fate, silence) {
            (Fate::Done, _) if matches!(op, Op::Invoke(_)) => Ok(None),
            (Fate::Done, _) => self.happen(process, op).map(Some),
            // A read has no outcome but its answer.
            (_, None) | (Fate::Refused, _) => Ok(Some(Answer::Failed)),
            (Fate::DoneInSilence, Some(silence)) => {
                let _untold = self.happen(process, op)?;
                Ok(Some(silence))
            }
            (Fate::Late, Some(silence)) => {
                self.late.push(op);
                Ok(Some(silence))
            }
        }
    }

    /// A call happens.
    fn happen(&mut self, process: ProcessId, op: Op) -> Result<Answer, String> {
        Ok(match op {
            Op::Get(key) => Answer::Object(now(self.store.get(&key)).unwrap_or_default()),
            Op::PutNew(key, body) if self.late_overwrites && process == ProcessId::MAX => {
                drop(now(self.store.put(&key, body)));
                Answer::Done
            }
            Op::PutNew(key, body) => {
                let outcome = now(self.store.put_if_absent(&key, body));
                Answer::Put(outcome.unwrap_or(PutOutcome::Unknown))
            }
            Op::Put(key, body) => {
                drop(now(self.store.put(&key, body)));
                Answer::Done
            }
            Op::List(prefix, after, limit) => {
                match now(self.store.list_page(&prefix, after.as_deref(), limit)) {
                    Ok(page) => Answer::Page(page),
                    Err(_) => Answer::Failed,
                }
            }
            Op::Delete(key) => {
                drop(now(self.store.delete(&key)));
                Answer::Done
            }
            Op::Pointer(table) => {
                Answer::Pointer(now(self.catalog.pointer(&table)).unwrap_or_default())
            }
            Op::Create(table, location, metadata) => {
                let outcome = now(self.catalog.create(&table, &location, &metadata));
                if matches!(outcome, Ok(CreateOutcome::Created)) {
                    self.heads.insert(table, metadata);
                }
                Answer::Created(outcome.unwrap_or(CreateOutcome::Unknown))
            }
            Op::Swap(table, from, location, metadata) => {
                match now(self.catalog.swap(&table, &from, &location, &metadata)) {
                    Ok(SwapOutcome::Swapped) => {
                        self.look_at(&table, &metadata)?;
                        self.heads.insert(table, metadata);
                        Answer::Swapped(SwapOutcome::Swapped)
                    }
                    Ok(outcome) => Answer::Swapped(outcome),
                    Err(_) => Answer::Failed,
                }
            }
            Op::Send(body, delay_seconds) => {
                let visible_ms = self.clock.now_ms() + i64::from(delay_seconds) * 1000;
                self.event_source.queue.push(Message { body, visible_ms });
                Answer::Done
            }
            Op::Invoke(payload) => {
                self.begin_ddl(payload)?;
                Answer::Done
            }
            other => self.happen_at_the_broker(process, &other)?,
        })
    }

    fn happen_at_the_broker(&mut self, process: ProcessId, op: &Op) -> Result<Answer, String> {
        Ok(match op {
            Op::Fence => {
                let session = self.log().fence();
                if let Some(agent) = self
                    .agents
                    .iter_mut()
                    .find(|agent| agent.process == process)
                {
                    agent.session = Some(session);
                }
                Answer::Session(session)
            }
            Op::Progress(topic) => match self.log().progress("shop", topic) {
                Some(progress) => Answer::Progress(Box::new(progress)),
                None => return Err("the progress topic cannot be read".to_owned()),
            },
            Op::Deliver(session) => {
                let mut log = self.log();
                if log.is_dead(*session) {
                    Answer::Fenced
                } else {
                    log.flush(*session, usize::MAX);
                    Answer::Done
                }
            }
            Op::Commit(session) => {
                if self.log().commit(*session) {
                    Answer::Done
                } else {
                    Answer::Fenced
                }
            }
            Op::Abort(session) => {
                self.log().end(*session);
                Answer::Done
            }
            _ => Answer::Done,
        })
    }

    fn look_at(&mut self, table: &TableName, metadata: &TableMetadata) -> Result<(), String> {
        let number = table.table.strip_prefix("public__t");
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            return Ok(());
        };
        self.model.committed(number, metadata, &self.store)
    }

    fn invoke(&mut self, pending: Pending) -> Result<(), String> {
        let Op::Invoke(payload) = pending.op.clone() else {
            return Ok(());
        };
        let process = self.ddl_process();
        self.callers.insert(process, pending);
        self.run_ddl(process, payload)
    }

    fn begin_ddl(&mut self, payload: Vec<u8>) -> Result<(), String> {
        let process = self.ddl_process();
        self.run_ddl(process, payload)
    }

    fn ddl_process(&mut self) -> ProcessId {
        let warm = self.warm_process(|program| matches!(program, Program::Ddl(_)));
        warm.unwrap_or_else(|| self.new_ddl())
    }

    fn run_ddl(&mut self, process: ProcessId, payload: Vec<u8>) -> Result<(), String> {
        let Program::Ddl(ddl) = self.processes[process].program.clone() else {
            return Ok(());
        };
        self.trace.line(format_args!("ddl {process}"));
        self.processes[process].begin(Box::pin(
            async move { Ended::Ddl(ddl.handle(&payload).await) },
        ));
        self.go_on(process)
    }

    /// What the agent's loop meets next.
    fn next_event(&mut self, process: ProcessId) -> Answer {
        let drawn = self.choices.below(Stream::Schedule, 100);
        let status = self.choices.chance(Stream::Schedule, 50);
        let Some(agent) = self
            .agents
            .iter_mut()
            .find(|agent| agent.process == process)
        else {
            return Answer::Failed;
        };
        if status {
            self.source.confirmed = self.source.confirmed.max(agent.acknowledger.acknowledged());
        }
        let frame = match &mut agent.stream {
            Some(stream) if drawn < 80 => stream.next(&self.source).or_else(|| {
                (drawn < 20 && stream.is_at_end(&self.source)).then(|| Frame::KeepAlive {
                    wal_end: self.source.end(),
                    reply_requested: false,
                })
            }),
            Some(_) | None => None,
        };
        Answer::Event(match (frame, drawn) {
            (Some(frame), _) => Event::Frame(frame),
            (None, ..90) => Event::Deadline,
            (None, 90..95) => Event::SayPosition,
            (None, 95..99) => Event::LookForSuccessor,
            (None, _) => Event::Stop,
        })
    }

    /// The broker does what it does by itself: takes records in, writes a marker.
    pub(crate) fn broker_works(&mut self) -> bool {
        let records = self.choices.index(Stream::Schedule, 4);
        let mut log = self.log();
        if records == 0 {
            return log.write_marker();
        }
        let current = log.current();
        current.is_some_and(|session| log.flush(session, records) > 0) || log.write_marker()
    }

    /// A write that nobody was told of lands.
    pub(crate) fn late_lands(&mut self) -> Result<bool, String> {
        if self.late.is_empty() {
            return Ok(false);
        }
        let place = self.choices.index(Stream::Schedule, self.late.len());
        let op = self.late.swap_remove(place);
        self.trace.line(format_args!("late {}", Words(&op)));
        let _untold = self.happen(ProcessId::MAX, op)?;
        Ok(true)
    }

    /// What dropped calls come to: nothing, or it happened, or it will.
    pub(crate) fn settle_abandoned(&mut self) -> Result<(), String> {
        for (process, op) in self.calls.abandoned() {
            if silence(&op).is_none() {
                continue;
            }
            let becomes = self.choices.below(Stream::Schedule, 3);
            self.trace
                .line(format_args!("{process} leaves {} {becomes}", Words(&op)));
            match becomes {
                0 => {}
                1 => drop(self.happen(process, op)?),
                _ => self.late.push(op),
            }
        }
        Ok(())
    }

    /// Another engine commits to a table: a property, and in every other case a snapshot of the same files.
    pub(crate) fn foreign_commit(&mut self) -> Result<(), String> {
        let number = self.choices.index(Stream::Schedule, self.setup.tables);
        let table = TableName {
            database: "lake".to_owned(),
            table: format!("public__t{number}"),
        };
        let Some(metadata) = self.heads.get(&table).cloned() else {
            return Ok(());
        };
        let Some(pointer) = now(self.catalog.pointer(&table)).unwrap_or_default() else {
            return Ok(());
        };
        let before = pointer.metadata_location.trim_end_matches(".metadata.json");
        let location = format!("{before}-foreign.metadata.json");
        let properties = HashMap::from([("owner".to_owned(), self.steps.to_string())]);
        let builder = metadata
            .as_ref()
            .clone()
            .into_builder(Some(pointer.metadata_location.clone()));
        let head = metadata.current_snapshot();
        let head = head.filter(|_| self.choices.chance(Stream::Schedule, 50));
        let builder = match head {
            Some(head) => {
                builder.set_branch_snapshot(self.same_files(&metadata, head), MAIN_BRANCH)
            }
            None => Ok(builder),
        };
        let built = builder
            .and_then(|builder| builder.set_properties(properties))
            .and_then(iceberg::spec::TableMetadataBuilder::build)
            .map_err(|error| error.to_string())?;
        let body = serde_json::to_vec(&built.metadata).map_err(|error| error.to_string())?;
        let key = location
            .trim_start_matches(crate::ports::URI_PREFIX)
            .to_owned();
        drop(now(self.store.put(&key, body.into())));
        let metadata = Arc::new(built.metadata);
        drop(now(self
            .catalog
            .swap(&table, &pointer, &location, &metadata)));
        self.heads.insert(table, metadata);
        Ok(())
    }
}

impl World {
    /// What another engine's snapshot looks like that added nothing: no state of ours in its summary.
    fn same_files(&self, metadata: &TableMetadata, head: &Snapshot) -> Snapshot {
        let summary = Summary {
            operation: Operation::Replace,
            additional_properties: HashMap::new(),
        };
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.ids.next_snapshot_id())
            .with_parent_snapshot_id(Some(head.snapshot_id()))
            .with_sequence_number(metadata.next_sequence_number())
            .with_timestamp_ms(self.clock.now_ms().max(metadata.last_updated_ms()))
            .with_manifest_list(head.manifest_list())
            .with_schema_id(metadata.current_schema_id())
            .with_summary(summary);
        match head.row_range() {
            Some(_) => snapshot.with_row_range(metadata.next_row_id(), 0).build(),
            None => snapshot.build(),
        }
    }
}

/// What a caller sees that is not told: `None` if the call is a read.
fn silence(op: &Op) -> Option<Answer> {
    Some(match op {
        Op::Get(_) | Op::List(..) | Op::Pointer(_) | Op::Progress(_) => return None,
        Op::Slot | Op::Stream(_) | Op::Next => return None,
        Op::PutNew(..) => Answer::Put(PutOutcome::Unknown),
        Op::Create(..) => Answer::Created(CreateOutcome::Unknown),
        Op::Swap(..) => Answer::Swapped(SwapOutcome::Unknown),
        Op::Put(..) | Op::Delete(_) | Op::Invoke(_) | Op::Send(..) => Answer::Failed,
        Op::Fence | Op::Deliver(_) | Op::Commit(_) | Op::Abort(_) => Answer::Failed,
    })
}

/// A call in words.
struct Words<'a>(&'a Op);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Op::Get(key) => write!(f, "get {key}"),
            Op::PutNew(key, _) => write!(f, "create {key}"),
            Op::Put(key, _) => write!(f, "put {key}"),
            Op::List(prefix, ..) => write!(f, "list {prefix}"),
            Op::Delete(key) => write!(f, "delete {key}"),
            Op::Pointer(table) => write!(f, "pointer {table}"),
            Op::Create(table, location, _) => write!(f, "create {table} at {location}"),
            Op::Swap(table, from, location, _) => {
                write!(f, "swap {table} from {} to {location}", from.version.0)
            }
            Op::Invoke(_) => write!(f, "invoke"),
            Op::Send(body, seconds) => write!(f, "send {body} in {seconds} s"),
            Op::Fence => write!(f, "fence"),
            Op::Progress(topic) => write!(f, "read {topic}"),
            Op::Deliver(session) => write!(f, "deliver {session}"),
            Op::Commit(session) => write!(f, "commit transaction of {session}"),
            Op::Abort(session) => write!(f, "abort {session}"),
            Op::Slot | Op::Stream(_) | Op::Next => write!(f, "source"),
        }
    }
}
