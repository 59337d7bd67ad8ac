//! Logs as JSON lines on standard error, and the last word of the process.

use std::io::Write as _;
use std::process::ExitCode;

use change_event::Disposition;
use tracing_subscriber::EnvFilter;

use crate::error::AgentError;
use crate::supervisor::in_words;

/// Exit code when a person is needed.
const EXIT_HALT: u8 = 2;
/// Exit code of any other failure.
const EXIT_FAILURE: u8 = 1;

/// Starts logging; `RUST_LOG` chooses what is logged.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Says on standard error why the process ends, and with which exit code.
#[must_use]
pub fn failed(error: &AgentError) -> ExitCode {
    // There is nowhere to say that standard error is closed.
    drop(writeln!(std::io::stderr(), "{}", in_words(error)));
    match error.disposition() {
        Disposition::Halt => ExitCode::from(EXIT_HALT),
        Disposition::Retry
        | Disposition::Refresh
        | Disposition::Verify
        | Disposition::Quarantine => ExitCode::from(EXIT_FAILURE),
    }
}
