//! The port by which one function calls another and waits, and its Lambda adapter.
//!
//! # Invariants
//! - A callee that failed is an error here, although Lambda answers 200 (`FunctionError`).
//! - Callees are idempotent, so an unknown outcome is safe to repeat; it is still reported as unknown.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::SdkError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use change_event::Disposition;
use serde::Deserialize;

/// Why a function gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// It ran and failed.
    #[error("function {function} failed with {error_type}: {message}")]
    Failed {
        /// Its name.
        function: String,
        /// The type that it gave its failure.
        error_type: String,
        /// Its words.
        message: String,
    },
    /// Lambda refused the call.
    #[error("function {function} cannot be invoked")]
    Refused {
        /// Its name.
        function: String,
        /// What Lambda said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer came: it may have run.
    #[error("function {function} gave no answer")]
    Unknown {
        /// Its name.
        function: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

fn is_halted(error_type: &str) -> bool {
    error_type == crate::failure::HALTED || error_type == crate::failure::UNKNOWN_SUBJECT
}

impl InvokeError {
    /// What may be done.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Failed { error_type, .. } if is_halted(error_type) => Disposition::Halt,
            // Which refusal it was (throttled, no such function, no permission) is for the alarm; a batch that comes again is
            // right for the first and harmless for the others.
            Self::Failed { .. } | Self::Refused { .. } => Disposition::Retry,
            Self::Unknown { .. } => Disposition::Verify,
        }
    }
}

/// Calls a function and waits for its answer.
#[async_trait]
pub trait FunctionInvoker: Debug + Send + Sync {
    /// The answer's bytes.
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError>;
}

/// [`FunctionInvoker`] on Lambda.
#[derive(Debug, Clone)]
pub struct LambdaInvoker {
    client: Client,
}

impl LambdaInvoker {
    /// An invoker with this configuration.
    #[must_use]
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }
}

/// The error object that Lambda returns as the payload.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ErrorPayload {
    error_type: String,
    error_message: String,
}

#[async_trait]
impl FunctionInvoker for LambdaInvoker {
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        let answer = self
            .client
            .invoke()
            .function_name(function)
            .invocation_type(InvocationType::RequestResponse)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(|error| classify(function, error))?;
        let failed = answer.function_error.is_some();
        let body = answer.payload.map(Blob::into_inner).unwrap_or_default();
        if failed {
            let error: ErrorPayload = serde_json::from_slice(&body).unwrap_or_default();
            return Err(InvokeError::Failed {
                function: function.to_owned(),
                error_type: error.error_type,
                message: error.error_message,
            });
        }
        Ok(body)
    }
}

fn classify<E, R>(function: &str, error: SdkError<E, R>) -> InvokeError
where
    E: Error + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    let function = function.to_owned();
    let refused = matches!(
        error,
        SdkError::ServiceError(_) | SdkError::ConstructionFailure(_)
    );
    let source = Box::new(error);
    if refused {
        InvokeError::Refused { function, source }
    } else {
        InvokeError::Unknown { function, source }
    }
}
