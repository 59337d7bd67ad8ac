//! capture-agent: being built.

fn main() {}
