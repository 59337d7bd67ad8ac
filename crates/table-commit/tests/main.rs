//! The protocol over ports in memory: what one caller sees, and what races and faults leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::clone_on_ref_ptr,
    clippy::let_underscore_must_use,
    clippy::too_many_lines,
    reason = "test helpers"
)]

mod adopt;
mod commit;
mod evolve;
mod flat;
mod gap;
mod history;
mod race;
mod raise;
mod rollback;
mod support;
