//! What an error of Glue means for the call that it answers.
//!
//! # Invariants
//! - Only answers on the list of refusals mean "not done". Whatever is not on it is [`Answer::Unknown`].
//!
//! # Source
//! AWS Glue Web API, "UpdateTable", "CreateTable", "Common Errors".

use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The version compared is no longer the table's.
    Conflict,
    /// There is a table of this name.
    Exists,
    /// Not done, and it will not be done if tried again.
    Refused,
    /// Not done; later it may be.
    Throttled,
    /// It may have been done.
    Unknown,
}

/// The meaning of an error.
pub(crate) fn classify<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Answer {
    match error {
        // Never left this process.
        SdkError::ConstructionFailure(_) => Answer::Refused,
        SdkError::ServiceError(answer) => by_code(answer.err().code()),
        // Sent or perhaps sent, and no answer that can be read.
        _ => Answer::Unknown,
    }
}

fn by_code(code: Option<&str>) -> Answer {
    match code {
        Some("ConcurrentModificationException") => Answer::Conflict,
        Some("AlreadyExistsException") => Answer::Exists,
        Some(
            "AccessDeniedException"
            | "EntityNotFoundException"
            | "InvalidInputException"
            | "ValidationException"
            | "NotAuthorized"
            | "OptInRequired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "IncompleteSignature"
            | "InvalidSignatureException"
            | "ResourceNumberLimitExceededException",
        ) => Answer::Refused,
        Some(
            "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            // The credentials are renewed by the next call.
            | "ExpiredTokenException"
            | "RequestExpired",
        ) => Answer::Throttled,
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_codes_mean_not_done() {
        let meanings = [
            (Some("ConcurrentModificationException"), Answer::Conflict),
            (Some("AlreadyExistsException"), Answer::Exists),
            (Some("AccessDeniedException"), Answer::Refused),
            (Some("InvalidInputException"), Answer::Refused),
            (Some("EntityNotFoundException"), Answer::Refused),
            (Some("ThrottlingException"), Answer::Throttled),
            (Some("InternalServiceException"), Answer::Unknown),
            (Some("OperationTimeoutException"), Answer::Unknown),
            (Some("FederationSourceException"), Answer::Unknown),
            (Some("SomethingNew"), Answer::Unknown),
            (None, Answer::Unknown),
        ];
        for (code, meaning) in meanings {
            assert_eq!(by_code(code), meaning, "{code:?}");
        }
        let timed_out: SdkError<aws_sdk_glue::operation::update_table::UpdateTableError> =
            SdkError::timeout_error("no answer");
        assert_eq!(classify(&timed_out), Answer::Unknown);
    }
}
