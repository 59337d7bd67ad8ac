//! What the copier asks of the loop that streams: only the loop writes to topics, and only it knows how far the stream is.
//!
//! Flow: `copier`, in a task of its own -> **[`Port`] … [`Asks`]** -> `capture`, between two frames.
//!
//! # Invariants
//! - An answer is given after what was asked for is done; a loop that ended answers nothing, and the copier ends.

use change_event::evolution::ObservedTable;
use change_event::{Lsn, Position, SourceSchema, TopicRegistration};
use tokio::sync::{mpsc, oneshot};

use crate::copy::CopyManifest;
use crate::error::AgentError;
use crate::tables::CapturedName;

/// The loop has ended.
const ENDED: AgentError = AgentError::StreamOrder {
    what: "a question to a session that has ended",
};

/// One question.
#[derive(Debug)]
pub enum Ask {
    /// Put the changes of a table on its topic from now on; the answer is its lane.
    TakeIn {
        /// The table.
        name: CapturedName,
        /// Its topic.
        registration: Box<TopicRegistration>,
        /// Told its lane.
        done: oneshot::Sender<usize>,
    },
    /// Say when every change that was committed before `lsn` is handed over.
    Passed {
        /// The position.
        lsn: Lsn,
        /// Told then.
        done: oneshot::Sender<()>,
    },
    /// The document for the shape of a captured table.
    Document {
        /// Number of the table.
        oid: u32,
        /// Its shape.
        observed: ObservedTable,
        /// Where it is seen.
        position: Position,
        /// Told the document, if the shape is not behind what the stream has come to.
        done: oneshot::Sender<Option<SourceSchema>>,
    },
    /// Announce a complete copy, in a Kafka transaction of its own.
    Announce {
        /// The copy.
        manifest: Box<CopyManifest>,
        /// Told once that is committed.
        done: oneshot::Sender<()>,
    },
}

/// The copier's side.
#[derive(Debug, Clone)]
pub struct Port(mpsc::UnboundedSender<Ask>);

/// The loop's side.
#[derive(Debug)]
pub struct Asks {
    receiver: mpsc::UnboundedReceiver<Ask>,
    passing: Vec<(Lsn, oneshot::Sender<()>)>,
}

/// Both sides.
#[must_use]
pub fn channel() -> (Port, Asks) {
    // The copier waits for each answer before it asks again.
    let (sender, receiver) = mpsc::unbounded_channel();
    let passing = Vec::new();
    (Port(sender), Asks { receiver, passing })
}

impl Port {
    /// Captures a table from now on; gives its lane.
    ///
    /// # Errors
    /// [`AgentError::StreamOrder`] once the session has ended; so do the others.
    pub async fn take_in(
        &self,
        name: CapturedName,
        registration: TopicRegistration,
    ) -> Result<usize, AgentError> {
        let registration = Box::new(registration);
        self.ask(|done| Ask::TakeIn {
            name,
            registration,
            done,
        })
        .await
    }

    /// Waits until every change that was committed before `lsn` is handed over.
    ///
    /// # Errors
    /// As [`Port::take_in`].
    pub async fn passed(&self, lsn: Lsn) -> Result<(), AgentError> {
        self.ask(|done| Ask::Passed { lsn, done }).await
    }

    /// The document for the shape of a captured table, published if it is new; `None` if the stream has come to a newer one.
    ///
    /// # Errors
    /// As [`Port::take_in`].
    pub async fn document(
        &self,
        oid: u32,
        observed: ObservedTable,
        position: Position,
    ) -> Result<Option<SourceSchema>, AgentError> {
        self.ask(|done| Ask::Document {
            oid,
            observed,
            position,
            done,
        })
        .await
    }

    /// Announces a complete copy; the position that the stream has reached must be behind it.
    ///
    /// # Errors
    /// As [`Port::take_in`].
    pub async fn announce(&self, manifest: CopyManifest) -> Result<(), AgentError> {
        let manifest = Box::new(manifest);
        self.ask(|done| Ask::Announce { manifest, done }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, AgentError> {
        let (done, told) = oneshot::channel();
        self.0.send(ask(done)).map_err(|_loop_ended| ENDED)?;
        told.await.map_err(|_loop_ended| ENDED)
    }
}

impl Asks {
    /// The next question; for ever pending if there is nobody to ask. Cancel safe.
    pub async fn next(&mut self) -> Ask {
        match self.receiver.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }

    /// The next question if there is one.
    pub fn try_next(&mut self) -> Option<Ask> {
        self.receiver.try_recv().ok()
    }

    /// Keeps a question about a position until [`Asks::passed`] answers it.
    pub fn wait(&mut self, lsn: Lsn, done: oneshot::Sender<()>) {
        self.passing.push((lsn, done));
    }

    /// Every change that was committed before `reached` is handed over.
    pub fn passed(&mut self, reached: Lsn) {
        if self.passing.iter().all(|(lsn, _done)| *lsn > reached) {
            return;
        }
        for (lsn, done) in std::mem::take(&mut self.passing) {
            if lsn > reached {
                self.passing.push((lsn, done));
            } else {
                // Who asked may be gone.
                let _asker_gone = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn position_is_passed_once_the_stream_is_there_and_not_before() {
        let (port, mut asks) = channel();
        let asking = tokio::spawn(async move { port.passed(Lsn(10)).await.is_ok() });
        let Ask::Passed { lsn, done } = asks.next().await else {
            panic!("another question");
        };
        asks.wait(lsn, done);
        asks.passed(Lsn(9));
        assert_eq!(asks.passing.len(), 1, "not there yet");
        asks.passed(Lsn(10));
        assert!(asking.await.unwrap());
    }

    #[tokio::test]
    async fn loop_that_ended_answers_nothing() {
        let (port, asks) = channel();
        drop(asks);
        assert!(port.passed(Lsn(1)).await.is_err());
    }
}
