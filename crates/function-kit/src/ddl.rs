//! What is said to functions/ddl and what it answers: the words that ingest, commit and ddl share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::invoke::{FunctionInvoker, InvokeError};

/// "See that the table of this topic is there and holds this schema version."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DdlRequest {
    /// The topic.
    pub topic: String,
    /// The version that somebody needs.
    pub target_version: u32,
}

/// The table is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlResponse {
    /// The version that it holds: the one asked for, or a newer one.
    pub schema_version: u32,
}

/// The message that asks functions/commit to look at a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombineRequest {
    /// The topic that feeds it.
    pub topic: String,
}

/// Calls functions/ddl and waits.
#[derive(Debug, Clone)]
pub struct DdlClient {
    invoker: Arc<dyn FunctionInvoker>,
    function: String,
}

impl DdlClient {
    /// A client of the function of this name.
    #[must_use]
    pub fn new(invoker: Arc<dyn FunctionInvoker>, function: String) -> Self {
        Self { invoker, function }
    }

    /// Has the table of `topic` made, or brought to `target_version`. Gives the version that it holds then.
    ///
    /// # Errors
    /// Those of [`FunctionInvoker::invoke`]; an answer that cannot be read, or is older than what was asked for, is
    /// [`InvokeError::Failed`].
    pub async fn request(&self, topic: &str, target_version: u32) -> Result<u32, InvokeError> {
        let request = DdlRequest {
            topic: topic.to_owned(),
            target_version,
        };
        let failed = |message: String| InvokeError::Failed {
            function: self.function.clone(),
            error_type: "UnreadableAnswer".to_owned(),
            message,
        };
        let payload = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
        let answer = self.invoker.invoke(&self.function, payload).await?;
        let answer: DdlResponse =
            serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
        if answer.schema_version < target_version {
            return Err(failed(format!(
                "version {} instead of {target_version}",
                answer.schema_version
            )));
        }
        Ok(answer.schema_version)
    }
}
