//! Wiring of functions/mapping: environment, clients, runtime.

use std::sync::Arc;

use change_event::{Clock, ShiftedClock};
use function_kit::mappings::LambdaMappings;
use function_kit::metric::Stdout;
use function_kit::{Deadline, Environment, Metrics, Registry, aws, start};
use mapping::{Config, Mapping};
use object_io::S3Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    start::logs();
    let config = Config::from_environment(Environment::of_process())?;
    let sdk = aws::sdk_config().await;
    let store = Arc::new(S3Store::new(&sdk, &config.bucket, config.s3_path_style));
    let offset_ms = config.clock_offset_ms;
    let clock: Arc<dyn Clock> = Arc::new(ShiftedClock { offset_ms });
    let function = Mapping::new(
        Registry::new(store),
        Arc::new(LambdaMappings::new(&sdk)),
        Arc::clone(&clock),
        Metrics::new("mapping", Arc::clone(&clock), Arc::new(Stdout)),
        config.target,
    );
    start::run(|invocation| {
        let (function, clock) = (&function, &clock);
        async move {
            // The runtime's clock is this machine's, whose clock a test moves.
            let deadline = Deadline::from_header(invocation.deadline_header_ms, clock.as_ref())
                .earlier(-offset_ms);
            function.handle(deadline).await
        }
    })
    .await
}
