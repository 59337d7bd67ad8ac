//! What may be done about an error, decided where it is made.
//!
//! # Invariants
//! - Whatever is not known to have failed is [`Disposition::Verify`].

/// What may be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// It certainly did not happen, and the cause passes: try again.
    Retry,
    /// A race was lost, or the view is stale: reload, re-apply, bounded tries.
    Refresh,
    /// It may have happened: read back before anything else.
    Verify,
    /// This record can never succeed: set it aside with its position and go on.
    Quarantine,
    /// This stream must not go on: stop and call an operator.
    Halt,
}
