//! Gives every announced topic its event source mapping, on a schedule.
//!
//! Flow: registry of topics -> **here** -> Lambda polls the topic for functions/ingest.
//!
//! # Invariants
//! - A mapping takes one topic and is never changed or removed here.
//! - Its consumer group is named by the topic, so that a mapping made anew goes on where the old one ended.

mod config;
mod handler;
mod plan;

pub use config::{Config, Target};
pub use handler::{Mapping, Summary};
pub use plan::{consumer_group_id, missing};
