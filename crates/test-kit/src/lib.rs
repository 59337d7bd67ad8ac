//! test-kit: being built.
