//! One request: create, register, evolve.

use change_event::Disposition;
use function_kit::failure::{INVALID_EVENT, UNKNOWN_SUBJECT};
use function_kit::{DdlRequest, DdlResponse, Failure, Metric, Metrics, Registry, RegistryError};
use table_commit::{CommitError, Committer, TableName};

/// The function, with its ports.
#[derive(Debug)]
pub struct Ddl {
    registry: Registry,
    committer: Committer,
    metrics: Metrics,
}

impl Ddl {
    /// A function over these ports.
    #[must_use]
    pub fn new(registry: Registry, committer: Committer, metrics: Metrics) -> Self {
        Self {
            registry,
            committer,
            metrics,
        }
    }

    /// Answers one event, `{"topic":…,"target_version":…}`.
    ///
    /// # Errors
    /// [`Failure`], its type by what may be done: `InvalidEvent`, `UnknownSubject`, or the disposition's.
    pub async fn handle(&self, payload: &[u8]) -> Result<DdlResponse, Failure> {
        let request: DdlRequest =
            serde_json::from_slice(payload).map_err(|error| Failure::of(INVALID_EVENT, &error))?;
        self.apply(&request).await
    }

    async fn apply(&self, request: &DdlRequest) -> Result<DdlResponse, Failure> {
        let DdlRequest {
            topic,
            target_version,
        } = request;
        let registration = self
            .registry
            .registration(topic)
            .await
            .map_err(unread)?
            .ok_or_else(|| {
                Failure::new(UNKNOWN_SUBJECT, format!("no agent announced topic {topic}"))
            })?;
        let document = self
            .registry
            .document(&registration, *target_version)
            .await
            .map_err(unread)?
            .ok_or_else(|| {
                let words =
                    format!("schema version {target_version} of topic {topic} was never published");
                Failure::new(UNKNOWN_SUBJECT, words)
            })?;
        let table = self
            .committer
            .ensure_table(&registration, &document)
            .await
            .map_err(failed)?;
        let before = table.state.schema_version;
        if before >= *target_version {
            return Ok(DdlResponse {
                schema_version: before,
            });
        }
        let name: &TableName = &table.name;
        let schema_version = self
            .committer
            .evolve(name, &document)
            .await
            .map_err(failed)?;
        tracing::info!(topic = %topic, table = %name, from = before, to = schema_version, "table schema changed");
        self.metrics
            .count(topic, &[(Metric::SchemaChangesTotal, 1)]);
        Ok(DdlResponse { schema_version })
    }
}

fn unread(error: RegistryError) -> Failure {
    Failure::with_disposition(error.disposition(), &error)
}

fn failed(error: CommitError) -> Failure {
    let disposition: Disposition = error.disposition();
    Failure::with_disposition(disposition, &error)
}
