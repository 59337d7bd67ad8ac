//! commit: being built.

fn main() {}
