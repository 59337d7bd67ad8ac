//! The process `event-source`: reads the command line, wires the parts, waits for a signal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use change_event::{IdSource, RandomIds};
use clap::Parser;
use event_source::http::{self, Pages};
use event_source::invoke::Deliverer;
use event_source::metrics::Metrics;
use event_source::records::{Broker, KafkaTopics};
use event_source::supervisor::Supervisor;
use event_source::{EventSourceError, Options};
use function_kit::Environment;
use function_kit::invoke::LambdaInvoker;
use object_io::{FolderStore, ObjectStore, S3Store};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "event source cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), EventSourceError> {
    options.validate()?;
    let sdk_config = function_kit::aws::sdk_config().await;
    let store = object_store(&options, &sdk_config)?;
    let seed = options
        .faults
        .seed
        .unwrap_or_else(|| RandomIds.next_snapshot_id().unsigned_abs());
    let metrics = Arc::new(Metrics::default());
    let deliverer = Deliverer::new(
        Arc::new(LambdaInvoker::new(&sdk_config)),
        &options.function,
        Duration::from_secs(options.invoke_timeout_seconds),
        usize::try_from(options.concurrency_max).unwrap_or(1),
        Arc::clone(&metrics),
    );
    let broker = Broker {
        bootstrap_servers: options.bootstrap_servers.clone(),
        isolation: options.isolation,
        group_prefix: options.group_prefix.clone(),
    };
    let topics = KafkaTopics::new(&broker)?;
    let (listener, address) = http::bind(options.listen).await?;
    announce(&format!(
        "event-source listening on http://{address} seed {seed}"
    ));
    tokio::spawn(http::serve(
        listener,
        Pages {
            metrics: Arc::clone(&metrics),
            topics: topics.clone(),
        },
    ));
    let look_again = Arc::new(Notify::new());
    let (stop, stopped) = watch::channel(false);
    let signals = Signals::new()?;
    tokio::spawn(signals.forward(Arc::clone(&look_again), stop));
    let deliverer = Arc::new(deliverer);
    let supervisor = Supervisor {
        options,
        seed,
        store,
        broker,
        topics,
        deliverer,
        metrics,
    };
    supervisor.run(look_again, stopped).await;
    tracing::info!("stopped");
    Ok(())
}

fn object_store(
    options: &Options,
    sdk_config: &aws_config::SdkConfig,
) -> Result<Arc<dyn ObjectStore>, EventSourceError> {
    if let Some(folder) = &options.folder {
        return Ok(Arc::new(FolderStore::new(folder)));
    }
    let mut environment = Environment::of_process();
    let bucket = options
        .bucket
        .clone()
        .unwrap_or_else(|| environment.required("FIRN_BUCKET"));
    let path_style = environment.flag("FIRN_S3_PATH_STYLE");
    let bucket = environment
        .finish(bucket)
        .map_err(|error| EventSourceError::Configuration(error.to_string()))?;
    Ok(Arc::new(S3Store::new(sdk_config, &bucket, path_style)))
}

/// One line for whoever started the process: the address to ask and the seed to repeat a run.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::warn!("nobody reads standard output");
    }
    tracing::info!("{line}");
}

struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, EventSourceError> {
        let failed =
            |error| EventSourceError::Configuration(format!("cannot take signals: {error}"));
        Ok(Self {
            hang_up: signal(SignalKind::hangup()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// SIGHUP looks for topics at once; SIGTERM and SIGINT stop.
    async fn forward(mut self, look_again: Arc<Notify>, stop: watch::Sender<bool>) {
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => look_again.notify_one(),
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        stop.send_replace(true);
        stop.closed().await;
    }
}
