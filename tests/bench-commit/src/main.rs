//! What commits cost, counted and timed: `bench-commit <what>` prints numbers for docs/PERFORMANCE.md and fails above a bar.
//!
//! A package of its own, because it needs the functions, and with them the cloud SDKs, which the other benches do without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a tool for developers: it stops at the first surprise"
)]

mod figures;
mod flat;
mod latency;
mod load;
mod requests;
mod service;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Counts and times what commits cost")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Requests and bytes of commits, from the first to the ten thousandth.
    Flat(flat::Options),
    /// Many batches a second on one table, through the functions, over ports as slow as S3 and Glue.
    Load(load::Options),
    /// Requests of a warm batch, of a commit and of an idle table.
    Requests,
}

fn main() -> std::io::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    let failures = match Arguments::parse().what {
        What::Flat(options) => flat::run(&options, out),
        What::Load(options) => load::run(&options, out),
        What::Requests => requests::run(out),
    }?;
    for failure in &failures {
        writeln!(out, "ABOVE THE BAR: {failure}")?;
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}
