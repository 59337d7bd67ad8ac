//! The contract of the ports: suites that every adapter must pass, and that a wrong adapter must fail.
//!
//! # Invariants
//! - A suite says what failed in its error and changes nothing outside the keys or tables that it was given.
//! - Racing tasks run on as many threads as the caller's runtime has.

mod catalog;
mod store;

pub use catalog::{catalog_cases, catalog_suite};
pub use store::store_suite;

/// What an adapter did that the port forbids.
pub type Breach = String;

/// Fails with `breach` unless `holds`.
///
/// # Errors
/// The breach.
fn require(holds: bool, breach: impl Into<Breach>) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(breach.into()) }
}

/// The error of an adapter that had no reason for one.
fn unexpected(doing: &str, error: &(dyn std::error::Error + 'static)) -> Breach {
    let mut text = format!("{doing}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
