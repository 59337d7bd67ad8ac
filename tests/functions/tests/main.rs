//! The functions against the promises of docs/SEMANTICS.md, in one process.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers"
)]

mod bad_input;
mod budget;
mod commit;
mod freshness;
mod maintain_race;
mod mapping;
mod orphans;
mod progress;
mod raise;
mod rebuild;
mod rows;
mod schema;
mod slots;
mod sweep;
