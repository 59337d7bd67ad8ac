//! object-io: being built.
