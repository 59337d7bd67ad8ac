//! bench: being built.

fn main() {}
