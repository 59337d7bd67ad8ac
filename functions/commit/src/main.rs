//! Wiring of functions/commit: environment, clients, runtime.

use std::sync::Arc;

use change_event::{Clock, RandomIds, ShiftedClock};
use commit::{Commit, Config, Ports};
use function_kit::ddl::DdlClient;
use function_kit::invoke::LambdaInvoker;
use function_kit::metric::Stdout;
use function_kit::queue::SqsQueue;
use function_kit::{Deadline, Environment, Metrics, Registry, aws, start};
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
    let ports = Ports {
        registry: Registry::new(store),
        committer,
        ddl: DdlClient::new(Arc::new(LambdaInvoker::new(&sdk)), config.ddl_function),
        queue: Arc::new(SqsQueue::new(&sdk, config.queue_url)),
        clock: Arc::clone(&clock),
        metrics: Metrics::new("commit", Arc::clone(&clock), Arc::new(Stdout)),
    };
    let function = Commit::new(ports, config.concurrency);
    start::run(|invocation| {
        let (function, clock) = (&function, &clock);
        async move {
            // The runtime's clock is this machine's, whose clock a test moves.
            let deadline = Deadline::from_header(invocation.deadline_header_ms, clock.as_ref())
                .earlier(-offset_ms);
            function
                .handle(invocation.payload.get().as_bytes(), deadline)
                .await
        }
    })
    .await
}
