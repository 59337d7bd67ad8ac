//! What every part of the agent is given: settings, store, clock, ids, the shared view of its state, and the signal to stop.

use std::sync::Arc;

use change_event::{Clock, IdSource};
use object_io::ObjectStore;
use tokio::sync::watch;

use crate::config::Config;
use crate::status::Status;

/// The agent's surroundings. Clones share them.
#[derive(Debug, Clone)]
pub struct Context {
    /// Settings.
    pub config: Arc<Config>,
    /// The deployment's bucket.
    pub store: Arc<dyn ObjectStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// What the status page shows.
    pub status: Arc<Status>,
    /// True once the agent is to stop.
    pub shutdown: watch::Receiver<bool>,
}

impl Context {
    /// Name of the source.
    #[must_use]
    pub fn source_name(&self) -> &str {
        &self.config.source.name
    }

    /// Whether the agent is to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Resolves once the agent is to stop.
    pub async fn stopping(&mut self) {
        // A sender that is gone asks for the same.
        drop(self.shutdown.wait_for(|stop| *stop).await);
    }
}
