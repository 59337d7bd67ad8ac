//! function-kit: being built.
