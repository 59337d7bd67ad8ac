//! The commit protocol: batches are staged in chains of intents, and combined into one Iceberg snapshot at a time.
//!
//! Flow: ingest: [`Committer::ensure_table`] -> [`Chain::walk`] -> [`judge`] -> Parquet -> [`Chain::win`] -> acknowledge;
//! commit: [`Committer::combine`]; ddl: [`Committer::evolve`]. What stops for good is led out by an operator: [`gap`],
//! [`recopy`], [`rollback`], [`adopt`], [`rebuild`], looked at by [`inspect`] and written down in [`act`].
//!
//! # Invariants
//! - Progress is written in the same metadata as the data it covers ([`state`]).
//! - Every write is create-only or a compare-and-set, and a lost answer is resolved by reading back.
//! - The core knows ports only: [`object_io::ObjectStore`] and [`Catalog`]; time and ids are passed in.

pub mod accept;
pub mod act;
pub mod adopt;
mod barrier;
mod cache;
pub mod catalog;
pub mod chain;
mod combine;
mod draft;
mod drain;
mod error;
mod evolve;
pub mod failpoints;
pub mod gap;
mod history;
mod identity;
pub mod inspect;
pub mod intent;
mod manifest_file;
mod manifests;
mod memory;
mod metadata_file;
mod names;
mod publish;
pub mod rebuild;
pub mod recopy;
mod referenced;
pub mod rollback;
mod snapshot;
pub mod state;
mod table;
mod times;

pub use accept::{DropReason, Gap, RecordIdentity, Verdict, judge};
pub use act::{Act, ActKind, Operator};
pub use adopt::AdoptOutcome;
pub use catalog::{
    Catalog, CatalogError, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName,
};
pub use chain::{Chain, INTENTS, SlotOutcome, Walk};
pub use combine::{CombineOutcome, Combined};
pub use draft::Draft;
pub use drain::{DrainError, Drained};
pub use error::CommitError;
pub use gap::{AcceptedGap, GapOutcome, GapPlace};
pub use inspect::{PartitionReport, TableReport};
pub use intent::Intent;
pub use memory::MemoryCatalog;
pub use metadata_file::MetadataFile;
pub use rebuild::{Former, Plan, SwapIn};
pub use referenced::{Referenced, file_name};
pub use rollback::{Head, ReplayRefusal, Rollback, RollbackOutcome};
pub use state::{Frontier, TableState};
pub use table::{Committer, Limits, LoadedTable};
