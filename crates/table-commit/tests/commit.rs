//! What one caller sees: creating, registering, combining, and each way in which a table is not touched.
