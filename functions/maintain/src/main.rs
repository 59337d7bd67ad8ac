//! Wiring of functions/maintain: environment, clients, runtime.

use std::sync::Arc;

use change_event::{Clock, RandomIds, SystemClock};
use function_kit::metric::Stdout;
use function_kit::{Deadline, Environment, Metrics, Registry, aws, start};
use glue_catalog::GlueCatalog;
use maintain::{Config, Maintain, Ports};
use object_io::{ObjectStore, S3Store};
use table_commit::Committer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    start::logs();
    let config = Config::from_environment(Environment::of_process())?;
    let sdk = aws::sdk_config().await;
    let store: Arc<dyn ObjectStore> =
        Arc::new(S3Store::new(&sdk, &config.bucket, config.s3_path_style));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let committer = Committer::new(
        Arc::clone(&store),
        Arc::new(GlueCatalog::new(&sdk)),
        Arc::clone(&clock),
        Arc::new(RandomIds),
    );
    let ports = Ports {
        registry: Registry::new(Arc::clone(&store)),
        store,
        committer,
        clock: Arc::clone(&clock),
        metrics: Metrics::new("maintain", Arc::clone(&clock), Arc::new(Stdout)),
    };
    let function = Maintain::new(ports, config.settings);
    start::run(|invocation| {
        let (function, clock) = (&function, &clock);
        async move {
            let deadline = Deadline::from_header(invocation.deadline_header_ms, clock.as_ref());
            function
                .handle(invocation.payload.get().as_bytes(), deadline)
                .await
        }
    })
    .await
}
