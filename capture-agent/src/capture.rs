//! The loop of a session: the stream and the clock, which say when a frame is handled and when a transaction ends.
//!
//! Flow: replication stream -> **here** -> `frames`.
//!
//! # Invariants
//! - A transaction ends at its deadline, also while frames come without a pause.
//! - A session that is to stop commits what was handed over before it gives the stream up.

use std::time::Duration;

use source_postgres::ReplicationStream;
use tokio::time::Instant;

use crate::asks::{Ask, Asks};
use crate::context::Context;
use crate::error::AgentError;
use crate::frames::Frames;
use crate::progress::Progress;
use crate::status::AgentState;

/// Frames handled between two looks at the clock.
const FRAMES_PER_CLOCK: u32 = 64;
/// How often an idle session looks whether a successor claimed an epoch: one read of one object.
const OWNERSHIP_INTERVAL: Duration = Duration::from_secs(10);

/// How often a position without rows of ours is committed and acknowledged, while the log moves on.
const IDLE_POSITION_INTERVAL: Duration = Duration::from_secs(2);

/// Why the loop ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The agent is to stop; everything handed over is committed and acknowledged.
    Stopped,
}

/// A session that streams.
#[derive(Debug)]
pub struct Capture {
    /// The agent's surroundings.
    pub context: Context,
    /// What becomes of its frames.
    pub frames: Frames,
    /// Epoch of the session.
    pub epoch: u64,
    /// Where every topic stood when the session began, for a table that is taken in later.
    pub progress: Progress,
    /// What the copier asks.
    pub asks: Asks,
}

impl Capture {
    /// Runs until the agent is to stop.
    ///
    /// # Errors
    /// Whatever ended the session; its disposition says whether another one is begun.
    pub async fn run(&mut self, mut stream: ReplicationStream) -> Result<Ended, AgentError> {
        let mut next_look = Instant::now() + OWNERSHIP_INTERVAL;
        let mut next_say = Instant::now() + IDLE_POSITION_INTERVAL;
        let mut successor = self.epoch + 1;
        self.context
            .status
            .update(|snapshot| snapshot.state = AgentState::Streaming);
        loop {
            let ended = self.handle_buffered(&mut stream).await?;
            if ended || self.context.is_stopping() {
                break;
            }
            self.answer_all().await?;
            // Nothing is buffered: wait for a frame, the end of the transaction, or the signal to stop.
            let unsaid = self.frames.outbox().has_unsaid();
            let idle = if unsaid {
                next_say.min(next_look)
            } else {
                next_look
            };
            let wake = self.frames.outbox().deadline().unwrap_or(idle);
            let mut stopping = self.context.clone();
            tokio::select! {
                biased;
                () = stopping.stopping() => break,
                frame = stream.next() => self.frames.handle(frame?).await?,
                ask = self.asks.next() => self.answer(ask).await?,
                () = tokio::time::sleep_until(wake) => {
                    if self.frames.outbox().is_open() {
                        self.frames.commit().await?;
                    } else if unsaid && Instant::now() >= next_say {
                        self.frames.say_position().await?;
                        next_say = Instant::now() + IDLE_POSITION_INTERVAL;
                    } else {
                        successor = self.frames.look_for_successor(successor).await?;
                        next_look = Instant::now() + OWNERSHIP_INTERVAL;
                    }
                }
            }
        }
        self.context
            .status
            .update(|snapshot| snapshot.state = AgentState::Stopping);
        self.frames.commit().await?;
        if self.frames.outbox().has_unsaid() {
            self.frames.say_position().await?;
        }
        stream.stop().await;
        Ok(Ended::Stopped)
    }

    /// Handles all frames that are here; gives true if the agent is to stop meanwhile.
    async fn handle_buffered(
        &mut self,
        stream: &mut ReplicationStream,
    ) -> Result<bool, AgentError> {
        let mut frames = 0u32;
        while let Some(frame) = stream.try_next_buffered()? {
            self.frames.handle(frame).await?;
            frames += 1;
            if frames.is_multiple_of(FRAMES_PER_CLOCK) {
                if self
                    .frames
                    .outbox()
                    .deadline()
                    .is_some_and(|deadline| Instant::now() >= deadline)
                {
                    self.frames.commit().await?;
                }
                self.answer_all().await?;
                if self.context.is_stopping() {
                    return Ok(true);
                }
            }
        }
        if self
            .frames
            .outbox()
            .deadline()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.frames.commit().await?;
        }
        Ok(false)
    }

    /// Answers what the copier asked, and tells it how far the stream is.
    async fn answer_all(&mut self) -> Result<(), AgentError> {
        while let Some(ask) = self.asks.try_next() {
            self.answer(ask).await?;
        }
        self.asks.passed(self.frames.outbox().reached().end_lsn);
        Ok(())
    }

    /// Answers one question; who asked may be gone.
    async fn answer(&mut self, ask: Ask) -> Result<(), AgentError> {
        match ask {
            Ask::Passed { lsn, done } => self.asks.wait(lsn, done),
            Ask::TakeIn {
                name,
                registration,
                done,
            } => {
                let (frames, progress) = (&mut self.frames, &self.progress);
                let lane = frames.take_in(name, *registration, progress).await?;
                let _asker_gone = done.send(lane);
            }
            Ask::Document {
                oid,
                observed,
                position,
                done,
            } => drop(done.send(self.frames.document(oid, observed, position).await?)),
            Ask::Announce { manifest, done } => {
                self.frames.announce(&manifest).await?;
                let _asker_gone = done.send(());
            }
        }
        Ok(())
    }
}
