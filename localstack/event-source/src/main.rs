//! event-source: being built.

fn main() {}
