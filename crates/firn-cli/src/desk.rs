//! Where the operator sits: the deployment's ports, who is meant by a name, and what was said.
//!
//! # Invariants
//! - What is printed names table, partition and position, never a row's values.

use change_event::TopicRegistration;
use function_kit::failure::chain;
use function_kit::{Registry, RegistryError};
use ingest::RebuildError;
use rdkafka::error::KafkaError;
use table_commit::{CommitError, Committer, Operator, TableName};

use crate::arguments::Change;

/// Why a command ended with nothing done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("no registered topic or table is called {name}; `firn status` lists them")]
    Unknown { name: String },
    #[error("version {version} of the source schema of {topic} was never published")]
    NoDocument { topic: String, version: u32 },
    #[error("say who you are: --by NAME")]
    Nobody,
    #[error(transparent)]
    Rebuild(Box<RebuildError>),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("the brokers have not answered for half a minute")]
    KafkaSilent,
    #[error("no topic {topic} at these brokers")]
    NoTopic { topic: String },
    #[error("environment variable {variable} is not set")]
    NoSecret { variable: String },
    #[error("records cannot be rendered")]
    Payload(#[source] serde_json::Error),
}

impl From<RebuildError> for CliError {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(Box::new(error))
    }
}

/// The deployment, and what the command has to say.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) registry: Registry,
    pub(crate) committer: Committer,
    pub(crate) now_ms: i64,
    pub(crate) user: Option<String>,
    said: Vec<String>,
    refused: bool,
}

impl Desk {
    pub(crate) const fn new(
        registry: Registry,
        committer: Committer,
        now_ms: i64,
        user: Option<String>,
    ) -> Self {
        Self {
            registry,
            committer,
            now_ms,
            user,
            said: Vec::new(),
            refused: false,
        }
    }

    /// One line of the answer.
    pub(crate) fn say(&mut self, line: impl Into<String>) {
        self.said.push(line.into());
    }

    /// What was asked for is not done, for this reason: the command ends with 1.
    pub(crate) fn refuse(&mut self, line: impl Into<String>) {
        self.refused = true;
        self.say(line);
    }

    /// The answer, and whether something was refused.
    pub(crate) fn answer(&self) -> (String, bool) {
        (self.said.join("\n"), self.refused)
    }

    /// The registration that is meant by a topic, or by a table as DATABASE.TABLE.
    pub(crate) async fn registration(&self, name: &str) -> Result<TopicRegistration, CliError> {
        if let Some(registration) = self.registry.registration(name).await? {
            return Ok(registration);
        }
        for topic in self.registry.topics().await? {
            if let Some(registration) = self.registry.registration(&topic).await?
                && TableName::of(&registration).to_string() == name
            {
                return Ok(registration);
            }
        }
        Err(CliError::Unknown {
            name: name.to_owned(),
        })
    }

    /// Who changes something and why; `None` if it is only to be said what would change.
    pub(crate) fn operator(&self, change: &Change) -> Result<Option<Operator>, CliError> {
        let Some(why) = change.why.clone().filter(|_| change.apply) else {
            return Ok(None);
        };
        let by = change.by.clone().or_else(|| self.user.clone());
        let by = by.ok_or(CliError::Nobody)?;
        Ok(Some(Operator { by, why }))
    }

    /// How long ago a moment is.
    pub(crate) fn ago(&self, ms: i64) -> String {
        length(self.now_ms.saturating_sub(ms))
    }
}

/// A length of time, as a person says it.
fn length(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// An error with all that caused it, on one line.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
}

/// How a dry run ends.
pub(crate) const NOT_DONE: &str = "nothing is changed; to do it, add";
