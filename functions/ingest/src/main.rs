//! ingest: being built.

fn main() {}
