//! Every adapter against the contract of its port; S3 and Glue when `FIRN_AWS_ENDPOINT` names a place that speaks them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers"
)]

mod aws;
mod broken;
mod lake;
mod local;
