//! The functions against the promises of docs/SEMANTICS.md, in one process.

mod bad_input;
mod commit;
mod freshness;
mod mapping;
mod progress;
mod rows;
mod schema;
