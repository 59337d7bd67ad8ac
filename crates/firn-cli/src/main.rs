//! `firn`: the operator's command. Arguments in, words out; what is decided and done stands in `table-commit`.
//!
//! Flow: [`arguments`] -> a command's module -> `table-commit` -> [`desk`] -> standard output.
//!
//! # Invariants
//! - Without `--apply` nothing is changed. What is changed, is changed create-only or by compare-and-set, so that ingests,
//!   combiners and a second operator may be at work.
//! - It ends with 0 if what was asked for is done, would be done or need not be done; with 1 if not; with 2 if it was not
//!   understood.

mod adopt;
mod arguments;
mod config;
mod desk;
mod gap;
mod rebuild;
mod rollback;
mod status;
mod topic;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use change_event::{Clock, RandomIds, SystemClock};
use clap::Parser as _;
use function_kit::{Environment, Registry, aws};
use glue_catalog::GlueCatalog;
use object_io::{ObjectStore, S3Store};
use table_commit::Committer;

use crate::arguments::{Arguments, Command, GapCommand};
use crate::config::Config;
use crate::desk::{CliError, Desk, words};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::read(&arguments, Environment::of_process()) {
        Ok(config) => config,
        Err(error) => return end(&error.to_string(), true),
    };
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
    let registry = Registry::new(Arc::clone(&store));
    let mut desk = Desk::new(registry, committer, clock.now_ms(), config.user);
    let ended = run(&mut desk, &store, &arguments.command).await;
    if let Err(error) = ended {
        desk.refuse(words(&error));
    }
    let (answer, refused) = desk.answer();
    end(&answer, refused)
}

async fn run(
    desk: &mut Desk,
    store: &Arc<dyn ObjectStore>,
    command: &Command,
) -> Result<(), CliError> {
    match command {
        Command::Status(asked) => status::run(desk, asked, false).await,
        Command::Check(asked) => status::run(desk, asked, true).await,
        Command::Gap(GapCommand::Accept(asked)) => gap::accept(desk, asked).await,
        Command::Gap(GapCommand::Recopy(asked)) => gap::recopy(desk, asked).await,
        Command::Rollback(command) => rollback::run(desk, command).await,
        Command::Adopt(asked) => adopt::run(desk, asked).await,
        Command::Rebuild(asked) => rebuild::run(desk, store, asked).await,
    }
}

fn end(answer: &str, refused: bool) -> ExitCode {
    // Nobody is left to be told if standard output is gone.
    let told = writeln!(std::io::stdout(), "{answer}");
    if refused || told.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
