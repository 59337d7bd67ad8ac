//! table-commit: being built.
