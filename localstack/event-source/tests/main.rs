//! The event source against a real broker: `FIRN_KAFKA_LIB` names the folder of Kafka's jars, `FIRN_JAVA` the Java program.
//! Without them the test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod broker;
