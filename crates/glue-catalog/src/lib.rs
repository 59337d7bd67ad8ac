//! glue-catalog: being built.
