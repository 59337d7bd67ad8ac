//! Removes what nothing needs any more: slots that are committed and old, and files that nothing names.
//!
//! Flow: registry of topics -> each topic's table -> [`slots`], then [`orphans`].
//!
//! # Invariants
//! - Nothing is removed that a retained snapshot, a retained intent or a copy manifest names, and nothing of another's: only
//!   keys and names that firn gives.
//! - What was not read is not judged: a page, pointer, manifest or intent that cannot be read leaves the table as it is.
//! - Age is judged by the store's clock alone: date of the object against date of an object that this run wrote.
//! - A table that fails stops no other.

mod ages;
mod config;
mod counts;
mod error;
mod folders;
mod handler;
mod note;
mod orphans;
mod remover;
mod request;
mod slots;

pub use ages::Ages;
pub use config::Config;
pub use counts::{Counts, FileCounts};
pub use handler::{Maintain, Ports, Settings, Summary};
pub use request::Request;
