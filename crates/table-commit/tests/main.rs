//! The protocol over ports in memory: what one caller sees, and what races and faults leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers"
)]

mod commit;
mod evolve;
mod race;
mod support;
