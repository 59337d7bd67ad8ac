//! change-event: being built.
