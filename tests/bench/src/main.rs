//! What firn costs, measured: `bench <what>` prints numbers for docs/PERFORMANCE.md.
//!
//! CPU time counts, not wall time, so that a busy machine changes little.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a tool for developers: it stops at the first surprise"
)]

mod cpu;
mod ingest;
mod stream;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measures what firn costs")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From a Lambda event of Kafka records to the bytes of a Parquet file, in process, on one thread.
    Ingest(ingest::Options),
    /// A slot read by firn's client, and no further than said.
    Stream(stream::Options),
}

fn main() -> std::io::Result<()> {
    let out = &mut std::io::stdout().lock();
    match Arguments::parse().what {
        What::Ingest(options) => ingest::run(&options, out),
        What::Stream(options) => stream::run(&options, out),
    }
}
