//! ddl: being built.

fn main() {}
