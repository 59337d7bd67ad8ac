//! `check`: everything that would stop `run`, at once and without changing anything.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use change_event::layout;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use source_postgres::Catalog;

use crate::config::Config;
use crate::error::AgentError;
use crate::kafka::client_config;
use crate::source::{capture_request, connect_options, start_problems};
use crate::store;
use crate::supervisor::in_words;

/// Longest wait for the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the file, the source, the broker and the bucket.
///
/// # Errors
/// [`AgentError::Config`] or [`AgentError::Preflight`] with every problem.
pub async fn run(path: &Path) -> Result<(), AgentError> {
    let config = Config::load(path)?;
    let mut problems = Vec::new();
    match source_problems(&config).await {
        Ok(found) => problems.extend(found),
        Err(error) => problems.push(in_words(&error)),
    }
    if let Err(error) = ask_broker(&config).await {
        problems.push(in_words(&error));
    }
    let mark = layout::slot_mark(&config.source.name);
    if let Err(error) = store::open(&config).await.get(&mark).await {
        problems.push(in_words(&error.into()));
    }
    if problems.is_empty() {
        // There is nowhere to say that standard output is closed.
        drop(writeln!(std::io::stdout(), "no problem found"));
        Ok(())
    } else {
        Err(AgentError::Preflight(problems))
    }
}

async fn source_problems(config: &Config) -> Result<Vec<String>, AgentError> {
    let mut catalog = Catalog::connect(&connect_options(config)).await?;
    Ok(start_problems(config, &mut catalog, &capture_request(config)).await?)
}

async fn ask_broker(config: &Config) -> Result<(), AgentError> {
    let client = client_config(&config.kafka);
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().map_err(|source| AgentError::Kafka {
            operation: "create consumer",
            source,
        })?;
        consumer
            .fetch_metadata(None, BROKER_TIMEOUT)
            .map_err(|source| AgentError::Kafka {
                operation: "fetch metadata",
                source,
            })?;
        Ok(())
    })
    .await?
}
