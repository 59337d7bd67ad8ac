//! The house rules as tests. A check is a function from what was read to a list of complaints, so that each check is seen
//! failing on a made-up wrong, in the same file.
//!
//! # Invariants
//! - Reads the tree and `cargo metadata --offline`; needs no network and builds nothing.
//! - A complaint names the file or the edge, and the rule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a check that cannot read the tree has failed"
)]

mod claims;
mod direction;
mod homes;
mod lock;
mod sources;
mod tree;
mod ways_out;
mod words;
