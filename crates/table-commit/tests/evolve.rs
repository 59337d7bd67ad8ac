//! What one caller sees: a table's schema follows its source's documents.
