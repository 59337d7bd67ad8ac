//! mapping: being built.

fn main() {}
