//! How a handler says that it failed as a whole, so that alarms and retry records can be read.

use std::error::Error;

use change_event::Disposition;
use lambda_runtime::Diagnostic;

/// Type of a failure that comes again until a person has looked.
pub const HALTED: &str = "Halted";
/// Type of a failure of an event that no firn function takes.
pub const INVALID_EVENT: &str = "InvalidEvent";
/// Type of a failure of a topic that no agent announced, or a schema version that none published.
pub const UNKNOWN_SUBJECT: &str = "UnknownSubject";

/// A failed invocation: a stable type for alarms, and words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_type}: {message}")]
pub struct Failure {
    /// Stable name: `TableHalted`, `InvalidEvent`, …
    pub error_type: &'static str,
    /// What happened, with all causes.
    pub message: String,
}

impl Failure {
    /// A failure in plain words.
    #[must_use]
    pub fn new(error_type: &'static str, message: impl Into<String>) -> Self {
        Self {
            error_type,
            message: message.into(),
        }
    }

    /// A failure whose type says what may be done about it.
    #[must_use]
    pub fn with_disposition(disposition: Disposition, error: &(dyn Error + 'static)) -> Self {
        Self::of(error_type(disposition), error)
    }

    /// A failure from an error, with the chain of its causes.
    #[must_use]
    pub fn of(error_type: &'static str, error: &(dyn Error + 'static)) -> Self {
        Self {
            error_type,
            message: chain(error),
        }
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self {
            error_type: failure.error_type.to_owned(),
            error_message: failure.message,
        }
    }
}

/// The stable name of a disposition, for callers and alarms.
#[must_use]
pub const fn error_type(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Retry => "Unavailable",
        Disposition::Refresh => "RaceLost",
        Disposition::Verify => "OutcomeUnknown",
        Disposition::Quarantine => "BadRecord",
        Disposition::Halt => HALTED,
    }
}

/// An error and its causes in one line, outermost first.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = source.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn causes_are_told_and_the_type_is_kept() {
        let cause = "x".parse::<i32>().expect_err("no number");
        let diagnostic = Diagnostic::from(Failure::of("OuterFailed", &Outer(cause)));
        assert_eq!(diagnostic.error_type, "OuterFailed");
        assert_eq!(
            diagnostic.error_message,
            "outer: invalid digit found in string"
        );
    }
}
