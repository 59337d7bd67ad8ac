//! Wiring of functions/ddl: environment, clients, runtime.

use std::sync::Arc;

use change_event::{Clock, RandomIds, ShiftedClock};
use ddl::{Config, Ddl};
use function_kit::metric::Stdout;
use function_kit::{Environment, Metrics, Registry, aws, start};
use glue_catalog::GlueCatalog;
use object_io::{ObjectStore, S3Store};
use table_commit::Committer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    start::logs();
    let config = Config::from_environment(Environment::of_process())?;
    let sdk = aws::sdk_config().await;
    let store: Arc<dyn ObjectStore> =
        Arc::new(S3Store::new(&sdk, &config.bucket, config.s3_path_style));
    let offset_ms = config.clock_offset_ms;
    let clock: Arc<dyn Clock> = Arc::new(ShiftedClock { offset_ms });
    let committer = Committer::new(
        Arc::clone(&store),
        Arc::new(GlueCatalog::new(&sdk)),
        Arc::clone(&clock),
        Arc::new(RandomIds),
    );
    let function = Ddl::new(
        Registry::new(store),
        committer,
        Metrics::new("ddl", clock, Arc::new(Stdout)),
    );
    start::run(|invocation| {
        let function = &function;
        async move { function.handle(invocation.payload.get().as_bytes()).await }
    })
    .await
}
