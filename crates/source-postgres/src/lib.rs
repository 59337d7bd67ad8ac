//! source-postgres: being built.
