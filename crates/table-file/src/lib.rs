//! table-file: being built.
