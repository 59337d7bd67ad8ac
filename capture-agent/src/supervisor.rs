//! Begins one session after the other until the agent is told to stop or a person is needed.
//!
//! # Invariants
//! - `Retry`, `Refresh` and `Verify` begin a new session after a pause that grows and has a bound; `Halt` ends the agent.

use std::error::Error as _;
use std::time::Duration;

use change_event::Disposition;

use crate::capture::Ended;
use crate::context::Context;
use crate::error::AgentError;
use crate::status::AgentState;
use crate::{http, monitor, session};

/// Pause before the second session.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause: a source or a broker that comes back is found within five seconds, and one that is away is not pestered.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Runs the agent.
///
/// # Errors
/// What needs a person (Halt).
pub async fn run(context: Context) -> Result<(), AgentError> {
    http::serve(context.clone()).await?;
    let mut watching = tokio::spawn(monitor::watch(context.clone()));
    let ended = tokio::select! {
        ended = supervise(&context) => ended,
        // Without it the slot's safety would stay as it was seen last: a defect there ends the agent like one here.
        watched = &mut watching => match watched {
            Ok(never) => match never {},
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
    };
    watching.abort();
    ended
}

async fn supervise(context: &Context) -> Result<(), AgentError> {
    let mut pause = PAUSE_MIN;
    loop {
        let error = match session::run(context).await {
            Ok(Ended::Stopped) => return Ok(()),
            Err(error) => error,
        };
        let words = in_words(&error);
        match error.disposition() {
            Disposition::Retry | Disposition::Refresh | Disposition::Verify => {}
            Disposition::Halt | Disposition::Quarantine => {
                tracing::error!(error = words, "halted: this needs a person");
                context.status.update(|snapshot| {
                    snapshot.state = AgentState::Halted;
                    snapshot.last_error = Some(words);
                });
                return Err(error);
            }
        }
        // A session that streamed was healthy, however short it was: the next failure starts with the shortest pause.
        if context.status.snapshot().state == AgentState::Streaming {
            pause = PAUSE_MIN;
        }
        tracing::warn!(
            error = words,
            pause_ms = pause.as_millis(),
            "session ended; another one follows"
        );
        context.status.update(|snapshot| {
            snapshot.state = AgentState::Waiting;
            snapshot.last_error = Some(words);
        });
        let mut stopping = context.clone();
        tokio::select! {
            () = stopping.stopping() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// An error with all that lies under it.
#[must_use]
pub fn in_words(error: &AgentError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Some errors print their source themselves.
        if !words.ends_with(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        source = error.source();
    }
    words
}
