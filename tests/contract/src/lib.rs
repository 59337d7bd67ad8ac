//! contract: being built.
