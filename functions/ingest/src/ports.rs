//! The worlds that the function speaks to.

use std::sync::Arc;

use change_event::{Clock, IdSource};
use function_kit::ddl::DdlClient;
use function_kit::{DelayedQueue, Metrics, Registry};
use object_io::ObjectStore;
use table_commit::Committer;

/// The worlds that the function speaks to.
#[derive(Debug)]
pub struct Ports {
    /// The deployment's bucket.
    pub store: Arc<dyn ObjectStore>,
    /// Registrations and schema documents in it.
    pub registry: Registry,
    /// The commit protocol over it.
    pub committer: Committer,
    /// functions/ddl.
    pub ddl: DdlClient,
    /// The queue of functions/commit.
    pub queue: Arc<dyn DelayedQueue>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids of intents and files.
    pub ids: Arc<dyn IdSource>,
    /// Counters.
    pub metrics: Metrics,
}
