//! `capture-agent run|check --config firn.toml`: settings in, process out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use capture_agent::config::Config;
use capture_agent::status::Status;
use capture_agent::{AgentError, Context, check, store, supervisor};
use change_event::{Clock as _, RandomIds, SystemClock};
use clap::{Parser, Subcommand};

/// Captures the changes of one PostgreSQL database into Kafka.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until SIGTERM or SIGINT.
    Run {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Prints every problem of the configuration, the source and the broker.
    Check {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    capture_agent::logging::start();
    let ended = match Arguments::parse().command {
        Command::Run { config } => run(&config).await,
        Command::Check { config } => check::run(&config).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => capture_agent::logging::failed(&error),
    }
}

async fn run(path: &std::path::Path) -> Result<(), AgentError> {
    let config = Config::load(path)?;
    let store = store::open(&config).await;
    let shutdown = capture_agent::signals::listen();
    let clock = SystemClock;
    let status = Arc::new(Status::new(clock.now_ms()));
    let (config, ids) = (Arc::new(config), Arc::new(RandomIds));
    supervisor::run(Context {
        config,
        store,
        clock: Arc::new(clock),
        ids,
        status,
        shutdown,
    })
    .await
}
