//! What tests share: servers, fakes and generators.
//!
//! # Invariants
//! - No deployable depends on this crate, and only their tests do.

pub mod postgres;
